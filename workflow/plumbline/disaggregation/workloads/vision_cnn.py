"""Workload `vision_cnn`: micro-batches of images go through the two halves of a ResNet, on a worker each."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from plumbline.disaggregation.runtime.planning.schedule import Captured, Plan, Policy, one_by_one, schedule, staged
from plumbline.disaggregation.settings import Shapes
from plumbline.disaggregation.workloads.interface import (
    NO_SEMANTICS,
    REMOTE,
    Plans,
    Program,
    Workload,
    leave_one_out,
)

SWITCHES = ("weights_resident", "direct_hop")
IMAGE = "image"


class Classifier(nn.Module):
    """Logits of images."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """image: (rows, 3, height, width)."""
        logits: Tensor = self.model(pixel_values=image).logits
        return logits


def program(settings: Shapes, seed: int) -> Program:
    """A ResNet with random weights, and images."""
    from transformers import ResNetConfig, ResNetForImageClassification

    shape = settings.vision
    sizes: dict[str, Any] = {"hidden_sizes": shape.widths, "depths": shape.depths, "num_labels": shape.labels}
    config = ResNetConfig(
        embedding_size=shape.widths[0] // (4 if shape.layer == "bottleneck" else 1), layer_type=shape.layer, **sizes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Classifier(ResNetForImageClassification(config).eval())
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn((shape.batch, 3, shape.pixels, shape.pixels), generator=draw)
    return Program(
        module=module,
        local=module,
        inputs={IMAGE: images},
        outputs=("scores",),
        wanted=("scores",),
        phase="forward",
        modalities={IMAGE: IMAGE},
        batches=(shape.batch, shape.batch // shape.micro_batches),
    )


def plans(captured: Captured, settings: Shapes, seconds: Mapping[str, float]) -> Plans:
    """The network is cut where both halves take as long: m micro-batches go through in 2m / (m + 1) of the time."""
    count = settings.vision.micro_batches

    def plan(policy: Policy) -> Plan:
        return schedule(captured, policy, micro_batches=count, seconds=seconds)

    full = Policy.of(*SWITCHES, "state_resident", "wanted_only", "pipeline")
    others = {
        "no_pipeline": one_by_one(captured, full, count),
        REMOTE: plan(Policy.of("weights_resident", "state_resident")),
        NO_SEMANTICS: staged(captured, Policy.of("weights_resident"), seconds),
    }
    return Plans(
        variants=leave_one_out(full, SWITCHES, plan) | others,
        probes={},
        serial="no_pipeline",
        undivided=REMOTE,
        bound=2 * count / (count + 1),
    )


WORKLOAD = Workload(name="vision_cnn", unit="image", program=program, plans=plans)
