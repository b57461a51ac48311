"""Settings of the `ablation` study: the typed `ablation` block of the config. The grid of trials is in `plan`."""

import ast
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from plumbline.ablation.data.layers import LAYER_SETS
from plumbline.ablation.zoo.settings import LEAST_FOLDS, PositiveFloat, PositiveInt, Share, Zoo
from plumbline.core import registry
from plumbline.core.registry import short_name
from plumbline.core.settings import Settings, UserPath, UserText, distinct

View = Literal["factor", "product"]
FeatureClassifier = Literal["mlp", "linear"]
Classifier = Literal["mlp", "linear", "transformer"]
TOKENS = "tokens"
"""The representation that the classifier `transformer` reads, and no other."""
WITH_CURVE = {"factor": ("frequency", "ensemble"), "product": ("flat", "probes", "energies", "ensemble")}
"""Representations that have a learning curve; of a view that has none of these, the first."""

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

FIGURES = ("accuracy", "drop", "invariance", "confusion", "curves", "learning_curve", "pareto", "gap")
TABLES = ("accuracy", "metrics", "contrasts", "learning_curve")


class Hub(Settings):
    """A data set of adapters, read with `datasets.load_dataset`."""

    id: UserText = "jacekduszenko/lora-ws-1k"
    """Hub id of the data set, or a local folder of parquet files in the same schema."""
    revision: str | None = None
    """Branch, tag or commit to read. null reads the default branch."""
    split: str = "train"
    """Split to read."""
    limit: PositiveInt | None = None
    """Read at most this many rows. null reads all."""


class Disk(Settings):
    """A data set saved with `save_to_disk`, a parquet file, or a folder of parquet files."""

    path: UserPath | None = None
    """Path of the data set. Required when `source` is `disk`."""
    split: str | None = None
    """Split to read, if several were saved together."""
    limit: PositiveInt | None = None
    """Read at most this many rows. null reads all."""


class AdapterFolder(Settings):
    """A folder of `.safetensors` adapters as PEFT, diffusers, kohya, ComfyUI, LyCORIS or OneTrainer write them."""

    path: UserPath | None = None
    """Path of the folder. Required when `source` is `adapters`."""
    labels: UserPath | None = None
    """CSV with columns adapter, label and optionally num_images, image_ids. null: the sub-folder is the label."""
    on_bad_adapter: Literal["fail", "skip"] = "fail"
    """What to do with a file that cannot be read: `fail`, or `skip` it and list it in the log and the manifest."""
    assume_alpha: Literal["rank"] | PositiveFloat | None = None
    """α of adapters that do not state theirs: `rank` (α/r = 1) or a number. null: an error if only some state it."""
    checkpoint: str | None = None
    """Which file to read of a folder with checkpoints of one run: `last`, or a name such as `checkpoint-500`."""
    base: UserPath | None = None
    """The base model's weights, a `.safetensors` file or a folder of them. Required for DoRA, PiSSA and OLoRA."""


class LinearSettings(Settings):
    """The classifier `linear`: multinomial logistic regression with an L2 penalty, fitted to convergence."""

    inverse_penalty: PositiveFloat = 1.0
    """Inverse strength of the penalty on the weights of the standardised features: C of scikit-learn."""
    max_iterations: PositiveInt = 1000
    """Maximum number of L-BFGS iterations. A fit that needs more is an error."""


class TransformerSettings(Settings):
    """The classifier `transformer` of canonical tokens: a pre-norm encoder, trained with AdamW and a cosine decay."""

    width: PositiveInt = 32
    """Width of the hidden states."""
    heads: PositiveInt = 4
    """Number of attention heads. Must divide `width`."""
    layers: PositiveInt = 2
    """Number of encoder layers."""
    token_dropout: Share = 0.1
    """Share of the tokens hidden in each training step."""
    learning_rate: PositiveFloat = 3e-3
    """Peak learning rate, after a warm-up over a tenth of the steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    """Weight decay of AdamW."""
    batch_size: PositiveInt = 64
    """Number of adapters per step."""
    epochs: PositiveInt = 40
    """Number of epochs. The weights of the best validation epoch are kept."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width})")
        return self


