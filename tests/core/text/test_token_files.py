import math
from pathlib import Path

import numpy as np
import pytest

from plumbline.core.text.token_files import TokenWriter, dtype_of, unigram_entropy


def test_unigram_entropy_of_tokens_never_seen_is_finite() -> None:
    assert unigram_entropy(np.array([9, 0]), np.array([0, 3])) == pytest.approx(math.log(11))


def test_large_vocabularies_are_written_as_four_bytes(tmp_path: Path) -> None:
    assert [dtype_of(size).name for size in (257, 65_535, 65_536)] == ["uint16", "uint16", "uint32"]
    with TokenWriter(tmp_path / "train.bin", 100_000, 0) as writer:
        writer.write([[99_999, 70_000], [], [1]], 5)
    assert np.fromfile(tmp_path / "train.bin", "<u4").tolist() == [99_999, 70_000, 0, 0, 1, 0]
    assert (writer.tokens, writer.text_bytes) == (6, 5)
