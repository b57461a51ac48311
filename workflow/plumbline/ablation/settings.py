"""Settings of the `ablation` study: what its block of the config may say. Its grid of trials is in `plan`."""

import ast
import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from plumbline.ablation.data.layers import LAYER_SETS
from plumbline.core import registry
from plumbline.core.registry import short_name
from plumbline.core.settings import Settings, distinct

View = Literal["factor", "product"]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]

SOURCES = ("zoo", "hub", "disk", "adapters")
REPRESENTATIONS = Path(__file__).parent / "representations"
FACTOR_STATISTICS = (
    "simple_stats",
    "rank_based",
    "stats",
    "spectral",
    "matrix_norms",
    "distribution",
    "frequency",
    "info_theoretic",
    "ensemble",
)
"""The nine representations of the reference experiment."""

FIGURES = ("accuracy", "drop", "invariance", "confusion", "curves", "pareto", "gap")
TABLES = ("accuracy", "metrics", "contrasts")


class DiffusionSettings(Settings):
    """The size of the zoo's flow-matching transformer."""

    width: PositiveInt = 24
    """Of the hidden states."""
    heads: PositiveInt = 2
    """Of attention; they divide the width."""
    blocks: PositiveInt = 4
    """Transformer blocks, of 8 adapted factors each; 16 give 128."""
    mlp_ratio: PositiveInt = 2
    """Hidden width of the MLPs, in widths."""
    prompt_tokens: Annotated[int, Field(ge=2)] = 4
    """Length of every prompt. Cross-attention to a single token ignores its query: `attn2.to_q` would never learn."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


class PretrainingSettings(Settings):
    """How the base is trained: AdamW, learning rate warmed up over `warmup` steps, then a cosine to zero."""

    steps: PositiveInt = 600
    """Of the base's training."""
    batch: PositiveInt = 64
    """Images a step."""
    learning_rate: PositiveFloat = 7e-3
    """At its peak."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Of AdamW."""
    prompt_dropout: Share = 0.2
    """Share of images that are seen under the null prompt."""
    warmup: PositiveInt = 50
    """Steps of the linear warm-up."""


class AdapterSettings(Settings):
    """How an adapter is trained."""

    rank: PositiveInt = 1
    """r of the LoRA: ΔW = BA has at most this rank."""
    alpha: PositiveFloat | None = None
    """None: α = rank, a scale α/r of 1."""
    steps: PositiveInt = 40
    """Of an adapter's training."""
    batch: PositiveInt = 4
    """Images of the adapter's own that a step sees."""
    learning_rate: PositiveFloat = 1e-2
    """Of an adapter's training, constant."""
    image_count_min: PositiveInt = 4
    """Fewest images that an adapter is trained on."""
    image_count_max: PositiveInt = 16
    """Most images that an adapter is trained on."""
    folds: Annotated[int, Field(ge=3, le=20)] = 10
    """Disjoint groups of images; an adapter sees images of one class and one fold."""
    chunk: PositiveInt = 64
    """Adapters trained at once in one batched product; the unit of resume."""

    @model_validator(mode="after")
    def _images_ordered(self) -> Self:
        if self.image_count_min > self.image_count_max:
            raise ValueError(
                f"image_count_min ({self.image_count_min}) exceeds image_count_max ({self.image_count_max})"
            )
        return self

    @property
    def scale(self) -> float:
        """α/r."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class Zoo(Settings):
    """LoRAs of a real diffusion model on digits, trained here."""

    adapters: Annotated[int, Field(ge=100)] = 500
    """How many are trained."""
    shards: PositiveInt = 2
    """Targets that share the training; any number gives the same adapters."""
    model: DiffusionSettings = DiffusionSettings()
    """The base that they adapt."""
    pretraining: PretrainingSettings = PretrainingSettings()
    """How the base is trained."""
    adapter: AdapterSettings = AdapterSettings()
    """How each is trained."""

    @model_validator(mode="after")
    def _shards_have_work(self) -> Self:
        chunks = math.ceil(self.adapters / self.adapter.chunk)
        if self.shards > chunks:
            raise ValueError(f"shards ({self.shards}) exceeds the {chunks} chunks of adapters")
        return self


class Hub(Settings):
    """A data set of adapters, read with `datasets.load_dataset`."""

    id: str = "jacekduszenko/lora-ws-1k"
    """Hub id, or a local folder of parquet files in the same schema."""
    revision: str | None = None
    """Branch, tag or commit; null: the default branch."""
    split: str = "train"
    """Which one to read."""
    limit: PositiveInt | None = None
    """At most this many rows."""


class Disk(Settings):
    """A data set saved with `save_to_disk`, a parquet file, or a folder of parquet files."""

    path: Path | None = None
    """Where it lies; must be given for the source `disk`."""
    split: str | None = None
    """Which one, where several were saved together."""
    limit: PositiveInt | None = None
    """At most this many rows."""


class AdapterFolder(Settings):
    """A folder of `.safetensors` LoRAs in the PEFT, diffusers or kohya naming."""

    path: Path | None = None
    """Where it lies; must be given for the source `adapters`."""
    labels: Path | None = None
    """CSV with columns adapter, label, and optionally num_images, image_ids; without it the sub-folder is the label."""
    on_bad_adapter: Literal["fail", "skip"] = "fail"
    """`skip` leaves out files that cannot be read, and names each in the log and the manifest."""


class ClassifierSettings(Settings):
    """`layers` × (Linear, BatchNorm, ReLU, Dropout), Linear; Adam; plateau schedule; early stopping."""

    layers: PositiveInt = 3
    """Hidden layers."""
    hidden: PositiveInt = 64
    """Width of a hidden layer."""
    dropout: Share = 0.5
    """Share of a hidden layer's units that a step leaves out."""
    learning_rate: PositiveFloat = 3e-3
    """Of Adam, before the schedule lowers it."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Of Adam."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Rows a step."""
    max_epochs: PositiveInt = 300
    """At most; a run stops sooner by `patience`."""
    patience: PositiveInt = 15
    """Epochs without a better validation accuracy before a run stops."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """What the learning rate is multiplied by at a plateau."""
    plateau_patience: PositiveInt = 10
    """Epochs without a better validation accuracy before the learning rate is scaled by `plateau_factor`."""


class TrainingSettings(ClassifierSettings):
    """The classifier, and which rows it learns from."""

    split: Literal["resampled", "fixed"] = "resampled"
    """`resampled` draws the 70/10/20 split anew for each run; `fixed` is the reference's one split, seed 42."""
    split_by_images: bool = True
    """Keep adapters that share images on one side of the split."""
    stacked: bool = True
    """Train all runs at once; the same numbers come from one after another, slower."""


