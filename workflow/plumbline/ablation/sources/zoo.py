"""Source `zoo`: merges the shards in which the zoo was trained."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from plumbline.ablation.data.adapter_rows import AdapterRows
from plumbline.ablation.data.layers import DOWN, UP
from plumbline.ablation.data.store import StoreWriter
from plumbline.core.errors import UserError
from plumbline.core.run.progress import track

_COLUMNS = ("labels", "folds", "num_images", "image_ids")
_PADDING = -1


def load(output: Path, *, shards: Sequence[Path], classes: Sequence[str], scale: float = 1.0) -> None:
    """Merges shards, in the given order, into a store at `output`.

    A shard is a safetensors file with one tensor per factor, (adapters, …) float32, and labels, folds, num_images:
    (adapters,), image_ids: (adapters, most) padded with −1. classes: names by label; scale: α/r of all adapters. An
    adapter's group is its class and fold together, since no image is in two classes or two folds.
    """
    if not shards:
        raise UserError("zoo: no shards were given")
    place = f"zoo ({shards[0].parent})"
    rows, folds = AdapterRows(), []
    with StoreWriter(output, _shapes(shards[0]), place=place) as writer:
        for factors, columns in track(map(_read, shards), len(shards), "shards"):
            writer.append(factors)
            _add_rows(rows, columns, classes)
            folds.append(columns["folds"])
        fold = np.concatenate(folds).astype(np.int64)
        groups = np.asarray(rows.labels) * (fold.max() + 1) + fold
        _check_groups(rows, groups, place)
        table, used = rows.table(place=place, rank=max(module.rank for module in writer.modules), groups=groups)
        scales = np.full((writer.rows, len(writer.modules)), scale)
        writer.finish(table, classes=used, source={"kind": "zoo", "shards": len(shards)}, scales=scales)


def _shapes(shard: Path) -> dict[str, tuple[int, int]]:
    return {name: (values.shape[1], values.shape[2]) for name, values in _read(shard)[0].items()}


def _read(shard: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The factors and the columns of a shard."""
    try:
        with safe_open(shard, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"{shard}: is not a complete shard of the zoo ({error}); delete it to have it rebuilt"
        ) from None
    if missing := set(_COLUMNS) - set(tensors):
        raise UserError(f"{shard}: has no tensor {min(missing)}; delete it to have it rebuilt")
    factors = {name: values for name, values in tensors.items() if name.endswith((DOWN, UP))}
    return factors, {name: tensors[name] for name in _COLUMNS}


def _add_rows(rows: AdapterRows, columns: dict[str, np.ndarray], classes: Sequence[str]) -> None:
    labels = columns["labels"].tolist()
    first = len(rows.labels)
    rows.labels.extend(labels)
    rows.names.extend(classes[label] for label in labels)
    rows.adapters.extend(f"zoo {first + row}" for row in range(len(labels)))
    rows.num_images.extend(columns["num_images"].tolist())
    rows.image_ids.extend(ids[ids != _PADDING].tolist() for ids in columns["image_ids"])


def _check_groups(rows: AdapterRows, groups: np.ndarray, place: str) -> None:
    """Raises UserError when an image is in two groups, that is, when the shards come from different zoos."""
    group_of: dict[int, int] = {}
    for ids, group in zip(rows.image_ids, groups.tolist(), strict=True):
        for image in ids:
            if group_of.setdefault(image, group) != group:
                raise UserError(
                    f"{place}: image {image} is in two folds or classes; delete the shards to have them rebuilt"
                )
