"""Settings of the `throughput` study: what its block of the config may say, and its grid of cells."""

import itertools
import re
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from plumbline.core import registry
from plumbline.core.errors import UserError
from plumbline.core.registry import short_name
from plumbline.core.settings import Settings, distinct

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Ratio = Annotated[float, Field(gt=0, le=1)]
Method = Literal["whitened", "plain"]
Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["sdpa", "eager"]

ENGINES = Path(__file__).parent / "engines"
BASE = "base"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""Of models and variants: parts of paths, tables and command lines."""
FIGURES = (
    "throughput_by_batch",
    "throughput_by_length",
    "memory",
    "efficiency",
    "pareto",
    "ceiling",
    "phases",
    "engines",
    "compression",
)
TABLES = ("throughput", "variants")


class HubModel(Settings):
    """A causal language model on the hub, or in a local folder laid out like one."""

    id: str = "huggyllama/llama-7b"
    """Repository, or a local folder."""
    revision: str | None = None
    """Branch, tag or commit; None: the newest."""


class Architecture(Settings):
    """A Llama-shaped decoder, for weights drawn from a seed: for shapes too large to ship."""

    vocabulary: PositiveInt = 32_000
    """Tokens that the embedding and the head know."""
    context: Annotated[int, Field(ge=2)] = 2048
    """Tokens that the positions reach."""
    width: PositiveInt = 768
    """Of the hidden states."""
    hidden: PositiveInt = 2048
    """Width inside the SwiGLU."""
    layers: PositiveInt = 12
    """Attention and SwiGLU, so many times."""
    heads: PositiveInt = 12
    """Of attention; they divide the width into even sizes."""
    kv_heads: PositiveInt | None = None
    """None: as many as heads."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary positions' wavelengths."""
    tied_embeddings: bool = False
    """Use the embedding as the head too."""
    stored: Dtype = "float32"
    """Type of the numbers in the file."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width}) into an even head size")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"kv_heads ({self.kv_heads}) must divide heads ({self.heads})")
        return self


class ModelSettings(Settings):
    """The model that everything else is compared with."""

    source: Literal["trained", "hub", "path", "config"] = "trained"
    """`trained`: the best model of the study lr_sweep; `config`: weights drawn from the seed."""
    name: Annotated[str, Field(pattern=f"^{NAME}$")] | None = None
    """In tables and experiment ids; None: what the source suggests."""
    hub: HubModel = HubModel()
    """For the source `hub`."""
    path: str | None = None
    """A folder as transformers saves it, for the source `path`."""
    config: Architecture = Architecture()
    """For the source `config`."""

    @model_validator(mode="after")
    def _path_is_named(self) -> Self:
        if self.source == "path" and self.path is None:
            raise ValueError("path: missing, and source is 'path'")
        return self

    @property
    def shown(self) -> str:
        """The model's name in tables and experiment ids."""
        own = {"trained": "lr_sweep-best", "hub": self.hub.id, "path": self.path or "", "config": "random"}
        return self.name or Path(own[self.source]).name


class TextSettings(Settings):
    """Text that perplexity is measured on, that calibrates, and that prompts are taken from."""

    calibration: list[str] = []
    """Globs of UTF-8 files; empty: the training documents of the study lr_sweep."""
    evaluation: list[str] = []
    """Globs of UTF-8 files; empty: the validation documents of the study lr_sweep."""
    window: PositiveInt = 64
    """Tokens of a window; at most the model's context."""
    calibration_windows: PositiveInt = 256
    """Windows that whitening looks at."""
    evaluation_windows: PositiveInt = 256
    """Windows that perplexity is measured on."""


class VariantSettings(Settings):
    """The base and what is compared with it."""

    ratios: Annotated[list[Ratio], Field(min_length=1)] = [1.0, 0.8, 0.6, 0.4, 0.2]
    """Shares of each linear layer's parameters that are kept; 1.0 is the base."""
    methods: Annotated[list[Method], Field(min_length=1)] = ["whitened", "plain"]
    """Kinds of SVD. All are made and scored; the first is the one whose speed is measured."""
    template: str | None = None
    """Folders of your own in place of ours, as models/llama-7b-{ratio}."""
    paths: list[str] = []
    """Folders of your own, measured beside the others."""

    @field_validator("ratios", "methods")
    @classmethod
    def _distinct(cls, values: list[float]) -> list[float]:
        return distinct(values)

    @model_validator(mode="after")
    def _folders_have_names(self) -> Self:
        if self.template is not None and "{ratio}" not in Path(self.template).name:
            raise ValueError(f"template: no {{ratio}} in its last part, which names the variant ({self.template!r})")
        for folder in [*([] if self.template is None else [self.template.replace("{ratio}", "1")]), *self.paths]:
            name = Path(folder).name
            if not re.fullmatch(NAME, name):
                raise ValueError(f"{folder}: its last part, {name!r}, must name the variant: letters, digits and ._-")
        return self


