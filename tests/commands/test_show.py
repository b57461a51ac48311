"""The table of trials: which columns, which rows, in which order."""

import csv
import io
import json

import pytest

from plumbline.commands.show import (
    as_texts,
    column,
    columns_of,
    condition,
    left_out,
    read_rows,
    show,
    sorted_by,
    table_lines,
    that_fit,
    write_csv,
)
from plumbline.core.errors import UserError


def record(width, seed, accuracy, outcome="ok", **more):
    point = f"width={width}"
    return {
        "schema": 1,
        "trial": f"net/{point}/{seed}",
        "outcome": outcome,
        "message": None,
        "seconds": 1.5,
        "spec": {"code": "1a"},
        "machine": {"cores": 2},
        "sweep": "net",
        "point": point,
        "parameters": {"width": width, "fast": width > 10},
        "seed": seed,
        "metrics": {} if accuracy is None else {"accuracy": accuracy},
        "curves": {"step": [1, 2]},
    } | more


@pytest.fixture
def trials(tmp_path):
    records = [record(32, 0, 0.75), record(8, 0, 0.5), record(8, 1, None, "diverged"), record(32, 1, 1 / 3)]
    for number, one in enumerate(records):
        path = tmp_path / "net" / "trials" / one["point"] / f"seed{one['seed']}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(one))
        (path.parent / f".{number}.json.1.partial").write_text("{")
    (tmp_path / "net" / "runs").mkdir()
    (tmp_path / "net" / "runs" / "metrics.json").write_text("{")
    return read_rows(tmp_path, "sweep")


def seeds(found):
    return [(trial.values["width"], trial.values["seed"]) for trial in found]


def test_the_studys_columns_come_first_and_outcome_and_time_last(trials):
    names = ["sweep", "width", "fast", "seed", "accuracy", "outcome", "seconds"]
    assert columns_of(trials, None, is_full=False) == names
    everything = columns_of(trials, "all", is_full=False)
    assert set(names) < set(everything)
    assert {"metrics.accuracy", "point", "trial"} < set(everything)
    assert not any(name.startswith(("spec", "machine", "curves")) for name in everything)


def test_a_column_may_be_named_by_its_last_part_where_only_one_has_it(trials):
    assert column("b", ["a.b", "c"]) == "a.b"
    assert column("b", ["a.b", "b"]) == "b"
    with pytest.raises(UserError, match=r"'b' may be a\.b or c\.b; name one"):
        column("b", ["a.b", "c.b"])
    with pytest.raises(UserError, match=r"no column 'acuracy'; did you mean accuracy\?"):
        columns_of(trials, "seed,acuracy", is_full=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("width>=32", [(32, 0), (32, 1)]),
        ("width = 8.0", [(8, 0), (8, 1)]),
        ("outcome!=ok", [(8, 1)]),
        ("accuracy<0.6", [(32, 1), (8, 0)]),
        ("accuracy=", [(8, 1)]),
        ("fast=true", [(32, 0), (32, 1)]),
        ("trial~32/1", [(32, 1)]),
    ],
)
def test_a_condition_chooses_trials(trials, text, expected):
    known = columns_of(trials, "all", is_full=True)
    assert sorted(seeds(filter(condition(text, known), trials))) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "said"), [("width", "write COLUMN, one of"), ("width>wide", "'wide' is not a number")]
)
def test_a_condition_that_says_nothing_is_explained(text, said):
    with pytest.raises(UserError, match=said):
        condition(text, ["width"])


def test_sorting_goes_by_number_and_puts_trials_without_a_value_last_either_way(trials):
    known = columns_of(trials, "all", is_full=True)
    assert seeds(sorted_by(trials, "accuracy", known)) == [(32, 1), (8, 0), (32, 0), (8, 1)]
    assert seeds(sorted_by(trials, "-accuracy", known)) == [(32, 0), (8, 0), (32, 1), (8, 1)]
    assert [width for width, _ in seeds(sorted_by(trials, "width", known))] == [8, 8, 32, 32]


def test_csv_holds_every_digit_and_reads_back(trials):
    stream = io.StringIO()
    write_csv(["seed", "accuracy", "fast"], trials, stream)
    stream.seek(0)
    rows = list(csv.DictReader(stream))
    assert [row["accuracy"] for row in rows if row["accuracy"] not in ("0.75", "0.5")] == [repr(1 / 3), ""]
    assert {row["fast"] for row in rows} == {"true", "false"}


def test_the_table_is_aligned_and_a_text_stays_on_its_line(trials):
    trials[0].values["accuracy"] = 123456.7
    trials[0].values["sweep"] = "two\nlines"
    lines = list(table_lines(as_texts(["sweep", "accuracy"], trials)))
    assert lines == [
        "sweep      accuracy",
        "two lines    123457",
        "net          0.3333",
        "net             0.5",
        "net               –",
    ]


def test_columns_go_from_the_end_where_there_is_no_room_and_never_those_that_tell_rows_apart(trials):
    table = as_texts(["width", "seed", "accuracy", "outcome", "seconds"], trials)
    wide = max(map(len, table_lines(table)))
    kept = {"width", "seed", "outcome"}
    names = {width: [one.name for one in that_fit(table, kept, width)] for width in (wide, wide - 1, 30, 1)}
    assert names[wide] == ["width", "seed", "accuracy", "outcome", "seconds"]
    assert names[wide - 1] == ["width", "seed", "accuracy", "outcome"]
    assert names[30] == names[1] == ["width", "seed", "outcome"]
    assert left_out(names[wide], names[30], 9) == (
        "(3 of 9 columns, no room for accuracy, seconds; for others: --columns NAME,NAME, --columns all or --csv)"
    )


@pytest.mark.parametrize(("columns", "is_whole"), [(None, False), ("all", True)])
def test_the_table_is_as_wide_as_the_terminal_and_whole_when_columns_are_named(
    tmp_path, monkeypatch, capsys, columns, is_whole
):
    path = tmp_path / "sweep" / "net" / "trials" / "p" / "seed0.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(record(8, 0, 0.5) | {"metrics": {f"metric_{i}": 0.5 for i in range(30)}}))
    for width, terminal in ((120, None), (90, "90")):
        monkeypatch.delenv("COLUMNS", raising=False)
        if terminal:
            monkeypatch.setenv("COLUMNS", terminal)
        show(["sweep"], columns=columns, results=tmp_path)
        title, heading, _, *below = capsys.readouterr().out.splitlines()
        assert title == "sweep: 1 trial"
        assert (len(heading) > width) is is_whole
        assert ("metric_29" in heading) is is_whole
        assert any("--columns" in line for line in below) is not is_whole


def test_a_file_that_is_not_json_is_named_and_the_others_are_shown(tmp_path, capsys):
    folder = tmp_path / "net" / "trials" / "p"
    folder.mkdir(parents=True)
    (folder / "seed0.json").write_text(json.dumps(record(8, 0, 0.5)))
    (folder / "seed1.json").write_text("{")
    assert len(read_rows(tmp_path, "sweep")) == 1
    assert capsys.readouterr().err == f"1 file not readable as JSON, the first: {folder}/seed1.json\n"
