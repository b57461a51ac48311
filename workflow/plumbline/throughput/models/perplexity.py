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
DECIMALS = 6
"""Of a window's loss in the manifest; float32 is no more exact."""


def quality(model: "PreTrainedModel", evaluation: Tensor | None) -> dict[str, Any]:
    """A manifest's perplexity fields, with outcome invalid_output if weights or perplexity are not finite."""
    bad = next((name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())), None)
    if bad is not None:
        return {"outcome": Outcome.INVALID_OUTPUT, "message": f"weights are not finite, the first in {bad}"}
    if evaluation is None:
        return {}
    losses = window_losses(model, evaluation)
    found = perplexity(losses)
    if not math.isfinite(found):
        return {"outcome": Outcome.INVALID_OUTPUT, "message": "its perplexity is not finite"}
    return {
        "perplexity": found,
        "evaluation_tokens": scored_tokens(evaluation),
        "window_nats": [round(loss, DECIMALS) for loss in losses.tolist()],
    }


@torch.inference_mode()
def window_losses(model: "PreTrainedModel", windows: Tensor) -> Tensor:
    """Mean loss of each of `windows` (count, window), in nats per token: (count,), float64.

    Without the first token of each window, which nothing predicts. NaN or infinite where a logit is not finite.
    """
    found = []
    for batch in windows.split(batch_windows(model, windows.shape[1])):
        tokens = batch.to(model.device)
        logits = model(tokens, use_cache=False).logits[:, :-1].float()
        losses = F.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
        found.append(losses.double().mean(1).cpu())
    return torch.cat(found)


def perplexity(losses: Tensor) -> float:
    """exp of the mean of `losses`, from windows of equal length; infinite where that overflows."""
    mean = float(losses.mean())
    return math.exp(mean) if not mean > LARGEST_MEAN else math.inf


def scored_tokens(windows: Tensor) -> int:
    """Number of predicted tokens in `windows`."""
    return windows.shape[0] * (windows.shape[1] - 1)


def batch_windows(model: "PreTrainedModel", window: int) -> int:
    """Largest number of windows per batch."""
    return max(1, LOGITS_BYTES // (4 * window * model.config.get_text_config().vocab_size))
