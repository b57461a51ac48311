"""The plan of the `throughput` study: which targets there are, and what decides each."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from plumbline.core.errors import UserError, one_line
from plumbline.core.files import read_json
from plumbline.core.plan.fingerprint import fingerprint
from plumbline.core.plan.globs import matching
from plumbline.core.plan.target import Content, Target, Targets, figures_target
from plumbline.core.registry import module_of, short_name
from plumbline.throughput.engine_needs import fastest, missing_packages, needs_conversion
from plumbline.throughput.grid import Cell, Contest, cells, contests, measured, smaller
from plumbline.throughput.settings import (
    AUTO,
    BASE,
    FIGURES,
    TABLES,
    HubModel,
    ThroughputSettings,
    compressed,
    reads_corpus,
    user_supplied,
    variant_names,
)

_target = partial(Target, "throughput")
HERE = "plumbline.throughput"
Reads = dict[str, list[Target]]


def plan(
    settings: ThroughputSettings, seed: int, upstream: Targets, device: str, results: Path = Path("results")
) -> list[Target]:
    """Every target of the study, upstream first.

    Raises UserError when nothing exists that a template, a path or a glob names, or when the grid goes beyond the
    context of a model that lies here.
    """
    settings = _with_engines(settings)
    limits = _target("limits", "", "../machine.json", {"limits": settings.limits.model_dump(), "device": device})
    base = _base(settings, seed, upstream)
    variants = {BASE: base, **dict(_compressed(settings, base)), **dict(_user_supplied(settings, base))}
    grid = cells(settings)
    models = {name: {"manifest": [variant], "base": [base]} for name, variant in variants.items()}
    references = {name: _reference(settings, seed, name, models[name], grid) for name in _in_grid(settings, grid)}
    converted = dict(_converted(settings, variants, grid))
    read_by = {cell: models[cell.variant] | _in_format(cell, converted) for cell in grid}
    trials: dict[Cell, Target] = {}
    for cell in sorted(grid, key=lambda cell: cell.batch):  # a trial may need that of a smaller batch
        reads = read_by[cell] | {"reference": [references[cell.variant]], "limits": [limits]}
        trials[cell] = _trial(settings, seed, device, cell, reads, trials)
    in_order = [trials[cell] for cell in grid]
    compared = [_comparison(settings, seed, device, each, base, read_by, references, trials) for each in contests(grid)]
    largest = list(_max_batch(settings, device, read_by))
    summary = _summary([*variants.values()], in_order, compared, largest)
    figures = figures_target("throughput", FIGURES, summary)
    measured = [*references.values(), *trials.values(), *compared, *largest]
    return [limits, *variants.values(), *converted.values(), *measured, summary, figures]


def _with_engines(settings: ThroughputSettings) -> ThroughputSettings:
    """The settings with the fastest engine that can run a block's variants in place of `auto`."""
    if not any(AUTO in block.engines for block in settings.grid):
        return settings
    base = _base_config(settings)
    own = {name: _config_in(folder) for name, (folder, _) in user_supplied(settings).items()}
    blocks = []
    for block in settings.grid:
        names = measured(settings) if block.variants is None else block.variants
        configs = [config for name in names if isinstance(config := own.get(name, base), dict)]
        engines = [fastest(configs) if engine == AUTO else engine for engine in block.engines]
        blocks.append(block.model_copy(update={"engines": list(dict.fromkeys(engines))}))
    return settings.model_copy(update={"grid": blocks})


def _base_config(settings: ThroughputSettings) -> Any:
    """The base's config.json; None for the sources that are Llamas of this project's. Asks the hub, if need be."""
    model = settings.model
    if model.source == "path":
        return _config_in(Path(model.path or ""))
    if model.source == "hub" and Path(model.hub.id).exists():
        return _config_in(Path(model.hub.id))
    if model.source == "hub":
        return _cached_config(model.hub) or _fetched_config(model.hub)
    return None


def _config_in(folder: Path) -> Any:
    """config.json in a folder; None where there is none that can be read, which the stage that loads it explains."""
    try:
        return read_json(folder / "config.json")
    except (UserError, OSError):
        return None


def _summary(variants: list[Target], trials: list[Target], compared: list[Target], largest: list[Target]) -> Target:
    return _target(
        "summarize",
        "",
        "results.json",
        {},
        reads={"manifests": variants, "trials": trials, "comparisons": compared, "max_batch": largest},
        merges=[*trials, *compared, *largest],
        beside={
            "evaluation": ["evaluation_results.jsonl"],
            "summary": ["summary.csv"],
            "statistics": ["summary_statistics.csv"],
            "speedups": ["speedups.csv"],
            "analysis": ["throughput_analysis.md"],
            "tables": [f"tables/{table}.tex" for table in TABLES],
        },
    )


def _in_grid(settings: ThroughputSettings, grid: list[Cell]) -> list[str]:
    return [name for name in variant_names(settings) if any(cell.variant == name for cell in grid)]


