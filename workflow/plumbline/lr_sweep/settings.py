"""Settings of the `lr_sweep` study: what its block of the config may say. Its grid of trials is in `plan`."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from plumbline.core.settings import Settings, distinct

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
YAML_SWITCHES = {True: "on", False: "off"}
"""What YAML makes of on and off without quotes."""
Switch = Annotated[
    Literal["auto", "on", "off"],
    BeforeValidator(lambda given: YAML_SWITCHES[given] if isinstance(given, bool) else given),
]

FIGURES = ("loss_by_rate", "curves", "edge", "throughput", "time_spent")
TABLES = ("rates",)
BEST_MODEL = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""Files that transformers loads."""

LEAST_RATE, LARGEST_RATE = 1e-12, 1e12
LEAST_RATIO = 1.01
"""Of neighbouring rates: trials are named by their rate, and rates that are added have three digits."""
LEARNING_RATES = (0.001, 0.004, 0.016, 0.064, 0.25, 1.0, 4.0, 16.0, 64.0)
"""The default grid: a small model's best rate is near 0.004, and it diverges above 30."""


class HubCorpus(Settings):
    """Text in a data set on the hub, or in a local folder laid out like one."""

    id: Annotated[str, Field(min_length=1)] = "roneneldan/TinyStories"
    """Hub id, or a local folder."""
    revision: str | None = None
    """Branch, tag or commit; null: the default branch."""
    column: str = "text"
    """That holds the text, a document a row."""
    train_split: str = "train"
    """The split to train on."""
    validation_split: str | None = "validation"
    """None: documents are split here."""


class CorpusSettings(Settings):
    """Where the text comes from."""

    source: Literal["pydoc", "files", "hub"] = "pydoc"
    """`pydoc`: the reference manual and docstrings that come with Python, offline."""
    files: list[str] = []
    """Globs of UTF-8 text files, for the source `files`: a document each; one of more than 32 KiB, several."""
    hub: HubCorpus = HubCorpus()
    """For the source `hub`."""
    limit_bytes: PositiveInt | None = None
    """At most this much text."""
    validation_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the documents, chosen by hash, that is kept for validation."""

    @model_validator(mode="after")
    def _source_is_the_one_described(self) -> Self:
        if self.source == "files" and not self.files:
            raise ValueError("files: missing, and source is 'files'")
        for other, given in (("files", self.files), ("hub", self.hub != HubCorpus())):
            if given and self.source != other:
                raise ValueError(f"{other}: given, and source is {self.source!r}; set source: {other} to read from it")
        return self


class ModelSettings(Settings):
    """A decoder-only transformer: RMSNorm, RoPE, SwiGLU, no biases, the shape of Llama."""

    vocabulary: Annotated[int, Field(ge=257)] = 512
    """Tokens of the byte-level BPE, its 256 bytes and the end-of-text token among them."""
    context: Annotated[int, Field(ge=2)] = 64
    """Tokens of a window: how far back the model sees."""
    width: PositiveInt = 64
    """Of the hidden states."""
    hidden: PositiveInt = 176
    """Width inside the SwiGLU."""
    layers: PositiveInt = 2
    """Attention and SwiGLU, so many times."""
    heads: PositiveInt = 4
    """Of attention; they divide the width into even sizes."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary positions' wavelengths."""
    tied_embeddings: bool = False
    """Use the embedding as the last layer too."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width}) into an even head size")
        return self


class TrainingSettings(Settings):
    """How a trial is trained: AdamW, linear warm-up, cosine to `final_ratio` × peak that ends at the last step."""

    batch: PositiveInt = 16
    """Windows a step."""
    steps: PositiveInt = 240
    """Of a trial."""
    beta1: Share = 0.9
    """Of AdamW: decay of its mean of gradients."""
    beta2: Share = 0.95
    """Of AdamW: decay of its mean of squared gradients."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Of AdamW, on matrices."""
    clip: PositiveFloat = 1.0
    """Largest gradient norm."""
    warmup_share: Share = 0.05
    """Share of the steps in which the rate rises to its peak."""
    final_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The last step's rate, as a share of the peak."""
    validate_every: PositiveInt = 40
    """Steps between validations; the first and the last step have one too."""
    validation_windows: PositiveInt = 64
    """Fixed token windows, the same for every trial; of validation text that holds fewer side by side, all of those."""
    precision: Switch = "auto"
    """bf16 autocast. `auto`, here and below: what a short probe on this machine finds faster and as accurate."""
    tf32: Switch = "auto"
    """TensorFloat-32 in matrix products, on a GPU that has it."""
    compile: Switch = "auto"
    """`torch.compile` of the model."""
    fused: Switch = "auto"
    """Fused AdamW."""

    @property
    def warmup_steps(self) -> int:
        """Steps of the linear warm-up."""
        return math.ceil(self.warmup_share * self.steps)


