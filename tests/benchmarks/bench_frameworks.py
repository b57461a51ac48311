"""Training on two ranks: the study's loop against HF Trainer and Lightning Fabric, each under torchrun.

    python tests/benchmarks/bench_frameworks.py --output frameworks.json [--launches 3] [--seconds 40]

All train the default model on the default pairs, 8 sequences a rank and step, one thread a rank, gloo. In each launch
all of them are started, in random order, and then take turns of STEPS steps, in random order; `plumbline` also takes
turns against itself (A/A). Tokens are counted without padding, over both ranks, and turns before all are warm are left
out. The ratio is the median over rounds, its interval resamples launches and rounds.

- trainer: transformers' Trainer with its defaults. To reach: the study's loop at least 1.1 times as fast.
- trainer_by_length: the same with `train_sampling_strategy="group_by_length"`, which pads less.
- fabric: the loop that Lightning Fabric's documentation shows, with torch's fused AdamW.

Needs the extra `bench`; a framework that is not installed is recorded as unavailable.
"""

import argparse
import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from plumbline.core.files import write_json
from plumbline.core.measure.interleave import (
    CONTROL,
    MIN_PROCESSES,
    Candidate,
    Rounds,
    interleave,
    joined,
    rounds_per_process,
)
from plumbline.core.text import byte_pair
from plumbline.data_parallel.corpus import CorpusSpec, corpus
from plumbline.data_parallel.ranks.board import Slot
from plumbline.data_parallel.ranks.rank import Rank
from plumbline.data_parallel.settings import DataParallelSettings
from plumbline.data_parallel.tokenizer import TokenizerSpec, tokenizer
from plumbline.data_parallel.tokens import TokensSpec, tokens
from plumbline.data_parallel.training.data import Tokens, batches, open_tokens
from plumbline.data_parallel.training.loop import Run, Trainer
from plumbline.data_parallel.training.model import gpt2

SETTINGS = DataParallelSettings()
WORLD, STEPS, WARM_UPS, MANY = 2, 8, 2, 10**9
START_SECONDS = 120.0
PER_RANK = SETTINGS.training.batch // WORLD
NEEDS = {"plumbline": None, "trainer": "accelerate", "trainer_by_length": "accelerate", "fabric": "lightning_fabric"}
HEAD = {"code": "", "inputs": ""}
META, ENCODER = "tokens/meta.json", "tokenizer/tokenizer.json"


class Turns:
    """A rank's turns: it waits for each, and rank 0 tells how long it took, and for how many tokens of all ranks."""

    def __init__(self, folder: Path) -> None:
        self.first = int(os.environ["RANK"]) == 0
        if self.first:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(str(folder / "socket"))
            self.stream = connection.makefile("rw")

    def begin(self) -> bool:
        """Waits for the turn; False when there are no more."""
        called = torch.tensor(int(self.first and self.stream.readline() == "turn\n"))
        dist.broadcast(called, 0)
        self.tokens, self.began = 0, time.perf_counter()
        return bool(called)

    def end(self) -> None:
        """Waits until all ranks are done, and answers."""
        counted = torch.tensor(self.tokens)
        dist.all_reduce(counted)
        if self.first:
            print(json.dumps([time.perf_counter() - self.began, int(counted)]), file=self.stream, flush=True)


def rows(made: Tokens) -> list[dict[str, list[int]]]:
    """The training pairs as a data set of a Trainer, their labels -100 where nothing is predicted."""
    split = made.splits["train"]
    found = []
    for number in range(len(split)):
        ids, prompt = split.row(number).tolist(), int(split.prompts[number])
        found.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:], "length": len(ids)})
    return found


