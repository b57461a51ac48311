"""Training, validation and test rows, stratified by class, groups of rows kept together."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save

from plumbline.core.errors import UserError
from plumbline.core.files import write_bytes

FRACTIONS = (0.7, 0.1, 0.2)
REFERENCE_SEED = 42
SIDES = ("train", "validation", "test")
CLOSE_ENOUGH = 0.03
"""Folds whose share is this near to what was asked are all as good: which one is held out is drawn."""
TOO_FAR = 0.10

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Split:
    """The row indices of each side, int64, ascending, disjoint and together all rows."""

    train: Indices
    validation: Indices
    test: Indices


def split(
    labels: NDArray[Any],
    groups: NDArray[Any],
    *,
    fractions: tuple[float, float, float] = FRACTIONS,
    seed: int,
) -> Split:
    """A random split, drawn from `seed`, with no group on two sides and every class on every side.

    labels, groups: (N,). Where every row is its own group the classes are stratified to the row; otherwise whole
    groups are drawn so that each class comes near to `fractions`.
    Raises UserError where the groups miss the fractions by more than ten points or leave a side without a class.
    """
    if len(np.unique(groups)) == len(labels):
        return _stratified(labels, fractions, seed)
    validation, test = fractions[1:]
    rows = np.arange(len(labels))
    tested = _held_out(labels, groups, test, seed)
    rest = np.delete(rows, tested)
    validated = rest[_held_out(labels[rest], groups[rest], validation / (1 - test), seed)]
    side = _side_of_row(len(rows), validated, tested)
    _check_shares(side, groups, fractions)
    return _checked(side, labels)


def fixed_split(labels: NDArray[Any], *, fractions: tuple[float, float, float] = FRACTIONS) -> Split:
    """The one split of the reference experiment: stratified, seed 42, whatever rows share an image."""
    return _stratified(labels, fractions, REFERENCE_SEED)


def write_splits(path: Path, splits: Sequence[Split]) -> None:
    """Writes `splits` of the same rows to the safetensors file `path`: `sides`, (splits, rows), 0, 1 or 2 of SIDES."""
    rows = sum(len(getattr(splits[0], name)) for name in SIDES)
    sides = np.zeros((len(splits), rows), np.uint8)
    for number, one in enumerate(splits):
        sides[number, one.validation], sides[number, one.test] = 1, 2
    write_bytes(path, save({"sides": sides}))


def read_splits(path: Path, rows: int) -> list[Split]:
    """The splits in `path`. Raises UserError when they are not of so many rows."""
    sides = load_file(path)["sides"]
    if sides.shape[1] != rows:
        raise UserError(f"{path}: splits {sides.shape[1]} adapters, there are {rows}; delete it to have it rebuilt")
    return [Split(**{name: np.flatnonzero(one == number) for number, name in enumerate(SIDES)}) for one in sides]


def _stratified(labels: NDArray[Any], fractions: tuple[float, float, float], seed: int) -> Split:
    """The test rows drawn from all rows, then the validation rows from what is left."""
    from sklearn.model_selection import train_test_split

    validation, test = fractions[1:]
    rows = np.arange(len(labels))
    try:
        rest, tested = train_test_split(rows, test_size=test, stratify=labels, random_state=seed)
        _, validated = train_test_split(
            rest, test_size=validation / (1 - test), stratify=labels[rest], random_state=seed
        )
    except ValueError as error:
        smallest = int(np.unique(labels, return_counts=True)[1].min())
        raise UserError(
            f"ablation.training: {len(labels)} rows, {smallest} in the smallest class, cannot be split ({error}); "
            "give every class at least 10 rows"
        ) from error
    return _checked(_side_of_row(len(rows), validated, tested), labels)


def _held_out(labels: NDArray[Any], groups: NDArray[Any], share: float, seed: int) -> Indices:
    """Rows of whole groups, about `share` of all, with every class among them and among the rest where that can be.

    One of StratifiedGroupKFold's folds, drawn among those that are near to `share`: of as many folds as it asks for, or
    of fewer and larger ones where none of those will do.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    random, nothing = np.random.default_rng(seed), np.empty(0, np.int64)
    tried: list[tuple[int, float, Indices]] = [(_missing_classes(labels, nothing), share, nothing)]
    largest_class = np.unique(labels, return_counts=True)[1].max()
    for number in range(min(round(1 / share), largest_class, len(np.unique(groups))), 1, -1):
        folds = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds: it is counted below
            made = [rows for _, rows in folds.split(labels, labels, groups)]
        missing = [_missing_classes(labels, rows) for rows in made]
        off = [abs(len(rows) / len(labels) - share) for rows in made]
        near = [index for index in range(number) if not missing[index] and off[index] <= CLOSE_ENOUGH]
        if near:
            return made[random.choice(near)]
        tried += zip(missing, off, made, strict=True)
    return min(tried, key=lambda fold: fold[:2])[2]


def _missing_classes(labels: NDArray[Any], rows: Indices) -> int:
    """How many classes are not on both sides when `rows` are held out."""
    return len(np.setxor1d(labels[rows], np.delete(labels, rows)))


def _side_of_row(count: int, validated: Indices, tested: Indices) -> Indices:
    side = np.zeros(count, np.int64)
    side[validated], side[tested] = 1, 2
    return side


def _check_shares(side: Indices, groups: NDArray[Any], fractions: tuple[float, float, float]) -> None:
    shares = np.bincount(side, minlength=3) / len(side)
    if (shares == 0).any() or np.abs(shares - fractions).max() > TOO_FAR:
        sizes = np.unique(groups, return_counts=True)[1]
        reached = "/".join(f"{100 * share:.0f}" for share in shares)
        raise UserError(
            f"ablation.training: {len(sizes)} groups of adapters that share images, the largest with {sizes.max()} of "
            f"{len(side)} rows, allow no nearer split than {reached}%; set ablation.training.split_by_images: false"
        )


def _checked(side: Indices, labels: NDArray[Any]) -> Split:
    """The split, once every side is known to hold every class."""
    classes = np.unique(labels)
    for number, name in enumerate(SIDES):
        missing = np.setdiff1d(classes, labels[side == number])
        if len(missing):
            raise UserError(
                f"ablation.training: the {name} rows hold none of class {missing[0]} "
                f"({int((labels == missing[0]).sum())} rows in all); give more adapters of it, "
                "or where their images tie them together set ablation.training.split_by_images: false"
            )
    train, validation, test = (np.flatnonzero(side == number) for number in range(3))
    return Split(train=train, validation=validation, test=test)
