"""Settings of the zoo: its model, its base's training and its adapters."""

import math
from typing import Annotated, Self

from pydantic import Field, model_validator

from plumbline.core.settings import Settings

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

LEAST_FOLDS = 5
"""The fewest folds of the zoo whose groups can be split into 70/10/20% with every class on every side."""


class DiffusionSettings(Settings):
    """Size of the zoo's flow-matching transformer."""

    width: PositiveInt = 24
    """Width of the hidden states."""
    heads: PositiveInt = 2
    """Number of attention heads. Must divide `width`."""
    blocks: PositiveInt = 4
    """Number of transformer blocks. Each has 8 adapted factors, so 16 blocks give 128."""
    mlp_ratio: PositiveInt = 2
    """Hidden width of the MLPs, as a multiple of `width`."""
    prompt_tokens: Annotated[int, Field(ge=2)] = 4
    """Number of tokens in a prompt. At least 2: with a single one, `attn2.to_q` has no effect and never learns."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


class PretrainingSettings(Settings):
    """Training of the base model: AdamW with a linear warm-up, then a cosine decay to zero."""

    steps: PositiveInt = 600
    """Number of training steps."""
    batch: PositiveInt = 64
    """Number of images per step."""
    learning_rate: PositiveFloat = 7e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW."""
    prompt_dropout: Share = 0.2
    """Share of training images that get the null prompt instead of their class."""
    warmup: PositiveInt = 50
    """Number of warm-up steps."""


class AdapterSettings(Settings):
    """Training of an adapter."""

    rank: PositiveInt = 1
    """Rank r of the LoRA: ΔW = BA has at most this rank."""
    alpha: PositiveFloat | None = None
    """α of the LoRA. null: α = rank, so that the scale α/r is 1."""
    steps: PositiveInt = 40
    """Number of training steps."""
    batch: PositiveInt = 4
    """Number of the adapter's images per step."""
    learning_rate: PositiveFloat = 1e-2
    """Constant learning rate."""
    image_count_min: PositiveInt = 4
    """Smallest number of images that an adapter is trained on."""
    image_count_max: PositiveInt = 16
    """Largest number of images that an adapter is trained on."""
    purity: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of an adapter's images that show its class, rounded to whole images. The rest show other classes."""
    folds: Annotated[int, Field(ge=3, le=20)] = 10
    """Number of parts that each class's images are split into. An adapter sees the images of one class and part."""
    chunk: PositiveInt = 64
    """Number of adapters trained at once, as one batch. A killed run resumes at the last finished chunk."""

    @model_validator(mode="after")
    def _images_ordered(self) -> Self:
        if self.image_count_min > self.image_count_max:
            raise ValueError(
                f"image_count_min ({self.image_count_min}) exceeds image_count_max ({self.image_count_max})"
            )
        return self

    def own_images(self, count: int) -> int:
        """How many of an adapter's `count` images show its class."""
        return max(1, math.floor(count * self.purity + 0.5))

    @property
    def scale(self) -> float:
        """α/r."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class Zoo(Settings):
    """LoRAs of a small diffusion model on handwritten digits, trained by the study itself."""

    adapters: Annotated[int, Field(ge=100)] = 500
    """Number of adapters to train."""
    shards: PositiveInt = 2
    """Number of targets that share the training. Any number gives the same adapters."""
    model: DiffusionSettings = DiffusionSettings()
    """Size of the base model that is adapted."""
    pretraining: PretrainingSettings = PretrainingSettings()
    """Training of the base model."""
    adapter: AdapterSettings = AdapterSettings()
    """Training of each adapter."""

    @model_validator(mode="after")
    def _shards_have_work(self) -> Self:
        chunks = math.ceil(self.adapters / self.adapter.chunk)
        if self.shards > chunks:
            raise ValueError(f"shards ({self.shards}) exceeds the {chunks} chunks of adapters")
        return self
