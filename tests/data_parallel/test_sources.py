"""Sentence pairs from the user's files and from data sets with the schema of IWSLT."""

import json

import pytest

from plumbline.core.errors import UserError
from plumbline.data_parallel.corpora.interface import source
from plumbline.data_parallel.settings import CorpusSettings

PAIRS = [("Guten Tag.", "Good day."), ("Der Hund läuft.", "The dog runs."), ("Ja.", "Yes.")]


def read(settings: dict) -> list[tuple[str, str, str]]:
    return [tuple(pair) for pair in source(CorpusSettings.model_validate(settings)).pairs]


def everything(split_pairs: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    return [(split, *pair) for split in ("train", "validation", "test") for pair in split_pairs]


def files(*paths) -> dict:
    return {
        "source": "files",
        "files": {split: [str(path) for path in paths] for split in ("train", "validation", "test")},
    }


def rows(pairs) -> str:
    return "".join(json.dumps({"translation": {"de": de, "en": en}}) + "\n" for de, en in pairs)


def test_a_folder_in_the_schema_of_iwslt_is_read_as_a_data_set(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text(rows(PAIRS))
    assert read({"source": "hub", "hub": {"id": str(tmp_path)}, "limits": {"train": 2}}) == [
        ("train", *PAIRS[0]),
        ("train", *PAIRS[1]),
        *(("validation", *pair) for pair in PAIRS),
        *(("test", *pair) for pair in PAIRS),
    ]


def test_a_data_set_without_the_languages_is_named_with_those_it_has(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.jsonl").write_text(rows(PAIRS))
    with pytest.raises(UserError, match=r"row 0: has no text under 'fr' and 'en'.*two of de, en"):
        read({"source": "hub", "hub": {"id": str(tmp_path), "source": "fr"}})


CONFIGS = """---
configs:
- config_name: de-en
  data_files:
  - {split: train, path: german/train.jsonl}
  - {split: validation, path: german/test.jsonl}
  - {split: test, path: german/test.jsonl}
- config_name: fr-en
  data_files:
  - {split: train, path: french/train.jsonl}
---
"""


def test_the_config_of_a_data_set_with_several_is_named_by_its_key(tmp_path):
    for folder in ("german", "french"):
        (tmp_path / folder).mkdir()
        for split in ("train", "test"):
            (tmp_path / folder / f"{split}.jsonl").write_text(rows(PAIRS))
    (tmp_path / "README.md").write_text(CONFIGS)
    assert read({"source": "hub", "hub": {"id": str(tmp_path), "config": "de-en"}}) == everything(PAIRS)
    with pytest.raises(UserError, match=r"cannot be read as a data set: .*'de-en', 'fr-en'.*corpus\.hub\.config"):
        read({"source": "hub", "hub": {"id": str(tmp_path)}})


def test_a_data_set_with_a_loading_script_is_one_line_with_the_revision_to_read(tmp_path):
    (tmp_path / f"{tmp_path.name}.py").write_text("raise SystemExit('is never run')\n")
    with pytest.raises(UserError, match=r"cannot be read as a data set: .*revision: refs/convert/parquet"):
        read({"source": "hub", "hub": {"id": str(tmp_path)}})


def test_a_null_side_is_an_empty_one(tmp_path):
    (tmp_path / "a.jsonl").write_text(rows([("Ja.", "Yes."), ("Nein.", None)]))
    assert read(files(tmp_path / "a.jsonl")) == everything([("Ja.", "Yes."), ("Nein.", "")])


def test_json_lines_tabs_and_parallel_files_hold_the_same_pairs(tmp_path):
    (tmp_path / "a.jsonl").write_text(rows(PAIRS))
    (tmp_path / "a.tsv").write_text("".join(f"{de}\t{en}\n" for de, en in PAIRS))
    (tmp_path / "a.de").write_text("".join(f"{de}\n" for de, _ in PAIRS))
    (tmp_path / "a.en").write_text("".join(f"{en}\n" for _, en in PAIRS))
    wanted = everything(PAIRS)
    assert read(files(tmp_path / "a.jsonl")) == wanted
    assert read(files(tmp_path / "a.tsv")) == wanted
    assert read(files(tmp_path / "a.de", tmp_path / "a.en")) == wanted


def test_windows_line_ends_and_a_byte_order_mark_are_no_part_of_a_sentence(tmp_path):
    (tmp_path / "a.tsv").write_bytes("".join(f"{de}\t{en}\r\n" for de, en in PAIRS).encode("utf-8-sig"))
    assert read(files(tmp_path / "a.tsv")) == everything(PAIRS)


def test_sides_of_unequal_length_are_named_with_the_line(tmp_path):
    (tmp_path / "a.de").write_text("eins\nzwei\n")
    (tmp_path / "a.en").write_text("one\n")
    with pytest.raises(UserError, match=r"a\.en: ends before line 2, which .*a\.de has"):
        read(files(tmp_path / "a.de", tmp_path / "a.en"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"eins one\n", "line 1: has no tab"),
        (b"eins\tone\t1\n", "line 1: has 3 columns"),
        (b"\xff\xfe\tx\n", "is not valid UTF-8"),
    ],
)
def test_a_file_that_is_not_what_it_should_be_is_named(tmp_path, content, message):
    (tmp_path / "a.tsv").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.tsv.*{message}"):
        read(files(tmp_path / "a.tsv"))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"a\.tsv: cannot be read"):
        read(files(tmp_path / "a.tsv"))
