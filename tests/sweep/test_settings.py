"""What a sweep's block may say, and the points and names it stands for."""

import json
import re

import pytest

from plumbline.core.errors import UserError
from plumbline.core.settings import validated
from plumbline.sweep.naming import point_name
from plumbline.sweep.plan import check_function, check_named_files, check_optuna
from plumbline.sweep.settings import SweepStudySettings
from sweep.some import sweep

Y = {"low": 1, "high": 2}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"command": "run {x} {y} {seed} {folder}"}, "no parameter fills {y}; write {{y}} for the text itself"),
        ({"grid": {"x": [1], "y": [1]}}, "takes no {y}, so that parameter would change nothing"),
        ({"command": "run {x} {seed}"}, "takes no {folder}, where it must leave metrics.json"),
        ({"command": "run {x} {folder}", "seeds": [0, 1]}, "takes no {seed}, so its trials would be copies"),
        ({"command": "run $(cat {x}) {seed} {folder}"}, "a command substitution cannot be combined"),
        ({"run": "m:f"}, "needs either `command` or `run`"),
        ({"grid": {}}, "has no point; give `grid`, `points` or `search`"),
        ({"grid": {"x": [1, 1]}}, "x: a value is named twice"),
        ({"grid": {"seed": [1]}}, "'seed' cannot name a parameter"),
        ({"points": [{"y": 1}]}, "points.0: has the parameters y, others have x"),
        ({"baseline": {"x": 3}}, "baseline: is none of the points"),
        ({"seeds": [1, 1]}, "seeds: 1 is named twice"),
        ({"metric": {"name": "score", "goal": "up"}}, "metric.goal"),
        ({"timeout": "ten minutes"}, "timeout: write it like 90 s, 10 min or 2 h (given: 'ten minutes')"),
        ({"timeout": "0 s"}, "timeout: must be more than 0"),
        ({"points": [{"x": 1, "seed": 3}], "grid": {}}, "'seed' cannot name a parameter"),
        ({"points": [{"x y": 1}], "grid": {}}, "'x y' cannot name a parameter"),
        ({"grid": {"x": ["a\0b"]}}, "holds a NUL character"),
        ({"search": {"space": {"y": {"low": 2, "high": 1}}}}, "search.space.y: low is 2, above high, which is 1"),
        ({"search": {"space": {"y": {"low": 0, "high": 1, "log": True}}}}, "y: log needs a low above 0 (given: 0)"),
        ({"search": {"space": {"y": {"low": 0}}}}, "search.space.y: needs low and high, or choices"),
        ({"search": {"space": {"y": {"low": 0, "high": float("inf")}}}}, "search.space.y: low and high must be finite"),
        (
            {"search": {"space": {"y": {"choices": [1], "low": 0}}}},
            "y: has choices, so it takes neither low, high nor log",
        ),
        ({"search": {"space": {"y": {"choices": [1, 1]}}}}, "y: choices: a value is named twice"),
        ({"search": {"space": {"y": {"low": "a", "high": 1}}}}, "search.space.y.low"),
        ({"search": {"space": {}}}, "search.space: Dictionary should have at least 1 item"),
        ({"search": {"space": {"y": Y}, "batch": 0}}, "search.batch: Input should be greater than 0"),
        ({"search": {"space": {"y": Y}, "trials": 0}}, "search.trials: Input should be greater than 0"),
        (
            {"search": {"space": {"y": Y}, "sampler": "grid"}},
            "search.sampler: Input should be 'random', 'qmc' or 'tpe'",
        ),
        ({"search": {"space": {"x": Y}}}, "x: is in both grid and search.space; keep one of them"),
        ({"search": {"space": {"y": Y}, "sampler": "tpe"}}, "search: tpe takes no grid; give its values as `choices`"),
        ({"search": {"space": {"seed": Y}}}, "'seed' cannot name a parameter"),
        ({"search": {"space": {"y": Y}}}, "takes no {y}, so that parameter would change nothing"),
        ({"search": {"space": {"y": Y}}, "metric": None}, "sweep.s.metric"),
        (
            {"halving": {"budget": "epochs", "low": 1, "high": 10}},
            "high is 10, which low times powers of factor do not",
        ),
        ({"halving": {"budget": "epochs", "low": 3, "high": 3}}, "halving: low is 3, not below high, which is 3"),
        (
            {"halving": {"budget": "epochs", "low": 1, "high": 3, "factor": 1}},
            "halving.factor: Input should be greater",
        ),
        ({"halving": {"budget": "x", "low": 1, "high": 3}}, "halving.budget: x is set by halving; remove it"),
        ({"halving": {"budget": "seed", "low": 1, "high": 3}}, "halving.budget: 'seed' cannot name a parameter"),
        ({"halving": {"budget": "epochs", "low": 1, "high": 3}}, "takes no {epochs}, so that parameter would change"),
        ({"comand": "x"}, "sweep.s.comand: no such key; did you mean command or code? (12 other keys are known here)"),
        ({"timeout": 600}, "timeout: write it like 90 s, 10 min or 2 h (given: 600)"),
        ({"resources": {"memory": "2GiB"}}, "memory: write it like 2 GB or 500 MB (given: '2GiB')"),
        ({"curves": {"file": "a/b.csv"}}, "curves.file: write it like metrics.jsonl or log.csv, without a folder"),
        ({"command": None, "run": "train.run"}, "run: write it like my_lab.train:run, a module and its function"),
        ({"metric": "acc"}, "metric: write it like {name: accuracy, goal: max}, or a list of two such metrics (given"),
        ({"metric": ["a", "b"]}, "sweep.s.metric: write it like {name: accuracy, goal: max}, or a list of two such"),
        ({"metric": [{"name": "a", "goal": "max"}]}, "metric: write it like {name: accuracy, goal: max}, or a list of"),
        (
            {"metric": [{"name": "a", "goal": "max"}] * 3},
            "metric: write it like {name: accuracy, goal: max}, or a list",
        ),
        (
            {"search": {"space": {"y": {"lo": 1, "high": 2}}}},
            "space.y.lo: no such key; did you mean low or log? (2 other keys are known here)",
        ),
        ({"metric": [{"name": "a", "goal": "max"}] * 2}, "metric: a is named twice"),
        ({"metric": [{"name": "a", "goal": "max"}, {"name": "b", "gaol": "min"}]}, "metric.1.goal: missing"),
        ({"metric": [{"name": "a", "goal": "max"}, {"name": "b", "gaol": "min"}]}, "gaol: no such key; did you mean"),
        (
            {
                "metric": [{"name": "a", "goal": "max"}, {"name": "b", "goal": "min"}],
                "command": "run {x} {epochs} {seed} {folder}",
                "halving": {"budget": "epochs", "low": 1, "high": 3},
            },
            "halving: ranks points by one metric, but `metric` names two; keep one, or remove halving",
        ),
    ],
)
def test_mistakes_are_named_with_their_place(settings, said):
    default = {"command": "run {x} {seed} {folder}", "grid": {"x": [1]}, "metric": {"name": "a", "goal": "max"}}
    from plumbline import config

    with pytest.raises(UserError, match=re.escape(said)):
        config.check({"sweep": {"s": default | settings}})