class StabilitySettings(Settings):
    """When a loss curve counts as spiked, plateaued or diverged."""

    window: PositiveInt = 32
    """Steps of the moving window that a loss is held against."""
    spike_z: PositiveFloat = 6.0
    """A loss this many standard deviations above the window's mean is a spike."""
    plateau_margin: Annotated[float, Field(ge=0)] = 0.01
    """Nats that the final loss must be below the corpus's unigram entropy, or the run has plateaued."""


class OperationSettings(Settings):
    """What cannot change a trial's numbers: kept out of its spec."""

    checkpoint_seconds: PositiveFloat = 30.0
    """Between checkpoints."""
    checkpoint_steps: PositiveInt | None = None
    """Between checkpoints, beside those by time; null: by time alone."""
    log_steps: PositiveInt = 10
    """Steps between rows of metrics.csv and journal lines."""


class LrSweepSettings(Settings):
    """Study `lr_sweep`: which learning rate, where is the edge, and is this run as fast as it should be?"""

    corpus: CorpusSettings = CorpusSettings()
    """The text to train and validate on."""
    model: ModelSettings = ModelSettings()
    """The language model."""
    training: TrainingSettings = TrainingSettings()
    """How a trial is trained."""
    stability: StabilitySettings = StabilitySettings()
    """When a trial counts as spiked, plateaued or diverged."""
    operation: OperationSettings = OperationSettings()
    """What cannot change a trial's numbers."""
    learning_rates: Annotated[list[PositiveFloat], Field(min_length=1)] = list(LEARNING_RATES)
    """Peak learning rates, neighbours at least 1% apart."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)] = [0, 1]
    """Of initial weights and order of data: a trial for each rate and seed. Five and more give intervals."""
    extend: bool = True
    """Add rates by itself until the best one has neighbours on both sides and one has diverged."""
    extend_at_most: Annotated[int, Field(ge=0, le=8)] = 4
    """Rates added on either side."""

    @property
    def rounds(self) -> int:
        """Most rounds of adding rates: each adds one on a side that asks for it."""
        return self.extend_at_most + 1 if self.extend else 0

    @field_validator("learning_rates", "seeds")
    @classmethod
    def _distinct(cls, values: list[float]) -> list[float]:
        return distinct(values)

    @field_validator("learning_rates")
    @classmethod
    def _can_be_told_apart(cls, rates: list[float]) -> list[float]:
        ordered = sorted(rates)
        if ordered[0] < LEAST_RATE or ordered[-1] > LARGEST_RATE:
            raise ValueError(f"learning rates lie between {LEAST_RATE:g} and {LARGEST_RATE:g}")
        for low, high in pairwise(ordered):
            if high < LEAST_RATIO * low:
                raise ValueError(f"{low!r} and {high!r} are nearer than 1%; leave one out")
        return rates


def candidate_rates(settings: LrSweepSettings) -> tuple[list[float], list[float]]:
    """Rates that an extension may add, below and above the grid, nearest first, at the grid's mean log spacing.

    None without `extend`. A grid of one rate is spaced by √10.
    """
    if not settings.extend:
        return [], []
    rates = sorted(settings.learning_rates)
    span = math.log(rates[-1] / rates[0]) / (len(rates) - 1) if len(rates) > 1 else math.log(10) / 2
    steps = range(1, settings.extend_at_most + 1)
    below = [float(f"{rates[0] * math.exp(-span * step):.3g}") for step in steps]
    above = [float(f"{rates[-1] * math.exp(span * step):.3g}") for step in steps]
    return below, above


def added_rates(decision: str) -> list[float]:
    """The rates that the decision of a round, a JSON file, adds."""
    rates: list[float] = json.loads(Path(decision).read_text(encoding="utf-8"))["add"]
    return rates


def trial_name(rate: float, seed: int) -> str:
    """The trial's name in paths: lr0.003-seed0."""
    return f"lr{rate:g}-seed{seed}"
