"""Whether an engine's tokens are right: complete, in the vocabulary, and equal to the reference."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.throughput.engines.interface import Shape
from plumbline.throughput.models.weights import opened


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The tokens that every engine must generate at one shape."""

    tokens: Tensor
    """int64 (batch, generated)."""
    margin: Tensor
    """float32 (batch, generated): how far apart the two best logits were."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How tokens compare with the reference."""

    rows_equal: int
    rows_tied: int
    """Rows whose first difference is a tie: the reference's two best logits are practically equal there."""


def read_reference(path: Path, shape: Shape) -> Reference:
    """The first rows and columns of the reference for prompts of this length.

    Raises OutcomeError with the reference's outcome where it has no tokens, UserError where it is for other shapes.
    """
    with opened(path) as file:
        found = file.metadata() or {}
        if found.get("outcome", Outcome.OK) != Outcome.OK:
            raise OutcomeError(Outcome(found["outcome"]), found.get("message") or f"{path}: has no tokens")
        name = f"p{shape.prompt}"
        if name not in file.keys():  # noqa: SIM118
            raise UserError(f"{path}: has no prompts of {shape.prompt} tokens; delete it to have it rebuilt")
        tokens, margin = (file.get_slice(key)[: shape.batch, : shape.generated] for key in (name, f"{name}.margin"))
    if tokens.shape != (shape.batch, shape.generated):
        raise UserError(f"{path}: {name} is too small for this trial; delete it to have it rebuilt")
    return Reference(tokens=tokens, margin=margin)


def check_tokens(tokens: Tensor, reference: Reference, vocabulary: int, tie_margin: float) -> Agreement:
    """How `tokens`, int64 (batch, generated), compare with the reference.

    Raises OutcomeError, invalid_output, for a wrong shape, for an id outside the vocabulary, and for a row whose first
    difference from the reference is not a tie. After a tie a row may continue differently.
    """
    wanted = tuple(reference.tokens.shape)
    if tuple(tokens.shape) != wanted:
        raise OutcomeError(Outcome.INVALID_OUTPUT, f"tokens of shape {tuple(tokens.shape)} instead of {wanted}")
    outside = (tokens < 0) | (tokens >= vocabulary)
    if outside.any():
        row, token = outside.nonzero()[0].tolist()
        raise OutcomeError(
            Outcome.INVALID_OUTPUT,
            f"row {row}, token {token}: id {tokens[row, token]} is outside the vocabulary of {vocabulary}",
        )
    differs = tokens != reference.tokens
    rows = differs.any(dim=1).nonzero().flatten()
    first = differs[rows].int().argmax(dim=1)
    margins = reference.margin[rows, first]
    wrong = ~(margins <= tie_margin)  # a NaN margin is not a tie
    if wrong.any():
        at = int(wrong.int().argmax())
        row, token = int(rows[at]), int(first[at])
        raise OutcomeError(
            Outcome.INVALID_OUTPUT,
            f"row {row}, token {token}: id {tokens[row, token]} instead of {reference.tokens[row, token]}, whose logit"
            f" leads by {margins[at]:.3g}, more than tie_margin {tie_margin:g};"
            f" {int(wrong.sum())} of {len(tokens)} rows differ so",
        )
    return Agreement(rows_equal=len(tokens) - len(rows), rows_tied=len(rows))


def sha256(tokens: Tensor) -> str:
    """SHA-256 of tokens (batch, generated) as little-endian int64, row by row."""
    return hashlib.sha256(tokens.contiguous().numpy().astype("<i8").tobytes()).hexdigest()
