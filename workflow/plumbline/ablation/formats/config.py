"""What an adapter's configuration says: α, the rank it was trained with, and how B and A were initialised.

It stands in `adapter_config.json` beside the file, named after it, or in a folder above; or in the file's metadata,
under PEFT's keys, kohya's (`ss_network_alpha`) or plain ones (`network_alpha`, `alpha`), by itself or in JSON.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plumbline.ablation.formats.tensors import BadAdapter
from plumbline.core.files import is_lfs_pointer

FILE = "adapter_config.json"
BESIDE = (
    *("{stem}.json", "{stem}.config.json", "{stem}.adapter_config.json", "{stem}.metadata.json"),
    *("{stem}_config.json", "{stem}_adapter_config.json", "adapter_config_{stem}.json"),
)
"""Names of a configuration that is named after its file."""
_ALPHA = ("lora_alpha", "network_alpha", "ss_network_alpha", "linear_alpha", "alpha")
_CONV_ALPHA = ("conv_alpha",)
_RANK = ("r", "rank", "lora_rank", "network_dim", "ss_network_dim", "linear_dim", "dim")
_PATTERNS = ("alpha_pattern", "rank_pattern")
_OTHERS = ("use_rslora", "use_dora", "init_lora_weights")
_CONTAINERS = {
    *("lora_adapter_metadata", "adapter_config", "peft_config", "lora_config", "network_config", "lycoris_config"),
    *("network_args", "ss_network_args", "network", "lora", "config", "default", "metadata", "__metadata__"),
    *("unet", "transformer", "prior", "denoiser", "diffusion_model", "model", "training_config", "train_config"),
}
"""Parts of a path at whose end a key says something about the diffusion model's adapter."""
_OTHER_MODEL = re.compile(r"(text_encoder|te|clip|t5).*")
_COUNTS = re.compile(r"ss_(tag|dataset|bucket|reg_dataset).*")
"""kohya's statistics of captions, in which any word can be a key."""
_NOT_STATED = {"", "none", "null", "dynamic"}
"""Values of α that state nothing; kohya's tool for resizing writes `Dynamic`."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """place: where it stands, for messages; values: what it says, by PEFT's names, `conv_alpha` beside them."""

    place: str
    values: Mapping[str, Any] = field(default_factory=dict)
    unread: str = ""
    """A key that looks as if it held α, in a place where none is known."""

    @property
    def states_alpha(self) -> bool:
        return self.values.get("lora_alpha") is not None

    def scale(self, names: tuple[str, ...], rank: int | None, *, is_convolution: bool = False) -> float | None:
        """α/r of a layer, or α/√r; None where α is not stated. rank: None takes the stated one.

        names: what the layer is called. As in PEFT, a pattern is a regular expression for the name or for its end
        after a dot.
        """
        alpha = self._pattern("alpha_pattern", names, self.values.get("lora_alpha"))
        if is_convolution and self.values.get("conv_alpha") is not None:
            alpha = self.values["conv_alpha"]
        if alpha is None:
            return None
        stated = self._pattern("rank_pattern", names, self.values.get("r"))
        rank = rank or (None if stated is None else int(_number(stated)))
        if rank is None:
            raise BadAdapter(f"{self.place} states α but no rank (r), which {names[-1]} needs")
        return _number(alpha) / (math.sqrt(rank) if _flag(self.values.get("use_rslora")) else rank)

    def _pattern(self, key: str, names: tuple[str, ...], default: Any) -> Any:
        patterns = self.values.get(key) or {}
        for pattern, value in patterns.items():
            if any(re.match(rf"(.*\.)?({pattern})$", name) for name in names):
                return value
        return default

    @property
    def uses_dora(self) -> bool:
        return _flag(self.values.get("use_dora"))

    @property
    def initialisation(self) -> str:
        """PEFT's `init_lora_weights` in lower case; empty for those that leave the base model as it is."""
        value = self.values.get("init_lora_weights")
        harmless = ("true", "false", "none", "gaussian", "eva", "orthogonal", "mica", "lycoris")
        return "" if str(value).lower() in harmless else str(value).lower()


