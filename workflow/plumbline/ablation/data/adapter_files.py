"""Reads a LoRA from a `.safetensors` file, whichever trainer wrote it: its factors as float32 matrices and its α/r.

Reads float64, float32, float16 and bfloat16. Raises BadAdapter, with the reason, for anything but a plain LoRA.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from plumbline.ablation.data.layers import DOWN, alpha_module, factor_name, is_text_encoder
from plumbline.ablation.data.store import Shape, first_not_finite, pair_modules, single_precision
from plumbline.core.errors import UserError

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_CONFIG = "adapter_config.json"
_DIFFUSERS_METADATA = "lora_adapter_metadata"
Layout = tuple[tuple[str, Shape], ...]


class BadAdapter(Exception):
    """An adapter that cannot be used. The message is the reason, without the file's name."""


@dataclass(frozen=True, kw_only=True)
class Factors:
    """factors: name → (rank, in) or (out, rank) float32; scales: module → α/r, where known."""

    factors: dict[str, np.ndarray]
    scales: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A file's header. layout: sorted (factor, shape); text_encoder_keys: number of keys that are ignored."""

    layout: Layout
    text_encoder_keys: int


def outline(path: Path) -> Outline:
    """The names and shapes of the factors in `path`, read from its header alone."""
    try:
        with safe_open(path, framework="numpy") as file:
            sizes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise BadAdapter(f"is not a complete safetensors file ({error})") from None
    shapes: dict[str, Shape] = {}
    for key in sorted(sizes):
        if name := _factor_of(key):
            if name in shapes:
                raise BadAdapter(f"names the factor {name} twice")
            shapes[name] = _flat(key, sizes[key])
    try:
        pair_modules(shapes, "it")
    except UserError as error:
        raise BadAdapter(str(error).removeprefix("it: ")) from None
    return Outline(layout=tuple(sorted(shapes.items())), text_encoder_keys=sum(map(is_text_encoder, sizes)))


def read_factors(path: Path) -> Factors:
    """The factors in `path`, and the scales stated there or in an `adapter_config.json` beside it."""
    try:
        tensors = dict(deserialize(path.read_bytes()))
    except (SafetensorError, OSError) as error:
        raise BadAdapter(f"is not a complete safetensors file ({error})") from None
    factors, alphas = {}, {}
    for key, tensor in tensors.items():
        if name := _factor_of(key):
            values = single_precision(_decoded(key, tensor))
            factors[name] = values.reshape(_flat(key, values.shape))
            if first_not_finite(factors[name]) is not None:
                raise BadAdapter(f"{key}: NaN or infinity (in float32)")
        elif not is_text_encoder(key) and (module := alpha_module(key)):
            alphas[module] = _single(key, _decoded(key, tensor))
    ranks = {name.removesuffix(DOWN): len(values) for name, values in factors.items() if name.endswith(DOWN)}
    if unknown := set(alphas) - set(ranks):
        raise BadAdapter(f"has an alpha for {min(unknown)}, but no factors for it")
    scales = {module: alpha / ranks[module] for module, alpha in alphas.items()}
    return Factors(factors=factors, scales={**_configured_scales(path, ranks), **scales})


def difference(layout: Layout, reference: Layout, modules: int = 3) -> str:
    """How `layout` differs from `reference`, in a few words."""
    ours, theirs = dict(layout), dict(reference)
    lacking, extra = sorted(set(theirs) - set(ours)), sorted(set(ours) - set(theirs))
    parts = []
    for what, names in (("lacks", lacking), ("also has", extra)):
        if names:
            more = f" and {len(names) - modules} more" if len(names) > modules else ""
            parts.append(f"{what} {', '.join(names[:modules])}{more}")
    if unlike := [name for name in sorted(set(ours) & set(theirs)) if ours[name] != theirs[name]]:
        name = unlike[0]
        more = f" ({len(unlike)} factors)" if len(unlike) > 1 else ""
        parts.append(f"has {name} of shape {ours[name]} where most have {theirs[name]}{more}")
    return "; ".join(parts)


# Cached, because thousands of files have the same keys.
@lru_cache(maxsize=2**14)
def _factor_of(key: str) -> str | None:
    """The factor's name; None for text encoders' keys and alphas. Raises BadAdapter for any other key."""
    if is_text_encoder(key) or alpha_module(key):
        return None
    if (name := factor_name(key)) is None:
        raise BadAdapter(f"{key} is not a factor of a plain LoRA (DoRA, LoHa, LoKr and biases are not supported)")
    return name


def _flat(key: str, shape: tuple[int, ...]) -> Shape:
    if len(shape) < 2:
        raise BadAdapter(f"{key} has shape {shape}; only matrices and convolutions can be read")
    return shape[0], math.prod(shape[1:])


def _decoded(key: str, tensor: Mapping[str, Any]) -> np.ndarray:
    kind, shape = tensor["dtype"], tensor["shape"]
    if kind == "BF16":
        # bfloat16 is the upper half of a float32, and numpy has no dtype for it.
        halves = np.frombuffer(tensor["data"], "<u2").astype("<u4")
        return (halves << 16).view("<f4").reshape(shape)
    if kind not in _DTYPES:
        raise BadAdapter(f"{key} is of type {kind}; only {', '.join(_DTYPES)} and BF16 can be read")
    return np.frombuffer(tensor["data"], _DTYPES[kind]).reshape(shape)


def _single(key: str, values: np.ndarray) -> float:
    if values.size != 1 or not np.isfinite(values).all():
        raise BadAdapter(f"{key} is not one finite number")
    return float(values.reshape(-1)[0])


def _configured_scales(path: Path, ranks: Mapping[str, int]) -> dict[str, float]:
    """module → α/r from PEFT's configuration: the file beside `path`, or diffusers' copy in the metadata of `path`."""
    beside = path.with_name(_CONFIG)
    try:
        if beside.is_file():
            config = json.loads(beside.read_text(encoding="utf-8"))
        else:
            with safe_open(path, framework="numpy") as file:
                stored = json.loads((file.metadata() or {}).get(_DIFFUSERS_METADATA, "{}"))
            config = {re.sub(r"^(unet|transformer)\.", "", key): value for key, value in stored.items()}
        alpha = config.get("lora_alpha")
        if alpha is None:
            return {}
        patterns = config.get("alpha_pattern") or {}
        scales = {}
        for module, rank in ranks.items():
            # As in PEFT, a pattern matches a suffix of the module's name that starts after a dot.
            value = next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), alpha)
            scales[module] = float(value) / (math.sqrt(rank) if config.get("use_rslora") else rank)
            if not math.isfinite(scales[module]):
                raise ValueError(f"α/r of {module} is not finite")
    except (ValueError, TypeError, AttributeError, re.error) as error:
        raise BadAdapter(f"its configuration ({_CONFIG} or metadata) cannot be read: {error}") from None
    if config.get("use_dora"):
        raise BadAdapter("is a DoRA (use_dora); only plain LoRA is supported")
    return scales
