"""Stage `lr_sweep.baselines`: losses of unigram, bigram and trigram tables on the validation windows of the trials."""

import math
from pathlib import Path

import numpy as np

from plumbline.core.files import write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.ngrams import FORMULAS, window_losses
from plumbline.lr_sweep.record import Baseline, Baselines
from plumbline.lr_sweep.training.data import open_tokens, validation_rows


class BaselinesSpec(Spec):
    """What decides the baselines, in addition to the tokens."""

    context: int
    """Context length of the model: the tables are scored on the same windows as the trials."""


@stage
def baselines(spec: BaselinesSpec, tokens: Path, output: Path) -> None:
    """Writes each model's loss in nats, its standard error over windows, and its window losses to `output`.

    tokens: meta.json, with train.bin and validation.bin beside it.
    """
    corpus = open_tokens(tokens.parent)
    rows = validation_rows(corpus.validation, context=spec.context)
    losses, strengths = window_losses(corpus.train, rows, corpus.vocabulary)
    models = {
        name: Baseline(
            nats=float(values.mean()),
            standard_error=float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None,
            formula=FORMULAS[name],
            window_losses=np.round(values, 6).tolist(),
        )
        for name, values in losses.items()
    }
    found = Baselines(windows=len(rows), trigram_strengths=strengths.tolist(), models=models)
    write_json(output, found.model_dump(mode="json"))


if __name__ == "__main__":
    baselines.main()
