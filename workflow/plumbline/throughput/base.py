"""Stage `throughput.base`: the base model, which every variant is compared with, its text and its perplexity."""

import logging
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, write_json
from plumbline.core.plan.globs import matching
from plumbline.core.plan.target import Spec
from plumbline.core.run.device import torch_device
from plumbline.core.run.stage import stage
from plumbline.core.settings import Settings, validated
from plumbline.throughput.engine_needs import only_runs_llamas
from plumbline.throughput.models import random, source
from plumbline.throughput.models.llama_config import not_llama
from plumbline.throughput.models.load import load_leniently, shapes_of
from plumbline.throughput.models.manifest import Calibration, Manifest
from plumbline.throughput.models.perplexity import quality
from plumbline.throughput.models.text import corpus_documents, file_documents, random_windows, windows
from plumbline.throughput.models.tokenizer import TextTokenizer, read_tokenizer
from plumbline.throughput.models.weights import sha256_of
from plumbline.throughput.settings import BASE, Architecture, HubModel, TextSettings

TEXT = "text.safetensors"

log = logging.getLogger("plumbline")


class ChosenModel(Settings):
    """Where the base model comes from."""

    source: Literal["trained", "hub", "path", "config"]
    chosen: dict[str, Any]
    """The settings of that source."""


class BaseSpec(Spec):
    """What decides the base."""

    model: ChosenModel
    strict: bool = True
    text: TextSettings
    seed: int
    fingerprint: list[str]
    """Fingerprints of the user's folder and files, if any."""


@stage
def base(
    spec: BaseSpec,
    best: list[Path],
    corpus: list[Path],
    output: Path,
    device: str = "auto",
    engines: list[str] | None = None,
) -> None:
    """Writes the manifest `output`, and text.safetensors beside it; weights only if they are drawn from the seed.

    best, corpus: manifests of the study lr_sweep, if the settings need them. engines: those that will measure it; a
    model that one of them cannot run is refused before its weights are fetched. The text is int64 windows
    (windows, window) under `calibration` and, unless the tokens are random, `evaluation`.
    """
    on = torch_device(device)
    with atomic(output.parent) as folder:
        folder.mkdir()
        if spec.model.source == "config":
            manifest, text = _drawn(spec, folder)
            manifest = manifest.model_copy(update={"folder": str(output.parent)})
        else:
            manifest, text = _given(spec, _source(spec.model, best, engines or []), corpus, on)
        save_file(text, folder / TEXT)
        write_json(folder / output.name, manifest.model_dump(mode="json"))
    log.info("%s: %s parameters, perplexity %s", manifest.folder, manifest.parameters, manifest.perplexity)


def _source(model: ChosenModel, best: list[Path], engines: list[str]) -> source.Source:
    if model.source == "trained":
        return source.trained(best)
    if model.source == "path":
        return source.path(model.chosen.get("path"))
    chosen = validated(HubModel, model.chosen, "throughput.model.hub")
    return source.hub(chosen, partial(_check_engines, chosen.id, engines))


def _check_engines(model: str, engines: list[str], config: dict[str, Any]) -> None:
    """Raises UserError for an engine that cannot run a model with this config.json; the plan knows local ones."""
    reason = not_llama(config)
    for engine in engines:
        if reason and only_runs_llamas(engine):
            raise UserError(
                f"throughput.grid.engines: {engine} only supports {reason}, which {model} has; use engines: [generate]"
            )


def _drawn(spec: BaseSpec, folder: Path) -> tuple[Manifest, dict[str, Tensor]]:
    """A model with random weights, written to `folder`; its text is random tokens."""
    architecture = validated(Architecture, spec.model.chosen, "throughput.model.config")
    count, window = spec.text.calibration_windows, spec.text.window
    _check_window(window, architecture.context, "throughput.model.config.context")
    random.write_model(folder, architecture, spec.seed)
    manifest = Manifest(
        variant=BASE,
        method="none",
        ratio=1.0,
        weights="random",
        sha256=sha256_of(folder),
        parameters=random.parameters_of(architecture),
        shapes=random.shapes_of(architecture),
        calibration=Calibration(source="random tokens", tokens=count * window),
    )
    return manifest, {"calibration": random_windows(architecture.vocabulary, count, window, spec.seed)}


def _given(
    spec: BaseSpec, found: source.Source, corpus: list[Path], device: torch.device
) -> tuple[Manifest, dict[str, Tensor]]:
    """A model in a folder, with real text."""
    tokenizer = read_tokenizer(found.folder)
    begin = tokenizer.beginning(spec.text.beginning_of_text)
    manifest = Manifest(
        variant=BASE,
        method="none",
        ratio=1.0,
        folder=str(found.folder),
        weights=found.weights,
        revision=found.revision,
    )
    model, unmatched = load_leniently(manifest, torch.float32, device)
    manifest = unmatched.tolerated(manifest, model, strict=spec.strict)
    shapes = shapes_of(model.config, str(found.folder))
    _check_window(spec.text.window, shapes.context, str(found.folder), len(begin))
    text = _text(spec, tokenizer, begin, corpus)
    largest = max(int(part.max()) for part in text.values())
    if largest >= shapes.vocabulary:
        raise UserError(
            f"{found.folder}: its tokenizer gives id {largest}, but the model has {shapes.vocabulary} tokens;"
            " use the tokenizer that the model was trained with"
        )
    known = {
        "sha256": sha256_of(found.folder),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "shapes": shapes,
        "calibration": Calibration(source="text", tokens=text["calibration"].numel()),
        "beginning_of_text": begin,
        "notes": [*manifest.notes, *tokenizer.note(begin)],
    }
    return manifest.model_copy(update=known | quality(model, text["evaluation"])), text


def _check_window(window: int, context: int | None, place: str, begin: int = 0) -> None:
    """Raises UserError for a window beyond the context, or without a token to predict. begin: tokens put before it."""
    if context is not None and window > context:
        raise UserError(
            f"throughput.text.window: {window} tokens, more than the context of {context} tokens of {place}; lower it"
        )
    if window < 2 or window <= begin:
        raise UserError("throughput.text.window: a window of one token has no token to predict; use 2 or more")


def _text(spec: BaseSpec, tokenizer: TextTokenizer, begin: list[int], corpus: list[Path]) -> dict[str, Tensor]:
    """Windows for calibration and evaluation, from the files that the settings name, else from the corpus."""
    text = spec.text
    files = {side: matching(getattr(text, side), f"throughput.text.{side}") for side in ("calibration", "evaluation")}
    if both := set(files["calibration"]) & set(files["evaluation"]):
        raise UserError(f"throughput.text.evaluation: {min(both)} is also used for calibration; name held-out text")
    found = {}
    for side, count in (("calibration", text.calibration_windows), ("evaluation", text.evaluation_windows)):
        if files[side]:
            documents = file_documents(files[side], f"throughput.text.{side}")
        elif len(corpus) == 1:
            documents = corpus_documents(corpus[0], side == "evaluation", spec.seed)
        else:
            raise UserError(f"--corpus: needs the manifest of the corpus, since throughput.text.{side} names no file")
        found[side] = windows(documents, tokenizer, count, text.window, f"throughput.text.{side}", begin)
    return found


if __name__ == "__main__":
    base.main()
