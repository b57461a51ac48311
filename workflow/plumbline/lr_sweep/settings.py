"""Settings of the study `lr_sweep`: its block of the config. The grid of trials is in `plan`."""

import math
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from plumbline.core.settings import Settings, Switch, distinct

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]

FIGURES = ("loss_by_rate", "curves", "edge", "throughput", "time_spent")
TABLES = ("rates", "baselines")
BEST_MODEL = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""The files that transformers loads."""

MIN_RATE, MAX_RATE = 1e-12, 1e12
MIN_RATIO = 1.01
"""Smallest ratio of neighbouring rates: trials are named by their rate, and added rates have three digits."""
BRACKET = 1.5
"""With `refine`, the best rate's neighbours are at most this factor away from it in the end."""
LEARNING_RATES = (0.002, 0.004, 0.0056, 0.008, 0.5, 2.0)
"""The default grid: the best rate is near 0.0056; training diverges at 2, and at 1 it depends on the seed."""


class HubCorpus(Settings):
    """A text data set on the Hugging Face hub, or a local folder with the same layout."""

    id: Annotated[str, Field(min_length=1)] = "roneneldan/TinyStories"
    """Hub id of the data set, or the path of a local folder."""
    revision: str | None = None
    """Branch, tag or commit to read; null is the default branch."""
    column: str = "text"
    """Column that contains the text, one document per row."""
    train_split: str = "train"
    """Split to train on."""
    validation_split: str | None = "validation"
    """Split to validate on; null splits the training documents by hash instead."""


class CorpusSettings(Settings):
    """Where the text comes from."""

    source: Literal["pydoc", "files", "hub"] = "pydoc"
    """Source of the text: Python's manual and docstrings (`pydoc`), text `files`, or a data set on the `hub`."""
    files: list[str] = []
    """Globs of UTF-8 text files for the source `files`; a file is one document, or several if larger than 32 KiB. Of
    JSON lines (.jsonl), each line's `text` is."""
    hub: HubCorpus = HubCorpus()
    """The data set for the source `hub`."""
    limit_bytes: PositiveInt | None = None
    """Maximum amount of text to read, in bytes; null reads everything."""
    validation_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the documents that is held out for validation, selected by a hash of their text."""
    shared_passage_tokens: Annotated[int, Field(ge=4)] | None = 16
    """Passages of so many tokens that occur in the validation text are cut from the training text; null keeps them."""

    @model_validator(mode="after")
    def _only_the_source_is_configured(self) -> Self:
        if self.source == "files" and not self.files:
            raise ValueError("files: missing; source 'files' needs at least one glob")
        for other, is_set in (("files", self.files), ("hub", self.hub != HubCorpus())):
            if is_set and self.source != other:
                raise ValueError(f"{other}: set, but source is {self.source!r}; set source: {other} or remove it")
        return self


class ModelSettings(Settings):
    """The language model: a decoder-only transformer like Llama, with RMSNorm, RoPE, SwiGLU and no biases."""

    vocabulary: Annotated[int, Field(ge=257)] = 512
    """Vocabulary size of the byte-level BPE, including its 256 bytes and the end-of-text token."""
    context: Annotated[int, Field(ge=2)] = 64
    """Context length in tokens."""
    width: PositiveInt = 64
    """Width of the hidden states."""
    hidden: PositiveInt = 176
    """Hidden width of the SwiGLU."""
    layers: PositiveInt = 2
    """Number of layers, each with attention and SwiGLU."""
    heads: PositiveInt = 4
    """Number of attention heads; `width / heads` must be an even integer."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary position embedding."""
    tied_embeddings: bool = False
    """Whether the output layer shares its weights with the embedding."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width}) into an even head size")
        return self


class TrainingSettings(Settings):
    """How each trial is trained: AdamW, linear warm-up, cosine decay to `final_ratio` × peak at the last step."""

    batch: PositiveInt = 16
    """Batch size: number of windows per step."""
    steps: PositiveInt = 240
    """Number of training steps."""
    beta1: Share = 0.9
    """AdamW's decay rate for the mean of the gradients."""
    beta2: Share = 0.95
    """AdamW's decay rate for the mean of the squared gradients."""
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 4e-4
    """Share by which a step at the peak rate shrinks the matrices, independent of the rate; torch's decay × rate."""
    clip: PositiveFloat = 1.0
    """Gradients with a larger norm are clipped to this norm."""
    warmup_share: Share = 0.05
    """Share of the steps used for linear warm-up to the peak rate."""
    final_ratio: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Learning rate at the last step, as a share of the peak."""
    validate_every: PositiveInt = 40
    """Number of steps between validations; there is also one before the first step and one after the last."""
    validation_windows: PositiveInt = 64
    """Number of token windows to validate on, the same for every trial; fewer if the text is too short."""
    precision: Switch = "auto"
    """Whether to use bf16 autocast; `auto` enables it if a short probe finds it faster and as accurate."""
    tf32: Switch = "auto"
    """Whether to use TensorFloat-32 in matrix products; `auto` enables it on GPUs that support it, after a probe."""
    compile: Switch = "auto"
    """Whether to compile the model with `torch.compile`; `auto` enables it if a short probe finds it faster."""
    fused: Switch = "auto"
    """Whether to use the fused AdamW kernel; `auto` enables it if a short probe finds it faster."""

    @property
    def warmup_steps(self) -> int:
        """Number of warm-up steps."""
        return math.ceil(self.warmup_share * self.steps)


class StabilitySettings(Settings):
    """Thresholds for classifying a trial from its whole training curve."""

    diverged_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A trial diverged if its loss was above the initial loss in more than this share of its steps."""
    spike_ratio: Annotated[float, Field(ge=1)] = 1.1
    """A trial spiked if its highest loss is more than this many times the initial loss."""
    window: PositiveInt = 32
    """Number of steps in the moving window that each loss is compared with."""
    spike_z: PositiveFloat = 6.0
    """A trial also spiked if a loss is this many standard deviations above the mean of the window before it."""
    plateau_margin: Annotated[float, Field(ge=0)] = 0.01
    """A trial plateaued unless its final loss is at least this many nats below the unigram entropy of the corpus."""


