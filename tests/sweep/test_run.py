"""One trial: what a command or function leaves is its result, and every way to end has its outcome or its message."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from plumbline.core.errors import UserError
from plumbline.sweep.record import TrialRecord
from plumbline.sweep.run import run
from plumbline.sweep.trial.attempt import stopped_at
from plumbline.sweep.trial.plain_record import record_json
from sweep.some import spec

OK = """printf '{{"score": %s, "note": "n"}}' {x} > {folder}/metrics.json"""


def ran(tmp_path: Path, command: str | None = None, **values: object) -> TrialRecord:
    timeout = float(values.pop("timeout_seconds", 0))
    run(spec(command, **values), tmp_path / "runs", tmp_path / "record.json", timeout)
    return TrialRecord.read(tmp_path / "record.json")


def python(code: str) -> str:
    """A command that runs a Python program, whose braces are text."""
    return f"{sys.executable} -c '{code.replace('{', '{{').replace('}', '}}')}' {{x}} {{seed}} {{folder}}"


def test_numbers_of_metrics_json_are_metrics_and_the_rest_is_kept(tmp_path):
    record = ran(tmp_path, OK)
    assert (record.outcome, record.metrics, record.info) == ("ok", {"score": 2.0}, {"note": "n"})
    assert (record.point, record.parameters, record.seed) == ("x=2", {"x": 2}, 7)


NESTED = """echo '{{"score": 1, "each": [0.5, NaN], "of": {{"a": [-Infinity, 2]}}}}' > {folder}/metrics.json; : {x}"""


def test_a_number_that_is_not_finite_inside_what_else_metrics_json_holds_is_null(tmp_path):
    assert ran(tmp_path, NESTED).info == {"each": [0.5, None], "of": {"a": [None, 2]}}


CURVES = """printf '{{"step": 1, "loss": NaN}}\\n{{"step": 2, "score": 2}}\\n' > {folder}/metrics.jsonl; """


@pytest.mark.parametrize(
    ("command", "limit"),
    [
        (OK, 0),
        (CURVES + OK, 0),
        (NESTED, 0),
        ("""echo '{{"score": NaN, "inf": -Infinity}}' > {folder}/metrics.json; : {x}""", 0),
        ("echo MemoryError; exit 1; : {x}", 0),
        ("sleep 60; : {x}", 0.2),
    ],
)
def test_the_record_is_written_as_its_model_would_write_it(tmp_path, command, limit):
    record = ran(tmp_path, command, timeout_seconds=limit, parameters={"x": 2, "flag": True, "rate": 1.0, "name": "1"})
    text = (tmp_path / "record.json").read_text()
    assert text == json.dumps(record.to_json(), indent=1, ensure_ascii=False) + "\n"


def test_a_finding_that_a_record_has_no_field_for_is_refused():
    with pytest.raises(ValueError, match=r"has no mood$"):
        record_json({"mood": 1})


def test_the_stage_starts_without_the_packages_that_take_long_to_import():
    slow = ("pydantic", "psutil", "pynvml", "importlib.metadata", "numpy", "rich", "typer", "yaml")
    code = f"import sys, plumbline.sweep.run; print([name for name in {slow} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_metric_that_is_not_finite_has_diverged(tmp_path, value):
    record = ran(tmp_path, f"""echo '{{{{"score": {value}}}}}' > {{folder}}/metrics.json""")
    assert record.outcome == "diverged"
    assert record.message.startswith("score is ")


SLEEP = f"sleep 1234.{os.getpid()}"


def no_sleep_is_left() -> bool:
    """Whether no process of these tests sleeps any more, within a few seconds."""
    deadline = time.monotonic() + 10
    while any(SLEEP in " ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_command_that_takes_too_long_has_timed_out_and_nothing_it_started_is_left(tmp_path):
    record = ran(tmp_path, f"trap '' TERM; {SLEEP} & {SLEEP}; : {{x}}", timeout_seconds=0.5)
    assert (record.outcome, record.message) == ("timeout", "took longer than 0.5 s")
    assert no_sleep_is_left()


@pytest.mark.parametrize("start", ["", "setsid "])
def test_children_that_a_command_leaves_behind_end_with_it(tmp_path, start):
    ran(tmp_path, f"({start}{SLEEP} &) ; {OK}")
    assert no_sleep_is_left()


def test_a_python_program_out_of_memory_is_an_outcome(tmp_path):
    record = ran(tmp_path, python("raise MemoryError(3)"))
    assert (record.outcome, record.message) == ("out_of_memory", "MemoryError: 3")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("echo why >&2; exit 3; : {x}", "the command ended with exit status 3: why"),
        ("nowhere-to-be-found {x}", "exit status 127: bash: line 1: nowhere-to-be-found: command not found"),
        ("kill -9 $$; : {x}", "the command was ended by SIGKILL: it printed nothing"),
        (": {x}", "metrics.json: was not written"),
        ("echo no > {folder}/metrics.json; : {x}", "metrics.json: is not valid JSON"),
        ("echo 3 > {folder}/metrics.json; : {x}", "metrics.json: must be a JSON object such as {'score': 0.9}"),
        ("""echo '{{"a": 1}}' > {folder}/metrics.json; : {x}""", "the metric 'score' is missing; it has a"),
        ("""echo '{{"score": "1"}}' > {folder}/metrics.json; : {x}""", "the metric 'score' is '1', not a number"),
        ("""echo '{{"score": true}}' > {folder}/metrics.json; : {x}""", "the metric 'score' is True, not a number"),
    ],
)
def test_a_fault_is_one_line_and_leaves_no_record(tmp_path, command, said):
    with pytest.raises(UserError) as error:
        ran(tmp_path, command)
    assert said in str(error.value)
    assert not (tmp_path / "record.json").exists()


def test_metrics_of_an_earlier_attempt_do_not_pass_for_those_of_this_one(tmp_path):
    ran(tmp_path, OK)
    with pytest.raises(UserError, match="was not written"):
        run(spec(": {x}"), tmp_path / "runs", tmp_path / "again.json")


def test_the_folder_stays_for_the_same_spec_and_moves_aside_for_another(tmp_path):
    folder = tmp_path / "runs" / "x=2" / "seed7"
    count = f"echo >> {{folder}}/attempts; {OK}"
    for _ in range(2):
        ran(tmp_path, count)
    assert (folder / "attempts").read_text() == "\n\n"
    for number in (1, 2):
        ran(tmp_path, count, files=f"other code {number}")
        assert (folder / "attempts").read_text() == "\n"
        assert (tmp_path / "runs" / "x=2" / f"seed7.stale-{number}" / "attempts").exists()


def test_a_huge_output_stays_in_its_file_and_its_end_is_told(tmp_path):
    code = 'import sys; print("x" * 10**7); print("the end", file=sys.stderr); sys.exit(1)'
    with pytest.raises(UserError, match=r"exit status 1: the end \(all of its output: .*seed7\.output\.log\)"):
        ran(tmp_path, python(code))
    assert (tmp_path / "runs" / "x=2" / "seed7.output.log").stat().st_size > 10**7


def test_a_crash_in_a_pipe_is_no_result(tmp_path):
    with pytest.raises(UserError, match="exit status 3"):
        ran(tmp_path, f"({OK}; exit 3) | cat")


def test_a_command_that_changes_its_directory_still_finds_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(spec(f"cd /; {OK}"), Path("runs"), tmp_path / "record.json")
    assert TrialRecord.read(tmp_path / "record.json").ok


def test_a_command_may_empty_its_folder_and_another_metric_keeps_it(tmp_path):
    emptied = f"rm -rf {{folder}}/*; echo > {{folder}}/mine; {OK}"
    ran(tmp_path, emptied)
    other = {"metrics": ["score", "loss"], "curves": {"file": "other.jsonl"}}
    with pytest.raises(UserError, match="the metric 'loss' is missing; it has score"):
        ran(tmp_path, emptied, **other)
    assert not list((tmp_path / "runs").glob("*/*.stale-*"))


RESUMED = """read a < {folder}/at || a=0; echo $a >> {folder}/began; echo {x} > {folder}/at; """ + OK


def test_a_larger_budget_goes_on_in_the_folder_and_a_smaller_one_starts_again(tmp_path):
    folder = tmp_path / "runs" / "y=1" / "seed7"
    for budget in (1, 3, 3, 9):
        ran(tmp_path, RESUMED, budget="x", parameters={"x": budget, "y": 1})
    assert (folder / "began").read_text().split() == ["0", "1", "3", "3"]
    ran(tmp_path, RESUMED, budget="x", parameters={"x": 3, "y": 1})
    assert (folder / "began").read_text().split() == ["0"]
    assert (folder.with_name("seed7.stale-1") / "at").read_text().strip() == "9"
    ran(tmp_path, RESUMED + "; : {y}", budget="x", parameters={"x": 9, "y": 1})
    assert (folder / "began").read_text().split() == ["0"]


def test_only_a_trial_that_a_time_limit_stopped_is_stale_once_the_limit_is_longer(tmp_path):
    record, slow = tmp_path / "record.json", "sleep 0.7; " + OK
    ran(tmp_path, OK, timeout_seconds=0.5)
    assert stopped_at(record, 60) is None
    ran(tmp_path, slow, timeout_seconds=0.3)
    assert [stopped_at(record, limit) for limit in (0.2, 0.3, 0.4, None)] == [None, None, 0.3, 0.3]
    ran(tmp_path, slow, timeout_seconds=0.4, stopped_at_seconds=0.3)
    assert [stopped_at(record, limit) for limit in (0.3, 0.4, 0.5)] == [0.3, 0.3, 0.4]
    assert ran(tmp_path, slow, timeout_seconds=30, stopped_at_seconds=0.4).outcome == "ok"
    assert [stopped_at(record, limit) for limit in (0.2, 30, 60, None)] == [0.4] * 4
    ran(tmp_path, OK)
    assert stopped_at(record, None) is None


def curves(tmp_path: Path, *lines: str) -> dict:
    (tmp_path / "lines").write_text("\n".join(lines))
    return ran(tmp_path, f"cp {tmp_path}/lines {{folder}}/metrics.jsonl; {OK}").curves


def test_lines_of_one_step_are_one_step_and_of_a_value_written_twice_the_last_counts(tmp_path):
    lines = ['{"step": 1, "loss": 2}', '{"step": 1, "val": 5}', '{"step": 0, "loss": 1}', '{"step": 1, "loss": 3}']
    assert curves(tmp_path, *lines) == {"step": [0.0, 1.0], "loss": [1.0, 3.0], "val": [None, 5.0]}


def test_lines_that_a_kill_cut_off_are_left_out(tmp_path):
    torn = [
        '{"step": 0, "loss": 1}',
        '{"step": 1, "lo{"step": 1, "loss": 2}',
        '{"step": 2, "loss": 3}',
        '{"step": 3, "l',
    ]
    assert curves(tmp_path, *torn) == {"step": [0.0, 2.0], "loss": [1.0, 3.0]}


def test_lines_without_a_step_are_numbered_where_none_has_one_and_left_out_where_some_have(tmp_path):
    assert curves(tmp_path, '{"loss": 4}', '{"loss": 3}') == {"step": [0.0, 1.0], "loss": [4.0, 3.0]}
    assert curves(tmp_path, '{"step": 5, "loss": 4}', '{"loss": 3}') == {"step": [5.0], "loss": [4.0]}


def test_curves_in_csv_have_the_columns_of_its_header(tmp_path):
    csv = "printf 'epoch,score,name\\n1,0.5,a\\n2,nan,b\\nepoch,score,name\\n3,1\\n' > {folder}/log.csv"
    record = ran(tmp_path, f"{csv}; {OK}", curves={"file": "log.csv", "step": "epoch"})
    assert record.curves["step"] == [1.0, 2.0]
    assert record.curves["score"][0] == 0.5
    assert str(record.curves["score"][1]) == "nan"


FUNCTION = """
import json

