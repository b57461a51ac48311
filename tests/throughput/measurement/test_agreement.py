import hashlib
import struct

import pytest
import torch
from safetensors.torch import save_file

from plumbline.core.errors import UserError
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.engines.interface import Shape
from plumbline.throughput.measurement.agreement import Reference, check_tokens, read_reference, sha256

TOKENS = torch.arange(12).view(3, 4)


def reference(**margins):
    """Margins of 1 but at `r<row>t<token>`."""
    margin = torch.ones(3, 4)
    for place, value in margins.items():
        margin[int(place[1]), int(place[3])] = value
    return Reference(tokens=TOKENS, margin=margin)


def changed(*places):
    tokens = TOKENS.clone()
    for row, token in places:
        tokens[row, token] = 50
    return tokens


def test_equal_tokens_agree():
    found = check_tokens(TOKENS, reference(), 100, 1e-4)
    assert (found.rows_equal, found.rows_tied) == (3, 0)


def test_row_may_differ_after_a_tie():
    tie = reference(r1t1=5e-5)
    found = check_tokens(changed((1, 1), (1, 2), (1, 3)), tie, 100, 1e-4)
    assert (found.rows_equal, found.rows_tied) == (2, 1)
    with pytest.raises(OutcomeError, match="row 1, token 1: id 50 instead of 5, whose logit leads by 5e-05"):
        check_tokens(changed((1, 1)), tie, 100, 1e-5)


def test_row_that_differs_before_the_tie_or_in_another_row_is_wrong():
    with pytest.raises(OutcomeError, match=r"row 1, token 0: id 50 instead of 4.*1 of 3 rows"):
        check_tokens(changed((1, 0), (1, 1)), reference(r1t1=0.0), 100, 1e-4)
    with pytest.raises(OutcomeError, match="row 2, token 1") as found:
        check_tokens(changed((1, 1), (2, 1)), reference(r1t1=0.0), 100, 1e-4)
    assert found.value.outcome is Outcome.INVALID_OUTPUT


def test_nan_margin_is_not_a_tie():
    with pytest.raises(OutcomeError, match="leads by nan"):
        check_tokens(changed((0, 0)), reference(r0t0=float("nan")), 100, 1e-4)


@pytest.mark.parametrize("shape", [(3, 3), (3, 5), (2, 4), (4, 4)])
def test_wrong_shape_is_invalid_output(shape):
    with pytest.raises(OutcomeError, match=rf"shape \({shape[0]}, {shape[1]}\) instead of \(3, 4\)"):
        check_tokens(torch.zeros(shape, dtype=torch.int64), reference(), 100, 1e-4)


def test_id_outside_the_vocabulary_is_invalid_output():
    with pytest.raises(OutcomeError, match="row 2, token 3: id 11 is outside the vocabulary of 11"):
        check_tokens(TOKENS, reference(), 11, 1e-4)
    with pytest.raises(OutcomeError, match="row 0, token 0: id -1"):
        check_tokens(TOKENS - 1, reference(), 100, 1e-4)


def test_hash_is_over_little_endian_int64_row_by_row():
    expected = hashlib.sha256(struct.pack("<12q", *range(12))).hexdigest()
    assert sha256(TOKENS) == expected
    assert sha256(TOKENS.T.contiguous().T) == expected
    assert sha256(TOKENS.int()) == expected


def test_reference_is_cut_to_the_shape(tmp_path):
    path = tmp_path / "reference.safetensors"
    save_file({"p7": TOKENS, "p7.margin": torch.ones(3, 4)}, path, {"outcome": "ok"})
    found = read_reference(path, Shape(batch=2, prompt=7, generated=3))
    assert found.tokens.equal(TOKENS[:2, :3])
    assert found.margin.shape == (2, 3)
    with pytest.raises(UserError, match="p7 is too small"):
        read_reference(path, Shape(batch=4, prompt=7, generated=3))
    with pytest.raises(UserError, match="no prompts of 8 tokens"):
        read_reference(path, Shape(batch=1, prompt=8, generated=3))


def test_outcome_of_a_reference_without_tokens_is_passed_on(tmp_path):
    path = tmp_path / "reference.safetensors"
    save_file({}, path, {"outcome": "invalid_output", "message": "logits are not finite"})
    with pytest.raises(OutcomeError, match="logits are not finite") as found:
        read_reference(path, Shape(batch=1, prompt=1, generated=1))
    assert found.value.outcome is Outcome.INVALID_OUTPUT
