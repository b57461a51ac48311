"""Settings of the `throughput` study: what its block of the config may contain. Light to import."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from plumbline.core import registry
from plumbline.core.errors import UserError
from plumbline.core.registry import short_name
from plumbline.core.settings import Settings, distinct
from plumbline.throughput.engine_needs import only_runs_llamas
from plumbline.throughput.measurement.settings import (
    AutotuneSettings,
    ComparisonSettings,
    Dtype,
    LimitsSettings,
    PositiveFloat,
    PositiveInt,
    TimingSettings,
)
from plumbline.throughput.models.llama_config import not_llama

Ratio = Annotated[float, Field(gt=0, le=1)]
Method = Literal["whitened", "plain"]

ENGINES = Path(__file__).parent / "engines"
BASE = "base"
AUTO = "auto"
"""In place of an engine: the fastest that can run all variants of the block."""
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""Pattern of model and variant names, which become parts of paths, tables and command lines."""
FIGURES = (
    "engines",
    "compression",
    "pareto",
    "throughput_by_batch",
    "throughput_by_length",
    "memory",
    "efficiency",
    "phases",
    "ceiling",
)
TABLES = ("throughput", "variants")


class HubModel(Settings):
    """A causal language model on the Hugging Face hub, or in a local folder with the same files."""

    id: str = "huggyllama/llama-7b"
    """Repository on the hub, or path of a local folder."""
    revision: str | None = None
    """Branch, tag or commit to load; null loads the newest commit."""


class Architecture(Settings):
    """A Llama-shaped decoder with random weights, for shapes that are too large to ship."""

    vocabulary: PositiveInt = 32_000
    """Number of tokens in the vocabulary."""
    context: Annotated[int, Field(ge=2)] = 2048
    """Longest sequence that the model accepts, in tokens."""
    width: PositiveInt = 768
    """Size of the hidden states."""
    hidden: PositiveInt = 2048
    """Inner size of the SwiGLU MLP."""
    layers: PositiveInt = 12
    """Number of decoder blocks."""
    heads: PositiveInt = 12
    """Number of attention heads. They must divide `width` into an even head size."""
    kv_heads: PositiveInt | None = None
    """Number of key and value heads; null means as many as `heads`."""
    rope_theta: PositiveFloat = 10_000.0
    """Base of the rotary position embeddings."""
    tied_embeddings: bool = False
    """Whether the output head shares its weights with the embedding."""
    stored: Dtype = "float32"
    """Dtype of the weights on disk."""

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"heads ({self.heads}) must divide width ({self.width}) into an even head size")
        if self.heads % (self.kv_heads or self.heads):
            raise ValueError(f"kv_heads ({self.kv_heads}) must divide heads ({self.heads})")
        return self


class ModelSettings(Settings):
    """The base model, which every variant is compared with."""

    source: Literal["trained", "hub", "path", "config"] = "trained"
    """Where the base model comes from: `trained` takes the best model of the study lr_sweep, `config` draws random
    weights."""
    name: Annotated[str, Field(pattern=f"^{NAME}$")] | None = None
    """Name of the model in tables and experiment ids; null derives it from the source."""
    hub: HubModel = HubModel()
    """The model to fetch when the source is `hub`."""
    path: str | None = None
    """Folder written by transformers' save_pretrained, when the source is `path`."""
    config: Architecture = Architecture()
    """The architecture to fill with random weights when the source is `config`."""
    strict: bool = True
    """Whether weights and config.json must match, for variants that you supply too. If false, tensors that the
    architecture does not use are left out and missing ones are drawn at random; the manifest lists them."""

    @model_validator(mode="after")
    def _path_is_named(self) -> Self:
        if self.source == "path" and self.path is None:
            raise ValueError("path: missing, and source is 'path'")
        return self

    @property
    def display_name(self) -> str:
        """The model's name in tables and experiment ids."""
        names = {"trained": "lr_sweep-best", "hub": self.hub.id, "path": self.path or "", "config": "random"}
        return self.name or Path(names[self.source]).name