def of_file(path: Path, root: Path) -> Config | None:
    """The nearest configuration of `path` in a file, not above the folder `root`; None without one."""
    named = [path.with_name(form.format(stem=path.stem)) for form in BESIDE]
    above = [folder / FILE for folder in path.parents if folder.is_relative_to(root)]
    for file in [*named, *above]:
        if file.is_file() and (found := _read(file, must_be_one=file.name == FILE)):
            return found
    return None


def of_metadata(metadata: Mapping[str, str]) -> Config:
    """The configuration in the metadata of a file."""
    return _config("its metadata", metadata)


def agreed(configs: list[Config], of: Callable[[Config], float | None], what: str) -> float | None:
    """The value that `configs` state, None if none does. Raises BadAdapter when two disagree."""
    said = [(config.place, value) for config in configs if (value := _readable(config, of)) is not None]
    for place, value in said[1:]:
        if not math.isclose(value, said[0][1], rel_tol=1e-6):
            raise BadAdapter(f"{what} is {said[0][1]:g} by {said[0][0]} and {value:g} by {place}; correct one of them")
    return said[0][1] if said else None


def _readable(config: Config, of: Callable[[Config], float | None]) -> float | None:
    try:
        return of(config)
    except (ValueError, TypeError, AttributeError, re.error) as error:
        raise BadAdapter(f"{config.place} cannot be read: {error}") from None


def _read(file: Path, *, must_be_one: bool) -> Config | None:
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        reason = "is a Git LFS pointer; run `git lfs pull`" if is_lfs_pointer(file) else f"is not valid JSON ({error})"
        raise BadAdapter(f"its configuration {file.name} cannot be read: it {reason}") from None
    if not isinstance(values, dict):
        raise BadAdapter(f"its configuration {file.name} cannot be read: it is not a JSON object")
    config = _config(file.name, values)
    return config if must_be_one or config.states_alpha else None


def _config(place: str, values: Mapping[str, Any]) -> Config:
    found: dict[str, tuple[str, Any]] = {}
    unread = ""
    for path, value in _leaves(values):
        *above, key = path
        shown = ".".join(path)
        if any(_OTHER_MODEL.fullmatch(part) for part in above) or _COUNTS.fullmatch(path[0]):
            continue
        if not set(above) <= _CONTAINERS:
            unread = unread or (shown if key in _ALPHA[:3] else "")
            continue
        name = _name(key)
        if name is None:
            unread = unread or (shown if re.fullmatch(r".*(^|_)alpha(_|$).*", key) else "")
        elif not (name in ("lora_alpha", "conv_alpha") and str(value).strip().lower() in _NOT_STATED):
            if name != "r" and name in found and not _equal(found[name][1], value):
                raise BadAdapter(f"{place} holds {found[name][0]} = {found[name][1]} and {shown} = {value}; remove one")
            found.setdefault(name, (shown, value))
    read = {name: value for name, (_, value) in found.items()}
    return Config(place=place, values=read, unread="" if "lora_alpha" in read else unread)


def _leaves(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path and value of everything in `values`, mappings in JSON strings among them."""
    for key, value in values.items():
        path = (*above, *str(key).split("."))
        inner = value
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                inner = json.loads(value)
            except ValueError as error:
                if path[-1] in _CONTAINERS | set(_PATTERNS):
                    raise BadAdapter(f"its metadata's {key} is not valid JSON ({error})") from None
        if isinstance(inner, Mapping) and path[-1] not in _PATTERNS:
            yield from _leaves(inner, path)
        else:
            yield path, inner


def _name(key: str) -> str | None:
    """PEFT's name of what `key` says; None for other keys."""
    names = {"lora_alpha": _ALPHA, "conv_alpha": _CONV_ALPHA, "r": _RANK, "use_rslora": ("rslora", "rs_lora")}
    if key in (*_PATTERNS, *_OTHERS):
        return key
    return next((name for name, keys in names.items() if key in keys), None)


def _equal(one: Any, other: Any) -> bool:
    try:
        return str(one) == str(other) or float(one) == float(other)
    except (TypeError, ValueError):
        return False


def _number(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(number := float(value)) or number == 0:
        raise ValueError(f"α or r is {value!r}, not a number other than zero")
    return number


def _flag(value: Any) -> bool:
    return value is True or str(value).strip().lower() in ("true", "1")
