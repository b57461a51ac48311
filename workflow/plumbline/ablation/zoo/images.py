"""The zoo's images: scikit-learn's 1,797 handwritten digits, split into folds before any training."""

from dataclasses import dataclass

import numpy as np

from plumbline.core.errors import UserError

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
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


def split_by_fold(labels: np.ndarray, folds: int, seed: int) -> list[list[np.ndarray]]:
    """The image ids of each class and fold: cells[label][fold], sorted; `seed` decides which fold an image is in.

    The folds of a class are disjoint, hold all its images, and differ in size by at most one.
    """
    random = np.random.default_rng([_SPLIT_STREAM, seed])
    cells = []
    for label in range(len(CLASSES)):
        shuffled = random.permutation(np.flatnonzero(labels == label))
        cells.append([np.sort(part) for part in np.array_split(shuffled, folds)])
    return cells


def check_cells(cells: list[list[np.ndarray]], most_images: int) -> None:
    """Raises UserError when an adapter may need more images than its class has in its fold."""
    smallest = min(len(ids) for by_fold in cells for ids in by_fold)
    if most_images > smallest:
        raise UserError(
            f"ablation.zoo.adapter.image_count_max: {most_images} images, but with {len(cells[0])} folds the smallest"
            f" cell (a class in a fold) holds {smallest}; lower it, or ablation.zoo.adapter.folds"
        )
