"""Training, validation and test rows of every run, stratified by class, groups of rows kept together.

Runs rotate: five runs test on the five folds of one partition of the rows, the next five on those of another (repeated
stratified group k-fold), so that every adapter is tested equally often. Where groups are too few or too large for
that, each run draws its split independently.
"""

import logging
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

log = logging.getLogger("plumbline")

FRACTIONS = (0.7, 0.1, 0.2)
FOLDS = round(1 / FRACTIONS[2])
"""Runs of one repeat: together they test every row once."""
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


def ratio_of_sides(tested: Sequence[Indices], train_rows: Sequence[int]) -> float:
    """Test rows over training rows of runs; 0 where all test the same rows, so that no test data is resampled."""
    if all(np.array_equal(tested[0], other) for other in tested[1:]):
        return 0.0
    return float(np.mean([len(rows) / count for rows, count in zip(tested, train_rows, strict=True)]))


def rotating_splits(labels: NDArray[Any], groups: NDArray[Any], *, runs: int, seed: int) -> list[Split]:
    """A split for each run, no group on two sides and every class on every side: repeated stratified group k-fold.

    labels, groups: (N,). FOLDS runs in a row test on each row once, so that after r repeats every row has been tested
    r times, and a last repeat that is cut short tests no row twice. Validation rows are drawn from the rest.
    Where the groups allow no such folds, the runs are drawn one by one with `split`, which a warning says; raises
    UserError as it does.
    """
    if min(len(np.unique(groups)), np.unique(labels, return_counts=True)[1].min()) >= FOLDS:
        try:
            repeats = [_rotation(labels, groups, seed + repeat) for repeat in range(-(-runs // FOLDS))]
            return [one for repeat in repeats for one in repeat][:runs]
        except UserError:
            pass  # `split` asks for less, and says what is wrong where even that is too much
    splits = [split(labels, groups, seed=seed + run) for run in range(runs)]
    log.warning(
        "the adapters and their groups do not make %d folds with every class in each: every run draws its split "
        "independently, and adapters are not tested equally often",
        FOLDS,
    )
    return splits


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
        raise UserError(
            f"{path}: is for {sides.shape[1]} adapters, but the store has {rows}; delete it to have it rebuilt"
        )
    return [Split(**{name: np.flatnonzero(one == number) for number, name in enumerate(SIDES)}) for one in sides]


def _rotation(labels: NDArray[Any], groups: NDArray[Any], seed: int) -> list[Split]:
    """FOLDS splits whose test sides are a partition of the rows. Raises UserError where the groups allow none."""
    rows = np.arange(len(labels))
    alone = len(np.unique(groups)) == len(rows)
    splits = []
    for fold, tested in enumerate(_folds(labels, None if alone else groups, FOLDS, seed)):
        rest, own = np.delete(rows, tested), seed * FOLDS + fold
        share = FRACTIONS[1] / (1 - FRACTIONS[2])
        drawn = _drawn(labels[rest], share, own)[1] if alone else _held_out(labels[rest], groups[rest], share, own)
        side = _side_of_row(len(rows), rest[drawn], tested)
        _check_shares(side, groups, FRACTIONS)
        splits.append(_checked(side, labels))
    return splits


def _folds(labels: NDArray[Any], groups: NDArray[Any] | None, number: int, seed: int) -> list[Indices]:
    """The rows of each of `number` folds, stratified by class; groups None: each row by itself."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    folds = kind(number, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds: the callers notice
        return [rows for _, rows in folds.split(labels, labels, groups)]


def _stratified(labels: NDArray[Any], fractions: tuple[float, float, float], seed: int) -> Split:
    """The test rows drawn from all rows, then the validation rows from what is left."""
    validation, test = fractions[1:]
    rest, tested = _drawn(labels, test, seed)
    validated = rest[_drawn(labels[rest], validation / (1 - test), seed)[1]]
    return _checked(_side_of_row(len(labels), validated, tested), labels)


def _drawn(labels: NDArray[Any], share: float, seed: int) -> tuple[Indices, Indices]:
    """The rows in two random parts, the second of this share, stratified by class.

    Raises UserError where a class has too few rows.
    """
    from sklearn.model_selection import train_test_split

    try:
        rest, drawn = train_test_split(np.arange(len(labels)), test_size=share, stratify=labels, random_state=seed)
    except ValueError as error:
        smallest = int(np.unique(labels, return_counts=True)[1].min())
        raise UserError(
            f"ablation.training: {len(labels)} adapters, {smallest} in the smallest class, cannot be split ({error}); "
            "give every class at least 10 adapters"
        ) from error
    return rest, drawn


def _held_out(labels: NDArray[Any], groups: NDArray[Any], share: float, seed: int) -> Indices:
    """Rows of whole groups, about `share` of all, with every class among them and among the rest where that can be.

    One of StratifiedGroupKFold's folds, drawn among those that are near to `share`: of as many folds as it asks for, or
    of fewer and larger ones where none of those will do.
    """
    random, nothing = np.random.default_rng(seed), np.empty(0, np.int64)
    tried: list[tuple[int, float, Indices]] = [(_missing_classes(labels, nothing), share, nothing)]
    largest_class = np.unique(labels, return_counts=True)[1].max()
    for number in range(min(round(1 / share), largest_class, len(np.unique(groups))), 1, -1):
        made = _folds(labels, groups, number, seed)
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
