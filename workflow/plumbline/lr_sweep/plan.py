"""The plan of the `lr_sweep` study: which targets there are, and what decides each."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

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
    added_rates,
    candidate_rates,
    trial_name,
)

HERE = "plumbline.lr_sweep"
BESIDE_RECORD = {"metrics": "metrics.csv", "weights": "weights.safetensors"}
CAUSES = Path(__file__).parent / "diagnosis" / "causes"


_target = partial(Target, "lr_sweep")


def plan(settings: LrSweepSettings, seed: int, upstream: Targets, device: str) -> list[Target]:
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
        {"context": settings.model.context},
        reads={"corpus": [corpus], "tokenizer": [tokenizer]},
        beside={"files": ["tokens/train.bin", "tokens/validation.bin"]},
    )
    asked = [
        _trial(settings, rate, number, seed, tokens) for rate in settings.learning_rates for number in settings.seeds
    ]
    below, above = candidate_rates(settings)
    added = [
        _trial(settings, rate, number, seed, tokens, optional=True)
        for rate in [*below, *above]
        for number in settings.seeds
    ]
    everything = [*asked, *added]
    rounds = list(_rounds(settings, everything))
    merging = partial(_target, reads={"trials": everything}, merges=everything)
    reads, model = {"trials": everything, "tokenizer": [tokenizer]}, [f"best_model/{file}" for file in BEST_MODEL]
    best = merging("best", "", "best_model/manifest.json", {}, reads=reads, beside={"model": model})
    written = {name: [f"{name}.csv"] for name in ("summary", "rates")} | {"analysis": ["lr_sweep_analysis.md"]}
    written["tables"] = [f"tables/{table}.tex" for table in TABLES]
    summary = merging("summarize", "", "results.json", {}, beside=written)
    figures = figures_target("lr_sweep", FIGURES, summary)
    causes = [f"{HERE}.diagnosis.causes.{path.stem}" for path in CAUSES.glob("[!_]*.py")]
    diagnosis = merging("diagnose", "", "diagnosis.json", {}, modules=causes)
    return [corpus, tokenizer, tokens, *everything, *rounds, best, summary, figures, diagnosis]


def added_trials(settings: LrSweepSettings, rounds: int, decision_of: Callable[[int], str]) -> set[str]:
    """Names of the trials that the first `rounds` rounds added; `decision_of` gives the path of a round's decision."""
    names: set[str] = set()
    for number in range(rounds):
        added = added_rates(decision_of(number))
        if not added:
            break
        names |= {trial_name(rate, seed) for rate in added for seed in settings.seeds}
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
    name = trial_name(rate, number)
    values = {
        "model": settings.model.model_dump(),
        "training": settings.training.model_dump(),
        "stability": settings.stability.model_dump(),
        "rate": rate,
        "seed": seed * 1000 + number,
    }
    reads, beside = {"tokens": [tokens]}, {key: [f"trials/{name}/{file}"] for key, file in BESIDE_RECORD.items()}
    output = f"trials/{name}/record.json"
    return _target("train", name, output, values, reads=reads, beside=beside, is_trial=True, optional=optional)


def _rounds(settings: LrSweepSettings, trials: Sequence[Target]) -> list[Target]:
    """The decisions whether to add rates, one after another."""
    below, above = candidate_rates(settings)
    values = {"learning_rates": settings.learning_rates, "below": below, "above": above}
    return [
        _target(
            "extend",
            str(number),
            f"rounds/{number}.json",
            {**values, "round": number},
            reads={"trials": trials},
            merges=trials,
            optional=number > 0,
        )
        for number in range(settings.rounds)
    ]
