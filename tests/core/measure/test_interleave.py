from functools import partial

import numpy as np
import pytest

from plumbline.core.measure.interleave import CONTROL, MIN_PROCESSES, MIN_ROUNDS, Candidate, interleave, joined
from plumbline.core.statistics.rounds import Verdict, verdict


class NoisyMachine:
    """A simulated machine: half as fast again for seconds at a time, with jitter and now and then a stall."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.now, self.slow, self.switch = 0.0, False, self.random.exponential(3)

    def candidate(self, name: str, cost: float, work: float = 1.0) -> Candidate:
        def run() -> float:
            stall = self.random.exponential(0.5) if self.random.random() < 0.05 else 0.0
            seconds = cost * work * (1.5 if self.slow else 1.0) * np.exp(self.random.normal(0, 0.05)) * (1 + stall)
            self.now += seconds
            if self.now > self.switch:
                self.slow, self.switch = not self.slow, self.now + self.random.exponential(3)
            return seconds

        return Candidate(name=name, run=run, work=work)


def compare(seed: int, speedup: float, **options):
    machine = NoisyMachine(seed)
    base, other = machine.candidate("base", 0.004), machine.candidate("other", 0.004 / speedup)
    return interleave(base, [other], seconds=60, seed=seed, **options)


def verdicts(speedup: float) -> list[Verdict]:
    found = [compare(seed, speedup) for seed in range(20)]
    return [verdict(rounds.ratio("other"), rounds.ratio(CONTROL)) for rounds in found]


def test_a_candidate_against_itself_is_never_called_faster_or_slower_in_20_repeats():
    assert {Verdict.FASTER, Verdict.SLOWER}.isdisjoint(verdicts(1.0))


@pytest.mark.parametrize(("speedup", "expected"), [(1.05, Verdict.FASTER), (1 / 1.05, Verdict.SLOWER)])
def test_a_true_difference_of_5_percent_is_found_in_19_of_20_repeats(speedup, expected):
    found = verdicts(speedup)
    assert found.count(expected) >= 19, found


def test_one_after_another_the_same_machine_gives_the_wrong_sign():
    """Why candidates are interleaved: a baseline that is 5% slower looks faster when each has its own seconds."""
    signs = set()
    for seed in range(20):
        machine = NoisyMachine(seed)
        base, other = machine.candidate("base", 0.004), machine.candidate("other", 0.004 / 1.05)
        seconds = [np.mean([candidate.run() for _ in range(100)]) for candidate in (base, other)]
        signs.add(seconds[0] > seconds[1])
    assert signs == {True, False}


def test_every_round_runs_each_candidate_once_and_the_baseline_twice_in_random_order():
    rounds = compare(0, 1.05)
    assert rounds.names == ["base", CONTROL, "other"]
    assert rounds.seconds.shape == rounds.orders.shape == (len(rounds.seconds), 3)
    assert {tuple(sorted(order)) for order in rounds.orders} == {(0, 1, 2)}
    assert {int(order[0]) for order in rounds.orders} == {0, 1, 2}


def test_rounds_go_on_until_every_ratio_is_precise():
    rounds = compare(1, 1.05, precision=0.01)
    assert rounds.precise
    assert max(rounds.ratio(name).half_width for name in rounds.names[1:]) <= 0.01
    assert len(compare(1, 1.05, precision=0.05).seconds) < len(rounds.seconds)


def test_rounds_stop_when_the_time_is_used_up_but_not_before_there_are_enough():
    machine = NoisyMachine(0)
    rounds = interleave(machine.candidate("base", 1.0), [machine.candidate("other", 1.0)], seconds=0.0, precision=1e-9)
    assert len(rounds.seconds) == MIN_ROUNDS
    assert not rounds.precise


def test_rates_are_per_unit_of_work():
    machine = NoisyMachine(2)
    base, other = machine.candidate("base", 0.004), machine.candidate("other", 0.004, work=8.0)
    ratio = interleave(base, [other], seconds=60, seed=2).ratio("other")
    assert ratio.low <= 1.0 <= ratio.high


def test_a_slice_runs_a_candidate_again_until_it_has_had_its_time():
    calls = dict.fromkeys(("short", "long"), 0)

    def candidate(name: str, seconds: float) -> Candidate:
        def run() -> float:
            calls[name] += 1
            return seconds

        return Candidate(name=name, run=run)

    rounds = interleave(candidate("long", 1.0), [candidate("short", 0.25)], seconds=0, slice_seconds=1.0, precision=0.5)
    assert calls == {"long": 2 * len(rounds.seconds), "short": 4 * len(rounds.seconds)}
    assert rounds.ratio("short").value == pytest.approx(4.0)


def test_two_candidates_of_one_name_are_refused():
    machine = NoisyMachine(0)
    with pytest.raises(ValueError, match="different names"):
        interleave(machine.candidate("a", 1.0), [machine.candidate("a", 1.0)], seconds=1)


def test_rounds_of_several_processes_are_joined_with_the_candidates_that_all_had():
    machine = NoisyMachine(3)
    base, other, lost = (machine.candidate(name, 0.004) for name in ("base", "other", "lost"))
    first = interleave(base, [lost, other], seconds=0.0, precision=1e-9)
    later = [interleave(base, [other], seconds=0.0, precision=1e-9) for _ in range(MIN_PROCESSES - 1)]
    both = joined([first, *later], 4, precision=0.5)
    assert both.names == ["base", CONTROL, "other"]
    assert both.seconds[: len(first.seconds), 2].tolist() == first.seconds[:, 3].tolist()
    assert sorted(both.orders[0]) == [0, 1, 2]
    assert [int(name) for name in first.orders[0] if name != 2] == [[0, 1, 3][index] for index in both.orders[0]]
    assert np.bincount(both.processes).tolist() == [MIN_ROUNDS] * MIN_PROCESSES
    assert both.precise
    assert not joined([first], 4, precision=0.5).precise, "one process says nothing about their spread"
    assert not joined([first, later[0]], 4, precision=0.5).precise, "two say too little"
    assert joined([first], 1, precision=0.5).precise, "where there is only one, it decides"


def test_candidates_that_differ_only_by_the_luck_of_each_process_are_not_called_faster_or_slower():
    """The fault that several processes are for: inside one of them, its luck looks like a difference."""
    called = {True: 0, False: 0}
    for seed in range(40):
        luck, machine = np.random.default_rng(seed), NoisyMachine(seed)
        parts, all_rounds = [], {"seconds": 0, "min_rounds": 200, "precision": 1e-9}
        for _ in range(4):
            other = machine.candidate("other", 0.004 * np.exp(luck.normal(0, 0.03)))
            parts.append(interleave(machine.candidate("base", 0.004), [other], seed=seed, **all_rounds))
        for several in (True, False):
            rounds = joined(parts if several else parts[:1], 4, precision=1e-9)
            called[several] += verdict(rounds.ratio("other"), rounds.ratio(CONTROL)) in (Verdict.FASTER, Verdict.SLOWER)
    assert called[True] <= 4 < 15 <= called[False]


def test_a_candidate_is_warmed_before_each_turn_and_its_warming_is_not_timed():
    called = []

    def timed(name, seconds):
        called.append(name)
        return seconds

    arms = [
        Candidate(name=name, run=partial(timed, name, seconds), warm=partial(called.append, f"warms {name}"))
        for name, seconds in (("one", 1.0), ("other", 3.0))
    ]
    rounds = interleave(arms[0], arms[1:], seconds=0.0, min_rounds=4)
    assert rounds.seconds.tolist() == [[1.0, 1.0, 3.0]] * len(rounds.seconds)
    assert len(called) == 2 * 3 * len(rounds.seconds)
    assert all(before == f"warms {after}" for before, after in zip(called[::2], called[1::2], strict=True))
