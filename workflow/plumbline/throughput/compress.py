"""Stage `throughput.compress`: the base model with its linear layers replaced by low-rank ones."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from plumbline.core.errors import one_line
from plumbline.core.files import atomic, write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.device import torch_device
from plumbline.core.run.progress import Progress
from plumbline.core.run.record import Outcome, OutcomeError
from plumbline.core.run.stage import stage
from plumbline.throughput.compression import calibration, svd
from plumbline.throughput.compression.blocks import block_matrices, blocks_of, left_whole, matrix_of, reached_share
from plumbline.throughput.models.load import LowRank, load_transformers
from plumbline.throughput.models.manifest import CompressedLayer, Manifest, read_manifest
from plumbline.throughput.models.perplexity import quality
from plumbline.throughput.models.tokenizer import TOKENIZER_FILES
from plumbline.throughput.models.weights import CONFIG, SINGLE, StoredTypes, sha256_of
from plumbline.throughput.settings import Method

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COPIED = (CONFIG, "generation_config.json", *TOKENIZER_FILES)

log = logging.getLogger("plumbline")


class CompressSpec(Spec):
    """What decides a compressed variant, besides the base model."""

    variant: str
    method: Method
    ratio: float


@stage
def compress(spec: CompressSpec, base: Path, output: Path, device: str = "auto") -> None:
    """Writes a model folder around the manifest `output`: configuration, tokenizer, low-rank weights.

    base: the base's manifest, with text.safetensors beside it. If the base failed, so does the variant; a model that
    cannot be compressed by this method is outcome `unavailable`. Then only a manifest is written, which says why.
    """
    on = torch_device(device)
    parent = read_manifest(base)
    with atomic(output.parent) as folder:
        folder.mkdir()
        failed = Manifest(variant=spec.variant, method=spec.method, ratio=spec.ratio, parent=parent.sha256)
        if parent.outcome is Outcome.OK:
            try:
                manifest = _compressed(spec, parent, base.with_name("text.safetensors"), folder, on)
            except OutcomeError as error:
                manifest = failed.model_copy(update={"outcome": error.outcome, "message": str(error)})
        else:
            message = f"the base model failed: {parent.message}"
            manifest = failed.model_copy(update={"outcome": parent.outcome, "message": message})
        located = manifest.model_copy(update={"folder": str(output.parent)})
        write_json(folder / output.name, located.model_dump(mode="json"))
    log.info("%s: perplexity %s, the base's %s", spec.variant, manifest.perplexity, parent.perplexity)


def _compressed(spec: CompressSpec, parent: Manifest, text: Path, folder: Path, device: torch.device) -> Manifest:
    """Writes the model to `folder`; returns its manifest, still without the final folder."""
    model = load_transformers(parent, torch.float32, device)
    windows = load_file(text)
    types = StoredTypes(Path(parent.folder), model.base_model_prefix)
    layers: list[CompressedLayer] = []
    made: dict[str, nn.Module] = {}
    notes = list(parent.notes)
    for name, linear, factors in _factors(spec, parent.folder, model, windows["calibration"], notes):
        layers.append(_described(name, factors))
        made[name] = _module(linear, factors, types.of(f"{name}.weight"))
    for name, module in made.items():
        model.set_submodule(name, module)
    for name in COPIED:
        if (file := Path(parent.folder) / name).exists():
            shutil.copyfile(file, folder / name)
    _save(model, types, folder / SINGLE)
    try:
        scored = quality(model, windows.get("evaluation"))
    except (
        AttributeError,
        TypeError,
    ) as error:  # some architectures read a layer's weight in place of calling the layer
        message = f"{parent.folder}: its layers cannot be replaced by low-rank ones ({one_line(error)})"
        raise OutcomeError(Outcome.UNAVAILABLE, message) from error
    matrices = block_matrices(model, parent.folder)
    used = parent.calibration if spec.method == "whitened" else None
    return Manifest(
        variant=spec.variant,
        method=spec.method,
        ratio=spec.ratio,
        weights=parent.weights,
        revision=parent.revision,
        sha256=sha256_of(folder),
        parent=parent.sha256,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        shapes=parent.shapes,
        layers=layers,
        reached=reached_share(matrices, layers),
        notes=[*notes, *left_whole(matrices, layers)],
        beginning_of_text=parent.beginning_of_text,
        calibration=used,
        **scored,
    )


def _factors(
    spec: CompressSpec, place: str, model: "PreTrainedModel", windows: Tensor, notes: list[str]
) -> Iterator[tuple[str, nn.Module, svd.Factors]]:
    """Name, layer and factors of each linear layer in the decoder blocks. place: the model's folder, for messages.

    Adds to `notes` which layers the calibration could not weight.
    """
    blocks = blocks_of(model, place)
    with Progress(sum(len(block) for block in blocks), "layers") as progress:
        for block in calibration.together(blocks):
            moments = calibration.moments(model, block, windows) if spec.method == "whitened" else {}
            notes += calibration.unweighted(moments)
            for name, linear in block.items():
                weight = matrix_of(linear)
                rank = svd.rank_of(spec.ratio, *weight.shape)
                whitened = spec.method == "whitened"
                yield name, linear, svd.whitened(weight, moments[name], rank) if whitened else svd.plain(weight, rank)
                progress.advance()


def _described(name: str, factors: svd.Factors) -> CompressedLayer:
    rows, columns = len(factors.second), factors.first.shape[1]
    errors = {"error": factors.error, "discarded": factors.discarded, "norm": factors.norm}
    return CompressedLayer(name=name, rows=rows, columns=columns, rank=len(factors.first), **errors)


def _module(linear: nn.Module, factors: svd.Factors, dtype: torch.dtype) -> nn.Module:
    """The factors as a float32 layer, with values rounded to `dtype` and the bias of `linear`."""
    first, second, bias = factors.first.to(dtype), factors.second.to(dtype), getattr(linear, "bias", None)
    made = LowRank(len(second), first.shape[1], len(first), bias=bias is not None)
    made.load_state_dict({"0.weight": first, "1.weight": second} | ({} if bias is None else {"1.bias": bias}))
    return made.to(first.device).requires_grad_(False)


def _save(model: nn.Module, types: StoredTypes, path: Path) -> None:
    """Writes the weights in the dtypes of the base; tied weights once, under their first name."""
    factors = {
        f"{name}.{part}" for name, module in model.named_modules() if isinstance(module, LowRank) for part in "01"
    }
    tensors: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            module, _, kind = name.rpartition(".")
            stored = f"{module[:-2]}.{kind}" if module in factors else name
            tensors[name] = tensor.to("cpu", types.of(stored)).contiguous()
    save_file(tensors, path, metadata={"format": "pt"})


if __name__ == "__main__":
    compress.main()