class TextSettings(Settings):
    """Text for calibration, perplexity and prompts."""

    calibration: list[str] = []
    """Globs of UTF-8 files to calibrate on, text or JSON lines with a key `text`; empty uses the training documents of
    the study lr_sweep."""
    evaluation: list[str] = []
    """Globs of UTF-8 files to measure perplexity on; empty uses the validation documents of the study lr_sweep."""
    beginning_of_text: Literal["auto", "always", "never"] = "auto"
    """Whether each window begins with the model's beginning-of-text token: `auto` if its tokenizer puts one before a
    text."""
    window: PositiveInt = 64
    """Tokens per window; at most the model's context."""
    calibration_windows: PositiveInt = 256
    """Number of windows that whitening is calibrated on."""
    evaluation_windows: PositiveInt = 256
    """Number of windows that perplexity is measured on."""


class VariantSettings(Settings):
    """The variants of the base model: its compressions, and models that you supply."""

    ratios: Annotated[list[Ratio], Field(min_length=1)] = [1.0, 0.8, 0.6, 0.4, 0.2]
    """Shares of each linear layer's parameters to keep; 1.0 is the base model."""
    methods: Annotated[list[Method], Field(min_length=1)] = ["whitened", "plain"]
    """Kinds of SVD. Perplexity is measured for all of them, speed only for the first."""
    template: str | None = None
    """Path of model folders to use in place of the built-in compressions, such as models/llama-7b-{ratio}."""
    paths: list[str] = []
    """Further model folders to measure."""

    @field_validator("ratios", "methods")
    @classmethod
    def _distinct(cls, values: list[float]) -> list[float]:
        return distinct(values)

    @model_validator(mode="after")
    def _folders_have_names(self) -> Self:
        if self.template is not None and "{ratio}" not in Path(self.template).name:
            raise ValueError(
                f"template: its last part names the variant and must contain {{ratio}} ({self.template!r})"
            )
        for folder in [*([] if self.template is None else [self.template.replace("{ratio}", "1")]), *self.paths]:
            name = Path(folder).name
            if not re.fullmatch(NAME, name):
                raise ValueError(f"{folder}: its last part, {name!r}, must name the variant: letters, digits and ._-")
        return self


class GridSettings(Settings):
    """A block of the grid. Every combination of its values is a trial."""

    variants: list[str] | None = None
    """Variants to measure, named as in results/throughput/models; null takes all that are measured by default."""
    engines: Annotated[list[str], Field(min_length=1)] = [AUTO]
    """Engines to measure: files of the folder engines/, or package.module:name. `auto` is `lean` where all variants of
    the block are Llamas, else `generate`."""
    batch: Annotated[list[PositiveInt], Field(min_length=1)]
    """Batch sizes to measure."""
    prompt: Annotated[list[PositiveInt], Field(min_length=1)] = [4]
    """Prompt lengths, in tokens."""
    generated: Annotated[list[PositiveInt], Field(min_length=1)] = [32]
    """Number of tokens to generate for each prompt; generation never stops early."""

    @field_validator("engines")
    @classmethod
    def _known(cls, engines: list[str]) -> list[str]:
        known = [AUTO, *registry.names(ENGINES)]
        for engine in engines:
            if ":" not in engine and engine not in known:
                raise ValueError(
                    f"no engine {engine!r}; choose from {', '.join(known)}, or name one as package.module:name"
                )
        return engines


DEFAULT_GRID = [
    GridSettings(batch=[1, 64]),
    GridSettings(variants=[BASE], batch=[8], generated=[8, 32, 56]),
    GridSettings(variants=[BASE], engines=["generate", "static", "continuous", "ctranslate2", "llama_cpp"], batch=[1]),
]


