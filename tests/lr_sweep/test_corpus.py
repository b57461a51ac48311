import functools
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi

from plumbline.core.errors import UserError
from plumbline.core.run import hub
from plumbline.core.text import documents
from plumbline.lr_sweep.corpora import files, interface
from plumbline.lr_sweep.corpora.interface import PYTHON_RELEASE, Document, within
from plumbline.lr_sweep.corpus import CorpusSpec, corpus
from plumbline.lr_sweep.plan import plan
from plumbline.lr_sweep.settings import CorpusSettings, LrSweepSettings

FILES = CorpusSettings(source="files", files=[__file__])
FACTS: dict[str, Any] = {"code": "code", "inputs": "inputs", "fingerprint": [], "python": None}
Row = tuple[str, bool]


def make(folder: Path, python: str | None = None, **settings: Any) -> tuple[dict[str, Any], list[Row]]:
    """The manifest and the (text, validation) pairs of a corpus written below `folder`."""
    output = folder / "corpus" / documents.FILE
    corpus(CorpusSpec.model_validate(FACTS | {"corpus": settings, "python": python}), output)
    batches = list(documents.read(output.parent))
    rows = [row for batch in batches for row in zip(batch.texts, batch.validation.tolist(), strict=True)]
    return json.loads((output.parent / "manifest.json").read_text()), rows


def from_files(folder: Path, *globs: str, **settings: Any) -> tuple[dict[str, Any], list[Row]]:
    return make(folder, source="files", files=[str(folder / pattern) for pattern in globs], **settings)


def write_split(folder: Path, split: str, texts: Sequence[Any], column: str = "text", parts: int = 2) -> None:
    folder.mkdir(exist_ok=True)
    size = -(-len(texts) // parts)
    for part in range(parts):
        own = texts[part * size : (part + 1) * size]
        table = pa.table({column: own, "id": list(range(len(own)))})
        pq.write_table(table, folder / f"{split}-{part:05d}-of-{parts:05d}.parquet", row_group_size=7)


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[Row]]:
    return make(tmp_path_factory.mktemp("pydoc"), python=PYTHON_RELEASE)


def test_the_default_corpus_is_megabytes_of_distinct_prose_with_a_tenth_held_out(default: Any) -> None:
    manifest, rows = default
    texts = [text for text, _ in rows]
    assert manifest["bytes"] == sum(len(text.encode()) for text in texts) > 1_000_000
    assert manifest["documents"] == len(texts) == len(set(texts))
    assert min(map(len, texts)) >= 80
    assert 0.07 < sum(held for _, held in rows) / len(rows) < 0.13
    assert manifest["python"] == platform.python_version()


def test_the_default_corpus_holds_the_manual_and_the_docstrings_once(default: Any) -> None:
    joined = "\n".join(text for text, _ in default[1])
    assert joined.count("Called to create a new instance of class *cls*.") == 1
    assert json.dumps.__doc__ is not None
    assert json.dumps.__doc__.strip().splitlines()[0] in joined


def test_the_default_corpus_is_the_same_in_another_process(default: Any) -> None:
    script = (
        "import hashlib, sys; from plumbline.lr_sweep.corpora.interface import source;"
        "from plumbline.lr_sweep.settings import CorpusSettings; d = hashlib.sha256();"
        "[d.update(len(b).to_bytes(8, 'little') + b) for x in source(CorpusSettings()).documents"
        " for b in [x.text.encode()]]; print(d.hexdigest());"
        "assert not {'torch', 'transformers', 'datasets', 'tkinter', 'asyncio'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": "workflow", "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", script], check=True, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == default[0]["sha256"]


def test_another_python_than_the_spec_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Python 2\.7 but this job on 3\."):
        make(tmp_path, python="2.7")


def test_the_plan_names_the_release_of_python_and_not_its_patch() -> None:
    planned = {target.stage: target for target in plan(LrSweepSettings(), 0, {}, "cpu")}
    assert json.loads(planned["corpus"].spec)["python"] == f"{sys.version_info.major}.{sys.version_info.minor}"
    other = {target.stage: target for target in plan(LrSweepSettings(corpus=FILES), 0, {}, "cpu")}
    assert json.loads(other["corpus"].spec)["python"] is None