class ClassifierSettings(Settings):
    """The classifier `mlp`: `layers` × (Linear, BatchNorm, ReLU, Dropout), Linear.

    Trained with Adam, a plateau schedule and early stopping.
    """

    layers: PositiveInt = 3
    """Number of hidden layers."""
    hidden: PositiveInt = 64
    """Width of each hidden layer."""
    dropout: Share = 0.5
    """Dropout probability in the hidden layers."""
    learning_rate: PositiveFloat = 3e-3
    """Initial learning rate of Adam."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    """Weight decay of Adam."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Number of adapters per step."""
    max_epochs: PositiveInt = 300
    """Maximum number of epochs. A run usually stops earlier (see `patience`)."""
    patience: PositiveInt = 15
    """Stop a run after this many epochs without a better validation accuracy."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Factor that the learning rate is multiplied by at a plateau."""
    plateau_patience: PositiveInt = 10
    """Lower the learning rate after this many epochs without a better validation accuracy."""


class TrainingSettings(ClassifierSettings):
    """The classifier `mlp`, and how adapters are split into training, validation and test."""

    split: Literal["resampled", "fixed"] = "resampled"
    """`resampled` rotates 70/10/20 splits: five runs test every adapter once; `fixed` is the reference's one split."""
    split_by_images: bool = True
    """Keep adapters that share training images on one side of the split."""
    stacked: bool = True
    """Train all runs at once. false trains them one after another, with the same numbers but more slowly."""


