"""Searches and halving: what is drawn, that it can be drawn again, and who goes on."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from plumbline.core.errors import UserError
from plumbline.core.plan.target import Target, by_name, canonical
from plumbline.core.statistics.hypothesis_tests import ALPHA
from plumbline.sweep.analysis.frames import contrasts_frame
from plumbline.sweep.analysis.ranking import Ranking
from plumbline.sweep.decisions import Decisions
from plumbline.sweep.extend import ExtendSpec, extend
from plumbline.sweep.figures import FiguresSpec
from plumbline.sweep.plan import decided, sweep_plan
from plumbline.sweep.run import RunSpec
from plumbline.sweep.search.draws import draws
from plumbline.sweep.search.halving import promoted
from plumbline.sweep.search.settings import Dimension, SearchSettings
from plumbline.sweep.search.tpe import next_batch
from plumbline.sweep.settings import SweepSettings
from plumbline.sweep.summarize import SummarizeSpec
from sweep.some import sweep, trial

SPACE: dict[str, Any] = {
    "rate": {"low": 1e-4, "high": 1, "log": True},
    "width": {"choices": [32, 128, "32"]},
    "layers": {"low": 1, "high": 4},
    "share": {"low": 0, "high": 0.5},
}
XY = {"x": {"low": -5.0, "high": 5.0}, "y": {"low": -5.0, "high": 5.0}}
COMMAND = {name: " ".join(f"{{{one}}}" for one in (*of, "seed", "folder")) for name, of in (("xy", XY), ("all", SPACE))}


def search(**settings: Any) -> SearchSettings:
    return SearchSettings.model_validate({"space": SPACE} | settings)


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_draw_k_is_the_same_however_many_are_asked_for_and_another_seed_draws_others(sampler):
    whole = draws(search(sampler=sampler, trials=100))
    for trials in (1, 2, 7, 64, 99):
        assert draws(search(sampler=sampler, trials=trials)) == whole[:trials]
    assert draws(search(sampler=sampler, trials=100, seed=1)) != whole


def test_a_parameter_that_is_added_leaves_the_random_draws_of_the_others():
    fewer = {name: SPACE[name] for name in ("rate", "layers")}
    less = draws(search(trials=20, space=fewer))
    assert [{name: point[name] for name in fewer} for point in draws(search(trials=20))] == less


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_draws_are_distributed_as_the_space_says(sampler):
    """Kolmogorov-Smirnov and chi-squared against the distributions written out; 2,048 draws, p > 1e-4."""
    found = draws(search(sampler=sampler, trials=2048))
    logs = [math.log10(float(point["rate"])) for point in found]
    assert stats.kstest(logs, stats.uniform(-4, 4).cdf).pvalue > 1e-4
    assert stats.kstest([point["share"] for point in found], stats.uniform(0, 0.5).cdf).pvalue > 1e-4
    for name, values in (("layers", [1, 2, 3, 4]), ("width", [32, 128, "32"])):
        counts = [sum(point[name] == value and type(point[name]) is type(value) for point in found) for value in values]
        assert sum(counts) == 2048
        assert stats.chisquare(counts).pvalue > 1e-4


def test_an_integer_on_a_log_scale_reaches_both_ends_and_a_drawn_number_has_six_digits():
    of = Dimension(low=1, high=64, log=True)
    assert {of.at(place) for place in np.linspace(0, 1 - 1e-12, 5000)} == set(range(1, 65))
    assert Dimension(low=0.0, high=1.0).at(1 / 3) == 0.333333
    assert isinstance(Dimension(low=0, high=0.5).at(0.0), float)


def batch(told: list[tuple[dict, float | None]], **settings: Any) -> list[dict]:
    space = {name: Dimension.model_validate(of) for name, of in settings.pop("space", XY).items()}
    scored = [(point, None if score is None else (score,)) for point, score in told]
    return next_batch(space, scored, **({"batch": 8, "maximize": [True], "seed": 3} | settings))


def quadratic(point: dict) -> float:
    return -((point["x"] - 1.7) ** 2) - (point["y"] + 2.3) ** 2


def test_the_same_records_give_the_same_batch_and_its_points_are_new_and_within_the_space():
    told = [(point, float(number)) for number, point in enumerate(batch([], space=SPACE, batch=16))]
    found = batch(told, space=SPACE)
    assert found == batch(told, space=SPACE)
    assert found != batch(told, space=SPACE, seed=4)
    space = {name: Dimension.model_validate(of) for name, of in SPACE.items()}
    assert all(of.holds(point[name]) for point in found for name, of in space.items())
    assert len({json.dumps(point) for point in [*found, *(point for point, _ in told)]}) == 24


def test_a_space_that_holds_no_more_points_gives_fewer():
    space = {"x": {"choices": [1, 1.0, "1", True]}, "y": {"low": 1, "high": 2}}
    found = batch([], space=space, batch=20)
    assert len(found) == 8
    assert batch([(point, 1.0) for point in found], space=space) == []


def test_points_that_failed_are_told_as_worse_than_all_others():
    """Where half of a space diverges, fewer points are drawn there than if these were left out (Fisher's test)."""
    points = [{"x": x, "y": y} for x in (-4.0, -3.0, -2.0, -1.0, 1.0, 2.0, 3.0, 4.0) for y in (-4.0, 0.0, 4.0)]
    told = [(point, None if point["x"] < 0 else 1.0) for point in points]
    counts = []
    for known in (told, [(point, score) for point, score in told if score is not None]):
        drawn = [point["x"] < 0 for seed in range(40) for point in batch(known, seed=seed)]
        counts.append([sum(drawn), len(drawn) - sum(drawn)])
    assert stats.fisher_exact(counts, alternative="less").pvalue < 0.001


def best_of_tpe(trials: int, size: int, seed: int) -> float:
    told: list[tuple[dict, float | None]] = []
    for number in range(trials // size):
        told += [(point, quadratic(point)) for point in batch(told, batch=size, seed=1000 * seed + number)]
    return max(score for _, score in told if score is not None)


def test_tpe_finds_a_better_optimum_than_random_draws_at_equal_trials():
    """The best of 40 points on a quadratic, 20 seeds a side: Mann-Whitney, one-sided, p < 0.01."""
    tpe = [best_of_tpe(40, 8, seed) for seed in range(20)]
    random = [max(map(quadratic, draws(search(trials=40, space=XY, seed=seed)))) for seed in range(20)]
    assert stats.mannwhitneyu(tpe, random, alternative="greater").pvalue < 0.01


def test_tpe_with_two_metrics_gathers_along_their_front():
    """The front of two bowls at x = -1 and x = 1 lies on y = 0: tpe's later points are nearer than random ones."""
    space = {name: Dimension.model_validate(of) for name, of in XY.items()}

    def distance(points: list[dict]) -> float:
        return float(np.mean([abs(point["y"]) for point in points]))

    def bowls(point: dict) -> tuple[float, float]:
        return -((point["x"] - 1) ** 2) - point["y"] ** 2, (point["x"] + 1) ** 2 + point["y"] ** 2

    tpe, random = [], []
    for seed in range(12):
        told: list[tuple[dict, tuple[float, ...] | None]] = []
        for number in range(5):
            found = next_batch(space, told, batch=8, maximize=[True, False], seed=100 * seed + number)
            told += [(point, bowls(point)) for point in found]
        tpe.append(distance([point for point, _ in told[16:]]))
        random.append(distance(draws(search(trials=24, space=XY, seed=seed))))
    assert stats.mannwhitneyu(tpe, random, alternative="less").pvalue < 0.01


def test_tpe_with_two_metrics_goes_on_where_every_point_failed():
    points = batch([], batch=16)
    space = {name: Dimension.model_validate(of) for name, of in XY.items()}
    told: list[tuple[dict, tuple[float, ...] | None]] = [(point, None) for point in points]
    assert len(next_batch(space, told, batch=4, maximize=[True, False], seed=0)) == 4


def test_one_of_factor_points_goes_on_failed_ones_never_and_the_baseline_always():
    scores = {"a": 1.0, "b": 3.0, "c": None, "d": 2.0, "e": 3.0, "f": 0.0}
    assert promoted(scores, factor=3, maximize=True) == ["b", "e"]
    assert promoted(scores, factor=3, maximize=False) == ["a", "f"]
    assert promoted(scores, factor=3, maximize=True, kept="f") == ["b", "e", "f"]
    assert promoted(scores, factor=3, maximize=True, kept="c") == ["b", "e"]
    assert promoted(scores, factor=9, maximize=True) == ["b"]
    assert promoted({"a": None}, factor=3, maximize=True) == []


class Run:
    """A sweep carried out without Snakemake: trials are records, decisions are the stage's own."""

    def __init__(self, settings: SweepSettings, results: Path, noise: float = 0.0, fails: Any = None) -> None:
        self.settings, self.results, self.noise, self.fails = settings, results, noise, fails

    @property
    def plan(self) -> list[Target]:
        return sweep_plan("s", self.settings, self.results)

    def trials(self) -> list[dict[str, Any]]:
        return [json.loads(target.spec)["parameters"] for target in self.plan if target.is_trial]

    def step(self) -> bool:
        """Carries out what is due; whether there was something."""
        due = [target for target in self.plan if target.stage == "extend" and decided(target, self.results) is None]
        for target in (target for target in self.plan if target.is_trial):
            self.record(target)
        for target in due:
            spec = ExtendSpec.model_validate(json.loads(target.spec))
            extend(spec, [need.file(self.results) for need in target.reads["trials"]], target.file(self.results))
        return bool(due)

    def record(self, target: Target) -> None:
        spec = RunSpec.from_json(json.loads(target.spec), "spec")
        point, path = spec.parameters, target.file(self.results)
        random = np.random.default_rng([spec.seed, *(int(1e6 * (abs(float(value)) + 1)) for value in point.values())])
        outcome = "diverged" if self.fails and self.fails(point) else "ok"
        found = trial(point, spec.seed, quadratic(point) + self.noise * random.standard_normal(), outcome)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found.to_json() | {"trial": target.name, "spec": json.loads(target.spec)}))

    def finish(self) -> "Run":
        while self.step():
            pass
        return self


