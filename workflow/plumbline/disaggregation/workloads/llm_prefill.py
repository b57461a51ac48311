"""Workload `llm_prefill`: a batch of prompts goes through a GPT-2, and the first token of each comes back."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from plumbline.disaggregation.runtime.models.weights import build
from plumbline.disaggregation.runtime.planning.schedule import Captured, Plan, Policy, schedule
from plumbline.disaggregation.settings import Shapes
from plumbline.disaggregation.workloads.interface import (
    NO_SEMANTICS,
    REMOTE,
    Plans,
    Program,
    Workload,
    leave_one_out,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SWITCHES = ("weights_resident", "state_resident", "last_logits", "server_sampling", "split")


class Prefill(nn.Module):
    """Logits, and the keys and values, (rows, layers, heads, positions, width) each."""

    def __init__(self, model: "PreTrainedModel", logits_to_keep: int = 0) -> None:
        """logits_to_keep: of the last positions; 0: of all."""
        super().__init__()
        self.model = model
        self.more = {"logits_to_keep": logits_to_keep} if logits_to_keep else {}

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """tokens: (rows, positions)."""
        from transformers import DynamicCache

        model: Any = self.model
        cache = DynamicCache(config=model.config)
        logits = model(input_ids=tokens, past_key_values=cache, use_cache=True, **self.more).logits
        layers: Any = cache.layers
        keys, values = ([getattr(layer, name) for layer in layers] for name in ("keys", "values"))
        return logits, torch.stack(keys, 1), torch.stack(values, 1)


def program(settings: Shapes, seed: int) -> Program:
    """The model of `llm_decode`, and prompts."""
    draw, shape = torch.Generator().manual_seed(seed), settings.prefill
    tokens = torch.randint(settings.model.vocabulary, (shape.rows, shape.tokens), generator=draw)
    model = build(settings.model.gpt2, settings.model.dtype, seed)
    return Program(
        module=Prefill(model),
        local=Prefill(model, logits_to_keep=1),
        inputs={"tokens": tokens},
        outputs=("logits", "keys", "values"),
        wanted=("logits",),
        phase="prefill",
        states=("keys", "values"),
        modalities={"tokens": "text"},
        batches=(shape.rows, shape.rows // 2),
    )


def plans(captured: Captured, settings: Shapes, seconds: Mapping[str, float]) -> Plans:
    """Each worker takes half of the prompts; keys and values stay for decoding."""

    def plan(policy: Policy) -> Plan:
        return schedule(captured, policy)

    blind = {
        REMOTE: plan(Policy.of("weights_resident", "state_resident")),
        NO_SEMANTICS: plan(Policy.of("weights_resident")),
    }
    full = Policy.of(*SWITCHES, "wanted_only", "direct_hop")
    return Plans(variants=leave_one_out(full, SWITCHES, plan) | blind, probes={}, serial="no_split", bound=2.0)


WORKLOAD = Workload(name="llm_prefill", unit="prompt", program=program, plans=plans)