class AblationSettings(Settings):
    """Study `ablation`: what do a LoRA's weights say about what it was trained on?"""

    source: str = "zoo"
    """zoo, hub, disk or adapters, each with a block of its own below; or `module:function`, with `own`."""
    zoo: Zoo = Zoo()
    """For the source `zoo`."""
    hub: Hub = Hub()
    """For the source `hub`."""
    disk: Disk = Disk()
    """For the source `disk`."""
    adapters: AdapterFolder = AdapterFolder()
    """For the source `adapters`."""
    own: dict[str, Any] = {}
    """Options of a source of your own."""
    representations: dict[View, Annotated[list[str], Field(min_length=1)]] = {
        "factor": [*FACTOR_STATISTICS, "flat"],
        "product": [*FACTOR_STATISTICS, "flat", "energies", "probes"],
    }
    """For each view, names from `ablation/representations/`, ensembles, or `module:function` of your own."""
    ensembles: dict[str, list[str]] = {
        "ensemble": ["spectral", "matrix_norms", "distribution", "frequency", "info_theoretic"]
    }
    """Representations that are others side by side."""
    layers: Annotated[list[str], Field(min_length=1)] = list(LAYER_SETS)
    """Layer sets, a trial each."""
    shards: PositiveInt = 1
    """Targets that share the work of one representation; any number gives the same bytes."""
    runs: Annotated[int, Field(ge=2)] = 10
    """Of each trial, with other splits and initial weights: what intervals are over."""
    training: TrainingSettings = TrainingSettings()
    """The classifier and its rows."""

    @field_validator("layers")
    @classmethod
    def _known_layers(cls, layers: list[str]) -> list[str]:
        for name in layers:
            if name not in LAYER_SETS:
                raise ValueError(f"no layer set {name!r}; there are {', '.join(LAYER_SETS)}")
        return distinct(layers)

    @model_validator(mode="after")
    def _known_representations(self) -> Self:
        known = available_representations()
        for name, parts in self.ensembles.items():
            for part in parts:
                if part not in known and ":" not in part:
                    raise ValueError(f"ensembles.{name}: no representation {part!r}; there are {', '.join(known)}")
        for view, names in self.representations.items():
            for name in names:
                if name not in known and name not in self.ensembles and ":" not in name:
                    there = ", ".join([*known, *self.ensembles])
                    raise ValueError(
                        f"representations.{view}: no representation {name!r}; there are {there};"
                        " your own is named module:function"
                    )
        return self

    @model_validator(mode="after")
    def _plain_and_distinct_names(self) -> Self:
        known = available_representations()
        for name in [*self.ensembles, *(short_name(name) for names in self.representations.values() for name in names)]:
            if not name.isidentifier():
                raise ValueError(f"representations: {name!r} is not a plain name; it becomes the name of a file")
        if shadowed := set(self.ensembles) & set(known):
            raise ValueError(f"ensembles.{min(shadowed)}: is the name of a representation; choose another")
        for view, names in self.representations.items():
            parts = dict.fromkeys(part for name in names for part in self.ensembles.get(name, [name]))
            distinct([short_name(part) for part in parts])
            for part in parts:
                if part in known and view not in views_of(part):
                    raise ValueError(f"representations.{view}: {part!r} is for the {views_of(part)[0]} view alone")
        return self

    @model_validator(mode="after")
    def _known_source(self) -> Self:
        if self.source not in SOURCES and ":" not in self.source:
            raise ValueError(f"source: no source {self.source!r}; there are {', '.join(SOURCES)}, or module:function")
        if self.source in ("disk", "adapters") and getattr(self, self.source).path is None:
            raise ValueError(f"{self.source}.path: missing, and source is {self.source!r}")
        return self

    def source_options(self) -> dict[str, Any]:
        """What the chosen source's `load` is called with, in JSON values."""
        if self.source == "zoo":
            return {"scale": self.zoo.adapter.scale}
        block = self.own if self.source not in SOURCES else getattr(self, self.source).model_dump(mode="json")
        return dict(block)


def available_representations() -> list[str]:
    """Names of the representations in the registry, by its files; nothing is imported."""
    return registry.names(REPRESENTATIONS)


def views_of(representation: str) -> list[str]:
    """The views that a representation of the registry is made for, read from its decorator; nothing is imported."""
    tree = ast.parse((REPRESENTATIONS / f"{representation}.py").read_text(encoding="utf-8"))
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "views"]
    return list(ast.literal_eval(found[0])) if found else ["factor", "product"]


def parts_of(settings: AblationSettings, representation: str) -> list[str]:
    """Short names of the representations whose features make up `representation`, itself unless an ensemble."""
    return [short_name(part) for part in settings.ensembles.get(representation, [representation])]
