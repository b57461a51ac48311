"""Tiny corpora and trials shared by the tests of training."""

import json
from pathlib import Path

import numpy as np

from plumbline.lr_sweep.settings import ModelSettings, StabilitySettings, TrainingSettings
from plumbline.lr_sweep.train import TrainSpec, train

VOCABULARY = 300
MODEL = ModelSettings(vocabulary=VOCABULARY, context=8, width=16, hidden=24, layers=2, heads=2)
TRAINING = TrainingSettings(batch=4, steps=24, validate_every=8, validation_windows=6, fused="on", precision="off")
NOT_REPEATABLE = ("wallclock_time", "elapsed_time", "tokens_per_second", "data_wait_seconds")
"""Columns of metrics.csv that depend on time."""


def write_tokens(folder: Path, train_tokens: int = 4000, validation_tokens: int = 400, seed: int = 0) -> Path:
    """Writes a corpus in which each token mostly determines the next."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    follower = draw.permutation(VOCABULARY)
    meta = {"dtype": "uint16", "vocabulary": VOCABULARY, "end_of_text": 0, "unigram_entropy_nats": 5.6}
    for side, count in {"train": train_tokens, "validation": validation_tokens}.items():
        tokens = np.zeros(count, "<u2")
        for place in range(1, count):
            tokens[place] = draw.integers(VOCABULARY) if draw.random() < 0.2 else follower[tokens[place - 1]]
        tokens.tofile(folder / f"{side}.bin")
        meta[f"{side}_tokens"] = count
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def spec_of(rate: float = 0.01, seed: int = 0, **training: object) -> TrainSpec:
    return TrainSpec(
        code="",
        inputs="",
        model=MODEL,
        training=TRAINING.model_copy(update=training),
        stability=StabilitySettings(window=8),
        rate=rate,
        seed=seed,
    )


def run_trial(tokens: str, output: str, spec: str, checkpoint_steps: int) -> None:
    """Runs a whole trial; the arguments can be passed to another process."""
    train(TrainSpec.model_validate_json(spec), Path(tokens), Path(output), 1e9, checkpoint_steps, log_steps=4)