def collator(turns: Turns) -> Callable[[Sequence[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Pads a batch to its longest, and counts its tokens."""

    def collate(batch: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in batch)
        padded = {
            name: torch.tensor([row[name] + [fill] * (longest - len(row[name])) for row in batch])
            for name, fill in (("input_ids", 0), ("labels", -100))
        }
        lengths = torch.tensor([len(row["input_ids"]) for row in batch])
        turns.tokens += int(lengths.sum())
        return padded | {"attention_mask": (torch.arange(longest) < lengths[:, None]).long()}

    return collate


def model_of(made: Tokens) -> Any:
    return gpt2(SETTINGS.model, made.vocabulary, made.end_of_target, 0, torch.device("cpu"))


def plumbline(made: Tokens, turns: Turns, folder: Path) -> None:
    """The study's own loop, with all that it does between steps."""
    rank, run_folder = int(os.environ["RANK"]), folder / "run"
    run_folder.mkdir(exist_ok=True)
    place = Rank(rank, WORLD, torch.device("cpu"), Slot(run_folder, rank), run_folder, dist.new_group(backend="gloo"))
    operation = SETTINGS.operation.model_copy(update={"checkpoint_seconds": float(MANY)})
    settings: Any = {"model": SETTINGS.model, "training": SETTINGS.training, "operation": operation}
    settings |= {"method": "ddp", "batch": WORLD * PER_RANK, "seed": 0, "identity": ""}
    run = Run(**settings, checkpoint=run_folder / "checkpoint", results=run_folder)
    trainer = Trainer(run, made, byte_pair.load(folder.parent / ENCODER), place)

    def order() -> Iterator[Any]:
        for epoch in range(MANY):
            for batch in batches(trainer.lengths, batch=run.batch, seed=0, epoch=epoch):
                if len(batch) == run.batch:
                    yield batch

    following = order()
    while turns.begin():
        before = trainer.counts["tokens"]
        for _ in range(STEPS):
            agreed = trainer.starts_agreeing()
            trainer.advance(next(following))
            trainer.stops(*agreed())
        turns.tokens = trainer.counts["tokens"] - before
        turns.end()


def trainer(made: Tokens, turns: Turns, folder: Path, sampling: str = "random") -> None:
    """transformers' Trainer, which a callback stops and starts at the turns."""
    from transformers import Trainer as HfTrainer
    from transformers import TrainerCallback, TrainingArguments

    class AtTurns(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            turns.begin()

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if state.global_step % STEPS == 0:
                turns.end()
                control.should_training_stop = not turns.begin()

    training = SETTINGS.training
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=PER_RANK,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        warmup_steps=training.warmup_steps,
        lr_scheduler_type="constant_with_warmup",
        max_grad_norm=training.clip,
        max_steps=MANY,
        train_sampling_strategy=sampling,
        dataloader_drop_last=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        remove_unused_columns=False,
    )
    made_trainer: Any = HfTrainer(
        model=model_of(made),
        args=arguments,
        train_dataset=rows(made),  # type: ignore[arg-type]
        data_collator=collator(turns),
        callbacks=[AtTurns()],
    )
    made_trainer.train()


def trainer_by_length(made: Tokens, turns: Turns, folder: Path) -> None:
    trainer(made, turns, folder, "group_by_length")


def fabric(made: Tokens, turns: Turns, folder: Path) -> None:
    """Lightning Fabric's loop."""
    from lightning_fabric import Fabric

    training = SETTINGS.training
    launched = Fabric(accelerator="cpu", devices=WORLD, strategy="ddp")
    launched.launch()
    bare = model_of(made)
    optimizer = torch.optim.AdamW(
        bare.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay, fused=True
    )
    model, optimizer = launched.setup(bare, optimizer)
    loader = torch.utils.data.DataLoader(
        rows(made),  # type: ignore[arg-type]
        batch_size=PER_RANK,
        shuffle=True,
        drop_last=True,
        collate_fn=collator(turns),
    )
    loader = launched.setup_dataloaders(loader)

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    following = forever()
    while turns.begin():
        for _ in range(STEPS):
            launched.backward(model(**next(following)).loss)
            launched.clip_gradients(model, optimizer, max_norm=training.clip)
            optimizer.step()
            optimizer.zero_grad()
        turns.end()


def unavailable(way: str) -> str | None:
    """Why a way cannot run; None where it can."""
    module = NEEDS[way]
    if module is None or importlib.util.find_spec(module):
        return None
    return f"{module} is not installed; pip install '.[bench]'"


class Launch:
    """Two ranks of `way`, with files of their own in `folder`; a call is a turn, and gives seconds per token."""

    def __init__(self, way: str, folder: Path) -> None:
        self.way, self.folder = way, folder / way
        self.folder.mkdir()
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(str(self.folder / "socket"))
        self.listening.listen()
        self.listening.settimeout(START_SECONDS)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORLD}"]
        with (self.folder / "log").open("w") as log:
            options = [__file__, "--way", way, "--folder", str(self.folder)]
            self.process = subprocess.Popen([*command, *options], stdout=log, stderr=log)

    def meet(self) -> None:
        """Waits until rank 0 is there."""
        try:
            connection, _ = self.listening.accept()
        except TimeoutError:
            raise self.ended() from None
        self.stream = connection.makefile("rw")

    def __call__(self) -> float:
        print("turn", file=self.stream, flush=True)
        if not (line := self.stream.readline()):
            raise self.ended()
        seconds, count = json.loads(line)
        return float(seconds / count)

    def ended(self) -> SystemExit:
        return SystemExit(f"{self.way} does not answer: {(self.folder / 'log').read_text()[-2000:]}")

    def end(self) -> None:
        """Ends torchrun, which ends its ranks."""
        self.process.terminate()
        self.process.wait(60)


def one_launch(ways: Sequence[str], folder: Path, seconds: float, seed: int) -> Rounds:
    """Launches all ways, and has them take turns."""
    started = {way: Launch(way, folder) for way in random.Random(seed).sample(ways, len(ways))}
    try:
        for launch in started.values():
            launch.meet()
        for launch in started.values():
            for _ in range(WARM_UPS):
                launch()
        candidates = [Candidate(name=way, run=started[way]) for way in ways]
        return interleave(
            candidates[0], candidates[1:], seconds=seconds, min_rounds=rounds_per_process(MIN_PROCESSES), seed=seed
        )
    finally:
        for launch in started.values():
            launch.end()


def prepare(folder: Path) -> None:
    """The default corpus as tokens."""
    manifest, encoder, meta = folder / "corpus/manifest.json", folder / ENCODER, folder / META
    corpus(CorpusSpec(corpus=SETTINGS.corpus, fingerprint=[], **HEAD), manifest)
    tokenizer(TokenizerSpec(vocabulary=SETTINGS.model.vocabulary, **HEAD), manifest, encoder)
    tokens(TokensSpec(context=SETTINGS.model.context, too_long="drop", **HEAD), manifest, encoder, meta)


def rank_main(way: str, folder: Path) -> None:
    """What each rank runs."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    globals()[way](open_tokens(folder.parent / META), Turns(folder), folder)
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--launches", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=40.0, help="of the turns of each launch")
    parser.add_argument("--way", choices=NEEDS, help="of a rank; the benchmark starts these by itself")
    parser.add_argument("--folder", type=Path, help="of a rank")
    options = parser.parse_args()
    if options.way:
        rank_main(options.way, options.folder)
    reasons = {way: unavailable(way) for way in NEEDS}
    ways = [way for way, reason in reasons.items() if reason is None]
    parts = []
    for launch in range(options.launches):
        with tempfile.TemporaryDirectory() as name:
            prepare(Path(name))
            parts.append(one_launch(ways, Path(name), options.seconds, launch))
    found: dict[str, Any] = {way: {"unavailable": reason} for way, reason in reasons.items() if reason}
    every = joined(parts, options.launches, 0.02)
    for place, way in enumerate(every.names):
        rate = float(1 / np.mean(every.seconds[:, place]))
        found[way] = {"tokens_per_second": rate}
        if place:
            found[way]["plumbline_is_times_as_fast"] = times_as_fast(every, way)
        print(f"{'plumbline again' if way == CONTROL else way}: {found[way]}", flush=True)
    seconds = [part.seconds.tolist() for part in parts]
    write_json(options.output, {"benchmark": "frameworks", "figures": found, "seconds_per_token": seconds})


def times_as_fast(every: Rounds, way: str) -> dict[str, float]:
    """How many times as fast the study's loop is as `way`, with the 95% interval."""
    ratio = every.ratio(way)
    return {"value": 1 / ratio.value, "low": 1 / ratio.high, "high": 1 / ratio.low}


if __name__ == "__main__":
    main()
