"""Reads an adapter from a `.safetensors` file, whichever trainer wrote it: a pair of float32 matrices and α/r a module.

Raises BadAdapter, with the reason, for what cannot be read.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from plumbline.ablation.data.layers import DOWN, UP
from plumbline.ablation.data.store import Shape, first_not_finite, pair_modules, single_precision
from plumbline.ablation.formats import config as configuration
from plumbline.ablation.formats.base import KEY, Base
from plumbline.ablation.formats.config import Config
from plumbline.ablation.formats.delta import (
    MAGNITUDES,
    Delta,
    decomposed,
    format_of,
    is_computed,
    of_dense,
    pair,
    rank_of,
    trained,
)
from plumbline.ablation.formats.names import parse
from plumbline.ablation.formats.tensors import BadAdapter, decoded, header, single, tensors
from plumbline.core.errors import UserError

NAMED = 3
"""So many keys are named in a message."""
_NUMBERS = ("alpha", "scalar")
OF_ALL = ("alpha", "lora_alpha", "network_alpha")
"""Tensors with the α of all modules that have none of their own."""
_FACTORS = {"down": DOWN, "up": UP}
Layout = tuple[tuple[str, Shape], ...]


@dataclass(frozen=True, kw_only=True)
class Factors:
    """What ΔW is made of: scale · up · down of each module."""

    factors: dict[str, np.ndarray]
    """Name → (rank, in) or (out, rank), float32."""
    scales: dict[str, float]
    """Module → α/r, or what is left of it where the pair includes it."""
    states_alpha: bool
    """Whether the α of all modules is stated; else it is what the caller assumes."""
    computed: frozenset[str]
    """Formats of the modules whose pairs are computed, not stored."""


@dataclass(frozen=True, kw_only=True)
class Outline:
    """A file's header. layout: sorted (tensor, shape); text_encoder_keys: number of keys that are ignored."""

    layout: Layout
    text_encoder_keys: int


def outline(path: Path) -> Outline:
    """The names and shapes of what `path` stores of each module, read from its header alone."""
    shapes = header(path).shapes
    modules = _modules(shapes)
    layout: dict[str, Shape] = {}
    for module, parts in modules.items():
        for part, key in parts.items():
            if part not in _NUMBERS:
                layout[_name(module, part)] = _flat(key, shapes[key], is_vector=part in MAGNITUDES)
    plain = {name: shape for name, shape in layout.items() if name.endswith((DOWN, UP))}
    try:
        if plain or not layout:
            pair_modules(plain, "it")
    except UserError as error:
        raise BadAdapter(str(error).removeprefix("it: ")) from None
    for module, parts in modules.items():
        format_of({part: key for part, key in parts.items() if part not in _NUMBERS}, module)
    texts = sum(parse(key).place == "text" for key in shapes)
    return Outline(layout=tuple(sorted(layout.items())), text_encoder_keys=texts)


def read_factors(
    path: Path, root: Path, base: Base | None = None, assumed: Literal["rank"] | float = "rank"
) -> Factors:
    """The pair and the scale of every module in `path`.

    root: no configuration above this folder is read; base: the base model's weights, which some formats need; assumed:
    α where none is stated, `rank` for a scale of 1.
    """
    stored, stated = tensors(path), header(path).metadata
    configs = [found for found in (configuration.of_file(path, root), configuration.of_metadata(stated)) if found]
    factors: dict[str, np.ndarray] = {}
    scales: dict[str, float] = {}
    computed, states_alpha = set(), True
    of_all = [("alpha", single(key, stored[key])) for key in OF_ALL if key in stored]
    for module, keys in _modules(stored).items():
        parts = {part: decoded(key, stored[key]) for part, key in keys.items() if part not in _NUMBERS}
        numbers = dict(of_all) | {part: single(key, stored[key]) for part, key in keys.items() if part in _NUMBERS}
        names = parse(next(iter(keys.values()))).names
        read = _Module(module, names, format_of(parts, module), parts, numbers, configs)
        stated_scale = read.stated_scale()
        states_alpha &= stated_scale is not None
        delta, scales[module] = read.change(base, stated_scale, assumed)
        if read.is_computed:
            computed.add(read.shown)
        for suffix, values in ((DOWN, delta.down), (UP, delta.up)):
            factors[module + suffix] = single_precision(values)
            if first_not_finite(factors[module + suffix]) is not None:
                raise BadAdapter(f"{module}{suffix}: NaN or infinity (in float32)")
    if not states_alpha and (unread := [config for config in configs if config.unread]):
        raise BadAdapter(
            f"{unread[0].place} holds {unread[0].unread}, which may be its α but is in no place where α is known to be;"
            " rename it to lora_alpha"
        )
    return Factors(factors=factors, scales=scales, states_alpha=states_alpha, computed=frozenset(computed))


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


