"""A small corpus as tokens, and the stages' command lines, for tests with real ranks."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline.data_parallel.corpus import CorpusSpec, corpus
from plumbline.data_parallel.settings import CorpusSettings, GrammarCorpus, ModelSettings, TrainingSettings
from plumbline.data_parallel.tokenizer import TokenizerSpec, tokenizer
from plumbline.data_parallel.tokens import TokensSpec, tokens

HERE = Path(__file__).parent
MODEL = ModelSettings(vocabulary=400, width=16, layers=1, heads=2)
TRAINING = TrainingSettings(batch=4, epochs=16, translated=4, longest_translation=4)
HEAD = {"code": "", "inputs": ""}


def build_tokens(folder: Path) -> Path:
    """Writes corpus, tokenizer and tokens; returns the tokens' meta.json."""
    settings = CorpusSettings(grammar=GrammarCorpus(train=95, validation=8, test=4, held_out=4))
    corpus(CorpusSpec(corpus=settings, fingerprint=[], **HEAD), folder / "corpus" / "manifest.json")
    made = folder / "tokenizer" / "tokenizer.json"
    tokenizer(TokenizerSpec(vocabulary=400, **HEAD), folder / "corpus" / "manifest.json", made)
    meta = folder / "tokens" / "meta.json"
    tokens(TokensSpec(context=128, too_long="drop", **HEAD), folder / "corpus" / "manifest.json", made, meta)
    return meta


@dataclass
class Trial:
    """A trial of two ranks in `folder`, whose checkpoints follow one another closely."""

    meta: Path
    folder: Path
    world: int = 2
    timeout: float = 20.0
    training: TrainingSettings = TRAINING

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "record.json").read_text())

    @property
    def log(self) -> Path:
        """Its journal stands beside it."""
        return self.folder / "train.log"

    @property
    def board(self) -> Path:
        return self.folder / ".ranks"

    @property
    def checkpoints(self) -> list[Path]:
        return list(self.folder.glob(".record.*.checkpoint"))

    def start(self, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Starts the stage as Snakemake would; its training has hundreds of steps by default.

        prefix: a command that runs the stage's. environment: variables besides those of this process.
        """
        spec = HEAD | {"model": MODEL.model_dump(), "training": self.training.model_dump(), "method": "ddp", "seed": 0}
        spec |= {"scaling": "strong", "world": self.world, "device": "cpu"}
        options = ["--tokenizer", self.meta.parent.with_name("tokenizer") / "tokenizer.json"]
        options += ["--checkpoint-seconds", "0.3", "--timeout-seconds", str(self.timeout), "--log", self.log]
        output = self.folder / "record.json"
        return start_stage("train", spec, self.meta, output, *options, prefix=prefix, environment=environment)


def start_stage(
    name: str,
    spec: dict[str, Any],
    meta: Path,
    output: Path,
    *options: Any,
    prefix: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen:
    """Starts a stage that has ranks, each of which a signal can make fail."""
    command = [sys.executable, "-m", f"plumbline.data_parallel.{name}", "--spec", json.dumps(spec), "--tokens", meta]
    command += ["--output", output, "--oversubscribe", "1", *options]
    paths = os.pathsep.join([str(HERE / "faults"), str(HERE.parents[1] / "workflow")])
    return subprocess.Popen(
        [str(part) for part in (*prefix, *command)],
        env=os.environ | {"PYTHONPATH": paths} | dict(environment or {}),
        stderr=subprocess.PIPE,
        text=True,
    )