@pytest.mark.parametrize("share", [1e-9, 0.499])
@pytest.mark.parametrize("count", [1, 2, 3, 14])
def test_both_sides_have_a_document_however_few_there_are(tmp_path: Path, count: int, share: float) -> None:
    texts = [f"A text, number {number}." for number in range(count)]
    for number, text in enumerate(texts):
        (tmp_path / f"{number:02d}.txt").write_text(text)
    manifest, found = from_files(tmp_path, "*.txt", validation_share=share)
    held = {text for text, validation in found if validation}
    assert [text for text, _ in found] == texts
    assert 0 < len(held) < count or count == 1
    if share < 1e-3 and count > 1:  # the one that a larger share would take first
        assert held == {min(texts, key=documents.hash_fraction)}
    assert manifest["validation_documents"] == len(held)
    assert manifest["validation_bytes"] == sum(map(len, held))
    assert manifest["bytes"] == sum(map(len, texts))


def test_files_are_documents_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / f"{name}.txt").write_text(f"The text of {name}: naïve — 日本語.\r\n", newline="")
    (tmp_path / ".hidden.txt").write_text("not to be read")
    manifest, rows = from_files(tmp_path, "[bc].txt", "*.txt")
    assert [text for text, _ in rows] == [f"The text of {name}: naïve — 日本語." for name in "abc"]
    assert manifest["source"]["kind"] == "files"


def test_a_long_file_becomes_documents_cut_at_blank_lines_and_loses_no_word(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {number}: " + "süße Wörter, " * 40 for number in range(600)]
    (tmp_path / "long.txt").write_text("\ufeff" + "\n\n".join(paragraphs), encoding="utf-8")
    manifest, rows = from_files(tmp_path, "long.txt")
    assert manifest["documents"] > 5
    assert all(text.startswith("Paragraph") for text, _ in rows)
    assert " ".join(text for text, _ in rows).split() == " ".join(paragraphs).split()


def test_a_line_without_end_is_cut_between_characters(tmp_path: Path) -> None:
    text = "日本語の" * 80_000
    (tmp_path / "line.txt").write_text(text, encoding="utf-8")
    manifest, rows = from_files(tmp_path, "line.txt")
    assert manifest["documents"] > 5
    assert "".join(text for text, _ in rows) == text


def test_a_line_that_says_end_of_text_parts_documents(tmp_path: Path) -> None:
    (tmp_path / "stories.txt").write_text("One.\n<|endoftext|>\nTwo,\n\nstill two.\n<|endoftext|>\n")
    _, rows = from_files(tmp_path, "stories.txt")
    assert [text for text, _ in rows] == ["One.", "Two,\n\nstill two."]


def test_json_lines_are_a_document_each(tmp_path: Path) -> None:
    (tmp_path / "stories.jsonl").write_text('{"text": "One."}\n\n{"id": 2, "text": "Two,\\n\\nstill two."}\n')
    _, rows = from_files(tmp_path, "stories.jsonl")
    assert [text for text, _ in rows] == ["One.", "Two,\n\nstill two."]


def test_json_lines_without_text_are_refused_by_line(tmp_path: Path) -> None:
    (tmp_path / "stories.jsonl").write_text('{"text": "One."}\n{"story": "Two."}\n')
    with pytest.raises(UserError, match=r"stories\.jsonl: line 2: has no text under the key 'text' \(it has story\)"):
        from_files(tmp_path, "stories.jsonl")


def test_an_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "empty.txt").write_text(" \n\n")
    with pytest.raises(UserError, match=r"empty\.txt: is empty"):
        from_files(tmp_path, "*.txt")
    assert not (tmp_path / "corpus").exists()


def test_a_glob_that_matches_nothing_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    with pytest.raises(UserError, match=r"lr_sweep\.corpus\.files\[1\]: .*\.md matches no file"):
        from_files(tmp_path, "*.txt", "*.md")


@pytest.mark.parametrize("before", [0, 5, 70_001, 200_000])
@pytest.mark.parametrize(
    ("bad", "reason"), [(b"\xff\xfe", "is not valid UTF-8"), (b"\0", "is zero"), (b"\xe2\x82", "is not valid UTF-8")]
)
def test_bytes_that_are_no_text_are_named_with_their_offset(
    tmp_path: Path, before: int, bad: bytes, reason: str
) -> None:
    text = (("é" * 30_000 + "\n") * 4).encode()[:before].decode(errors="ignore").encode()
    data = text.ljust(before, b"x")
    (tmp_path / "data.txt").write_bytes(data + bad)
    with pytest.raises(UserError, match=rf"data\.txt: byte {before} {reason}"):
        from_files(tmp_path, "data.txt")