class ThroughputSettings(Settings):
    """Study `throughput`: how fast does a model generate, in how much memory, and what does compressing it buy?"""

    model: ModelSettings = ModelSettings()
    """The base model."""
    text: TextSettings = TextSettings()
    """Text that the model is calibrated on, scored on and prompted with."""
    variants: VariantSettings = VariantSettings()
    """Compressions of the base model, and models that you supply."""
    grid: Annotated[list[GridSettings], Field(min_length=1)] = DEFAULT_GRID
    """Blocks of trials. A trial that several blocks ask for runs once."""
    autotune: AutotuneSettings = AutotuneSettings()
    """How engines compute; `auto` tunes a setting in each trial."""
    timing: TimingSettings = TimingSettings()
    """How long trials are timed, and what they may use."""
    comparison: ComparisonSettings = ComparisonSettings()
    """How precisely variants and engines are compared, and how long that may take."""
    limits: LimitsSettings = LimitsSettings()
    """How long the machine's limits are measured."""

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [BASE, *compressed(self), *(folder.name for folder, _ in _user_folders(self))]
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
                    raise ValueError(f"grid.{number}.variants: no variant {name!r}; choose from {', '.join(known)}")
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

    def check_context(self, context: int, model: str, user_variant: str | None = None) -> None:
        """Raises ValueError when the grid asks `model` for more tokens than its `context`.

        Checks the trials of the base and its compressions, or those of `user_variant` where one is named.
        """
        for number, block in self._blocks_of(user_variant):
            longest = max(block.prompt) + max(block.generated)
            if longest > context:
                raise ValueError(
                    f"grid.{number}: prompt + generated is {longest} tokens, more than the context of {context} tokens"
                    f" of {model}; lower prompt or generated there, or use a model with a longer context"
                )

    def check_engines(self, config: Mapping[str, Any], model: str, user_variant: str | None = None) -> None:
        """Raises ValueError when the grid asks for `model` with an engine that cannot run it, by its config.json.

        Checks the trials that `check_context` checks.
        """
        reason = not_llama(config)
        for number, block in self._blocks_of(user_variant):
            unfit = [engine for engine in block.engines if only_runs_llamas(engine)]
            if reason and unfit:
                raise ValueError(
                    f"grid.{number}.engines: {unfit[0]} only supports {reason}, which {model} has;"
                    " use engines: [generate] there"
                )

    def engines_of(self, user_variant: str | None = None) -> list[str]:
        """The engines that the base and its compressions, or `user_variant`, are measured with."""
        return list(dict.fromkeys(name for _, block in self._blocks_of(user_variant) for name in block.engines))

    def _blocks_of(self, user_variant: str | None) -> Iterator[tuple[int, GridSettings]]:
        """Number and block of the grid's blocks with the base and its compressions, or with `user_variant`."""
        checked = {BASE, *compressed(self)} if user_variant is None else {user_variant}
        for number, block in enumerate(self.grid):
            if block.variants is None or not checked.isdisjoint(block.variants):
                yield number, block


def compressed(settings: ThroughputSettings) -> dict[str, tuple[Method, float]]:
    """Variants that the study compresses itself: name -> method and ratio. None where a template supplies them."""
    if settings.variants.template is not None:
        return {}
    ratios = [ratio for ratio in settings.variants.ratios if ratio < 1]
    return {f"{method}-{ratio:g}": (method, ratio) for method in settings.variants.methods for ratio in ratios}


def user_supplied(settings: ThroughputSettings) -> dict[str, tuple[Path, float | None]]:
    """User-supplied variants: name -> folder and ratio, None where the config does not say the ratio."""
    return {folder.name: (folder, ratio) for folder, ratio in _user_folders(settings)}


def _user_folders(settings: ThroughputSettings) -> list[tuple[Path, float | None]]:
    template, ratios = settings.variants.template, [ratio for ratio in settings.variants.ratios if ratio < 1]
    by_ratio = (
        [] if template is None else [(Path(template.replace("{ratio}", f"{ratio:g}")), ratio) for ratio in ratios]
    )
    return [*by_ratio, *((Path(path), None) for path in settings.variants.paths)]


def variant_names(settings: ThroughputSettings) -> list[str]:
    """All variants, the base first."""
    return [BASE, *compressed(settings), *user_supplied(settings)]


def reads_corpus(settings: ThroughputSettings) -> bool:
    """Whether calibration, evaluation or prompts need the corpus of the study lr_sweep."""
    return settings.model.source != "config" and not (settings.text.calibration and settings.text.evaluation)
