"""The Pareto front of two metrics, against a plain loop over all pairs of points."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from plumbline.sweep.analysis.front import Front, front_of, on_front
from plumbline.sweep.analysis.ranking import Ranking
from plumbline.sweep.front import FrontSpec, front
from plumbline.sweep.search.draws import draws
from plumbline.sweep.search.settings import SearchSettings
from plumbline.sweep.summarize import points_table
from sweep.some import trial
from sweep.test_summarize import drawn, summarized

METRICS = [{"name": "score", "goal": "max"}, {"name": "size", "goal": "min"}]


def beaten(one, other) -> bool:
    """Whether `other` is at least as good in both and better in one."""
    return all(b >= a for a, b in zip(one, other, strict=True)) and tuple(one) != tuple(other)


def by_loops(points) -> list[bool]:
    return [not any(beaten(one, other) for other in points) for one in points]


SCORES = arrays.arrays(
    np.float64, st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 4)), elements=st.integers(-3, 3)
)


@settings(max_examples=200)
@given(SCORES)
def test_the_front_is_that_of_a_loop_over_all_pairs_also_where_points_tie(scores):
    first, second = scores
    for draw, inside in enumerate(on_front(first, second).T):
        assert inside.tolist() == by_loops(list(zip(first[:, draw], second[:, draw], strict=True)))


def fronted(scores: np.ndarray, goals=("max", "max")) -> Front:
    """scores: (metrics, points, seeds)."""
    records = [
        trial({"x": x}, seed, float(scores[0, x, seed]), size=float(scores[1, x, seed]))
        for x in range(scores.shape[1])
        for seed in range(scores.shape[2])
    ]
    names = ("score", "size")
    found = front_of([Ranking(records=records, metric=n, goal=g) for n, g in zip(names, goals, strict=True)])
    assert found is not None
    return found


@pytest.mark.parametrize("goals", [("max", "max"), ("max", "min"), ("min", "max"), ("min", "min")])
def test_goals_turn_the_front_and_the_best_by_the_first_metric_stands_first(goals):
    scores = np.random.default_rng(0).standard_normal((2, 12, 3))
    signs = [1 if goal == "max" else -1 for goal in goals]
    means = [tuple(sign * mean for sign, mean in zip(signs, row, strict=True)) for row in scores.mean(axis=2).T]
    expected = [x for x, inside in enumerate(by_loops(means)) if inside]
    expected.sort(key=lambda x: -means[x][0])
    assert fronted(scores, goals).points == [f"x={x}" for x in expected]


def test_shares_are_those_of_a_bootstrap_over_seeds_that_draws_both_metrics_together():
    """With three seeds there are 27 equally likely draws: all of them, each with the front of a plain loop."""
    scores = np.random.default_rng(1).standard_normal((2, 5, 3)) + np.arange(5)[:, np.newaxis] / 3
    places = [np.array(draw) for draw in np.ndindex(3, 3, 3)]
    fronts = [by_loops(list(zip(*scores[:, :, draw].mean(axis=2), strict=True))) for draw in places]
    shares = fronted(scores).shares
    assert [shares[f"x={x}"] for x in range(5)] == pytest.approx(np.mean(fronts, axis=0), abs=0.02)


def test_points_of_equal_size_do_not_gain_the_front_by_rounding():
    """Of three points of one size the best is on the front; the others never are, though sums of sizes round."""
    scores = np.stack([np.arange(9.0).reshape(3, 3), np.full((3, 3), 1234567.1)])
    found = fronted(scores, ("max", "min"))
    assert found.points == ["x=2"]
    assert found.shares == {"x=0": 0.0, "x=1": 0.0, "x=2": 1.0}


def test_one_huge_score_does_not_make_the_others_equal():
    """A trial that nearly diverged is one row among the others; the losses of the others still tell them apart."""
    losses = np.repeat([[0.25], [0.3], [0.6], [3e14]], 3, axis=1)
    found = fronted(np.stack([losses, np.full((4, 3), 100.0)]), ("min", "min"))
    assert found.points == ["x=0"]
    assert found.shares == {"x=0": 1.0, "x=1": 0.0, "x=2": 0.0, "x=3": 0.0}


def test_one_seed_gives_a_front_and_no_shares():
    found = fronted(np.array([[[1.0], [2.0]], [[2.0], [1.0]]]))
    assert found.points == ["x=1", "x=0"]
    assert all(np.isnan(share) for share in found.shares.values())


def trials(points, seeds=4):
    """A larger x is better and larger; the size does not depend on the seed, as a number of parameters does not."""
    noise = np.random.default_rng(2).standard_normal((len(points), seeds))
    return [
        trial(point, seed, float(point["x"] ** 0.5 + 0.05 * noise[n, seed]), size=100.0 * point["x"])
        for n, point in enumerate(points)
        for seed in range(seeds)
    ]


GRID = [{"x": x, "kind": kind} for x in (1, 4, 9) for kind in ("a", "b")]


def test_tables_and_findings_have_both_metrics_and_name_the_front(tmp_path):
    folder = summarized(trials(GRID), tmp_path, baseline=GRID[0], metrics=METRICS)
    one, two = json.loads((folder / "best.json").read_text())
    assert (one["metric"], one["parameters"]["x"], two["metric"], two["parameters"]["x"]) == ("score", 9, "size", 1)
    assert {"score", "size"} <= {*pd.read_csv(folder / "trials.csv")}
    for table in ("points", "contrasts", "effects", "importance"):
        assert set(pd.read_csv(folder / f"{table}.csv")["metric"]) == {"score", "size"}
    contrasts = pd.read_csv(folder / "contrasts.csv")
    assert contrasts["p_holm"].min() == pytest.approx(contrasts["p_value"].min() * contrasts["p_value"].count())
    assert np.isfinite(contrasts["cohens_dz"].dropna()).all()
    text = (folder / "analysis.md").read_text()
    assert "of 6 points are on the Pareto front of score (higher is better) and size (lower is better)." in text
    assert "2 of 6 points share the lowest mean size" in text
    assert " of bootstrap draws of the seeds." in text
    table = (folder / "tables" / "points.tex").read_text()
    assert "on the front in" in table


def test_points_that_only_some_draws_put_on_the_front_are_named_with_their_share(tmp_path):
    """Two points of one size, of which each is the better one with some seeds, and one that never is."""
    scores = ([1.0, 0.0, 1.0], [0.0, 1.0, 0.9], [-1.0, -1.0, -1.0])
    records = [trial({"x": x}, seed, score, size=1.0) for x, row in enumerate(scores) for seed, score in enumerate(row)]
    text = (summarized(records, tmp_path, metrics=METRICS) / "analysis.md").read_text()
    share = fronted(np.array([scores, np.ones((3, 3))]), ("max", "min")).shares["x=1"]
    assert 0 < share < 1
    assert f"- In some draws these are on the front too: x=1 ({100 * share:.3g}%).\n" in text
    assert "With 3 seeds, such shares are overconfident." in text


@pytest.mark.parametrize("name", ["point", "seeds", "on the front in"])
def test_a_metric_called_as_a_column_of_the_table_of_points_overwrites_none(name):
    records = [trial({"x": x}, seed, float(x), **{name: 10.0 + x}) for x in (1, 2) for seed in (0, 1)]
    both = [Ranking(records=records, metric=metric, goal="max") for metric in ("score", name)]
    table = points_table(both, front_of(both))
    assert list(table) == ["point", "seeds", "score", f"metric.{name}", "on the front in"]
    assert table["point"].to_list() == ["x=2", "x=1"]
    assert table["seeds"].to_list() == ["2", "2"]
    assert table["on the front in"].to_list() == ["100%", "0%"]


def test_the_front_s_table_has_both_intervals_and_says_how_often_each_point_is_on_it(tmp_path):
    table = written(trials(GRID), tmp_path)
    assert table["on_front"].to_list() == sorted(table["on_front"], reverse=True)
    assert {"score", "score_low", "score_high", "size", "size_low", "size_high"} <= {*table}
    assert table.loc[table["on_front"], "score"].is_monotonic_decreasing
    assert table["share_on_front"].between(0, 1).all()


def written(records, tmp_path, metrics=METRICS, **asked) -> pd.DataFrame:
    """The table of the front's stage, which draws its figure too."""
    folder = summarized(records, tmp_path, metrics=metrics, **asked)
    values = {"sweep": "s", "metrics": metrics, "baseline": None, "sampler": None, "budget": None}
    front(FrontSpec(code="", inputs="", **values), folder / "results.json", folder / "front.csv")
    assert (folder / "figures" / "pareto.png").stat().st_size > 2000
    assert (folder / "figures" / "pareto.pdf").exists()
    return pd.read_csv(folder / "front.csv")


@pytest.mark.parametrize("goals", [("max", "min"), ("max", "max"), ("min", "min"), ("min", "max")])
def test_the_figure_of_the_front_is_drawn_of_many_points_whatever_the_goals(tmp_path, goals):
    space = {"x": {"low": 0.01, "high": 100.0, "log": True}, "y": {"low": 0, "high": 9}}
    points = draws(SearchSettings.model_validate({"trials": 40, "space": space}))
    metrics = [one | {"goal": goal} for one, goal in zip(METRICS, goals, strict=True)]
    written(trials(points), tmp_path, metrics)


def test_a_sweep_of_two_metrics_in_which_everything_failed_says_so(tmp_path):
    failed = [trial({"x": x}, 0, 0.0, outcome="diverged") for x in (1, 2)]
    assert written(failed, tmp_path).empty
    assert "No point has all of its trials" in (tmp_path / "out" / "analysis.md").read_text()
    drawn(tmp_path / "out", metrics=METRICS)