def tpe(**settings: Any) -> SweepSettings:
    of = {"sampler": "tpe", "trials": 20, "batch": 8, "space": XY} | settings
    return sweep(command=COMMAND["xy"], grid={}, search=of, seeds=[0, 1])


def test_more_trials_asked_for_later_add_only_what_is_missing(tmp_path):
    fewer = Run(tpe(), tmp_path).finish()
    before, specs = fewer.trials(), [target.spec for target in fewer.plan if target.is_trial]
    assert len(before) == 2 * 20
    more = Run(tpe(trials=40), tmp_path)
    due = [target for target in more.plan if target.stage == "extend" and decided(target, tmp_path) is None]
    assert [target.name for target in due] == ["s/3"]
    at_once = Run(tpe(trials=40), tmp_path / "at_once").finish()
    assert more.finish().trials() == at_once.trials()
    assert set(specs) <= {target.spec for target in more.plan if target.is_trial}
    assert Run(tpe(), tmp_path).trials() == before


def test_a_decision_made_with_other_settings_or_trials_is_not_followed(tmp_path):
    Run(tpe(), tmp_path).finish()
    for other in (tpe(seed=1), tpe(batch=4), tpe(space=XY | {"x": {"low": -5.0, "high": 4.0}})):
        assert Run(other, tmp_path).trials() == []
    settings = sweep(**tpe().model_dump(exclude={"seeds"}), seeds=[0, 1, 2])
    assert len(Run(settings, tmp_path).trials()) == 3 * 8  # round 0 follows no trial, so it stays


