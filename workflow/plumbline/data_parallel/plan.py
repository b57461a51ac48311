"""The plan of the `data_parallel` study: which targets there are, and what decides each."""

from functools import partial
from pathlib import Path

from plumbline.core.files import sha256_of_files
from plumbline.core.plan.fingerprint import fingerprint
from plumbline.core.plan.globs import matching
from plumbline.core.plan.target import Target, Targets, figures_target
from plumbline.data_parallel.settings import (
    FIGURES,
    LEXICON,
    TABLES,
    CorpusSettings,
    DataParallelSettings,
    Scaling,
    method_names,
    trial_name,
)

HERE = "plumbline.data_parallel"

_target = partial(Target, "data_parallel")


def plan(
    settings: DataParallelSettings, seed: int, upstream: Targets, device: str, results: Path = Path("results")
) -> list[Target]:
    """Every target of the study, upstream first."""
    corpus = _corpus(settings.corpus)
    vocabulary = {"vocabulary": settings.model.vocabulary}
    beside = {"tokenizer_config": ["tokenizer/tokenizer_config.json"]}
    tokenizer = _target(
        "tokenizer", "", "tokenizer/tokenizer.json", vocabulary, reads={"corpus": [corpus]}, beside=beside
    )
    tokens = _target(
        "tokens",
        "",
        "tokens/meta.json",
        {"context": settings.model.context, "too_long": settings.model.too_long},
        reads={"corpus": [corpus], "tokenizer": [tokenizer]},
        beside={"sequences": ["tokens/sequences.safetensors"], "texts": ["tokens/texts.json"]},
    )
    trials = [
        _trial(settings, seed, device, method, scaling, world, tokens, tokenizer)
        for method, scaling, world in arrangements(settings)
    ]
    equality = _equality(settings, seed, tokens)
    comparison = _comparison(settings, seed, device, tokens)
    summary = _target(
        "summarize",
        "",
        "results.json",
        {},
        reads={"trials": trials, "equality": [equality], "comparison": [comparison]},
        merges=[*trials, equality, comparison],
        beside={
            "summary": ["summary.csv"],
            "speedups": ["speedups.csv"],
            "analysis": ["data_parallel_analysis.md"],
            "tables": [f"tables/{table}.tex" for table in TABLES],
        },
    )
    figures = figures_target("data_parallel", FIGURES, summary)
    called = [f"{HERE}.{module}" for module in ("figures", "plots.data", "analysis.speedups", "summarize")]
    notebook = _target("notebook", "", "analysis.ipynb", {}, reads={"results": [summary]}, modules=called)
    return [corpus, tokenizer, tokens, *trials, equality, comparison, summary, figures, notebook]


def arrangements(settings: DataParallelSettings) -> list[tuple[str, Scaling, int]]:
    """Method, scaling and world of each trial; one process, which needs neither, comes first."""
    several = [
        (method, scaling, world)
        for world in sorted(settings.worlds)
        if world > 1
        for method in settings.methods
        for scaling in settings.scalings
    ]
    return [(settings.methods[0], settings.scalings[0], 1), *several]


def _corpus(corpus: CorpusSettings) -> Target:
    named = [*corpus.files.train, *corpus.files.validation, *corpus.files.test]
    files = matching(named, "data_parallel.corpus.files") if corpus.source == "files" else []
    local = Path(corpus.hub.id) if corpus.source == "hub" and Path(corpus.hub.id).exists() else None
    words = [sha256_of_files([LEXICON])] if corpus.source == "grammar" else []
    values = {
        "corpus": corpus.model_dump(mode="json"),
        "fingerprint": [*words, *(fingerprint(path) for path in [*files, *([local] if local else [])])],
    }
    pairs = {"pairs": ["corpus/pairs.parquet"]}
    module = f"{HERE}.corpora.{corpus.source}"
    return _target("corpus", "", "corpus/manifest.json", values, modules=[module], beside=pairs)


def _trial(
    settings: DataParallelSettings,
    seed: int,
    device: str,
    method: str,
    scaling: Scaling,
    world: int,
    tokens: Target,
    tokenizer: Target,
) -> Target:
    values = {
        "model": settings.model.model_dump(mode="json"),
        "training": settings.training.model_dump(mode="json"),
        "method": method,
        "scaling": scaling,
        "world": world,
        "seed": seed,
        "device": device,
    }
    name = trial_name(method, scaling, world)
    reads = {"tokens": [tokens], "tokenizer": [tokenizer]}
    modules = [f"{HERE}.ranks.torchrun", f"{HERE}.ranks.train", f"{HERE}.methods.{method}"]
    return _target("train", name, f"trials/{name}/record.json", values, reads=reads, modules=modules, is_trial=True)


def _equality(settings: DataParallelSettings, seed: int, tokens: Target) -> Target:
    """The proof of equality: of all methods, whether or not trials use them."""
    methods = method_names()
    batch = settings.equality.sequences * settings.largest * settings.training.accumulation
    proof = {"batch": batch, "learning_rate": settings.equality.learning_rate, "warmup_steps": 0}
    values = {
        "model": settings.model.model_dump(mode="json"),
        "training": settings.training.model_dump(mode="json") | proof,
        "methods": methods,
        "worlds": sorted(world for world in settings.worlds if world > 1) or [1],
        "steps": settings.equality.steps,
        "seed": seed,
    }
    modules = [f"{HERE}.ranks.torchrun", f"{HERE}.ranks.equality", *(f"{HERE}.methods.{name}" for name in methods)]
    reads = {"tokens": [tokens]}
    return _target("equality", "equality", "proofs/equality.json", values, reads=reads, modules=modules, is_trial=True)


def _comparison(settings: DataParallelSettings, seed: int, device: str, tokens: Target) -> Target:
    batch = settings.comparison.batch or settings.training.batch
    values = {
        "model": settings.model.model_dump(mode="json"),
        "training": settings.training.model_dump(mode="json") | {"batch": batch},
        "comparison": settings.comparison.model_dump(mode="json"),
        "worlds": sorted({*settings.worlds, 1}),
        "scalings": settings.scalings,
        "seed": seed,
        "device": device,
    }
    modules = [
        f"{HERE}.ranks.torchrun",
        f"{HERE}.ranks.compare",
        *(f"{HERE}.methods.{name}" for name in settings.comparison.methods),
    ]
    reads = {"tokens": [tokens]}
    return _target("comparison", "speed", "comparisons/speed.json", values, reads=reads, modules=modules, is_trial=True)