def test_points_are_the_grid_then_the_rest_each_once():
    found = sweep(
        grid={"x": [1, 2], "y": ["a"]}, points=[{"y": "b", "x": 3}, {"x": 1, "y": "a"}], command="c {x}{y}{folder}"
    )
    assert found.all_points == [{"x": 1, "y": "a"}, {"x": 2, "y": "a"}, {"x": 3, "y": "b"}]


def test_each_draw_of_a_search_runs_with_each_combination_of_the_grid_after_the_listed_points():
    space = {"y": {"low": 0.0, "high": 1.0}}
    found = sweep(
        command="c {x}{y}{folder}",
        search={"trials": 3, "space": space},
        points=[{"y": 0.5, "x": 9}],
        grid={"x": [1, 2]},
    ).all_points
    assert found[0] == {"x": 9, "y": 0.5}
    draws = [point["y"] for point in found[1:4]]
    assert found[1:] == [{"x": x, "y": y} for x in (1, 2) for y in draws]


def test_a_tpe_search_without_optuna_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    settings = sweep(grid={}, search={"sampler": "tpe", "space": {"x": Y}})
    with pytest.raises(
        UserError, match=r"sweep.s.search.sampler: tpe needs Optuna; run `pip install 'plumbline\[search\]'`"
    ):
        check_optuna("s", settings)
    check_optuna("s", sweep(grid={}, search={"space": {"x": Y}}))