class AblationSettings(Settings):
    """Study `ablation`: what do a LoRA's weights say about what it was trained on?"""

    source: str = "zoo"
    """Where the adapters come from: zoo, hub, disk or adapters, or a user-supplied `module:function`."""
    zoo: Zoo = Zoo()
    """Options of the source `zoo`."""
    hub: Hub = Hub()
    """Options of the source `hub`."""
    disk: Disk = Disk()
    """Options of the source `disk`."""
    adapters: AdapterFolder = AdapterFolder()
    """Options of the source `adapters`."""
    options: dict[str, Any] = {}
    """Options of a user-supplied source."""
    representations: dict[View, Annotated[list[str], Field(min_length=1)]] = {
        "factor": [*FACTOR_STATISTICS, "flat"],
        "product": [*FACTOR_STATISTICS, "flat", "energies", "probes", TOKENS],
    }
    """Representations of each view: names from `ablation/representations/`, ensembles, or `module:function`."""
    ensembles: dict[str, list[str]] = {
        "ensemble": ["spectral", "matrix_norms", "distribution", "frequency", "info_theoretic"]
    }
    """Ensembles: the features of several representations side by side, under a new name."""
    layers: Annotated[list[str], Field(min_length=1)] = ["all_layers", "visual_only"]
    """Layer sets to train on, each in its own trial."""
    shards: PositiveInt = 1
    """Number of targets that share the work of one representation. Any number gives the same bytes."""
    trials_per_job: PositiveInt = 12
    """Number of trials that share a job, which spends over a second on imports. 1 for trials that take minutes. A
    change reruns no finished trial."""
    runs: Annotated[int, Field(ge=2)] = 10
    """Number of runs per trial, each with its own split and initial weights. Intervals are over these runs."""
    classifier: Annotated[list[FeatureClassifier], Field(min_length=1)] = ["mlp", "linear"]
    """Classifiers that every trial trains, on the same splits: `mlp` (see `training`), `linear` (see `linear`).
    Canonical tokens have their own, see `transformer`."""
    training: TrainingSettings = TrainingSettings()
    """The classifier `mlp`, and the splits of all classifiers."""
    linear: LinearSettings = LinearSettings()
    """The classifier `linear`."""
    transformer: TransformerSettings = TransformerSettings()
    """The classifier of the representation `tokens`."""
    learning_curve: list[Annotated[int, Field(ge=2)]] = [25, 50, 100, 200]
    """Numbers of training adapters for which some representations are trained again, if `classifier` has `linear`."""

    @field_validator("classifier")
    @classmethod
    def _distinct_classifiers(cls, names: list[FeatureClassifier]) -> list[FeatureClassifier]:
        return distinct(names)

    @field_validator("layers")
    @classmethod
    def _known_layers(cls, layers: list[str]) -> list[str]:
        for name in layers:
            if name not in LAYER_SETS:
                raise ValueError(f"no layer set {name!r}; choose from {', '.join(LAYER_SETS)}")
        return distinct(layers)

    @model_validator(mode="after")
    def _known_representations(self) -> Self:
        known = available_representations()
        for name, parts in self.ensembles.items():
            for part in parts:
                if part not in known and ":" not in part:
                    raise ValueError(f"ensembles.{name}: no representation {part!r}; choose from {', '.join(known)}")
        for view, names in self.representations.items():
            for name in names:
                if name not in known and name not in self.ensembles and ":" not in name:
                    there = ", ".join([*known, *self.ensembles])
                    raise ValueError(
                        f"representations.{view}: no representation {name!r}; choose from {there},"
                        " or name a function as module:function"
                    )
        return self

    @model_validator(mode="after")
    def _plain_and_distinct_names(self) -> Self:
        known = available_representations()
        for name in [*self.ensembles, *(short_name(name) for names in self.representations.values() for name in names)]:
            if not name.isidentifier():
                raise ValueError(f"representations: {name!r} is not a valid name; use letters, digits and _ only")
        if shadowed := set(self.ensembles) & set(known):
            raise ValueError(f"ensembles.{min(shadowed)}: a representation has this name; choose another")
        for view, names in self.representations.items():
            parts = dict.fromkeys(part for name in names for part in self.ensembles.get(name, [name]))
            distinct([short_name(part) for part in parts])
            for part in parts:
                if part in known and view not in views_of(part):
                    raise ValueError(f"representations.{view}: {part!r} supports only the {views_of(part)[0]} view")
        return self

    @model_validator(mode="after")
    def _known_source(self) -> Self:
        if self.source not in SOURCES and ":" not in self.source:
            raise ValueError(f"source: no source {self.source!r}; choose from {', '.join(SOURCES)}, or module:function")
        if self.source in ("disk", "adapters") and getattr(self, self.source).path is None:
            raise ValueError(f"{self.source}.path: missing; it is required when source is {self.source!r}")
        return self

    @model_validator(mode="after")
    def _zoo_can_be_split(self) -> Self:
        grouped = self.training.split == "resampled" and self.training.split_by_images
        if self.source == "zoo" and grouped and self.zoo.adapter.folds < LEAST_FOLDS:
            raise ValueError(
                f"zoo.adapter.folds: {self.zoo.adapter.folds} folds are too few to keep adapters that share images on"
                f" one side of a 70/10/20 split; use {LEAST_FOLDS} or more, or set training.split_by_images: false"
            )
        return self

    def source_options(self) -> dict[str, Any]:
        """The arguments of the source's `load`, as JSON values."""
        if self.source == "zoo":
            return {"scale": self.zoo.adapter.scale}
        block = self.options if self.source not in SOURCES else getattr(self, self.source).model_dump(mode="json")
        return dict(block)


def available_representations() -> list[str]:
    """Names of the built-in representations, found by their files. Nothing is imported."""
    return registry.names(REPRESENTATIONS)


def views_of(representation: str) -> list[str]:
    """The views that a built-in representation supports, read from its decorator. Nothing is imported."""
    tree = ast.parse((REPRESENTATIONS / f"{representation}.py").read_text(encoding="utf-8"))
    found = [node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "views"]
    return list(ast.literal_eval(found[0])) if found else ["factor", "product"]
