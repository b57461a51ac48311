"""The zoo's images: scikit-learn's 1,797 handwritten digits, split into folds before any training."""

from dataclasses import dataclass

import numpy as np

from plumbline.core.errors import UserError

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASS_SIZES = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)
"""Images of each class, so that cells can be planned without loading the images."""
SIDE = 8
"""Images are SIDE × SIDE pixels."""

_SPLIT_STREAM = 1


@dataclass(frozen=True, kw_only=True)
class Digits:
    """pixels: (1797, 8, 8) float32 in [−1, 1]; labels: (1797,) int64, the index into CLASSES."""

    pixels: np.ndarray
    labels: np.ndarray


def digits() -> Digits:
    """All images in scikit-learn's order. An image's position is its id."""
    from sklearn.datasets import load_digits  # imports take a second, which users of CLASSES need not pay

    bunch = load_digits()
    pixels = bunch.images.astype(np.float32) / 8.0 - 1.0
    return Digits(pixels=pixels, labels=bunch.target.astype(np.int64))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Image ids for the adapters of one class and fold, each sorted: `own` show the class, `others` do not."""

    own: np.ndarray
    others: np.ndarray


def split_by_fold(labels: np.ndarray, folds: int, purity: float, seed: int) -> list[list[Cell]]:
    """The cells[label][fold]; `seed` decides which cell an image is in.

    Every image is in one cell, so that adapters of different cells share none. A share `purity` of a class goes to its
    own cells, in equal parts; each other image goes to the smallest cell of another class.
    """
    random = np.random.default_rng([_SPLIT_STREAM, seed])
    own, left = [], []
    for label in range(len(CLASSES)):
        shuffled = random.permutation(np.flatnonzero(labels == label))
        count = round(len(shuffled) * purity)
        own.append(np.array_split(shuffled[:count], folds))
        left += [(label, image) for image in shuffled[count:]]
    others: dict[tuple[int, int], list[int]] = {(label, fold): [] for fold in range(folds) for label in range(len(own))}
    for label, image in (left[place] for place in random.permutation(len(left))):
        smallest = min((cell for cell in others if cell[0] != label), key=lambda cell: len(others[cell]))
        others[smallest].append(image)
    return [
        [
            Cell(own=np.sort(part), others=np.sort(np.array(others[label, fold], np.int64)))
            for fold, part in enumerate(parts)
        ]
        for label, parts in enumerate(own)
    ]


def check_cells(cells: list[list[Cell]], own: int, others: int) -> None:
    """Raises UserError when an adapter may need more `own` images, or `others`, than its cell has."""
    flat = [cell for by_fold in cells for cell in by_fold]
    for needed, kind, found in (
        (own, "of the adapter's class", min(len(cell.own) for cell in flat)),
        (others, "of other classes", min(len(cell.others) for cell in flat)),
    ):
        if needed > found:
            raise UserError(
                f"ablation.zoo.adapter.image_count_max: {own + others} images take {needed} {kind}, but of "
                f"{len(cells[0])} folds one has {found}; lower it, or ablation.zoo.adapter.folds"
            )