def test_bounds_that_yaml_reads_as_text_are_numbers():
    settings = sweep(grid={}, search={"space": {"x": {"low": "1e-4", "high": 1, "log": True}}})
    assert settings.search.space["x"].low == 0.0001


def test_exponents_that_yaml_reads_as_text_are_numbers_and_other_text_stays():
    assert sweep(grid={"x": ["1e-3", "2E+5", "1e", "007", "on"]}).grid["x"] == [0.001, 200000.0, "1e", "007", "on"]


def test_different_points_have_different_names_that_can_stand_in_a_path():
    values = [1, 1.0, "1", True, "true", "a/b", "a_b", "..", "", "x" * 300, "x" * 301, "é", "a b", "a\nb", "$x", -1]
    names = [point_name({"x": value}) for value in values]
    assert len(set(names)) == len(values)
    assert all(re.fullmatch(r"[A-Za-z0-9_=.+~-]{2,120}", name) for name in names)
    assert point_name({"width": 32, "learning_rate": 1e-3}) == "learning_rate=0.001__width=32"


def test_a_sweep_that_is_null_is_left_out_and_units_are_seconds_and_megabytes():
    study = validated(SweepStudySettings, {"digits_mlp": None}, "config")
    assert study.sweeps == {}
    assert sweep(timeout="1.5 min").timeout_seconds == 90
    assert sweep(resources={"memory": "2 GB"}).resources.memory_mb == 2000


def test_values_keep_their_type_through_the_spec():
    point = {"x": True, "y": 1, "z": 1.0, "w": "1"}
    found = sweep(grid={}, points=[point], command="c {x}{y}{z}{w}{folder}").all_points[0]
    assert json.dumps(found) == json.dumps(point)


def test_values_that_look_like_two_parameters_do_not_share_a_name():
    points = [{"a": "x__b=y", "b": "z"}, {"a": "x", "b": "y__b=z"}, {"a": "x", "b": "y"}]
    assert len({point_name(point) for point in points}) == 3


def test_names_pass_through_what_snakemake_hands_to_the_jobs_of_a_cluster():
    from snakemake.cli import parse_target_jobs_cli_args
    from snakemake.common import parse_key_value_arg  # noqa: F401  what the parser below is made of

    name = point_name({"noise": 0.1, "x": 2, "text": "a,b"})
    (job,) = parse_target_jobs_cli_args([f'sweep_run:sweep=s,point="{name}",seed=0'])
    assert job.wildcards_dict == {"sweep": "s", "point": name, "seed": "0"}


def test_a_file_that_the_command_names_must_be_code_or_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.sh").write_text("")
    check_named_files("sh mine.sh {x}", [tmp_path / "mine.sh"], "sweep.s.code")
    with pytest.raises(
        UserError, match=r"sweep.s.code: the command names mine.sh, and an edit of it would go unnoticed"
    ):
        check_named_files("sh mine.sh {x}", [], "sweep.s.code")


def test_a_function_that_its_module_does_not_define_is_named_without_importing_it(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_lab.py").write_text("def train(settings): ...\nraise SystemExit\n")
    check_function("own_lab:train", "sweep.s.run")
    with pytest.raises(UserError, match=r"^sweep\.s\.run: own_lab has no trian; did you mean train\?$"):
        check_function("own_lab:trian", "sweep.s.run")
    with pytest.raises(UserError, match=r"^sweep\.s\.run: module own_nowhere: not found on the Python path"):
        check_function("own_nowhere:train", "sweep.s.run")
