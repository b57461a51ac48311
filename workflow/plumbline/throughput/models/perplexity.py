"""Perplexity of a model on windows of tokens."""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from plumbline.core.run.record import Outcome

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS_BYTES = 2**28
"""Memory that the logits of a batch may take, in bytes."""
LARGEST_MEAN = math.log(torch.finfo(torch.float64).max)
"""In nats: the exponential of more overflows."""


def quality(model: "PreTrainedModel", evaluation: Tensor | None) -> dict[str, Any]:
    """A manifest's perplexity fields, with outcome invalid_output if weights or perplexity are not finite."""
    bad = next((name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())), None)
    if bad is not None:
        return {"outcome": Outcome.INVALID_OUTPUT, "message": f"weights are not finite, the first in {bad}"}
    if evaluation is None:
        return {}
    found = perplexity(model, evaluation)
    if not math.isfinite(found):
        return {"outcome": Outcome.INVALID_OUTPUT, "message": "its perplexity is not finite"}
    return {"perplexity": found, "evaluation_tokens": scored_tokens(evaluation)}


@torch.inference_mode()
def perplexity(model: "PreTrainedModel", windows: Tensor) -> float:
    """exp(Σ nll / tokens) over `windows` (count, window), without the first token of each, which nothing predicts.

    The sum is in float64. NaN or infinite if a logit is not finite.
    """
    total = torch.zeros((), dtype=torch.float64)
    for batch in windows.split(batch_windows(model, windows.shape[1])):
        tokens = batch.to(model.device)
        logits = model(tokens, use_cache=False).logits[:, :-1].float()
        losses = F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), reduction="none")
        total += losses.double().sum().cpu()
    mean = float(total) / scored_tokens(windows)
    return math.exp(mean) if not mean > LARGEST_MEAN else math.inf


def scored_tokens(windows: Tensor) -> int:
    """Number of predicted tokens in `windows`."""
    return windows.shape[0] * (windows.shape[1] - 1)


def batch_windows(model: "PreTrainedModel", window: int) -> int:
    """Largest number of windows per batch."""
    return max(1, LOGITS_BYTES // (4 * window * model.config.get_text_config().vocab_size))
