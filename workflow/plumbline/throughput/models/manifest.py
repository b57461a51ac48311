"""The manifest of a variant: what stands in manifest.json of its folder, read by whoever loads it. Light to import."""

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
    error: float
    """‖W − UV‖ in the norm that the method minimises: Frobenius, or as calibration text and its loss feel it."""
    discarded: float
    """√Σσ² of the singular values left out: what the error must be."""
    norm: float
    """Of W in the same norm."""


class Calibration(Settings):
    """Inputs that whitening was measured on."""

    source: str
    """`text`, or `random tokens` for a model that has no tokenizer."""
    tokens: int


class Shapes(Settings):
    """What a loader or an estimate needs to know of an architecture."""

    kind: str
    """transformers' model_type."""
    vocabulary: int
    context: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int


class Manifest(Settings):
    """A variant: where its weights are, what was done to them, and how good it is."""

    outcome: Outcome = Outcome.OK
    """`unavailable` or `invalid_output` where there is nothing to measure; its trials then have the same."""
    message: str | None = None
    variant: str
    method: str
    """none (the base) | plain | whitened | own."""
    ratio: float | None = None
    """Share of parameters kept, per linear layer; of one's own without a ratio, of all parameters."""
    folder: str = ""
    """With config.json and *.safetensors; relative paths are from the folder Snakemake runs in."""
    weights: str = ""
    """trained | hub | path | random."""
    revision: str | None = None
    sha256: str | None = None
    """Over the weight files' contents."""
    parent: str | None = None
    """The base's sha256."""
    parameters: int | None = None
    shapes: Shapes | None = None
    layers: list[CompressedLayer] = []
    calibration: Calibration | None = None
    perplexity: float | None = None
    """On held-out text, in float32; None without a tokenizer, or where it is not finite."""
    evaluation_tokens: int | None = None


def read_manifest(path: Path) -> Manifest:
    """The manifest at `path`. Raises UserError when it is none."""
    return validated(Manifest, read_json(path), str(path))