@dataclass(frozen=True)
class _Module:
    """One module of an adapter, as it is stored."""

    name: str
    names: tuple[str, ...]
    kind: str
    parts: Mapping[str, np.ndarray]
    numbers: Mapping[str, float]
    configs: list[Config]

    @property
    def initialisation(self) -> str:
        return next((config.initialisation for config in self.configs if config.initialisation), "")

    @property
    def is_decomposed(self) -> bool:
        return not MAGNITUDES.isdisjoint(self.parts)

    @property
    def shown(self) -> str:
        """The name of its format for messages."""
        if self.is_decomposed:
            return "DoRA"
        return {"pissa": "PiSSA", "olora": "OLoRA"}.get(
            self.initialisation, "LoCon" if "mid" in self.parts else self.kind
        )

    @property
    def is_computed(self) -> bool:
        return is_computed(self.kind, self.parts) or bool(self.initialisation)

    def change(self, base: Base | None, scale: float | None, assumed: Literal["rank"] | float) -> tuple[Delta, float]:
        """The module's pair and what it is multiplied by. scale: as stated; None takes the one `assumed`."""
        delta = pair(self.kind, self.parts, self.name)
        if scale is None:
            rank = self._rank()
            assumed_scale = 1.0 if assumed == "rank" or rank is None else assumed / rank
            scale = self.numbers.get("scalar", 1.0) * assumed_scale
        if self.initialisation:
            return self._trained(delta, base, scale), 1.0
        if self.is_decomposed:
            return self._decomposed(delta, base, scale), 1.0
        if any(config.uses_dora for config in self.configs):
            raise BadAdapter(f"is a DoRA (use_dora), but {self.name} has no lora_magnitude_vector; save it again")
        return delta, scale

    def stated_scale(self) -> float | None:
        """α/r; None where α is stated nowhere."""
        factor, rank = self.numbers.get("scalar", 1.0), self._rank()
        if (alpha := self.numbers.get("alpha")) is not None:
            if alpha == 0:
                raise BadAdapter(f"{self.name}: its alpha is 0, so that it changes nothing; remove it")
            return factor * (1.0 if rank is None else alpha / rank)  # LyCORIS: no scale without a rank
        is_convolution = self.kind == "LoRA" and math.prod(self.parts["down"].shape[2:]) > 1
        scale = configuration.agreed(
            self.configs,
            lambda config: config.scale(self.names, rank, is_convolution=is_convolution),
            f"α/r of {self.name}",
        )
        return None if scale is None else factor * scale

    def _rank(self) -> int | None:
        return rank_of(self.kind, {name: values.shape for name, values in self.parts.items()})

    def _weight(self, base: Base | None, what: str) -> np.ndarray:
        if base is None:
            raise BadAdapter(f"{what} set {KEY} to the base model's weights")
        return base.weight(self.name)

    def _trained(self, delta: Delta, base: Base | None, scale: float) -> Delta:
        kind = self.initialisation
        if kind not in ("pissa", "olora") or self.kind != "LoRA" or self.is_decomposed:
            raise BadAdapter(
                f"was initialised from the base model (init_lora_weights: {kind}), so that BA is not what training"
                " changed; save it with PEFT's path_initial_model_for_weight_conversion"
            )
        weight = self._weight(
            base,
            f"was initialised from the base model (init_lora_weights: {kind}), so that BA is not what training changed;"
            " save it with PEFT's path_initial_model_for_weight_conversion, or",
        )
        wide = Delta(up=delta.up.astype(np.float64), down=delta.down.astype(np.float64))
        return trained(wide, weight.reshape(len(weight), -1), kind, scale)

    def _decomposed(self, delta: Delta, base: Base | None, scale: float) -> Delta:
        weight = self._weight(base, "is a DoRA, whose change depends on the base model's weights;")
        (name,) = MAGNITUDES & set(self.parts)
        magnitude = self.parts[name].astype(np.float64)
        # LyCORIS' dora_scale has a 1 on the axis that the norm is over: (out, 1) or, the older form, (1, in).
        by_output = name == "lora_magnitude_vector" or magnitude.ndim == 1 or len(magnitude) == len(weight)
        try:
            dense = scale * (delta.up.astype(np.float64) @ delta.down)
            return of_dense(decomposed(dense, weight, magnitude, by_output=by_output))
        except ValueError:
            raise BadAdapter(
                f"{self.name}: its DoRA magnitude {magnitude.shape} and factors do not fit the base's {weight.shape};"
                f" set {KEY} to the model that it adapts"
            ) from None


def _modules(keys: Mapping[str, object]) -> dict[str, dict[str, str]]:
    """Module → part → key, of the diffusion model's layers. Raises BadAdapter for keys that cannot be placed."""
    modules: dict[str, dict[str, str]] = {}
    parsed = {key: parse(key) for key in sorted(keys) if key not in OF_ALL}
    if unplaced := [key for key, found in parsed.items() if found.place == "unknown"]:
        raise BadAdapter(
            f"has {_some(unplaced)}, which may be the diffusion model's or a text encoder's; put `unet.` or"
            " `text_encoder.` before the names"
        )
    for key, found in parsed.items():
        if found.place == "text":
            continue
        if not found.part:
            raise BadAdapter(f"{key} is not a tensor of a LoRA, DoRA, LoHa or LoKr; other formats are not supported")
        parts = modules.setdefault(found.module, {})
        if found.part in parts:
            raise BadAdapter(
                f"names the factor {_name(found.module, found.part)} twice, as {parts[found.part]} and {key}"
            )
        parts[found.part] = key
    if not modules and keys:
        raise BadAdapter(f"holds layers of text encoders alone ({len(keys)} keys), none of the diffusion model")
    for module, parts in modules.items():
        if not set(parts) - set(_NUMBERS):
            raise BadAdapter(f"has an {min(parts)} for {module}, but no factors for it")
    return modules


def _name(module: str, part: str) -> str:
    return module + _FACTORS.get(part, f".{part}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _flat(key: str, shape: tuple[int, ...], *, is_vector: bool) -> Shape:
    if is_vector:
        return (1, math.prod(shape))
    if len(shape) < 2:
        raise BadAdapter(f"{key} has shape {shape}; only matrices and convolutions can be read")
    return shape[0], math.prod(shape[1:])
