"""The weight files of a model folder: their names, contents and hash. Light to import."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from plumbline.core.errors import UserError
from plumbline.core.files import read_json

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
CHUNK_BYTES = 2**24
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
OF_TRAINING = ("training_args", "optimizer", "scheduler", "rng_state", "scaler")
"""What the names of pickles without weights begin with."""
LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files with a model's weights, sorted; those of the index if there is one.

    Raises UserError when there are none, or when a file of the index is missing.
    """
    if (folder / INDEX).exists():
        names = sorted(set(_index(folder).values()))
    else:
        names = [SINGLE] if (folder / SINGLE).exists() else []
    if not names:
        check_is_folder(folder)
        raise UserError(f"{folder}: has no {SINGLE} and no {INDEX}; save the model with save_pretrained")
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{folder / INDEX}: names {name}, which is not in its folder; save the model again")
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: does not exist, but {INDEX} names it; copy or download it again")
    return [folder / name for name in names]


def check_is_folder(path: Path) -> None:
    """Raises UserError for weights in a pickle, which is not read because reading one can run any code in it."""
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    pickles = (each for each in inside if each.suffix in PICKLES and not each.name.startswith(OF_TRAINING))
    pickle = next(pickles, None)
    if pickle is not None:
        raise UserError(
            f"{pickle}: is a pickle, which can run any code when it is read, so it is not; convert it where you trust"
            " it: load it with the tool that wrote it (SVD-LLM's torch.load(…)['model']), call"
            " model.save_pretrained(folder) and tokenizer.save_pretrained(folder), and name that folder"
        )
    if not path.is_dir():
        raise UserError(f"{path}: {'is not a directory' if path.exists() else 'does not exist'}")


def check_is_no_pointer(path: Path) -> None:
    """Raises UserError for a file that Git LFS left in place of the real one."""
    with path.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise UserError(f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull` in {path.parent}")


def _index(folder: Path) -> dict[str, str]:
    check_is_no_pointer(folder / INDEX)
    index = read_json(folder / INDEX)
    files = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise UserError(f"{folder / INDEX}: has no weight_map; save the model again")
    return files


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The safetensors file at `path`, mapped into memory. Raises UserError when it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        check_is_no_pointer(path)
        raise UserError(f"{path}: is not a complete safetensors file ({error}); copy or write it again") from None
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist") from None


def stored(folder: Path) -> dict[str, Path]:
    """Tensor name -> file that holds it. Raises UserError for a damaged file."""
    found: dict[str, Path] = {}
    for path in weight_files(folder):
        with opened(path) as file:
            found |= dict.fromkeys(file.keys(), path)
    return found


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape in the file. Raises UserError for a damaged file."""
    found: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        with opened(path) as file:
            found |= {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return found


class StoredTypes:
    """The dtypes that a folder stores its weights in, looked up by the names of the loaded model."""

    def __init__(self, folder: Path, prefix: str) -> None:
        """prefix: of the model without its head (transformers' base_model_prefix), which files may leave out."""
        self._prefix = f"{prefix}."
        self._types: dict[str, torch.dtype] = {}
        numbers: Counter[torch.dtype] = Counter()
        for name, path in stored(folder).items():
            with opened(path) as file:
                part = file.get_slice(name)
                shape = part.get_shape()
                dtype = part[:0].dtype if shape else file.get_tensor(name).dtype
            if dtype.is_floating_point:  # masks of older files are not
                self._types[name] = dtype
                numbers[dtype] += math.prod(shape)
        self.usual = numbers.most_common(1)[0][0] if numbers else torch.float32
        """The dtype of most numbers: of weights that the files hold under names of their own."""

    def of(self, name: str) -> torch.dtype:
        """The dtype of the parameter `name` of the loaded model."""
        for known in (name, name.removeprefix(self._prefix), self._prefix + name):
            if known in self._types:
                return self._types[known]
        return self.usual


def step_weights(folder: Path, dtype: torch.dtype, unused: Container[str] = ()) -> list[torch.Tensor]:
    """Every weight that a decode step reads in full, as `dtype`: sizes without content, on the device `meta`.

    For engines that do not hold their weights as torch's tensors. unused: tensors that the model leaves out.
    """
    names = stored(folder)
    head = "lm_head.weight" if "lm_head.weight" in names else "model.embed_tokens.weight"
    found = []
    for name, path in names.items():
        if name not in unused and (name == head or name != "model.embed_tokens.weight"):
            with opened(path) as file:
                found.append(torch.empty(file.get_slice(name).get_shape(), dtype=dtype, device="meta"))
    return found


def sha256_of(folder: Path) -> str:
    """SHA-256 of the contents of a model's weight files, in the order of their names."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        with path.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a model folder. Raises UserError when it is missing or not a JSON object."""
    path = folder / CONFIG
    if not path.exists():
        check_is_folder(folder)
        raise UserError(f"{folder}: has no {CONFIG}; name a folder that transformers saved")
    check_is_no_pointer(path)
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path}: is not a JSON object ({json.dumps(config)[:40]}); save the model again")
    return config