def _base(settings: ThroughputSettings, seed: int, upstream: Targets) -> Target:
    model, text = settings.model, settings.text
    reads = {
        "best": [Content(upstream["lr_sweep.best", ""])] if model.source == "trained" else [],
        "corpus": [Content(upstream["lr_sweep.corpus", ""])] if reads_corpus(settings) else [],
    }
    seen = []
    if model.source == "path":
        seen.append(_folder(model.path or "", settings))
    if model.source == "hub" and Path(model.hub.id).exists():
        seen.append(_suiting(Path(model.hub.id), settings))
    elif model.source == "hub":
        _check(_cached_config(model.hub), model.hub.id, settings)
    seen += matching(text.calibration, "throughput.text.calibration")
    seen += matching(text.evaluation, "throughput.text.evaluation")
    values = {
        "model": {"source": model.source, "chosen": _chosen(settings)},
        "strict": model.strict,
        "text": text.model_dump(),
        "seed": seed,
        "fingerprint": [fingerprint(path) for path in seen],
    }
    beside = {"text": [f"models/{BASE}/text.safetensors"]}
    return _target("base", "", f"models/{BASE}/manifest.json", values, reads=reads, beside=beside)


def _chosen(settings: ThroughputSettings) -> dict[str, object]:
    """The settings of the source that was chosen, and of no other."""
    model = settings.model
    if model.source == "path":
        return {"path": model.path}
    return {"hub": model.hub.model_dump(), "config": model.config.model_dump()}.get(model.source, {})


def _folder(path: str, settings: ThroughputSettings) -> Path:
    """The folder of the source `path`, the grid checked against it."""
    folder = Path(path)
    if not (folder / "config.json").exists():
        raise UserError(
            f"config: throughput.model.path: no config.json in {path}; name a folder that transformers saved"
        )
    return _suiting(folder, settings)


def _suiting(folder: Path, settings: ThroughputSettings, user_variant: str | None = None) -> Path:
    """`folder`, the grid checked against the config.json in it, if there is one."""
    _check(_config_in(folder), str(folder), settings, user_variant)
    return folder


def _check(config: Any, model: str, settings: ThroughputSettings, user_variant: str | None = None) -> None:
    """Raises UserError when the grid asks more of a model than its config.json allows, as far as that is known."""
    if not isinstance(config, dict):
        return
    context = config.get("max_position_embeddings")
    try:
        if isinstance(context, int):
            settings.check_context(context, model, user_variant)
        if "model_type" in config:
            settings.check_engines(config, model, user_variant)
    except ValueError as error:
        raise UserError(f"config: throughput.{error}") from None


def _cached_config(model: HubModel) -> Any:
    """config.json of a model on the hub, if it has been fetched before."""
    from huggingface_hub import try_to_load_from_cache  # takes a while

    try:
        found = try_to_load_from_cache(model.id, "config.json", revision=model.revision)
    except ValueError as error:  # an id that the hub's client refuses
        message = f"{model.id} is neither a directory here nor an id: {one_line(error)}"
        raise UserError(f"config: throughput.model.hub.id: {message}") from None
    return read_json(Path(found)) if isinstance(found, str) else None


def _fetched_config(model: HubModel) -> Any:
    """config.json of a model on the hub, a few kilobytes, fetched now. Raises UserError where that fails."""
    from huggingface_hub import hf_hub_download

    from plumbline.core.run.hub import Repository

    with Repository(kind="model", id=model.id, revision=model.revision, key="throughput.model.hub").reached():
        return read_json(Path(hf_hub_download(model.id, "config.json", revision=model.revision)))


def _compressed(settings: ThroughputSettings, base: Target) -> Iterator[tuple[str, Target]]:
    for name, (method, ratio) in compressed(settings).items():
        values = {"variant": name, "method": method, "ratio": ratio}
        yield name, _target("compress", name, f"models/{name}/manifest.json", values, reads={"base": [base]})


def _user_supplied(settings: ThroughputSettings, base: Target) -> Iterator[tuple[str, Target]]:
    own = user_supplied(settings)
    template, tried = settings.variants.template, [folder for folder, ratio in own.values() if ratio is not None]
    if template is not None and not any(folder.exists() for folder in tried):
        names = ", ".join(map(str, tried)) or "no ratio below 1 in throughput.variants.ratios"
        raise UserError(f"config: throughput.variants.template: {template} matches nothing (tried: {names})")
    for name, (folder, ratio) in own.items():
        seen = fingerprint(_suiting(folder, settings, name)) if folder.exists() else None
        values = {"variant": name, "folder": str(folder), "ratio": ratio, "fingerprint": seen}
        values["strict"] = settings.model.strict
        yield name, _target("user_variant", name, f"models/{name}/manifest.json", values, reads={"base": [base]})


