"""Stage `throughput.user_variant`: a user-supplied variant."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from plumbline.core.files import atomic, read_json, write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.device import torch_device
from plumbline.core.run.record import Outcome
from plumbline.core.run.stage import stage
from plumbline.throughput.models.load import load_transformers, shapes_of
from plumbline.throughput.models.manifest import CompressedLayer, Manifest, read_manifest
from plumbline.throughput.models.perplexity import quality
from plumbline.throughput.models.text import same_vocabulary
from plumbline.throughput.models.weights import sha256_of

OTHER_TOKENS = "it uses other tokens than the base, so its perplexity would not be comparable"


class UserVariantSpec(Spec):
    """What decides a user-supplied variant, besides the base's text."""

    variant: str
    folder: str
    ratio: float | None
    fingerprint: str | None
    """None if the folder does not exist."""


@stage
def user_variant(spec: UserVariantSpec, base: Path, output: Path, device: str = "auto") -> None:
    """Writes a manifest that points to the user's folder; a missing folder is outcome `unavailable`.

    base: the base's manifest, with text.safetensors beside it.
    """
    on = torch_device(device)
    parent = read_manifest(base)
    named: dict[str, Any] = {"variant": spec.variant, "method": "user", "ratio": spec.ratio, "folder": spec.folder}
    if Path(spec.folder).is_dir():
        manifest = _examined(Manifest(**named), parent, base.with_name("text.safetensors"), on)
    else:
        manifest = Manifest(**named, outcome=Outcome.UNAVAILABLE, message=f"{spec.folder}: does not exist")
    with atomic(output.parent) as folder:
        folder.mkdir()
        write_json(folder / output.name, manifest.model_dump(mode="json"))


def _examined(manifest: Manifest, parent: Manifest, text: Path, device: torch.device) -> Manifest:
    """The manifest, completed with what the folder holds and with its perplexity."""
    folder = Path(manifest.folder)
    manifest = manifest.model_copy(update={"layers": _layers(folder)})
    model = load_transformers(manifest, torch.float32, device, "sdpa")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    shapes = shapes_of(model.config, manifest.folder)
    evaluation = load_file(text).get("evaluation")
    comparable = evaluation is None or (
        int(evaluation.max()) < shapes.vocabulary
        and evaluation.shape[1] <= shapes.context
        and same_vocabulary(folder, Path(parent.folder))
    )
    ratio = manifest.ratio
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
    }
    return manifest.model_copy(update=known | quality(model, evaluation if comparable else None))


def _layers(folder: Path) -> list[CompressedLayer]:
    """The low-rank layers of a folder that the stage `compress` wrote; none for other folders."""
    path = folder / "manifest.json"
    if not path.exists() or "layers" not in read_json(path):
        return []
    return read_manifest(path).layers


if __name__ == "__main__":
    user_variant.main()
