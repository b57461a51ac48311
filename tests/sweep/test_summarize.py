"""The tables, the findings and the figures of a sweep, from records."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from plumbline.core.plan.target import canonical, digest
from plumbline.core.present.plotting import style
from plumbline.sweep.figures import FiguresSpec, figures
from plumbline.sweep.plots.data import Data
from plumbline.sweep.plots.values import cost
from plumbline.sweep.search.draws import draws
from plumbline.sweep.search.settings import SearchSettings
from plumbline.sweep.settings import FIGURES
from plumbline.sweep.summarize import SummarizeSpec, summarize
from sweep.some import trial, write

ASKED = {"sweep": "s", "metrics": [{"name": "score", "goal": "max"}], "code": "", "inputs": ""}
ASKED |= {"sampler": None, "budget": None}


def summarized(records, folder, baseline=None, **asked):
    known = {record.trial: digest(canonical(record.spec)) for record in records}
    spec = SummarizeSpec.model_validate(ASKED | {"baseline": baseline, "records": known} | asked)
    summarize(spec, write(records, folder), folder / "out" / "results.json")
    return folder / "out"


def records(points, seeds=3):
    return [
        trial(point, seed, 0.5 + 0.1 * number + 0.01 * seed * (1 + number))
        for number, point in enumerate(points)
        for seed in range(seeds)
    ]


TWO = [{"x": x, "name": name} for x in (1, 10, 100) for name in ("$a_1$", "ü{%")]
THREE = [{"x": x, "y": y, "z": z} for x in (1, 2) for y in (True, False) for z in (0.1, 0.2)]


def test_tables_and_findings_say_the_best_point_with_its_interval_and_the_score_without_its_luck(tmp_path):
    folder = summarized(records(TWO), tmp_path, baseline=TWO[0])
    assert len(pd.read_csv(folder / "trials.csv")) == 18
    assert len(pd.read_parquet(folder / "curves.parquet")) == 36
    best = json.loads((folder / "best.json").read_text())
    assert best["parameters"] == TWO[-1]
    assert best["score"]["mean"] == pytest.approx(1.06)
    assert best["score_on_seeds_that_did_not_choose"]["mean"] == pytest.approx(1.06)
    assert best["probability_best"] == 1
    text = (folder / "analysis.md").read_text()
    assert "x=100, name=ü{% has the highest mean score: 1.06 [0.91, 1.21] over 3 seeds, among 6 points." in text
    assert "is better: +0.55 [" in text
    for table in ("points", "contrasts"):
        assert r"\toprule" in (folder / "tables" / f"{table}.tex").read_text()


def test_one_seed_gives_no_interval_and_says_so(tmp_path):
    folder = summarized(records(TWO, seeds=1), tmp_path, baseline=TWO[0])
    assert "One seed gives no interval; add seeds." in (folder / "analysis.md").read_text()
    best = json.loads((folder / "best.json").read_text())
    assert best["score"]["low"] is None
    assert best["score_on_seeds_that_did_not_choose"] is None
    assert set(pd.read_csv(folder / "contrasts.csv")["verdict"]) == {"not tested"}


@pytest.mark.parametrize(("best", "named"), [(3, "x is at the edge"), (2, ""), (1, "x is at the edge")])
def test_a_best_point_at_the_edge_of_the_grid_says_so(tmp_path, best, named):
    found = [trial({"x": x, "y": "a"}, seed, -abs(x - best) + 0.01 * seed) for x in (1, 2, 3) for seed in (0, 1, 2)]
    text = (summarized(found, tmp_path) / "analysis.md").read_text()
    assert (f"Its {named} of what was tried" in text) is bool(named)


def tied(best, grid=(1, 2, 3)):
    """The points of `best` have the mean 1 over seeds, with spreads of their own; the rest are below."""
    return [
        trial({"x": x, "y": y}, seed, (1.0 if x in best else 0.0) + y * (seed - 1) / 8)
        for x in grid
        for y in (1, 2)
        for seed in (0, 1, 2)
    ]


def test_points_that_tie_share_their_mean_and_no_interval_and_keep_the_score_on_seeds_that_did_not_choose(tmp_path):
    text = (summarized(tied([2]), tmp_path) / "analysis.md").read_text()
    assert "- 2 of 6 points share the highest mean score, 1.000: x=2, y=1, x=2, y=2.\n" in text
    assert "Picking the best point on all seeds but one and scoring it on that seed gives" in text


def test_the_same_scores_with_other_seeds_tie_though_their_sums_round(tmp_path):
    scores = ([0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.2, 0.3, 0.1])
    assert len({float(np.mean(row)) for row in scores}) > 1
    found = [trial({"x": x}, seed, score) for x, row in enumerate(scores) for seed, score in enumerate(row)]
    assert "- 3 of 3 points share the highest mean score" in (summarized(found, tmp_path) / "analysis.md").read_text()


@pytest.mark.parametrize(
    ("best", "said"), [([1], "Their x is at the edge"), ([1, 2], "Their x is at the edge"), ([2], ""), ([1, 2, 3], "")]
)
def test_points_that_tie_at_one_edge_of_the_grid_say_so(tmp_path, best, said):
    text = (summarized(tied(best), tmp_path) / "analysis.md").read_text()
    assert "points share the highest mean" in text
    assert (f"{said} of what was tried" in text) if said else ("at the edge" not in text)


def test_a_sweep_in_which_everything_failed_says_so(tmp_path):
    failed = [trial({"x": x}, seed, 0.0, outcome="diverged") for x in (1, 2) for seed in (0, 1)]
    folder = summarized(failed, tmp_path, baseline={"x": 1})
    assert "No point has all of its trials, so none is ranked." in (folder / "analysis.md").read_text()
    assert json.loads((folder / "best.json").read_text())["point"] is None
    drawn(folder)


def drawn(folder, **asked):
    spec = FiguresSpec.model_validate(ASKED | {"baseline": None} | asked)
    figures(spec, folder / "results.json", folder / "figures" / f"{FIGURES[0]}.pdf")
    for name in FIGURES:
        assert (folder / "figures" / f"{name}.png").stat().st_size > 2000
    plt.close("all")


@pytest.mark.parametrize("points", [TWO, THREE, TWO[:1], [{"x": 1}, {"x": 2}]], ids=["two", "three", "one", "single"])
def test_every_figure_is_drawn_whatever_the_parameters_are_called_and_hold(tmp_path, points):
    drawn(summarized(records(points), tmp_path, baseline=points[0]))


@pytest.mark.parametrize("goal", ["max", "min"])
def test_names_beside_the_front_of_score_and_seconds_cover_no_point_and_stay_in_the_panel(tmp_path, goal):
    sign, seconds = (1 if goal == "max" else -1), (1.0, 1.01, 1.5, 1.05, 2.0)
    scores = (0.93, 0.96, 0.97, 0.929, 0.95)
    made = [
        trial({"learning_rate": x}, seed, sign * (score + 0.001 * seed), seconds=took)
        for x, (score, took) in enumerate(zip(scores, seconds, strict=True))
        for seed in (0, 1)
    ]
    folder = summarized(made, tmp_path, metrics=[{"name": "score", "goal": goal}])
    with style():
        figure = cost(Data.read(folder / "results.json"))
        figure.draw_without_rendering()
    (axes,) = figure.axes
    panel = axes.get_window_extent()
    assert len(axes.texts) == 3
    for note in axes.texts:
        box = Text.get_window_extent(note)
        assert panel.x0 <= box.x0, note.get_text()
        assert panel.y0 <= box.y0, note.get_text()
        assert box.y1 <= panel.y1, note.get_text()
        for line in axes.lines:
            for x, y in axes.transData.transform(line.get_xydata()):
                assert not (box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1), note.get_text()
    plt.close("all")


DRAWN = {
    "one": {"x": {"low": 1e-3, "high": 1.0, "log": True}},
    "two": {"x": {"low": 1e-3, "high": 1.0, "log": True}, "name": {"choices": ["$a_1$", "ü{%"]}},
    "three": {
        "x": {"low": 1e-3, "high": 1.0, "log": True},
        "y": {"low": -3.0, "high": 3.0},
        "z": {"low": 1, "high": 3},
    },
}


@pytest.mark.parametrize("space", DRAWN.values(), ids=DRAWN)
def test_every_figure_is_drawn_of_parameters_with_many_values(tmp_path, space):
    points = draws(SearchSettings.model_validate({"trials": 40, "space": space}))
    drawn(summarized(records(points), tmp_path, sampler="random"))


def halved(tmp_path):
    """Nine points with one epoch, three with three, two with nine: the first, which is the baseline, and the best."""
    points = [{"x": x, "y": y, "epochs": 1} for x in (1, 2, 3) for y in (1, 2, 3)]
    points += [point | {"epochs": 3} for point in (points[0], points[-2], points[-1])]
    points += [point | {"epochs": 9} for point in (points[0], points[8])]
    return summarized(records(points, seeds=5), tmp_path, baseline=points[0] | {"epochs": 9}, budget="epochs")


def test_with_halving_the_largest_budget_is_ranked_and_no_score_is_called_free_of_the_choice(tmp_path):
    folder = halved(tmp_path)
    best = json.loads((folder / "best.json").read_text())
    assert best["parameters"] == {"x": 3, "y": 3, "epochs": 9}
    assert best["score_on_seeds_that_did_not_choose"] is None
    points = pd.read_csv(folder / "points.csv")
    assert list(points["epochs"]) == [9] * 2 + [3] * 3 + [1] * 9
    assert set(points.loc[points["epochs"] < 9, "probability_best"].isna()) == {True}
    text = (folder / "analysis.md").read_text()
    assert "Halving ran 9 with epochs=1, 3 with epochs=3, 2 with epochs=9; the points above have the largest." in text
    assert "no seed is left to correct it: run the best point with new seeds" in text
    assert "Expect this mean from new seeds" not in text
    contrasts = pd.read_csv(folder / "contrasts.csv")
    assert contrasts["p_holm"].iloc[0] == pytest.approx(min(1, 8 * contrasts["p_value"].iloc[0]))
    assert set(pd.read_csv(folder / "importance.csv")["parameter"]) == {"x", "y"}
    drawn(folder, budget="epochs")


def test_a_baseline_that_failed_on_the_way_is_said(tmp_path):
    points = [trial({"x": x, "epochs": 1}, 0, x, outcome="ok" if x else "diverged") for x in (0, 1, 2)]
    points.append(trial({"x": 2, "epochs": 3}, 0, 3.0))
    folder = summarized(points, tmp_path, baseline={"x": 0, "epochs": 3}, budget="epochs")
    assert "The baseline has no result with the largest budget" in (folder / "analysis.md").read_text()