class OperationSettings(Settings):
    """Settings that cannot change a trial's results, so changing them reruns nothing."""

    checkpoint_seconds: PositiveFloat = 30.0
    """Seconds between checkpoints."""
    checkpoint_steps: PositiveInt | None = None
    """Number of steps between additional checkpoints; null writes checkpoints by time only."""
    log_steps: PositiveInt = 10
    """Number of steps between rows of metrics.csv and lines of the journal."""


class BestModelSettings(Settings):
    """The longer training at the best rate, whose model is `best_model`."""

    steps: PositiveInt = 1600
    """Number of training steps; all other settings are those of the trials."""


class LrSweepSettings(Settings):
    """Study `lr_sweep`: the best learning rate, the edge of stability, and whether training is as fast as expected."""

    corpus: CorpusSettings = CorpusSettings()
    """The text to train and validate on."""
    model: ModelSettings = ModelSettings()
    """The language model."""
    training: TrainingSettings = TrainingSettings()
    """How each trial is trained."""
    best_model: BestModelSettings = BestModelSettings()
    """How long the best rate is trained on for after the sweep."""
    stability: StabilitySettings = StabilitySettings()
    """Thresholds for classifying a trial from its training curve."""
    operation: OperationSettings = OperationSettings()
    """Settings that cannot change a trial's results."""
    learning_rates: Annotated[list[PositiveFloat], Field(min_length=1)] = list(LEARNING_RATES)
    """Peak learning rates of the grid; neighbours must be at least 1% apart."""
    seeds: Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)] = [0, 1]
    """Seeds of the weights and the data order; each rate is trained once per seed. Five or more give intervals."""
    extend: bool = True
    """Whether to add rates until the best one has neighbours on both sides and a higher one diverged."""
    extend_at_most: Annotated[int, Field(ge=0, le=8)] = 4
    """Maximum number of rates to add on either side of the grid."""

    refine: bool = True
    """Whether to add rates between the best one and its neighbours until these are within a factor of 1.5 of it."""

    @property
    def rounds(self) -> int:
        """Maximum number of decisions; the last one adds nothing and names the best rate."""
        below, above = candidate_rates(self)
        halvings = max(map(_halvings, pairwise(sorted([*below, *self.learning_rates, *above]))), default=0)
        return len(below) + (halvings if self.refine else 0) + 1

    @field_validator("learning_rates", "seeds")
    @classmethod
    def _distinct(cls, values: list[float]) -> list[float]:
        return distinct(values)

    @field_validator("learning_rates")
    @classmethod
    def _are_distinguishable(cls, rates: list[float]) -> list[float]:
        ordered = sorted(rates)
        if ordered[0] < MIN_RATE or ordered[-1] > MAX_RATE:
            raise ValueError(f"learning rates must be between {MIN_RATE:g} and {MAX_RATE:g}")
        for low, high in pairwise(ordered):
            if high < MIN_RATIO * low:
                raise ValueError(f"{low!r} and {high!r} are less than 1% apart; remove one")
        return rates


def candidate_rates(settings: LrSweepSettings) -> tuple[list[float], list[float]]:
    """The rates that the sweep may add below and above the grid, nearest first, at the grid's mean log spacing.

    Both lists are empty without `extend`. The spacing of a grid with one rate is √10.
    """
    if not settings.extend:
        return [], []
    rates = sorted(settings.learning_rates)
    span = math.log(rates[-1] / rates[0]) / (len(rates) - 1) if len(rates) > 1 else math.log(10) / 2
    steps = range(1, settings.extend_at_most + 1)
    below = [float(f"{rates[0] * math.exp(-span * step):.3g}") for step in steps]
    above = [float(f"{rates[-1] * math.exp(span * step):.3g}") for step in steps]
    return below, above


def rates_between(settings: LrSweepSettings) -> list[float]:
    """The rates that the sweep may add inside its gaps, rising; none without `refine`.

    Each gap of the grid, extensions included, is halved on the log scale until its ends are at most BRACKET apart.
    """
    below, above = candidate_rates(settings)
    rates: list[float] = []
    for low, high in pairwise(sorted([*below, *settings.learning_rates, *above])) if settings.refine else ():
        parts = 2 ** _halvings((low, high))
        rates += [float(f"{low * (high / low) ** (part / parts):.3g}") for part in range(1, parts)]
    return rates


def _halvings(gap: tuple[float, float]) -> int:
    """How often a gap of rates must be halved on the log scale until its ends are at most BRACKET apart."""
    return max(math.ceil(math.log2(math.log(gap[1] / gap[0]) / math.log(BRACKET))), 0)


def trial_name(rate: float, seed: int) -> str:
    """The trial's name in paths: `lr0.003-seed0`."""
    return f"lr{rate:g}-seed{seed}"


def long_name(rate: float) -> str:
    """The name in paths of the longer training at the best rate: `long-lr0.003`."""
    return f"long-lr{rate:g}"