def run(settings, *, seed, folder, report):
    for step in range(3):
        report(step, score=step * settings["x"])
    return {"score": settings["x"] + seed, "folder": str(folder)}

def plain(settings, seed):
    return {"score": seed}

def broken(settings, seed):
    return inner(seed)

def inner(seed):
    raise RuntimeError("no luck")

def nothing(settings):
    return 3
"""


@pytest.fixture
def functions(tmp_path, monkeypatch) -> str:
    (tmp_path / "my_functions.py").write_text(FUNCTION)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2] / 'workflow'}")
    return "my_functions"


def test_a_function_gets_its_settings_and_returns_its_metrics(tmp_path, functions):
    record = ran(tmp_path, function=f"{functions}:run")
    assert record.metrics == {"score": 9.0}
    assert record.info == {"folder": str(tmp_path / "runs" / "x=2" / "seed7")}
    assert record.curves == {"step": [0.0, 1.0, 2.0], "score": [0.0, 2.0, 4.0]}
    assert ran(tmp_path, function=f"{functions}:plain").metrics == {"score": 7.0}


def test_a_function_that_fails_shows_the_frames_of_its_own_code_alone(tmp_path, functions):
    with pytest.raises(UserError, match="RuntimeError: no luck"):
        ran(tmp_path, function=f"{functions}:broken")
    shown = (tmp_path / "runs" / "x=2" / "seed7.output.log").read_text()
    assert "my_functions.py" in shown
    assert "call.py" not in shown


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("my_functions:missing", "run: my_functions:missing: my_functions has no missing"),
        ("my_functions:nothing", "my_functions:nothing: returned int; return a dict of final metrics"),
        ("no_such_module:run", "run: no_such_module:run: no module no_such_module; is its directory on PYTHONPATH"),
    ],
)
def test_a_function_that_cannot_be_a_trial_is_named(tmp_path, functions, function, said):
    with pytest.raises(UserError, match=said):
        ran(tmp_path, function=function)
