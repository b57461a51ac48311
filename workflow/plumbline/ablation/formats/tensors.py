"""The tensors of a `.safetensors` file, as numpy arrays. Reads float64, float32, float16, bfloat16, and whole numbers.

Raises BadAdapter, with the reason and the fix, for a file that is none or not complete.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize, safe_open

from plumbline.core.files import is_lfs_pointer

_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
_INTEGERS = {f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)}
_ZIP = b"PK\x03\x04"
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
"""Suffixes of weights that PyTorch pickled, which are never read: to load a pickle is to run the code in it."""
CONVERT = (
    "is a PyTorch pickle, which is not read because it can run code; convert it: "
    "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'adapter.safetensors')"
)


class BadAdapter(Exception):
    """An adapter that cannot be used. The message is the reason, without the file's name; fix: what to do about it."""

    def __init__(self, reason: str, *, fix: str = "; fix or remove it, or set `on_bad_adapter: skip`") -> None:
        super().__init__(reason)
        self.fix = fix


class Header(NamedTuple):
    """The names and shapes of a file's tensors, and what else is written there."""

    shapes: dict[str, tuple[int, ...]]
    metadata: dict[str, str]


def header(path: Path) -> Header:
    """The header of `path`; the tensors are not read."""
    try:
        with safe_open(path, framework="numpy") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            return Header(shapes, dict(sorted((file.metadata() or {}).items())))
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None


def tensors(path: Path) -> dict[str, Mapping[str, Any]]:
    """The tensors in `path` by name, for `decoded` and `single`."""
    try:
        return dict(deserialize(path.read_bytes()))
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from None


def decoded(key: str, tensor: Mapping[str, Any], *, integers: bool = False) -> np.ndarray:
    """The values of `tensor`: floating-point numbers, or whole ones too with `integers`."""
    kind, shape = tensor["dtype"], tensor["shape"]
    if kind == "BF16":
        # bfloat16 is the upper half of a float32, and numpy has no dtype for it.
        halves = np.frombuffer(tensor["data"], "<u2").astype("<u4")
        return (halves << 16).view("<f4").reshape(shape)
    known = _FLOATS | _INTEGERS if integers else _FLOATS
    if kind not in known:
        raise BadAdapter(f"{key} is of type {kind}; only {', '.join(_FLOATS)} and BF16 can be read")
    return np.frombuffer(tensor["data"], known[kind]).reshape(shape)


def single(key: str, tensor: Mapping[str, Any]) -> float:
    """The one number in `tensor`, of any numeric type and number of dimensions."""
    values = decoded(key, tensor, integers=True)
    if values.size != 1 or not np.isfinite(values).all():
        raise BadAdapter(f"{key} is not one finite number")
    return float(values.reshape(-1)[0])


def _unreadable(path: Path, error: Exception) -> BadAdapter:
    if is_lfs_pointer(path):
        return BadAdapter("is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository", fix="")
    try:
        with path.open("rb") as stream:
            is_pickle = stream.read(4) == _ZIP
    except OSError:
        is_pickle = False
    if is_pickle:
        return BadAdapter(CONVERT)
    return BadAdapter(f"is not a complete safetensors file ({error}); download or save it again")
