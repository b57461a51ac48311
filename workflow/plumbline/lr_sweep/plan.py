"""The plan of the `lr_sweep` study: which targets there are, and what decides each."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from plumbline.core.plan.fingerprint import fingerprint
from plumbline.core.plan.globs import matching
from plumbline.core.plan.target import Target, Targets
from plumbline.lr_sweep.corpora.interface import PYTHON_RELEASE
from plumbline.lr_sweep.settings import CorpusSettings, LrSweepSettings, candidate_rates, trial_name

HERE = "plumbline.lr_sweep"
CAUSES = Path(__file__).parent / "diagnosis" / "causes"


_target = partial(Target, "lr_sweep")


def plan(settings: LrSweepSettings, seed: int, upstream: Targets, device: str) -> list[Target]:
    """Every target of the study, upstream first; trials that only an extension would ask for are optional."""
    corpus = _corpus(settings.corpus)
    vocabulary = {"vocabulary": settings.model.vocabulary}
    tokenizer = _target("tokenizer", "", "tokenizer/tokenizer.json", vocabulary, needs=[corpus])
    context = {"context": settings.model.context}
    tokens = _target("tokens", "", "tokens/meta.json", context, needs=[corpus, tokenizer])
    asked = [
        _trial(settings, rate, number, seed, tokens) for rate in settings.learning_rates for number in settings.seeds
    ]
    below, above = candidate_rates(settings)
    added = [
        _trial(settings, rate, number, seed, tokens, optional=True)
        for rate in [*below, *above]
        for number in settings.seeds
    ]
    rounds = list(_rounds(settings, asked))
    everything = [*asked, *added]
    best = _target("best", "", "best_model/manifest.json", {}, needs=[tokenizer, *everything])
    summary = _target("summarize", "", "results.json", {}, needs=everything)
    figures = _target("figures", "", "figures/curves.pdf", {}, needs=[summary])
    causes = [f"{HERE}.diagnosis.causes.{path.stem}" for path in CAUSES.glob("[!_]*.py")]
    diagnosis = _target("diagnose", "", "diagnosis.json", {}, needs=everything, modules=causes)
    return [corpus, tokenizer, tokens, *everything, *rounds, best, summary, figures, diagnosis]


def _corpus(corpus: CorpusSettings) -> Target:
    """The text; of files, with their fingerprints; of Python's own documentation, with Python's release."""
    files = matching(corpus.files, "lr_sweep.corpus.files") if corpus.source == "files" else []
    local = Path(corpus.hub.id) if corpus.source == "hub" and Path(corpus.hub.id).exists() else None
    values = {
        "corpus": corpus.model_dump(mode="json"),
        "fingerprint": [fingerprint(path) for path in [*files, *([local] if local else [])]],
        "python": PYTHON_RELEASE if corpus.source == "pydoc" else None,
    }
    return _target("corpus", "", "corpus/manifest.json", values, modules=[f"{HERE}.corpora.{corpus.source}"])


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
    output = f"trials/{name}/record.json"
    return _target("train", name, output, values, needs=[tokens], is_trial=True, optional=optional)


def _rounds(settings: LrSweepSettings, asked: Sequence[Target]) -> list[Target]:
    """The decisions whether to add rates, one after another."""
    below, above = candidate_rates(settings)
    values = {"learning_rates": settings.learning_rates, "below": below, "above": above}
    count = settings.rounds
    return [
        _target(
            "extend",
            str(number),
            f"rounds/{number}.json",
            {**values, "round": number},
            needs=asked,
            optional=number > 0,
        )
        for number in range(count)
    ]