class GridSettings(Settings):
    """A block of the grid: every combination of its values is a trial."""

    variants: list[str] | None = None
    """Names as in results/throughput/models; None: all that are measured."""
    engines: Annotated[list[str], Field(min_length=1)] = ["lean"]
    """Of the folder engines/, or package.module:name."""
    batch: Annotated[list[PositiveInt], Field(min_length=1)]
    """Prompts at a time."""
    prompt: Annotated[list[PositiveInt], Field(min_length=1)] = [4]
    """Tokens of a prompt."""
    generated: Annotated[list[PositiveInt], Field(min_length=1)] = [32]
    """Tokens generated for each prompt, no fewer and no more."""

    @field_validator("engines")
    @classmethod
    def _known(cls, engines: list[str]) -> list[str]:
        known = registry.names(ENGINES)
        for engine in engines:
            if ":" not in engine and engine not in known:
                raise ValueError(f"no engine {engine!r}; there are {', '.join(known)}, or package.module:name")
        return engines


class ChoiceSettings(Settings):
    """How an engine computes; `auto` tries what there is in each trial and takes the fastest with equal tokens."""

    dtype: Literal["auto"] | Dtype = "auto"
    """Type of the numbers; `auto` tries those that the device computes with."""
    attention: Literal["auto"] | Attention = "auto"
    """torch's fused attention, or products and a softmax."""
    threads: Literal["auto"] | PositiveInt = "auto"
    """On the CPU."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile, for engines that can."""
    probe_seconds: PositiveFloat = 1.5
    """`auto` tries no more once this much time has gone; compiling is tried only if it is 60 or more."""
    tie_margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    """A token may differ from the reference's where its two best logits are no further apart than this."""


class TrialTiming(Settings):
    """When a trial has measured enough, and what it may use."""

    precision: Annotated[float, Field(gt=0, lt=1)] = 0.03
    """Batches are timed until the 95% interval of the mean is within this share on both sides."""
    min_batches: Annotated[int, Field(ge=2)] = 8
    """Batches timed at least, however long they take; as many that count, while `patience` allows."""
    max_batches: Annotated[int, Field(ge=2)] = 200
    """Batches that count, at most, however short they are."""
    seconds: PositiveFloat = 0.6
    """Time for the timed batches, once there are `min_batches`."""
    pace_tolerance: PositiveFloat = 0.1
    """A batch does not count if a small fixed piece of work beside it took this share longer than at its fastest."""
    patience: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 3.0
    """Times `seconds` and `max_batches` for all batches; if fewer than half of `min_batches` count by then, all do."""
    warmup_at_most: PositiveInt = 20
    """Calls at the measured shape before timing; fewer when three in a row are within 5%, or `seconds` have gone."""
    timeout_seconds: PositiveFloat = 600.0
    """A trial that takes longer is ended; its outcome is `timeout`."""
    memory_limit_bytes: PositiveInt | None = None
    """Address space that a trial may use, on the CPU; None: no limit of our own."""
    skip_larger_after_oom: bool = False
    """Do not try larger batches of a cell whose smaller batch did not fit."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.min_batches > self.max_batches:
            raise ValueError(f"min_batches ({self.min_batches}) is above max_batches ({self.max_batches})")
        return self


class TimingSettings(TrialTiming):
    """Timing, and what is found beside it."""

    max_batch: bool = False
    """Find the largest batch that fits, for each variant, engine and length of the grid."""


class LimitsSettings(Settings):
    """How the machine's limits are measured."""

    seconds: PositiveFloat = 0.4
    """For each kind of copy and each type of number."""


class Cell(NamedTuple):
    """A trial's place in the grid."""

    variant: str
    engine: str
    batch: int
    prompt: int
    generated: int

    @property
    def trial(self) -> str:
        """The trial's name in paths: base/lean/b1-p4-g32."""
        return f"{self.variant}/{short_name(self.engine)}/b{self.batch}-p{self.prompt}-g{self.generated}"

    @property
    def shown(self) -> str:
        """What it asks for, for messages."""
        return f"batch {self.batch}, prompt {self.prompt}, generated {self.generated}"


DEFAULT_GRID = [
    GridSettings(batch=[1, 8, 64]),
    GridSettings(batch=[8], generated=[8, 56]),
    GridSettings(variants=[BASE], engines=["generate", "static", "continuous"], batch=[1]),
]


