"""The tables, the findings and the figures of a sweep, from records."""

import json

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from plumbline.core.plan.target import canonical, digest
from plumbline.sweep.figures import FiguresSpec, figures
from plumbline.sweep.settings import FIGURES
from plumbline.sweep.summarize import SummarizeSpec, summarize
from sweep.some import trial, write

ASKED = {"sweep": "s", "metric": {"name": "score", "goal": "max"}, "code": "", "inputs": ""}
ASKED |= {"sampler": None, "budget": None}


def summarized(records, folder, baseline=None):
    known = {record.trial: digest(canonical(record.spec)) for record in records}
    spec = SummarizeSpec.model_validate(ASKED | {"baseline": baseline, "records": known})
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


def test_a_sweep_in_which_everything_failed_says_so(tmp_path):
    failed = [trial({"x": x}, seed, 0.0, outcome="diverged") for x in (1, 2) for seed in (0, 1)]
    folder = summarized(failed, tmp_path, baseline={"x": 1})
    assert "No point has all of its trials, so none is ranked." in (folder / "analysis.md").read_text()
    assert json.loads((folder / "best.json").read_text())["point"] is None
    drawn(folder)


def drawn(folder):
    spec = FiguresSpec.model_validate(ASKED | {"baseline": None})
    figures(spec, folder / "results.json", folder / "figures" / f"{FIGURES[0]}.pdf")
    for name in FIGURES:
        assert (folder / "figures" / f"{name}.png").stat().st_size > 2000
    plt.close("all")


@pytest.mark.parametrize("points", [TWO, THREE, TWO[:1], [{"x": 1}, {"x": 2}]], ids=["two", "three", "one", "single"])
def test_every_figure_is_drawn_whatever_the_parameters_are_called_and_hold(tmp_path, points):
    drawn(summarized(records(points), tmp_path, baseline=points[0]))
