"""Stage `throughput.convert`: a variant in the format of an engine that does not read safetensors."""

from pathlib import Path
from typing import Any

import torch

from plumbline.core import registry
from plumbline.core.files import atomic, write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.core.run.stage import stage
from plumbline.throughput.engine_needs import FORMATS
from plumbline.throughput.engines.interface import KEY, check_complete, package, unavailable
from plumbline.throughput.measurement.settings import Dtype
from plumbline.throughput.models.llama_config import llama_sizes, not_llama
from plumbline.throughput.models.load import load_tensors
from plumbline.throughput.models.manifest import Converted, Manifest, read_manifest
from plumbline.throughput.models.weights import read_config


class ConvertSpec(Spec):
    """What decides a conversion, besides the variant."""

    variant: str
    engine: str
    dtype: Dtype
    missing: list[str]
    """Packages of the engine that were not found when this was planned."""


@stage
def convert(spec: ConvertSpec, manifest: Path, output: Path) -> None:
    """Writes the variant's weights beside the manifest `output`, which is the variant's and says where they are.

    Where the engine cannot have the variant, or its package is missing, only the manifest is written, with outcome
    `unavailable` and the reason.
    """
    variant = read_manifest(manifest)
    converted = Converted(engine=spec.engine, folder=str(output.parent), dtype=spec.dtype)
    found: dict[str, Any] = {"converted": converted}
    with atomic(output.parent) as folder:
        folder.mkdir()
        if variant.outcome is Outcome.OK:
            try:
                _write(spec, variant, folder)
            except OutcomeError as error:
                found |= {"outcome": error.outcome, "message": str(error)}
        write_json(folder / output.name, variant.model_copy(update=found).model_dump(mode="json"))


def _write(spec: ConvertSpec, variant: Manifest, folder: Path) -> None:
    """Writes the weights to `folder`. Raises OutcomeError, unavailable, where that cannot be done."""
    config = read_config(Path(variant.folder))
    if variant.layers:
        raise unavailable(f"engine {spec.engine} has no low-rank layers, as {variant.variant} has")
    check_complete(variant, spec.engine)
    if reason := not_llama(config):
        raise unavailable(f"engine {spec.engine} only supports {reason}")
    write = registry.find(spec.engine, FORMATS, "plumbline.throughput.formats", attribute="write", place=KEY)
    tensors = load_tensors(variant, getattr(torch, spec.dtype), torch.device("cpu"))
    with package(spec.engine):
        write(folder, llama_sizes(config), tensors, spec.dtype)


if __name__ == "__main__":
    convert.main()
