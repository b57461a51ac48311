"""The plan of the `ablation` study: which targets there are, and what decides each."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from plumbline.ablation.settings import FIGURES, TABLES, TOKENS, WITH_CURVE, AblationSettings
from plumbline.ablation.zoo.images import CLASS_SIZES, check_cells, split_by_fold
from plumbline.ablation.zoo.settings import Zoo
from plumbline.core.errors import UserError
from plumbline.core.plan.fingerprint import fingerprint
from plumbline.core.plan.target import Target, Targets, figures_target
from plumbline.core.registry import module_of, short_name

Features = Mapping[tuple[str, str], Target]
"""(view, representation) -> the target of its whole feature file."""


_target = partial(Target, "ablation")


def plan(
    settings: AblationSettings, seed: int, upstream: Targets, device: str, results: Path = Path("results")
) -> list[Target]:
    """Every target of the study, upstream first."""
    zoo = list(_zoo(settings.zoo, seed)) if settings.source == "zoo" else []
    collect = _collect(settings, zoo[1:])
    features = list(_features(settings, collect))
    whole = {(f.settings["view"], f.settings["representation"]): f for f in features if f.settings["shard"] is None}
    splits = _splits(settings, seed, collect)
    trials = list(_trials(settings, seed, collect, splits, whole))
    curve = _learning_curve(settings, seed, collect, splits, whole)
    written = {name: [f"{name}.csv"] for name in ("summary", "runs", "contrasts")}
    written["learning_curve_summary"] = ["learning_curve.csv"]
    written |= {"findings": ["findings.md"], "tables": [f"tables/{table}.tex" for table in TABLES]}
    reads = {"trials": trials, "learning_curve": [curve]}
    summary = _target("summarize", "", "results.json", {}, reads=reads, merges=trials, beside=written)
    figures = figures_target("ablation", FIGURES, summary)
    pictures = [_samples(settings.zoo, seed, *zoo[:2])] if zoo else []
    return [*zoo, *pictures, collect, splits, *features, *trials, curve, summary, figures]


def _zoo(zoo: Zoo, seed: int) -> Iterator[Target]:
    """The base, then the shards."""
    labels = np.repeat(np.arange(len(CLASS_SIZES)), CLASS_SIZES)
    own = zoo.adapter.own_images(zoo.adapter.image_count_max)
    cells = split_by_fold(labels, zoo.adapter.folds, zoo.adapter.purity, seed)
    check_cells(cells, own, zoo.adapter.image_count_max - own)
    model = zoo.model.model_dump()
    base = {"model": model, "pretraining": zoo.pretraining.model_dump(), "seed": seed}
    pretrain = _target("pretrain", "", "zoo/base.safetensors", base)
    yield pretrain
    common = {"model": model, "adapter": zoo.adapter.model_dump(), "adapters": zoo.adapters, "seed": seed}
    for shard in range(zoo.shards):
        values = {**common, "shard": shard, "shards": zoo.shards}
        yield _target("adapt", str(shard), f"zoo/shard-{shard}.safetensors", values, reads={"base": [pretrain]})


def _samples(zoo: Zoo, seed: int, pretrain: Target, shard: Target) -> Target:
    values = {"model": zoo.model.model_dump(), "scale": zoo.adapter.scale, "seed": seed}
    reads = {"base": [pretrain], "shard": [shard]}
    return _target("samples", "", "figures/zoo.png", values, reads=reads, beside={"pdf": ["figures/zoo.pdf"]})


def _collect(settings: AblationSettings, shards: Sequence[Target]) -> Target:
    options = settings.source_options()
    own = options.get("id") or options.get("path")
    read = ("path", "labels", "base") if settings.source in ("disk", "adapters") else ()
    for key in read:
        if options.get(key) and not Path(options[key]).exists():
            raise UserError(f"config: ablation.{settings.source}.{key}: {options[key]} does not exist")
    paths = [own, *(options.get(key) for key in read[1:])]
    seen = [Path(str(path)) for path in paths if path and Path(str(path)).exists()]
    values = {"source": settings.source, "options": options, "fingerprint": [fingerprint(path) for path in seen]}
    module = module_of(settings.source, f"{_HERE}.sources")
    return _target("collect", "", "adapters/manifest.json", values, reads={"shards": shards}, modules=[module])


def _features(settings: AblationSettings, collect: Target) -> Iterator[Target]:
    """Of each representation that any trial reads, its shards and then the whole."""
    for view, names in settings.representations.items():
        parts = dict.fromkeys(part for name in names for part in settings.ensembles.get(name, [name]))
        for part in parts:
            module = module_of(part, f"{_HERE}.representations")
            name = f"{view}/{short_name(part)}"
            count = settings.shards if settings.shards > 1 else 0
            shards: list[Target] = []
            for index in range(count + 1):
                path = name if index == count else f"{name}/{index}-of-{count}"
                values = {"view": view, "representation": part, "shard": None if index == count else [index, count]}
                reads = {"adapters": [collect], "shards": list(shards) if index == count else []}
                beside = {"seconds": [f"features/{path}.json"]}
                output = f"features/{path}.safetensors"
                shards.append(_target("features", path, output, values, reads=reads, beside=beside, modules=[module]))
            yield from shards


def _splits(settings: AblationSettings, seed: int, collect: Target) -> Target:
    training = settings.training.model_dump(include={"split", "split_by_images"})
    values = {**training, "runs": settings.runs, "seed": seed}
    return _target("split", "", "splits.safetensors", values, reads={"adapters": [collect]})


def _trials(
    settings: AblationSettings, seed: int, collect: Target, splits: Target, features: Features
) -> Iterator[Target]:
    common = {"training": settings.training.model_dump(), "runs": settings.runs, "seed": seed}
    common["linear"] = settings.linear.model_dump()
    for view, names in settings.representations.items():
        for layers in settings.layers:
            for name in names:
                parts = settings.ensembles.get(name, [name])
                trial = f"{view}/{layers}/{short_name(name)}"
                values = {"view": view, "layers": layers, "representation": name, "parts": parts, **common}
                has_tokens = name == TOKENS
                values["classifier"] = ["transformer"] if has_tokens else settings.classifier
                values["transformer"] = settings.transformer.model_dump() if has_tokens else None
                reads = {"adapters": [collect], "splits": [splits]}
                reads["features"] = [features[view, part] for part in parts]
                yield _target("train", trial, f"trials/{trial}.json", values, reads=reads, is_trial=True)


def _learning_curve(
    settings: AblationSettings, seed: int, collect: Target, splits: Target, features: Features
) -> Target:
    curves: list[dict[str, Any]] = []
    read: dict[int, Target] = {}
    for view, names in settings.representations.items():
        vectors = [name for name in names if name != TOKENS]
        if "linear" not in settings.classifier:
            continue
        for name in [name for name in vectors if name in WITH_CURVE[view]] or vectors[:1]:
            parts = settings.ensembles.get(name, [name])
            curves.append({"view": view, "representation": name, "parts": parts})
            read |= {id(features[view, part]): features[view, part] for part in parts}
    values = {"curves": curves, "layers": settings.layers[0], "sizes": settings.learning_curve, "seed": seed}
    values["linear"] = settings.linear.model_dump()
    reads = {"adapters": [collect], "splits": [splits], "features": list(read.values())}
    return _target("learning_curve", "", "learning_curve.json", values, reads=reads)


_HERE = __package__
