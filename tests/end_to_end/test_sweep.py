"""A user's own command as a sweep: targets, staleness, growth, faults beside results, hostile values."""

import json

import pytest

from house import TINY, House, build, check_shown
from plumbline.sweep.settings import FIGURES


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> House:
    """A house in which the tiny sweep was run. A test that changes it restores nothing: they run in this order."""
    house = build(tmp_path_factory.mktemp("swept") / "house", "sweep")
    house.snakemake()
    return house


def with_sweep(house: House, **settings: object) -> None:
    """The tiny sweep with other settings."""
    house.configure({"sweep": {"digits_mlp": None, "quadratic": TINY["sweep"]["quadratic"] | settings}})


def test_each_trial_has_a_record_and_the_best_point_is_found(swept):
    folder = swept.study / "quadratic"
    assert len(list(folder.glob("trials/*/seed*.json"))) == 18
    best = json.loads((folder / "best.json").read_text())
    assert best["parameters"]["x"] == 2
    assert "Nothing to be done" in swept.snakemake()


def test_the_table_of_trials_fits_the_terminal(swept):
    check_shown(swept)


def test_a_report_of_one_study_shows_it_and_names_the_others(swept):
    swept.plumbline("report", "--configfile", "tiny.yaml")
    said = (swept.root / "results" / "REPORT.md").read_text()
    assert "## sweep: quadratic: " in said
    assert "snakemake --cores all results/sweep/quadratic/analysis.md --configfile tiny.yaml" in said
    assert "`snakemake --cores all lr_sweep --configfile tiny.yaml` runs it" in said
    assert (swept.root / "results" / "report.html").read_text().count("<img ") == len(FIGURES)
    assert "Nothing to be done" in swept.snakemake()


def test_more_seeds_and_values_add_only_what_is_missing_and_fewer_delete_nothing(swept):
    with_sweep(swept, seeds=[0, 1, 2, 3], grid={"x": [1, 2, 3.5], "noise": [0.1, 0.2]})
    assert swept.waiting() == {"sweep_run": 6, "sweep_summarize": 1, "sweep_figures": 1}
    with_sweep(swept, seeds=[0], grid={"x": [1, 2], "noise": [0.1, 0.2]})
    assert swept.waiting() == {"sweep_summarize": 1, "sweep_figures": 1}
    assert len(list((swept.study / "quadratic").glob("trials/*/seed*.json"))) == 18


def test_a_change_of_the_script_makes_its_trials_stale_and_of_the_time_limit_nothing(swept):
    with_sweep(swept, timeout="5 min")
    assert "Nothing to be done" in swept.snakemake()
    script = swept.root / "examples" / "quadratic" / "trial.sh"
    script.write_text(script.read_text() + "\n# another line\n")
    assert swept.waiting()["sweep_run"] == 18
    said = swept.plumbline("status", "--configfile", "tiny.yaml")
    assert "stale sweep/run/quadratic/noise=0.1__x=1/0 and 17 more: code: examples/quadratic/trial.sh changed\n" in said


def test_a_trial_that_fails_leaves_the_others_and_the_log_says_why(swept):
    script = TINY["sweep"]["quadratic"]["command"]
    with_sweep(swept, command=f"test {{x}} != 2 || {{{{ echo no luck >&2; exit 4; }}}}; {script}")
    said = swept.snakemake(succeeds=False)
    assert "--spec" not in said
    assert said.count("exit status 4: no luck") == 2 * 6  # when it happens, and in the summary
    logs = [path.read_text() for path in swept.study.glob("logs/run/quadratic/*x=2*/*.log")]
    assert len(logs) == 6
    assert all("the command ended with exit status 4: no luck" in log for log in logs)
    assert len(list((swept.study / "quadratic").glob("trials/*/seed*.json"))) == 12


def test_a_second_metric_gives_a_front_and_show_has_the_best_by_the_first_on_top(tmp_path):
    house = build(tmp_path / "house", "sweep")
    command = 'printf \'{{"gain": %s.{seed}, "price": %s}}\' {x} {x} > {folder}/metrics.json'
    settings = {"command": command, "grid": {"x": [1, 3, 2]}, "seeds": [0, 1]}
    metrics = [{"name": "gain", "goal": "max"}, {"name": "price", "goal": "min"}]
    house.configure({"sweep": {"digits_mlp": None, "shop": settings | {"metric": metrics}}})
    house.snakemake()
    table = (house.study / "shop" / "front.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in table] == ["point", "x=3", "x=2", "x=1"]
    assert (house.study / "shop" / "figures" / "pareto.png").stat().st_size > 2000
    assert "Nothing to be done" in house.snakemake()
    rows = house.plumbline("show", "sweep", "--configfile", "tiny.yaml").splitlines()[2:8]
    assert [row.split()[1:4] for row in rows[:2]] == [["3", "1", "3.1"], ["3", "0", "3"]]
    house.plumbline("report", "--configfile", "tiny.yaml")
    assert "3 of 3 points are on the Pareto front of gain" in (house.root / "results" / "REPORT.md").read_text()


def test_hostile_values_reach_the_command_unchanged_and_run_nothing(tmp_path):
    house = build(tmp_path / "house", "sweep")
    values = ["$(touch x)", "it's", '"; touch x; "', "`touch x`", "a\nb", "../../x", "漢 字", "%s {folder} {{", "-n"]
    command = "printf %s {text} > {folder}/text; echo '{{\"score\": 1}}' > {folder}/metrics.json"
    hostile = {"command": command, "grid": {"text": values}, "metric": {"name": "score", "goal": "max"}}
    house.configure({"sweep": {"digits_mlp": None, "hostile": hostile}})
    house.snakemake()
    found = {path.read_text() for path in (house.study / "hostile").glob("runs/*/seed0/text")}
    assert found == set(values)
    assert not (house.root / "x").exists()
    trials = [json.loads(path.read_text()) for path in (house.study / "hostile").glob("trials/*/seed0.json")]
    assert {one["parameters"]["text"] for one in trials} == set(values)


def test_a_function_resumes_from_its_own_checkpoint_and_rates_that_diverge_are_no_fault(tmp_path):
    house = build(tmp_path / "house", "sweep")
    rates = {"run": "examples.resumable.training:run", "grid": {"rate": [0.1, 0.4, 1.1]}, "seeds": [0, 1]}
    house.configure({"sweep": {"digits_mlp": None, "rates": rates | {"metric": {"name": "loss", "goal": "min"}}}})
    left = house.study / "rates" / "runs" / "rate=0.4" / "seed0"
    house.snakemake()
    best = json.loads((house.study / "rates" / "best.json").read_text())
    assert best["parameters"] == {"rate": 0.4}
    path = house.study / "rates" / "trials" / "rate=0.4" / "seed0.json"
    before = json.loads(path.read_text())
    assert before["curves"]["step"] == list(range(1, 21))
    (left / "checkpoint.json").write_text(json.dumps([19, 1.0]))
    path.unlink()
    house.snakemake()
    assert json.loads(path.read_text())["metrics"]["loss"] == pytest.approx(0.2**2)
    code = house.root / "examples" / "resumable" / "training.py"
    code.write_text(code.read_text().replace("STEPS = 20", "STEPS = 21"))
    assert house.waiting()["sweep_run"] == 6