def test_listed_points_come_first_and_are_told_to_the_sampler(tmp_path):
    points = [{"x": 1.7, "y": -2.3}, {"x": 9.0, "y": 9.0}]
    settings = sweep(**tpe().model_dump(exclude={"points"}), points=points)
    found = Run(settings, tmp_path).finish().trials()
    assert found[0] == {"x": 1.7, "y": -2.3}
    without = Run(tpe(), tmp_path / "without").finish().trials()
    assert found[4:] != without


def test_trials_that_diverge_are_told_and_the_search_goes_on(tmp_path):
    found = Run(tpe(trials=64), tmp_path, fails=lambda point: point["x"] < 0).finish().trials()
    assert len(found) == 2 * 64
    assert sum(point["x"] < 0 for point in found[64:]) < sum(point["x"] < 0 for point in found[:64])


def test_every_spec_of_a_search_comes_back_from_its_stage_as_the_plan_has_it(tmp_path):
    models = {"run": RunSpec, "extend": ExtendSpec, "summarize": SummarizeSpec, "figures": FiguresSpec}
    run = Run(halved(search={"sampler": "tpe", "trials": 4, "batch": 4, "space": XY}), tmp_path)
    for _ in range(2):  # before there is anything, and at the end
        for target in run.plan:
            spec = models[target.stage].from_json(json.loads(target.spec), "spec")
            assert canonical(spec.to_json()) == target.spec
        run.finish()


def decisions(settings: SweepSettings, results: Path, wait: Any) -> tuple[list[Target], Decisions]:
    plan = sweep_plan("s", settings, results)
    return plan, Decisions({"s": settings}, plan, dict(by_name(plan)), results, wait)


