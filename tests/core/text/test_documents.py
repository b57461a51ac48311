import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.core.errors import UserError
from plumbline.core.text import documents


def write(folder: Path, texts: list[str]) -> None:
    with documents.DocumentWriter(folder) as writer:
        for number, text in enumerate(texts):
            writer.write(str(number), text, validation=number % 2 == 1)


def test_documents_come_back_in_order_with_their_side_and_size(tmp_path: Path) -> None:
    texts = ["one", "zwei: ü", "x" * documents.GROUP_BYTES, "four"]
    write(tmp_path, texts)
    batches = list(documents.read(tmp_path))
    assert documents.count_batches(tmp_path) == len(batches) == 2
    assert [text for batch in batches for text in batch.texts] == texts
    assert [text for batch in batches for text in batch.training_texts] == texts[::2]
    assert [size for batch in batches for size in batch.bytes] == [len(text.encode()) for text in texts]


def test_a_moved_document_changes_its_side_and_nothing_else(tmp_path: Path) -> None:
    texts = ["one", "x" * documents.GROUP_BYTES, "drei: ü"]
    write(tmp_path, texts)
    assert documents.move(tmp_path, 2, validation=True) == len(texts[2].encode())
    batches = list(documents.read(tmp_path))
    assert [text for batch in batches for text in batch.texts] == texts
    assert [held for batch in batches for held in batch.validation] == [False, True, True]


@given(st.lists(st.text(st.characters(codec="utf-8"), min_size=1), unique=True, min_size=1), st.randoms())
def test_whether_a_document_is_held_out_does_not_depend_on_the_order(texts: list[str], order: random.Random) -> None:
    before = {text: documents.is_held_out(text, 0.3) for text in texts}
    order.shuffle(texts)
    assert before == {text: documents.is_held_out(text, 0.3) for text in texts}


def test_the_share_that_is_held_out_is_about_the_share_asked_for() -> None:
    for share in (0.05, 0.3):
        held = sum(documents.is_held_out(f"document {number}", share) for number in range(20_000))
        assert abs(held / 20_000 - share) < 0.01


def test_a_truncated_corpus_file_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, ["some text"])
    path = tmp_path / documents.FILE
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=re.escape(f"{path}: is not a complete corpus")):
        list(documents.read(tmp_path))
