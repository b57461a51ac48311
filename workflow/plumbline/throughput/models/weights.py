"""The weight files of a model folder: their names, contents and hash. Light to import."""

import hashlib
import json
from collections.abc import Iterator
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


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files with a model's weights, sorted; those of the index if there is one.

    Raises UserError when there are none, or when a file of the index is missing.
    """
    if (folder / INDEX).exists():
        names = sorted(set(_index(folder).values()))
    else:
        names = [SINGLE] if (folder / SINGLE).exists() else []
    if not names:
        raise UserError(f"{folder}: has no {SINGLE} and no {INDEX}; save the model with save_pretrained")
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{folder / INDEX}: names {name}, which is not in its folder; save the model again")
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: does not exist, but {INDEX} names it; copy or download it again")
    return [folder / name for name in names]


def _index(folder: Path) -> dict[str, str]:
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


def stored_types(folder: Path) -> dict[str, torch.dtype]:
    """Tensor name -> dtype in the file, matrices first."""
    found: dict[str, tuple[bool, torch.dtype]] = {}
    for name, path in stored(folder).items():
        with opened(path) as file:
            part = file.get_slice(name)
            found[name] = (
                len(part.get_shape()) < 2,
                part[:0].dtype if part.get_shape() else file.get_tensor(name).dtype,
            )
    return {name: dtype for name, (_, dtype) in sorted(found.items(), key=lambda pair: pair[1][0])}


def step_weights(folder: Path, dtype: torch.dtype) -> list[torch.Tensor]:
    """Every weight that a decode step reads in full, as `dtype`: sizes without content, on the device `meta`.

    For engines that do not hold their weights as torch's tensors.
    """
    names = stored(folder)
    head = "lm_head.weight" if "lm_head.weight" in names else "model.embed_tokens.weight"
    found = []
    for name, path in names.items():
        if name == head or name != "model.embed_tokens.weight":
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
        raise UserError(f"{folder}: has no {CONFIG}; name a folder that transformers saved")
    config = read_json(path)
    if not isinstance(config, dict):
        raise UserError(f"{path}: is not a JSON object ({json.dumps(config)[:40]}); save the model again")
    return config