def test_a_limit_keeps_the_documents_that_fit(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text("ä" * 50)
    assert [len(list(within(files.load(settings(tmp_path)).documents, limit))) for limit in (99, 100, 250, None)] == [
        0,
        1,
        2,
        9,
    ]
    with pytest.raises(UserError, match=r"has no document within lr_sweep\.corpus\.limit_bytes \(99\)"):
        from_files(tmp_path, "*.txt", limit_bytes=99)


def settings(folder: Path) -> CorpusSettings:
    return CorpusSettings(source="files", files=[str(folder / "*.txt")])


def test_a_hub_data_set_keeps_its_own_validation_split(tmp_path: Path) -> None:
    training = [f"Once upon a time, {number}." for number in range(40)]
    validation = [f"And then, {number}." for number in range(10)]
    write_split(tmp_path / "tiny", "train", training)
    write_split(tmp_path / "tiny", "validation", validation)
    manifest, rows = make(tmp_path, source="hub", hub={"id": str(tmp_path / "tiny")})
    assert rows == [(text, False) for text in training] + [(text, True) for text in validation]
    assert (manifest["documents"], manifest["validation_documents"]) == (50, 10)
    assert manifest["source"]["id"] == str(tmp_path / "tiny")


def test_a_hub_data_set_with_one_split_is_split_by_hash_and_its_blank_rows_are_counted(tmp_path: Path) -> None:
    texts = [f"Row {number}" for number in range(100)]
    write_split(tmp_path / "tiny", "train", ["", None, *texts], column="story")
    block = {"id": str(tmp_path / "tiny"), "column": "story", "validation_split": None}
    manifest, rows = make(tmp_path, source="hub", hub=block)
    assert rows == [(text, documents.is_held_out(text, 0.1)) for text in texts]
    assert manifest["blank_documents"] == 2


def test_a_limit_leaves_room_for_the_validation_split(tmp_path: Path) -> None:
    write_split(tmp_path / "tiny", "train", ["x" * 10] * 200)
    write_split(tmp_path / "tiny", "validation", ["y" * 10] * 200)
    block = {"id": str(tmp_path / "tiny")}
    manifest, _ = make(tmp_path, source="hub", hub=block, limit_bytes=1000, validation_share=0.2)
    assert (manifest["bytes"], manifest["validation_bytes"]) == (1000, 200)


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ({"column": "story"}, "has no column 'story'; use one of id, text"),
        ({"column": "id"}, "row 0: 'id' holds int, not text"),
        ({"revision": "main"}, "is a directory, which has no revisions"),
        ({"validation_split": "held_out"}, "cannot be read as a data set"),
    ],
)
def test_a_hub_data_set_without_what_was_named_is_refused(tmp_path: Path, block: dict[str, Any], message: str) -> None:
    write_split(tmp_path / "tiny", "train", ["text"] * 20)
    with pytest.raises(UserError, match=message):
        make(tmp_path, source="hub", hub={"id": str(tmp_path / "tiny"), "validation_split": None} | block)


def test_a_hub_that_cannot_be_reached_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HfApi", functools.partial(HfApi, endpoint="http://127.0.0.1:9"))
    with pytest.raises(UserError, match="is not a directory here, and the hub did not provide it") as caught:
        make(tmp_path, source="hub", hub={"id": "someone/something"})
    assert "\n" not in str(caught.value)


def test_a_parquet_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path / "tiny", "train", ["text"] * 20, parts=1)
    (file,) = (tmp_path / "tiny").iterdir()
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match="cannot be read as a data set"):
        make(tmp_path, source="hub", hub={"id": str(tmp_path / "tiny"), "validation_split": None})


def test_a_mistake_leaves_the_corpus_that_was_there(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("some text")
    before, _ = from_files(tmp_path, "a.txt")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    with pytest.raises(UserError):
        from_files(tmp_path, "*.txt")
    assert json.loads((tmp_path / "corpus" / "manifest.json").read_text()) == before


def test_every_file_in_the_registry_is_a_source_that_the_settings_know() -> None:
    folder = Path(interface.__file__).parent
    stems = {path.stem for path in folder.glob("[!_]*.py")} - {"interface"}
    for stem in stems:
        assert CorpusSettings.model_validate({"source": stem, "files": ["x"] if stem == "files" else []}).source == stem


def test_a_limit_is_kept_by_a_plain_sum() -> None:
    items = [Document(str(size), "x" * size) for size in (3, 4, 5, 1)]
    assert [item.name for item in within(items, 8)] == ["3", "4"]