class ThroughputSettings(Settings):
    """Study `throughput`: how fast does a model generate, in how much memory, and what does compressing it buy?"""

    model: ModelSettings = ModelSettings()
    """The base."""
    text: TextSettings = TextSettings()
    """What it reads."""
    variants: VariantSettings = VariantSettings()
    """What it is compared with."""
    grid: Annotated[list[GridSettings], Field(min_length=1)] = DEFAULT_GRID
    """The trials: what every block asks for, each once."""
    choice: ChoiceSettings = ChoiceSettings()
    """How an engine computes."""
    timing: TimingSettings = TimingSettings()
    """How long a trial takes, and what it may use."""
    limits: LimitsSettings = LimitsSettings()
    """What the machine can do at best."""

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [BASE, *compressed(self), *(folder.name for folder, _ in _own_folders(self))]
        engines = dict.fromkeys(engine for block in self.grid for engine in block.engines)
        for place, found in (("variants", names), ("grid: engines", [short_name(engine) for engine in engines])):
            if twice := next((name for name in found if found.count(name) > 1), None):
                raise ValueError(f"{place}: two of them would be named {twice!r}")
        return self

    @model_validator(mode="after")
    def _known_variants(self) -> Self:
        known = variant_names(self)
        for number, block in enumerate(self.grid):
            for name in block.variants or []:
                if name not in known:
                    raise ValueError(f"grid.{number}.variants: no variant {name!r}; there are {', '.join(known)}")
        return self

    @model_validator(mode="after")
    def _within_context(self) -> Self:
        if self.model.source == "config":
            self.check_context(self.model.config.context, "throughput.model.config")
        return self

    def check_trained(self, context: int) -> None:
        """Raises UserError when the trained model is the one to measure, and its `context` is too short."""
        try:
            if self.model.source == "trained":
                self.check_context(context, "lr_sweep.model")
        except ValueError as error:
            raise UserError(f"config: throughput.{error}") from None

    def check_context(self, context: int, model: str, brought_as: str | None = None) -> None:
        """Raises ValueError when a cell of the grid goes beyond the `context` of `model`.

        Of the base and its compressions; of the variant `brought_as` where that is given.
        """
        concerned = {BASE, *compressed(self)} if brought_as is None else {brought_as}
        for number, block in enumerate(self.grid):
            if block.variants is not None and concerned.isdisjoint(block.variants):
                continue
            longest = max(block.prompt) + max(block.generated)
            if longest > context:
                raise ValueError(
                    f"grid.{number}: prompt + generated is {longest}, beyond the {context} tokens"
                    f" of context that {model} has; lower prompt or generated there, or take a longer context"
                )


def compressed(settings: ThroughputSettings) -> dict[str, tuple[Method, float]]:
    """Variants made here: name -> method and ratio; none where a template brings them."""
    if settings.variants.template is not None:
        return {}
    ratios = [ratio for ratio in settings.variants.ratios if ratio < 1]
    return {f"{method}-{ratio:g}": (method, ratio) for method in settings.variants.methods for ratio in ratios}


def user_supplied(settings: ThroughputSettings) -> dict[str, tuple[Path, float | None]]:
    """Variants of one's own: name -> folder and ratio, None where only the folder knows."""
    return {folder.name: (folder, ratio) for folder, ratio in _own_folders(settings)}


def _own_folders(settings: ThroughputSettings) -> list[tuple[Path, float | None]]:
    template, ratios = settings.variants.template, [ratio for ratio in settings.variants.ratios if ratio < 1]
    by_ratio = (
        [] if template is None else [(Path(template.replace("{ratio}", f"{ratio:g}")), ratio) for ratio in ratios]
    )
    return [*by_ratio, *((Path(path), None) for path in settings.variants.paths)]


def variant_names(settings: ThroughputSettings) -> list[str]:
    """Every variant there is, the base first."""
    return [BASE, *compressed(settings), *user_supplied(settings)]


def measured(settings: ThroughputSettings) -> list[str]:
    """Variants that a block of the grid stands for which names none: the base, the first method's, one's own."""
    first = settings.variants.methods[0]
    ours = [name for name, (method, _) in compressed(settings).items() if method == first]
    base = [BASE] if 1.0 in settings.variants.ratios else []
    return [*base, *ours, *user_supplied(settings)]


def cells(settings: ThroughputSettings) -> list[Cell]:
    """The grid's cells, each once, in the order of its blocks."""
    found: dict[Cell, None] = {}
    for block in settings.grid:
        names = measured(settings) if block.variants is None else block.variants
        for values in itertools.product(names, block.engines, block.batch, block.prompt, block.generated):
            found[Cell(*values)] = None
    return list(found)


def reads_corpus(settings: ThroughputSettings) -> bool:
    """Whether calibration, evaluation or prompts come from the corpus of the study lr_sweep."""
    own = settings.text.calibration and settings.text.evaluation
    return settings.model.source != "config" and not own


def smaller(cell: Cell, grid: list[Cell]) -> Cell | None:
    """The cell with the next smaller batch and all else equal; None where there is none."""
    alike = [other for other in grid if other._replace(batch=cell.batch) == cell and other.batch < cell.batch]
    return max(alike, key=lambda other: other.batch, default=None)
