"""The plan of the `lr_sweep` study: which targets there are, and what decides each."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from plumbline.core.files import read_json
from plumbline.core.plan.fingerprint import fingerprint
from plumbline.core.plan.globs import matching
from plumbline.core.plan.target import Target, Targets, figures_target
from plumbline.lr_sweep.corpora.interface import PYTHON_RELEASE
from plumbline.lr_sweep.settings import (
    BEST_MODEL,
    FIGURES,
    TABLES,
    CorpusSettings,
    LrSweepSettings,
    candidate_rates,
    long_name,
    rates_between,
    trial_name,
)

HERE = "plumbline.lr_sweep"
BESIDE_RECORD = {"metrics": "metrics.csv", "weights": "weights.safetensors"}
CAUSES = Path(__file__).parent / "diagnosis" / "causes"


_target = partial(Target, "lr_sweep")


def plan(
    settings: LrSweepSettings, seed: int, upstream: Targets, device: str, results: Path = Path("results")
) -> list[Target]:
    """Every target of the study, upstream first; trials that only an extension would ask for are optional."""
    corpus = _corpus(settings.corpus)
    vocabulary = {"vocabulary": settings.model.vocabulary}
    tokenizer = _target(
        "tokenizer",
        "",
        "tokenizer/tokenizer.json",
        vocabulary,
        reads={"corpus": [corpus]},
        beside={"tokenizer_config": ["tokenizer/tokenizer_config.json"]},
    )
    tokens = _target(
        "tokens",
        "",
        "tokens/meta.json",
        {"context": settings.model.context, "shared_passage_tokens": settings.corpus.shared_passage_tokens},
        reads={"corpus": [corpus], "tokenizer": [tokenizer]},
        beside={"files": ["tokens/train.bin", "tokens/validation.bin"]},
    )
    context = {"context": settings.model.context}
    baselines = _target("baselines", "", "baselines.json", context, reads={"tokens": [tokens]})
    asked = [
        _trial(settings, rate, number, seed, tokens) for rate in settings.learning_rates for number in settings.seeds
    ]
    below, above = candidate_rates(settings)
    more = [*below, *rates_between(settings), *above]
    added = [_trial(settings, rate, number, seed, tokens, optional=True) for rate in more for number in settings.seeds]
    longer = [_longer(settings, rate, seed, tokens) for rate in [*settings.learning_rates, *more]]
    everything = [*asked, *added]
    rounds = list(_rounds(settings, everything))
    trials = [*everything, *longer]
    return [corpus, tokenizer, tokens, baselines, *trials, *rounds, *_merged(trials, tokenizer, baselines)]


def _merged(trials: Sequence[Target], tokenizer: Target, baselines: Target) -> list[Target]:
    """What is made from all records: the best model, the summary, the figures and the diagnosis."""
    reads: dict[str, list[Target]] = {"trials": list(trials)}
    merging = partial(_target, merges=trials)
    model, manifest = [f"best_model/{file}" for file in BEST_MODEL], "best_model/manifest.json"
    best = merging("best", "", manifest, {}, reads=reads | {"tokenizer": [tokenizer]}, beside={"model": model})
    written = {name: [f"{name}.csv"] for name in ("summary", "rates", "baselines")}
    written["analysis"] = ["lr_sweep_analysis.md"]
    written["tables"] = [f"tables/{table}.tex" for table in TABLES]
    summary = merging("summarize", "", "results.json", {}, reads=reads | {"baselines": [baselines]}, beside=written)
    figures = figures_target("lr_sweep", FIGURES, summary)
    causes = [f"{HERE}.diagnosis.causes.{path.stem}" for path in CAUSES.glob("[!_]*.py")]
    diagnosis = merging("diagnose", "", "diagnosis.json", {}, reads=reads, modules=causes)
    return [best, summary, figures, diagnosis]


def added_trials(settings: LrSweepSettings, rounds: int, decision_of: Callable[[int], str]) -> set[str]:
    """Names of the trials that the first `rounds` rounds added; `decision_of` gives the path of a round's decision.

    A round that adds nothing is the last one and adds the longer training at the best rate.
    """
    names: set[str] = set()
    for number in range(rounds):
        decision = read_json(Path(decision_of(number)))
        names |= {trial_name(rate, seed) for rate in decision["add"] for seed in settings.seeds}
        if not decision["add"]:
            names |= set() if decision["best"] is None else {long_name(decision["best"])}
            break
    return names


def _corpus(corpus: CorpusSettings) -> Target:
    """The text; of files, with their fingerprints; of Python's own documentation, with Python's release."""
    files = matching(corpus.files, "lr_sweep.corpus.files") if corpus.source == "files" else []
    local = Path(corpus.hub.id) if corpus.source == "hub" and Path(corpus.hub.id).exists() else None
    values = {
        "corpus": corpus.model_dump(mode="json"),
        "fingerprint": [fingerprint(path) for path in [*files, *([local] if local else [])]],
        "python": PYTHON_RELEASE if corpus.source == "pydoc" else None,
    }
    documents = {"documents": ["corpus/documents.parquet"]}
    return _target(
        "corpus", "", "corpus/manifest.json", values, modules=[f"{HERE}.corpora.{corpus.source}"], beside=documents
    )


def _trial(
    settings: LrSweepSettings, rate: float, number: int, seed: int, tokens: Target, *, optional: bool = False
) -> Target:
    values = {"training": settings.training.model_dump(), "seed": seed * 1000 + number, "long": False}
    return _training(settings, trial_name(rate, number), rate, tokens, values, optional=optional)


def _longer(settings: LrSweepSettings, rate: float, seed: int, tokens: Target) -> Target:
    """The longer training at one rate; only that of the best rate is asked for."""
    training = settings.training.model_dump() | {"steps": settings.best_model.steps}
    values = {"training": training, "seed": seed * 1000 + settings.seeds[0], "long": True}
    return _training(settings, long_name(rate), rate, tokens, values, optional=True)


def _training(
    settings: LrSweepSettings, name: str, rate: float, tokens: Target, values: dict[str, Any], *, optional: bool
) -> Target:
    values |= {"model": settings.model.model_dump(), "stability": settings.stability.model_dump(), "rate": rate}
    reads, beside = {"tokens": [tokens]}, {key: [f"trials/{name}/{file}"] for key, file in BESIDE_RECORD.items()}
    output = f"trials/{name}/record.json"
    return _target("train", name, output, values, reads=reads, beside=beside, is_trial=True, optional=optional)


def _rounds(settings: LrSweepSettings, trials: Sequence[Target]) -> list[Target]:
    """The decisions whether to add rates, one after another; the last round has no candidates."""
    below, above = candidate_rates(settings)
    candidates = {"below": below, "above": above, "between": rates_between(settings)}
    last = settings.rounds - 1
    values: dict[str, Any] = {"learning_rates": settings.learning_rates}
    return [
        _target(
            "extend",
            str(number),
            f"rounds/{number}.json",
            {**values, **(candidates if number < last else {key: [] for key in candidates}), "round": number},
            reads={"trials": trials},
            merges=trials,
            optional=number > 0,
        )
        for number in range(settings.rounds)
    ]
