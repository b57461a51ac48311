"""Settings of the study `data_parallel`: its block of the config. The trials are in `plan`."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from plumbline.core import registry
from plumbline.core.settings import Settings, distinct

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Scaling = Literal["strong", "weak"]

METHODS = Path(__file__).parent / "methods"
LEXICON = Path(__file__).parent / "corpora" / "lexicon.txt"
"""The words of the generated corpus."""
FIGURES = (
    "scaling",
    "learning",
    "time_spent",
    "all_reduce",
    "training_time_comparison",
    "tokens_per_second_comparison",
)
TABLES = ("trials", "speedups", "equality")


class GrammarCorpus(Settings):
    """The generated corpus: its size, and which combinations are held out."""

    train: PositiveInt = 2400
    """Number of sentence pairs to train on."""
    validation: PositiveInt = 128
    """Number of sentence pairs to validate on."""
    test: PositiveInt = 128
    """Number of sentence pairs of the ordinary test split."""
    held_out: PositiveInt = 64
    """Number of test pairs with a combination of verb and object that occurs nowhere else."""
    held_out_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.1
    """Share of the combinations of verb and object that only the split `held_out` contains."""
    seed: int = 0
    """Seed of the sentences."""


class HubCorpus(Settings):
    """A translation data set on the Hugging Face hub, or a local folder with the same layout."""

    id: Annotated[str, Field(min_length=1)] = "bbaaaa/iwslt14-de-en-preprocess"
    """Hub id of the data set, or the path of a local folder."""
    config: str | None = None
    """Name of the data set's configuration, such as `de-en`; null takes the only or the default one."""
    revision: str | None = None
    """Branch, tag or commit to read; null takes the default branch. A data set whose repository holds a loading script
    is read from `refs/convert/parquet`."""
    source: str = "de"
    """Name of the language to translate from: a key of the column `translation`, or a column."""
    target: str = "en"
    """Name of the language to translate to."""
    train_split: str = "train"
    """Split to train on."""
    validation_split: str = "validation"
    """Split to validate on."""
    test_split: str = "test"
    """Split to test on."""


class FilesCorpus(Settings):
    """Files of sentence pairs. Each split is one file (JSON lines, or lines with a tab) or a pair of parallel files."""

    train: list[str] = []
    """File to train on, or German and English files with a sentence a line."""
    validation: list[str] = []
    """Files to validate on."""
    test: list[str] = []
    """Files to test on."""
    names: HubCorpus = HubCorpus()
    """Names of the languages in JSON lines."""


class Limits(Settings):
    """Numbers of sentence pairs to read from files or the hub; the defaults are the source's."""

    train: PositiveInt = 5000
    """Maximum number of pairs to train on."""
    validation: PositiveInt = 1000
    """Maximum number of pairs to validate on."""
    test: PositiveInt = 100
    """Maximum number of pairs to test on."""


class CorpusSettings(Settings):
    """Where the sentence pairs come from."""

    source: Literal["grammar", "hub", "files"] = "grammar"
    """Source of the pairs: a generated corpus (`grammar`), a data set on the `hub`, or your `files`."""
    grammar: GrammarCorpus = GrammarCorpus()
    """Size of the generated corpus."""
    hub: HubCorpus = HubCorpus()
    """The data set for the source `hub`."""
    files: FilesCorpus = FilesCorpus()
    """The files for the source `files`."""
    limits: Limits = Limits()
    """Numbers of pairs to read from `hub` or `files`."""

    @model_validator(mode="after")
    def _only_the_source_is_configured(self) -> Self:
        defaults = {"hub": HubCorpus(), "files": FilesCorpus(), "grammar": GrammarCorpus()}
        for other, default in defaults.items():
            if getattr(self, other) != default and self.source != other:
                raise ValueError(f"{other}: set, but source is {self.source!r}; set source: {other} or remove it")
        for split in ("train", "validation", "test") if self.source == "files" else ():
            if len(getattr(self.files, split)) not in (1, 2):
                raise ValueError(f"files.{split}: needs one file, or a German and an English one")
        return self


