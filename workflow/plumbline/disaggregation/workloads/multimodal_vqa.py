"""Workload `multimodal_vqa`: images and questions go through the two towers of a CLIP, side by side, to an answer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.disaggregation.runtime.planning.schedule import Captured, Plan, Policy, branch, schedule
from plumbline.disaggregation.settings import Shapes
from plumbline.disaggregation.workloads.interface import (
    NO_SEMANTICS,
    REMOTE,
    Plans,
    Program,
    Workload,
    leave_one_out,
)

SWITCHES = ("weights_resident", "wanted_only", "branches", "direct_hop")
END = 2
"""The token that ends a question: CLIP pools there."""


class Answering(nn.Module):
    """Both towers, and a linear layer over their pooled outputs. As in CLIP's output, the towers' states come too."""

    def __init__(self, vision: nn.Module, text: nn.Module, width: int, answers: int) -> None:
        super().__init__()
        self.vision = vision
        self.text = text
        self.answer = nn.Linear(2 * width, answers)

    def forward(self, image: Tensor, question: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """image: (rows, 3, height, width). question: (rows, tokens)."""
        seen: Any = self.vision(pixel_values=image)
        read: Any = self.text(input_ids=question)
        pooled = torch.cat([seen.pooler_output, read.pooler_output], -1)
        return self.answer(pooled), seen.last_hidden_state, read.last_hidden_state


def program(settings: Shapes, seed: int) -> Program:
    """Towers with random weights, images and questions."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModel

    shape = settings.vqa
    same: dict[str, Any] = {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
    }
    vision = CLIPVisionConfig(image_size=shape.pixels, patch_size=shape.patch, **same)
    text = CLIPTextConfig(
        vocab_size=shape.vocabulary,
        max_position_embeddings=shape.tokens,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=END,
        **same,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Answering(CLIPVisionModel(vision), CLIPTextModel(text), shape.width, shape.answers).eval()
    draw = torch.Generator().manual_seed(seed)
    questions = torch.randint(END + 1, shape.vocabulary, (shape.batch, shape.tokens), generator=draw)
    questions[:, -1] = END
    return Program(
        module=module,
        local=module,
        inputs={
            "image": torch.randn((shape.batch, 3, shape.pixels, shape.pixels), generator=draw),
            "question": questions,
        },
        outputs=("answers", "image_states", "question_states"),
        wanted=("answers",),
        phase="forward",
        modalities={"image": "image", "question": "text"},
        batches=(shape.batch,),
    )


def plans(captured: Captured, settings: Shapes, seconds: Mapping[str, float]) -> Plans:
    """The images on one worker, the questions on the other, whose result goes there."""

    def plan(policy: Policy) -> Plan:
        return schedule(captured, policy)

    blind = {
        REMOTE: plan(Policy.of("weights_resident", "state_resident")),
        NO_SEMANTICS: schedule(captured, Policy.of("weights_resident", "branches"), workers=1),
    }
    full = Policy.of(*SWITCHES, "state_resident")
    probes = {name: branch(captured, name, full, worker=0) for name in ("image", "text")}
    return Plans(variants=leave_one_out(full, SWITCHES, plan) | blind, probes=probes, serial="no_branches", bound=None)


WORKLOAD = Workload(name="multimodal_vqa", unit="question", program=program, plans=plans)
