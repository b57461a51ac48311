"""Stage `throughput.user_variant`: a user-supplied variant."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, read_json, write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.device import torch_device
from plumbline.core.run.record import Outcome
from plumbline.core.run.stage import stage
from plumbline.throughput.compression.blocks import block_matrices, linear_shapes, reached_share
from plumbline.throughput.models.factored import factored_layers
from plumbline.throughput.models.load import architecture, load_leniently, shapes_of
from plumbline.throughput.models.manifest import CompressedLayer, Manifest, read_manifest
from plumbline.throughput.models.perplexity import quality
from plumbline.throughput.models.tokenizer import same_vocabulary
from plumbline.throughput.models.weights import check_is_folder, sha256_of, stored_shapes

OTHER_TOKENS = "it uses other tokens than the base, so its perplexity would not be comparable"


class UserVariantSpec(Spec):
    """What decides a user-supplied variant, besides the base's text."""

    variant: str
    folder: str
    strict: bool = True
    ratio: float | None
    fingerprint: str | None
    """None if the folder does not exist."""


@stage
def user_variant(spec: UserVariantSpec, base: Path, output: Path, device: str = "auto") -> None:
    """Writes a manifest that points to the user's folder; one that is missing or cannot be read is `unavailable`.

    base: the base's manifest, with text.safetensors beside it.
    """
    on = torch_device(device)
    parent = read_manifest(base)
    named: dict[str, Any] = {"variant": spec.variant, "method": "user", "ratio": spec.ratio, "folder": spec.folder}
    try:
        manifest = _examined(spec, Manifest(**named), parent, base.with_name("text.safetensors"), on)
    except UserError as error:  # the other variants are measured nevertheless
        manifest = Manifest(**named, outcome=Outcome.UNAVAILABLE, message=str(error))
    with atomic(output.parent) as folder:
        folder.mkdir()
        write_json(folder / output.name, manifest.model_dump(mode="json"))


def _examined(
    spec: UserVariantSpec, manifest: Manifest, parent: Manifest, text: Path, device: torch.device
) -> Manifest:
    """The manifest, completed with what the folder holds and with its perplexity. Raises UserError for a bad folder."""
    folder = Path(manifest.folder)
    if not folder.is_dir():
        check_is_folder(folder)
    manifest = manifest.model_copy(update={"layers": _layers(folder)})
    model, unmatched = load_leniently(manifest, torch.float32, device)
    manifest = unmatched.tolerated(manifest, model, strict=spec.strict)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shapes = shapes_of(model.config, manifest.folder)
    evaluation = load_file(text).get("evaluation")
    comparable = evaluation is None or (
        int(evaluation.max()) < shapes.vocabulary
        and (shapes.context is None or evaluation.shape[1] <= shapes.context)
        and same_vocabulary(folder, Path(parent.folder))
    )
    layers = manifest.layers
    reached = reached_share(block_matrices(model, manifest.folder), layers) if layers else None
    ratio = manifest.ratio or reached
    if ratio is None and parent.parameters:
        ratio = parameters / parent.parameters
    known = {
        "ratio": ratio,
        "weights": "path",
        "sha256": sha256_of(folder),
        "parent": parent.sha256,
        "parameters": parameters,
        "shapes": shapes,
        "message": None if comparable else OTHER_TOKENS,
        "beginning_of_text": parent.beginning_of_text,
        "reached": reached,
    }
    return manifest.model_copy(update=known | quality(model, evaluation if comparable else None))


def _layers(folder: Path) -> list[CompressedLayer]:
    """The low-rank layers of a folder: by the manifest that the stage `compress` wrote, else by its tensors' names."""
    path = folder / "manifest.json"
    if path.exists() and "layers" in read_json(path):
        return read_manifest(path).layers
    config, model_class = architecture(folder)
    with torch.device("meta"):
        linears = linear_shapes(model_class(config))
    return factored_layers(linears, stored_shapes(folder))


if __name__ == "__main__":
    user_variant.main()
