"""Training, validation and test rows, stratified by class, groups of rows kept together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.core.errors import UserError

FRACTIONS = (0.7, 0.1, 0.2)
REFERENCE_SEED = 42
SIDES = ("train", "validation", "test")
ORDERS_TRIED = 20
CLOSE_ENOUGH = 0.01  # an order of the groups that comes this near to the fractions is taken at once
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
    groups are dealt out so that each class comes as near to `fractions` as they allow.
    Raises UserError where the groups miss the fractions by more than ten points or leave a side without a class.
    """
    distinct, group_of_row = np.unique(groups, return_inverse=True)
    if len(distinct) == len(labels):
        return _stratified(labels, fractions, seed)
    _, class_of_row = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(distinct), class_of_row.max() + 1))
    np.add.at(counts, (group_of_row, class_of_row), 1)
    side_of_group = _deal(counts, np.asarray(fractions), np.random.default_rng(seed))
    _check_shares(side_of_group, counts, np.asarray(fractions))
    return _checked(side_of_group[group_of_row], labels)


def fixed_split(labels: NDArray[Any], *, fractions: tuple[float, float, float] = FRACTIONS) -> Split:
    """The one split of the reference experiment: stratified, seed 42, whatever rows share an image."""
    return _stratified(labels, fractions, REFERENCE_SEED)


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
    side = np.zeros(len(labels), np.int64)
    side[validated], side[tested] = 1, 2
    return _checked(side, labels)


def _deal(counts: NDArray[Any], fractions: NDArray[Any], random: np.random.Generator) -> Indices:
    """A side for each group: the first random order of dealing that comes close, or else the best one tried."""
    best: tuple[float, float] | None = None
    chosen = np.zeros(len(counts), np.int64)
    for attempt in range(ORDERS_TRIED):
        order = random.permutation(len(counts))
        if attempt == ORDERS_TRIED - 1:  # largest groups first: the likeliest to fit, but hardly random
            order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
        side = _deal_in_order(order, counts, fractions)
        missing = sum(int((counts[side == s].sum(axis=0) == 0).sum()) for s in range(3))
        score = (float(missing), float(np.abs(_shares(side, counts) - fractions).max()))
        if best is None or score < best:
            best, chosen = score, side
        if score <= (0.0, CLOSE_ENOUGH):
            break
    return chosen


def _deal_in_order(order: Indices, counts: NDArray[Any], fractions: NDArray[Any]) -> Indices:
    """Each group in turn goes where it most lowers Σ (rows − wanted)² / wanted over sides and classes."""
    wanted = fractions[:, None] * counts.sum(axis=0)
    dealt = np.zeros_like(wanted)
    side = np.empty(len(counts), np.int64)
    for group in order:
        rows = counts[group]
        change = ((2 * (dealt - wanted) * rows + rows**2) / wanted).sum(axis=1)
        side[group] = change.argmin()
        dealt[side[group]] += rows
    return side


def _shares(side: Indices, counts: NDArray[Any]) -> NDArray[Any]:
    return np.bincount(side, weights=counts.sum(axis=1), minlength=3) / counts.sum()


def _check_shares(side: Indices, counts: NDArray[Any], fractions: NDArray[Any]) -> None:
    shares = _shares(side, counts)
    if (shares == 0).any() or np.abs(shares - fractions).max() > TOO_FAR:
        largest, rows = int(counts.sum(axis=1).max()), int(counts.sum())
        reached = "/".join(f"{100 * share:.0f}" for share in shares)
        raise UserError(
            f"ablation.training: {len(counts)} groups of adapters that share images, the largest with {largest} of "
            f"{rows} rows, allow no nearer split than {reached}%; set ablation.training.split_by_images: false"
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
