"""The model: GPT-2 with random weights, and its loss on target tokens."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from plumbline.data_parallel.settings import ModelSettings


def gpt2(settings: ModelSettings, vocabulary: int, end: int, seed: int, device: torch.device) -> Any:
    """A GPT2LMHeadModel whose weights `seed` draws, in torch's default dtype, in training mode.

    end: the id that ends a text.
    """
    dropout: Any = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), settings.dropout)
    ends: Any = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end)
    config = GPT2Config(
        vocab_size=settings.embeddings or vocabulary,
        n_positions=settings.context,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.heads,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own function, `gelu_new`, in one kernel rather than eight
        **dropout,
        **ends,
    )
    torch.manual_seed(seed)
    model: Any = GPT2LMHeadModel(config)
    return model.to(device, torch.get_default_dtype()).train()


class SummedLoss(nn.Module):
    """The sum of a batch's losses over its target tokens. The vocabulary is scored at their places only."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor, places: Tensor, targets: Tensor) -> Tensor:
        """The arguments are those of a `Batch`; a scalar in nats."""
        hidden = self.model.transformer(input_ids=inputs, use_cache=False).last_hidden_state
        scores = self.model.lm_head(hidden.flatten(0, 1)[places])
        return functional.cross_entropy(scores, targets, reduction="sum")