class ModelSettings(Settings):
    """The model: GPT-2 of transformers with random weights."""

    vocabulary: Annotated[int, Field(ge=260)] = 1600
    """Vocabulary size of the byte-level BPE, including its 256 bytes and three special tokens."""
    embeddings: PositiveInt | None = None
    """Number of rows of the embedding, at least `vocabulary`; null means as many. GPT-2 has 50,257."""
    context: Annotated[int, Field(ge=8)] = 128
    """Longest sequence in tokens: source, target and their ends."""
    width: PositiveInt = 128
    """Width of the hidden states."""
    layers: PositiveInt = 2
    """Number of layers."""
    heads: PositiveInt = 4
    """Number of attention heads, which must divide `width`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout of embeddings, attention and residuals. Above 0, worlds of different sizes learn different things."""
    too_long: Literal["drop", "truncate"] = "drop"
    """What to do with sequences longer than the context: drop them, or cut the target's end. They are counted."""

    @model_validator(mode="after")
    def _sizes_agree(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        if self.embeddings is not None and self.embeddings < self.vocabulary:
            raise ValueError(f"embeddings ({self.embeddings}) must be at least vocabulary ({self.vocabulary})")
        return self


class TrainingSettings(Settings):
    """How each trial is trained: AdamW at a constant rate after a linear warm-up."""

    batch: PositiveInt = 16
    """Sequences per step on one device; shared by the ranks with strong scaling, for each of them with weak scaling."""
    accumulation: PositiveInt = 1
    """Number of micro-batches that each rank's share of a step is computed in."""
    epochs: PositiveInt = 3
    """Number of passes over the training pairs. The first one is left out of mean times."""
    learning_rate: PositiveFloat = 3e-3
    """AdamW's learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """AdamW's weight decay."""
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    """Number of steps in which the rate rises to its value."""
    clip: PositiveFloat | None = 1.0
    """Gradients with a larger norm are clipped to this norm; null clips none."""
    translated: PositiveInt = 64
    """Number of validation sentences to translate after each epoch, for BLEU."""
    longest_translation: PositiveInt = 48
    """Maximum number of tokens of a translation."""


class EqualitySettings(Settings):
    """The proof that every method and world computes what one process does."""

    steps: PositiveInt = 20
    """Number of steps after which parameters are compared."""
    sequences: PositiveInt = 2
    """Sequences of a rank in a micro-batch. So few of them hold different numbers of tokens on each rank: in a batch of
    16, a loss averaged as a mean of means is off by less than `ddp_bf16` may round."""
    learning_rate: PositiveFloat = 1e-4
    """AdamW's learning rate in the proof, without warm-up; the default is the source's. AdamW normalises
    each gradient, so even rounding errors of zero gradients move parameters by a fraction of this rate."""


class ComparisonSettings(Settings):
    """How worlds and methods are compared: their groups take turns in random order, round after round."""

    seconds: PositiveFloat = 22.0
    """Time budget of the rounds of all launches together, in seconds."""
    launches: PositiveInt = 6
    """How often the ranks are launched, one launch after another. Where its memory lies stays as it is to the end of a
    launch, so launches are the replicates of the intervals; with fewer than five, the intervals are much wider."""
    precision: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Rounds go on until half the 95% interval of every ratio is at most this share."""
    batch: PositiveInt | None = 64
    """Sequences per step of one process in the comparison; null takes `training.batch`. The default is the source's.
    A small batch leaves the ranks little to compute between two all-reduces."""
    steps: PositiveInt = 1
    """Number of training steps in one turn."""
    methods: list[str] = ["ddp", "reference"]
    """Methods to compare at the largest world. The first one is compared at every world."""


class OperationSettings(Settings):
    """Settings that cannot change a trial's results, so changing them reruns nothing."""

    checkpoint_seconds: PositiveFloat = 30.0
    """Seconds between checkpoints; there is also one after each epoch."""
    timeout_seconds: PositiveFloat = 60.0
    """If no rank makes progress for this long, the trial ends with an error that names the rank the others wait for."""


class DataParallelSettings(Settings):
    """Study `data_parallel`: what does a second device buy in training?"""

    corpus: CorpusSettings = CorpusSettings()
    """The German–English sentence pairs."""
    model: ModelSettings = ModelSettings()
    """The language model that translates."""
    training: TrainingSettings = TrainingSettings()
    """How each trial is trained."""
    worlds: Annotated[list[PositiveInt], Field(min_length=1)] = [1, 2]
    """Numbers of processes to train on. One process, which the others are compared with, is always trained as well."""
    scalings: Annotated[list[Scaling], Field(min_length=1)] = ["strong", "weak"]
    """Kinds of scaling: `strong` keeps the batch of a step, `weak` keeps the batch of each rank."""
    methods: Annotated[list[str], Field(min_length=1)] = ["ddp"]
    """Methods to train with: files of the folder methods/. A single process needs none."""
    equality: EqualitySettings = EqualitySettings()
    """How equal results are proved."""
    comparison: ComparisonSettings = ComparisonSettings()
    """How speeds are compared."""
    operation: OperationSettings = OperationSettings()
    """Settings that cannot change a trial's results."""
    oversubscribe: bool = False
    """Whether to run more processes than there are cores. A GPU takes one process at most."""

    @field_validator("worlds", "scalings", "methods")
    @classmethod
    def _distinct(cls, values: list[str]) -> list[str]:
        return distinct(values)

    @model_validator(mode="after")
    def _known_methods(self) -> Self:
        known = method_names()
        for place, names in (("methods", self.methods), ("comparison.methods", self.comparison.methods)):
            for name in names:
                if name not in known:
                    raise ValueError(f"{place}: no method {name!r}; choose from {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        parts = self.training.accumulation
        for place, batch in (("training", self.training.batch), ("comparison", self.comparison.batch)):
            for world in self.worlds if "strong" in self.scalings else [1]:
                if batch is not None and batch % (world * parts):
                    raise ValueError(
                        f"{place}.batch: {batch} does not divide by {world} ranks × accumulation {parts}; make it a"
                        f" multiple of {world * parts}"
                    )
        return self

    @property
    def largest(self) -> int:
        """The largest world."""
        return max(self.worlds)


def trial_name(method: str, scaling: str, world: int) -> str:
    """The trial's name in paths: `ddp-strong-2`; `single` for one process."""
    return "single" if world == 1 else f"{method}-{scaling}-{world}"


def method_names() -> list[str]:
    """Every method, sorted."""
    return registry.names(METHODS)