def test_the_plan_grows_with_each_decision_that_is_taken_and_waits_for_none_twice(tmp_path):
    settings, waited = halved(search={"sampler": "tpe", "trials": 10, "batch": 5, "space": XY}), []

    def wait(name: str, number: int) -> str:
        file = tmp_path / "sweep" / name / "rounds" / f"{number}.json"
        waited.append(number)
        if not file.exists():
            Run(settings, tmp_path).step()
        return str(file)

    plan, following = decisions(settings, tmp_path, wait)
    following.follow("s", before="1")
    assert [target.name for target in plan if target.stage == "extend"] == ["s/0", "s/1"]
    following.follow("s")
    assert [target.spec for target in plan] == [target.spec for target in Run(settings, tmp_path).plan]
    assert waited == [0, 0, 1, 2, 3, 4]


def test_a_decision_that_was_made_with_other_settings_is_named_where_it_is_taken_for_current(tmp_path):
    Run(tpe(), tmp_path).finish()
    _, following = decisions(
        tpe(seed=1), tmp_path, lambda name, number: f"{tmp_path}/sweep/{name}/rounds/{number}.json"
    )
    with pytest.raises(UserError, match=r"rounds/0.json: was decided with other settings, code or trials"):
        following.follow("s")


def halved(**settings: Any) -> SweepSettings:
    default = {"search": {"sampler": "qmc", "trials": 27, "space": XY}, "grid": {}, "seeds": [0, 1]}
    default["halving"] = {"budget": "epochs", "low": 1, "high": 27}
    return sweep(command=COMMAND["xy"] + " {epochs}", **(default | settings))


def test_halving_runs_each_budget_with_a_third_of_the_points_in_the_folders_of_the_last(tmp_path):
    run = Run(halved(), tmp_path).finish()
    found = run.trials()
    assert [sum(point["epochs"] == size for point in found) // 2 for size in (1, 3, 9, 27)] == [27, 9, 3, 1]
    best = max((point for point in found if point["epochs"] == 1), key=quadratic)
    assert found[-1] == best | {"epochs": 27}
    trials = {target.name: target for target in run.plan if target.is_trial}
    for target in trials.values():
        before = target.reads["before"]
        assert [one.settings["parameters"]["epochs"] * 3 for one in before] in (
            [target.settings["parameters"]["epochs"]],
            [],
        )


def test_halving_goes_on_after_a_tpe_search_and_keeps_the_baseline(tmp_path):
    points = [{"x": 4.0, "y": 4.0}]
    of = {"sampler": "tpe", "trials": 10, "batch": 5, "space": XY}
    run = Run(halved(search=of, points=points, baseline=points[0]), tmp_path).finish()
    found = run.trials()
    assert [sum(point["epochs"] == size for point in found) // 2 for size in (1, 3, 9, 27)] == [11, 4, 2, 2]
    assert points[0] | {"epochs": 27} in found
    assert not run.step()


def test_halving_ends_where_every_point_failed(tmp_path):
    run = Run(halved(), tmp_path, fails=lambda point: True).finish()
    assert len(run.trials()) == 2 * 27


def test_of_equal_points_that_halving_left_one_is_called_different_in_at_most_five_percent_of_sweeps():
    """Nine points, five seeds; the score at the large budget is the one that chose, which is the worst case."""
    random, sweeps, called = np.random.default_rng(2), 600, 0
    for _ in range(sweeps):
        scores = random.standard_normal((9, 5))
        left = {0, *np.argsort(scores.mean(axis=1))[-3:].tolist()}
        records = [
            trial({"x": x, "epochs": 3}, seed, float(scores[x, seed])) for x in sorted(left) for seed in range(5)
        ]
        found = Ranking(records=records, metric="score", goal="max", chosen_by_smaller_budgets=True)
        assert found.unbiased is None
        verdicts = contrasts_frame([found], {"x": 0, "epochs": 3}, unseen=9 - len(left))["verdict"]
        called += verdicts.isin(["better", "worse"]).any()
    assert called <= sweeps * ALPHA + 3 * np.sqrt(sweeps * ALPHA * (1 - ALPHA))


def test_where_tpe_chose_the_points_the_score_on_seeds_that_did_not_choose_is_that_of_new_seeds():
    """All points have mean 0 and each seed its own noise on each: the best mean is far above 0, the other is 0."""
    naive, fair = [], []
    for number in range(120):
        random, told, rows = np.random.default_rng(number), [], []
        for step in range(3):
            for point in batch(told, seed=10 * number + step):
                scores = random.standard_normal(4)
                told.append((point, float(scores.mean())))
                rows += [trial(point, seed, float(score)) for seed, score in enumerate(scores)]
        found = Ranking(records=rows, metric="score", goal="max")
        naive.append(found.means[found.best].mean)
        fair.append(found.unbiased.mean)
    assert np.mean(naive) > 0.6
    assert abs(np.mean(fair)) < 3 * np.std(fair) / np.sqrt(len(fair))
