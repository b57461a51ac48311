"""The manifest of a variant: the manifest.json in its folder. Light to import."""

from pathlib import Path

from plumbline.core.files import read_json
from plumbline.core.run.record import Outcome
from plumbline.core.settings import Settings, validated


class CompressedLayer(Settings):
    """A linear layer W (m, n) replaced by U (m, rank) · V (rank, n)."""

    name: str
    rows: int
    columns: int
    rank: int
    error: float | None = None
    """‖W − UV‖ in the norm that the method minimises: Frobenius, or weighted by calibration inputs and gradients. None
    for a layer that another tool factored."""
    discarded: float | None = None
    """√Σσ² of the discarded singular values, which the error must equal."""
    norm: float | None = None
    """Norm of W in the same norm."""


class Calibration(Settings):
    """Inputs that whitening was calibrated on."""

    source: str
    """`text`, or `random tokens` for a model that has no tokenizer."""
    tokens: int


class Shapes(Settings):
    """The sizes of an architecture that loaders and estimates need."""

    kind: str
    """transformers' model_type."""
    vocabulary: int
    context: int | None
    """Longest sequence, in tokens; None where the architecture has no limit."""
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int


class Converted(Settings):
    """Where a variant lies in the format of an engine that does not read safetensors."""

    engine: str
    folder: str
    dtype: str
    """Dtype of the matrices in its files."""


class Manifest(Settings):
    """A variant: where its weights are, how it was compressed, and its perplexity."""

    outcome: Outcome = Outcome.OK
    """`unavailable` or `invalid_output` if there is nothing to measure; its trials then have the same outcome."""
    message: str | None = None
    variant: str
    method: str
    """none (the base) | plain | whitened | user."""
    ratio: float | None = None
    """Share of each linear layer's parameters to keep; of a user-supplied model without a ratio what it reached, or
    its share of all parameters where it has no low-rank layers."""
    folder: str = ""
    """Folder with config.json and *.safetensors; relative to the folder Snakemake runs in."""
    weights: str = ""
    """trained | hub | path | random."""
    revision: str | None = None
    sha256: str | None = None
    """SHA-256 of the weight files' contents."""
    parent: str | None = None
    """`sha256` of the base model."""
    parameters: int | None = None
    shapes: Shapes | None = None
    unused: list[str] = []
    """Tensors in the files that the architecture does not use, tolerated by `throughput.model.strict: false`."""
    missing: list[str] = []
    """Weights that the files lack or have in another shape, tolerated likewise: drawn at random, from a fixed seed."""
    layers: list[CompressedLayer] = []
    reached: float | None = None
    """Share of the parameters in the decoder blocks' matrices that compression kept, counting the matrices that it
    left as they are."""
    beginning_of_text: list[int] = []
    """The tokens that each window of the text begins with; empty where windows begin anywhere in the text."""
    notes: list[str] = []
    """What a reader of its numbers has to know, as clauses for the findings."""
    calibration: Calibration | None = None
    perplexity: float | None = None
    """Perplexity on held-out text, in float32; None without a tokenizer, or if it is not finite."""
    evaluation_tokens: int | None = None
    converted: Converted | None = None
    """Of a manifest that the stage `convert` wrote, which otherwise is the variant's."""
    window_nats: list[float] = []
    """Mean loss per token of each evaluation window, in nats, in the order of the text: all variants have the same
    windows, so their differences are paired."""


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`. Raises UserError when it is not one."""
    return validated(Manifest, read_json(path), str(path))
