"""Interleaved measurement: candidates take turns in random order, round after round, so that noise hits all alike.

On a shared machine, runs one after another differ by more than what one looks for: the machine's speed drifts within
seconds. Within a round it hardly does, so ratios are taken round by round. Abedi & Brecht 2017 ("Conducting
Repeatable Experiments in Highly Variable Cloud Computing Environments", ICPE): randomised multiple interleaved
trials; Bulej et al. 2020 ("Duet Benchmarking", ICPE, arXiv 2001.05811); Kalibera & Jones 2013 ("Rigorous
Benchmarking in Reasonable Time", ISMM) for ratios with intervals.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from plumbline.core.statistics.rates import Ratio, ratio_over_rounds

Array = NDArray[np.float64]
CONTROL = "control"
"""Name of the second copy of the baseline: its ratio to the first (A/A) shows what this measurement cannot resolve."""
MIN_ROUNDS = 20
MIN_PROCESSES = 3
"""Of several processes, at least so many run: fewer do not show how far processes differ."""
CHECK_GROWTH = 1.15
"""Precision is checked again when there are so many times the rounds: a bootstrap costs as much as a fast round."""
CHECKS = 2
"""Checks in a row that must find every interval narrow: stopping at the first would favour too narrow ones."""
HOPELESS = 1.5
"""If an interval by normal theory is this many times too wide, the bootstrap's is too wide as well."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Something to be timed: `run` does its `work` once (in any unit all candidates share) and returns its seconds."""

    name: str
    run: Callable[[], float]
    work: float = 1.0
    warm: Callable[[], object] | None = None
    """Called before each turn and not timed, where candidates are different processes. A process whose turn follows
    its own finds its caches warm: without this, the baseline, which has two turns a round, would be ahead."""


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """What the rounds gave, in one process or several: seconds per unit of work, and the order of each round."""

    names: list[str]
    """The baseline first, its control second, then the others."""
    seconds: Array
    """(rounds, candidates)."""
    orders: NDArray[np.intp]
    """(rounds, candidates): indices into `names`, first to last."""
    processes: NDArray[np.intp]
    """(rounds,): which process each round ran in, from 0."""
    precise: bool
    """Whether every ratio's interval reached the precision asked for before the time was used up."""

    def ratio(self, name: str) -> Ratio:
        """How many times as fast `name` is as the baseline: as both its turns of a round, in the geometric mean.

        Of the control: one turn against the other.
        """
        return ratio_over_rounds(*self._sides(name), self.processes)

    def is_precise(self, precision: float) -> bool:
        """Whether half of every ratio's interval is at most this share."""
        others = self.names[1:]
        if any(_normal_half_width(*self._sides(name)) > HOPELESS * precision for name in others):
            return False  # takes microseconds, where the bootstrap of many rounds takes tenths of a second
        return all(self.ratio(name).half_width <= precision for name in others)

    def of(self, names: Sequence[str]) -> "Rounds":
        """The same rounds with these of the candidates alone, the baseline and its control among them."""
        kept = [self.names.index(name) for name in names]
        orders = [[kept.index(index) for index in order if index in kept] for order in self.orders]
        return replace(self, names=list(names), seconds=self.seconds[:, kept], orders=np.array(orders))

    def _sides(self, name: str) -> tuple[Array, Array]:
        """Seconds of the baseline and of `name` in each round."""
        baseline = self.seconds[:, 0] if name == CONTROL else np.sqrt(self.seconds[:, 0] * self.seconds[:, 1])
        return baseline, self.seconds[:, self.names.index(name)]


def interleave(
    baseline: Candidate,
    others: Sequence[Candidate],
    *,
    seconds: float,
    precision: float = 0.02,
    slice_seconds: float = 0.0,
    min_rounds: int = MIN_ROUNDS,
    seed: int | Sequence[int] = 0,
    on_round: Callable[[int], object] = lambda rounds: None,
) -> Rounds:
    """Runs the baseline twice and each other candidate once a round, in random order, until every ratio is precise.

    seconds: when to stop all the same, once there are `min_rounds`. precision: half the width of an interval, as a
    share. slice_seconds: in its turn a candidate runs again until so much time has passed (once at least), which
    evens out what a turn leaves in the caches. `on_round` is told how many rounds are done.
    """
    candidates = [baseline, baseline, *others]
    names = [baseline.name, CONTROL, *(candidate.name for candidate in others)]
    if len(set(names)) < len(names):
        raise ValueError(f"candidates need different names, and none is called {CONTROL}: {names}")
    random = np.random.default_rng(seed)
    rows: list[Array] = []
    orders: list[NDArray[np.intp]] = []
    began, check_at, narrow = time.monotonic(), min_rounds, 0
    while narrow < CHECKS and (len(rows) < min_rounds or time.monotonic() - began < seconds):
        order = random.permutation(len(candidates))
        row = np.empty(len(candidates))
        for index in order:
            row[index] = _turn(candidates[index], slice_seconds)
        rows.append(row)
        orders.append(order)
        on_round(len(rows))
        if len(rows) >= check_at:
            check_at = int(np.ceil(check_at * CHECK_GROWTH))
            narrow = narrow + 1 if _rounds(names, rows, orders).is_precise(precision) else 0
    return replace(_rounds(names, rows, orders), precise=narrow == CHECKS)


def joined(parts: Sequence[Rounds], processes: int, precision: float) -> Rounds:
    """Rounds of the first of so many `processes` as one, with the candidates that all of them had.

    Precise, so that no further process is needed: half of every ratio's interval is at most `precision`, where
    `MIN_PROCESSES` have run, or all there are.
    """
    names = [name for name in parts[0].names if all(name in part.names for part in parts)]
    same = [part.of(names) for part in parts]
    found = Rounds(
        names=names,
        seconds=np.concatenate([part.seconds for part in same]),
        orders=np.concatenate([part.orders for part in same]),
        processes=np.repeat(np.arange(len(same)), [len(part.seconds) for part in same]),
        precise=False,
    )
    return replace(found, precise=len(same) >= min(MIN_PROCESSES, processes) and found.is_precise(precision))


def rounds_per_process(processes: int) -> int:
    """The fewest rounds of each process, with which the fewest processes have `MIN_ROUNDS` together."""
    return -(-MIN_ROUNDS // min(MIN_PROCESSES, processes))


def _rounds(names: list[str], rows: list[Array], orders: list[NDArray[np.intp]]) -> Rounds:
    """Rounds of one process."""
    processes = np.zeros(len(rows), dtype=np.intp)
    return Rounds(names=names, seconds=np.array(rows), orders=np.array(orders), processes=processes, precise=False)


def _turn(candidate: Candidate, slice_seconds: float) -> float:
    """Seconds per unit of work over one turn."""
    spent, runs = 0.0, 0
    if candidate.warm is not None:
        candidate.warm()
    while runs == 0 or spent < slice_seconds:
        spent += candidate.run()
        runs += 1
    return spent / (runs * candidate.work)


def _normal_half_width(baseline: Array, candidate: Array) -> float:
    """Half the 95% interval of the median log ratio, for normal and independent rounds."""
    return float(1.96 * 1.2533 * np.std(np.log(baseline / candidate)) / len(baseline) ** 0.5)
