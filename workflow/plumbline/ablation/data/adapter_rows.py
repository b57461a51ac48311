"""The table of adapters: what each was trained on, and which of them share training images.

Columns: category_label int64 (index into the classes), category_name, num_images int64 (null if unknown), rank int64
(the largest of its modules), group int64, image_ids list<int64> (empty if unknown; as text where one is larger than
that), adapter (its name).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from plumbline.core.errors import UserError


@dataclass(kw_only=True)
class AdapterRows:
    """The rows of a store, in order. All lists have one entry per adapter.

    labels: any integers; names: the names of the classes.
    """

    labels: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    num_images: list[int | None] = field(default_factory=list)
    image_ids: list[list[int]] = field(default_factory=list)

    def table(self, *, place: str, rank: int, groups: np.ndarray | None = None) -> tuple[pa.Table, list[str]]:
        """The table, and the classes in the order of their labels. Labels are renumbered from 0 without gaps.

        groups: (rows,) int64, or None to derive them from shared images. Raises UserError when there are no rows, only
        one class, a class with one adapter, a label with two names or a name with two labels.
        """
        if not self.labels:
            raise UserError(f"{place}: holds no adapters")
        classes = _classes(self.labels, self.names, place)
        numbers = {label: number for number, label in enumerate(classes)}
        columns = {
            "category_label": pa.array([numbers[label] for label in self.labels], pa.int64()),
            "category_name": pa.array(self.names, pa.string()),
            "num_images": _as_counts(self.num_images, place),
            "rank": pa.array([rank] * len(self.labels), pa.int64()),
            "group": pa.array(image_groups(self.image_ids) if groups is None else groups, pa.int64()),
            "image_ids": _as_ids(self.image_ids),
            "adapter": pa.array(self.adapters, pa.string()),
        }
        return pa.table(columns), list(classes.values())


def image_groups(image_ids: Sequence[Sequence[int]]) -> np.ndarray:
    """(rows,) int64: the connected components of rows that share images, numbered in row order.

    A row without known images is its own group.
    """
    rows = len(image_ids)
    lengths = np.array([len(ids) for ids in image_ids], dtype=np.int64)
    numbers: dict[int, int] = {}  # an id can be larger than any integer of numpy's
    image = np.array([numbers.setdefault(one, len(numbers)) for ids in image_ids for one in ids], dtype=np.int64)
    nodes = rows + len(numbers)
    links = coo_array((np.ones(len(image), bool), (np.repeat(np.arange(rows), lengths), rows + image)), (nodes, nodes))
    components = connected_components(links, directed=False)[1][:rows]
    _, first, number = np.unique(components, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[number].astype(np.int64)


def _as_ids(image_ids: Sequence[Sequence[int]]) -> pa.Array:
    try:
        return pa.array(image_ids, pa.list_(pa.int64()))
    except (OverflowError, pa.ArrowInvalid):
        return pa.array([[str(image) for image in ids] for ids in image_ids], pa.list_(pa.string()))


def _as_counts(counts: Sequence[int | None], place: str) -> pa.Array:
    try:
        return pa.array(counts, pa.int64())
    except (OverflowError, pa.ArrowInvalid):
        largest = max(count for count in counts if count is not None)
        raise UserError(f"{place}: num_images is {largest} for one adapter, which is too large; correct it") from None


def _classes(labels: Sequence[int], names: Sequence[str], place: str) -> dict[int, str]:
    """Label → name, in the order of the labels."""
    pairs = Counter(zip(labels, names, strict=True))
    classes: dict[int, str] = {}
    for label, name in sorted(pairs):
        if label in classes:
            raise UserError(f"{place}: label {label} has two names, {classes[label]!r} and {name!r}; use one")
        if name in classes.values():
            raise UserError(f"{place}: the name {name!r} is used for two labels, one of them {label}")
        classes[label] = name
    for (label, name), count in pairs.items():
        if count == 1:
            raise UserError(
                f"{place}: class {name!r} (label {label}) has only one adapter, too few to train and test:"
                " add adapters of this class or remove it"
            )
    if len(classes) == 1:
        raise UserError(f"{place}: all adapters belong to class {classes.popitem()[1]!r}; two are needed")
    return classes
