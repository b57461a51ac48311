"""Bytes and floating-point operations of a decode step, counted from an architecture's shapes. Pure."""

from plumbline.throughput.models.manifest import Shapes

STEP_BYTES_FORMULA = "weights + batch × context × 2 layers kv_heads head_size itemsize"
STEP_FLOPS_FORMULA = "2 batch (weights + 2 layers heads head_size context)"


def mean_context(prompt: int, generated: int) -> float:
    """Positions that a decode step attends to, on average over the steps that follow the prefill.

    Token i + 1 comes from a step that sees prompt + i positions, i = 1 … generated − 1, whose mean this is.
    """
    return prompt + generated / 2


def kv_token_bytes(shapes: Shapes, itemsize: int) -> int:
    """Bytes that the keys and values of a token take, `itemsize` bytes each number."""
    return 2 * shapes.layers * shapes.kv_heads * shapes.head_size * itemsize


def kv_bytes(shapes: Shapes, batch: int, positions: int, itemsize: int) -> int:
    """Bytes of the keys and values of `positions` tokens in each of `batch` rows."""
    return batch * positions * kv_token_bytes(shapes, itemsize)


def decode_step_bytes(weights_bytes: int, shapes: Shapes, batch: int, context: float, itemsize: int) -> float:
    """Bytes that a decode step must read: STEP_BYTES_FORMULA, `context` positions in each row.

    `weights_bytes` are of what the step reads whole: every layer's and the head's, once for all rows, a tied
    embedding as the head and one that is only looked up not at all. Activations stay in the processor's caches, and
    writing a token's keys and values is 1 / context of reading them: neither is counted.
    """
    return weights_bytes + batch * context * kv_token_bytes(shapes, itemsize)


def decode_step_flops(weights: int, shapes: Shapes, batch: int, context: float) -> float:
    """Floating-point operations of a decode step: STEP_FLOPS_FORMULA, with `weights` numbers read whole.

    A multiplication and an addition for each weight and row, and for each position the products of its keys with the
    queries and of its values with the shares of attention, in every query head. Norms, softmax and the rest are not
    counted.
    """
    attention = 2 * shapes.layers * shapes.heads * shapes.head_size * context
    return 2 * batch * (weights + attention)