def _converted(
    settings: ThroughputSettings, variants: dict[str, Target], grid: list[Cell]
) -> Iterator[tuple[tuple[str, str], Target]]:
    """(variant, engine) -> the variant in the format of the engine, where it reads one of its own."""
    for name, engine in dict.fromkeys((cell.variant, cell.engine) for cell in grid):
        if needs_conversion(engine):
            values = {"variant": name, "engine": engine, "dtype": _dtype(settings), "missing": missing_packages(engine)}
            output = f"models/{name}+{engine}/manifest.json"
            reads, module = {"manifest": [variants[name]]}, f"{HERE}.formats.{engine}"
            yield (name, engine), _target("convert", f"{name}/{engine}", output, values, reads=reads, modules=[module])


def _in_format(cell: Cell, converted: dict[tuple[str, str], Target]) -> Reads:
    """What a cell reads in place of its variant's own manifest, if anything."""
    found = converted.get((cell.variant, cell.engine))
    return {} if found is None else {"manifest": [found]}


def _dtype(settings: ThroughputSettings) -> str:
    return "float32" if settings.autotune.dtype == "auto" else settings.autotune.dtype


def _reference(settings: ThroughputSettings, seed: int, name: str, model: Reads, grid: list[Cell]) -> Target:
    mine = [cell for cell in grid if cell.variant == name]
    shapes = []  # the largest alone: a cell within them leaves the reference, and with it every trial, as it is
    for prompt in sorted({cell.prompt for cell in mine}):
        alike = [cell for cell in mine if cell.prompt == prompt]
        shapes.append([max(cell.batch for cell in alike), prompt, max(cell.generated for cell in alike)])
    values = {"variant": name, "shapes": shapes, "dtype": _dtype(settings), "seed": seed}
    return _target("reference", name, f"references/{name}.safetensors", values, reads=model)


def _trial(
    settings: ThroughputSettings, seed: int, device: str, cell: Cell, reads: Reads, trials: dict[Cell, Target]
) -> Target:
    before = smaller(cell, list(trials)) if settings.timing.skip_larger_after_oom else None
    values = {
        "model": settings.model.display_name,
        "cell": cell._asdict(),
        "autotune": settings.autotune.model_dump(),
        "timing": settings.timing.model_dump(exclude={"max_batch"}),
        "seed": seed,
        "device": device,
        "missing": missing_packages(cell.engine),
    }
    return _target(
        "measure",
        cell.trial,
        f"trials/{cell.trial}.json",
        values,
        reads=reads | {"smaller": [trials[before]] if before else []},
        modules=[module_of(cell.engine, f"{HERE}.engines")],
        is_trial=True,
    )


def _comparison(
    settings: ThroughputSettings,
    seed: int,
    device: str,
    contest: Contest,
    base: Target,
    read_by: dict[Cell, Reads],
    references: dict[str, Target],
    trials: dict[Cell, Target],
) -> Target:
    """Candidates interleaved; how each computes, and whether it has a speed, its trial says."""
    compared = [contest.baseline, *contest.others]
    names = list(dict.fromkeys(cell.variant for cell in compared))
    manifests = [base, *(manifest for cell in compared for manifest in read_by[cell]["manifest"])]
    reads = {"manifests": list({id(manifest): manifest for manifest in manifests}.values())}
    reads |= {"references": [references[name] for name in names], "trials": [trials[cell] for cell in compared]}
    values = {
        "model": settings.model.display_name,
        "question": contest.question,
        "baseline": contest.baseline._asdict(),
        "others": [cell._asdict() for cell in contest.others],
        "comparison": settings.comparison.model_dump(),
        "timing": settings.timing.model_dump(exclude={"max_batch"}),
        "tie_margin": settings.autotune.tie_margin,
        "seed": seed,
        "device": device,
    }
    engines = list(dict.fromkeys(module_of(cell.engine, f"{HERE}.engines") for cell in compared))
    output = f"comparisons/{contest.name}.json"
    return _target("comparison", contest.name, output, values, reads=reads, modules=engines, is_trial=True)


def _max_batch(settings: ThroughputSettings, device: str, read_by: dict[Cell, Reads]) -> Iterator[Target]:
    """For each variant, engine and length of the grid, where the config asks for it."""
    if not settings.timing.max_batch:
        return
    for cell, reads in {cell._replace(batch=1): reads for cell, reads in read_by.items()}.items():
        name = f"{cell.variant}/{short_name(cell.engine)}/p{cell.prompt}-g{cell.generated}"
        values = {
            "cell": cell._asdict(),
            "autotune": settings.autotune.model_dump(),
            "memory_limit_bytes": settings.timing.memory_limit_bytes,
            "timeout_seconds": settings.timing.timeout_seconds,
            "device": device,
            "missing": missing_packages(cell.engine),
        }
        module = module_of(cell.engine, f"{HERE}.engines")
        yield _target("max_batch", name, f"max_batch/{name}.json", values, reads=reads, modules=[module])
