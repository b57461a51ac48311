"""The study's training loop against two others: nanoGPT's, and a plain one with the study's own model.

    python tests/benchmarks/bench_training.py --output training.json [--device cuda] [--blocks 12] [--compiled]

Each loop has a process of its own, as a trial has, with one thread on a CPU. They take turns in random order, block by
block, and a ratio is the median over blocks of the other loop's time divided by the study's, with its bootstrap 95%
interval. `nanogpt` is GPT-2 of the same width, layers, heads, context, vocabulary and batch (nanogpt.py); it is not the
same model, so the parameters and the FLOPs per token of both are printed. `plain` is eager, with torch's own AdamW
and clipping and a batch stacked window by window; on a GPU it has bf16 autocast and fused AdamW as nanoGPT does. With
--compiled, nanoGPT compiled joins them (it needs a C++ compiler). The study's loop runs with what its probe chose and
with its metrics; what these and checkpoints cost is read from its spans. On a CPU the matrix products of the study's
step are also timed by themselves, with their matrices in cache: the floor of a float32 loop. About a minute.
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
import timeit
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from nanogpt import NanoGptLoop
from nanogpt import flops_per_token as nanogpt_flops_per_token

from plumbline.core.files import write_json
from plumbline.core.measure.machine import describe_machine
from plumbline.core.statistics.rates import ratio_over_rounds
from plumbline.lr_sweep.settings import LrSweepSettings, ModelSettings, OperationSettings, TrainingSettings
from plumbline.lr_sweep.training.allocator import keep_freed_memory
from plumbline.lr_sweep.training.data import Tokens
from plumbline.lr_sweep.training.loop import RunConfig, Trainer, learning_rate
from plumbline.lr_sweep.training.model import Transformer, flops_per_token
from plumbline.lr_sweep.training.precision import autotune

SHAPES = {
    "default": LrSweepSettings().model,
    "wider": ModelSettings(vocabulary=1024, context=128, width=128, hidden=352, layers=3, heads=4),
}
LOG_STEPS = OperationSettings().log_steps
CHECKPOINT_SECONDS = OperationSettings().checkpoint_seconds


def corpus(vocabulary: int) -> Tokens:
    tokens = np.random.default_rng(0).integers(vocabulary, size=500_000).astype("<u2")
    return Tokens(
        train=tokens,
        validation=tokens[:20_000],
        vocabulary=vocabulary,
        end_of_text=0,
        unigram_entropy=np.log(vocabulary),
    )


class PlainLoop:
    """A training loop as one writes it."""

    def __init__(self, run: RunConfig, tokens: Tokens, device: torch.device) -> None:
        torch.manual_seed(run.seed)
        self.run, self.tokens, self.device, self.step = run, tokens.train, device, 0
        self.model = Transformer(run.model).to(device)
        training = run.training
        decay = training.weight_decay / run.rate  # torch multiplies it by the rate
        groups = [
            {"params": [w for w in self.model.parameters() if w.dim() >= 2], "weight_decay": decay},
            {"params": [w for w in self.model.parameters() if w.dim() < 2], "weight_decay": 0.0},
        ]
        on_gpu = device.type == "cuda"
        betas = (training.beta1, training.beta2)
        self.optimizer = torch.optim.AdamW(groups, lr=run.rate, betas=betas, fused=True if on_gpu else None)
        self.autocast = torch.autocast(device.type, torch.bfloat16, enabled=on_gpu)

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        context = self.run.model.context
        starts = torch.randint(len(self.tokens) - context, (self.run.training.batch,))
        x = torch.stack([torch.from_numpy(self.tokens[i : i + context].astype(np.int64)) for i in starts])
        y = torch.stack([torch.from_numpy(self.tokens[i + 1 : i + 1 + context].astype(np.int64)) for i in starts])
        if self.device.type == "cuda":
            return x.pin_memory().to(self.device, non_blocking=True), y.pin_memory().to(self.device, non_blocking=True)
        return x, y

    def advance(self) -> None:
        rate = learning_rate(self.run, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        x, y = self.batch()
        with self.autocast:
            loss = self.model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.run.training.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        if self.step % LOG_STEPS == 0:
            loss.item()


class StudyLoop:
    """The study's, with its metrics."""

    def __init__(self, run: RunConfig, tokens: Tokens, device: torch.device) -> None:
        keep_freed_memory()
        self.trainer = Trainer(run, tokens, device)
        self.trainer.prepare(autotune(run.model, run.training, tokens, device))

    def advance(self) -> None:
        self.trainer.advance()
        if self.trainer.step % LOG_STEPS == 0:
            self.trainer.log()


Loop = PlainLoop | StudyLoop | NanoGptLoop


def started(way: str, run: RunConfig, device: torch.device) -> Loop:
    tokens = corpus(run.model.vocabulary)
    if way.startswith("nanogpt"):
        return NanoGptLoop(run.model, tokens.train, run.training.batch, device, compiled=way == "nanogpt_compiled")
    return PlainLoop(run, tokens, device) if way == "plain" else StudyLoop(run, tokens, device)


def serve(way: str, shape: str, device_name: str, steps: int, pipe: Connection) -> None:
    """Answers each request with the seconds of so many steps; at None with the model's size and the costs."""
    torch.set_num_threads(1)
    device = torch.device(device_name)
    training = TrainingSettings(steps=steps, validate_every=steps)
    run = RunConfig(model=SHAPES[shape], training=training, rate=1e-3, seed=0, identity="{}")
    loop = started(way, run, device)
    pipe.send("ready")
    while (count := pipe.recv()) is not None:
        began = time.perf_counter()
        for _ in range(count):
            loop.advance()
        if device.type == "cuda":
            torch.cuda.synchronize()
        pipe.send(time.perf_counter() - began)
    model = loop.trainer.model if isinstance(loop, StudyLoop) else loop.model
    flops = nanogpt_flops_per_token(run.model) if way.startswith("nanogpt") else flops_per_token(run.model)
    size = {"parameters": sum(weight.numel() for weight in model.parameters()), "flops_per_token": flops}
    pipe.send(size | (costs(loop.trainer) if isinstance(loop, StudyLoop) else {}))


def costs(trainer: Trainer) -> dict[str, Any]:
    """Percent of the training time that metrics take, and checkpoints at their default interval."""
    trainer.spans.settle()
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(5):
            trainer.save(Path(folder) / "checkpoint")
    trainer.spans.settle()
    spent, checkpoint = trainer.spans.seconds, trainer.spans.seconds["checkpoint"] / 5
    return {
        "metrics_percent": 100 * spent["logging"] / trainer.spans.training,
        "checkpoint_seconds": checkpoint,
        "checkpoints_percent": 100 * checkpoint / CHECKPOINT_SECONDS,
        "chosen": {switch: decision.chosen for switch, decision in trainer.config.decisions.items()},
    }


def products_seconds(model: ModelSettings) -> dict[str, float]:
    """Seconds and FLOP/s of a step's matrix products by themselves: forward, and the gradients of both factors."""
    rows, width, hidden = TrainingSettings().batch * model.context, model.width, model.hidden
    layer = [(width, 3 * width), (width, width), (width, 2 * hidden), (hidden, width)]
    seconds = flops = 0.0
    for inputs, outputs in [*(model.layers * layer), (width, model.vocabulary)]:
        x, weight, slope = torch.randn(rows, inputs), torch.randn(outputs, inputs), torch.randn(rows, outputs)
        for left, right in ((x, weight.t()), (slope.t(), x), (slope, weight)):
            seconds += min(timeit.repeat(lambda left=left, right=right: left @ right, number=10, repeat=10)) / 10
            flops += 2 * rows * inputs * outputs
    return {"products_seconds": seconds, "products_flops_per_second": flops / seconds}


def compare(shape: str, device: str, blocks: int, steps: int, ways: list[str]) -> dict[str, Any]:
    """Tokens a second of each loop, and its time over the study's, from `blocks` turns of `steps` steps each."""
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for way in ways:
        pipes[way], theirs = context.Pipe()
        arguments = (way, shape, device, (blocks + 1) * steps, theirs)
        processes.append(context.Process(target=serve, args=arguments, daemon=True))
        processes[-1].start()
        pipes[way].recv()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for block in range(blocks + 1):
        for way in random.sample(ways, len(ways)):
            pipes[way].send(steps)
            elapsed = pipes[way].recv()
            if block:  # the first warms up
                seconds[way].append(elapsed)
    for pipe in pipes.values():
        pipe.send(None)
    found = {way: pipe.recv() for way, pipe in pipes.items()}
    for process in processes:
        process.join()
    tokens = blocks * steps * TrainingSettings().batch * SHAPES[shape].context
    for way in ways:
        ratio = ratio_over_rounds(seconds[way], seconds["study"])
        found[way] |= {
            "tokens_per_second": tokens / sum(seconds[way]),
            "ratio": ratio.value,
            "interval": [ratio.low, ratio.high],
            "block_seconds": seconds[way],
        }
    alone = products_seconds(SHAPES[shape]) if device == "cpu" else {}
    return {"shape": shape, "steps_per_block": steps, "loops": found} | alone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    ways = ["study", "plain", "nanogpt", *(["nanogpt_compiled"] if options.compiled else [])]
    figures = {}
    for shape in SHAPES:
        steps = options.steps if shape == "default" else max(options.steps // 6, 2)
        figures[shape] = compare(shape, options.device, options.blocks, steps, ways)
        report(figures[shape])
    write_json(options.output, {"benchmark": "training", "figures": figures, "machine": describe_machine()})


def report(figure: dict[str, Any]) -> None:
    for way, found in figure["loops"].items():
        low, high = found["interval"]
        print(
            f"{figure['shape']}, {way}: {found['tokens_per_second']:,.0f} tokens/s, {found['parameters']:,} parameters,"
            f" {found['flops_per_token']:,} FLOPs per token; time over the study's {found['ratio']:.3f}"
            f" [{low:.3f}, {high:.3f}]"
        )
    study = figure["loops"]["study"]
    print(
        f"{figure['shape']}: metrics take {study['metrics_percent']:.2f}% of the study's loop, a checkpoint"
        f" {1e3 * study['checkpoint_seconds']:.0f} ms, {study['checkpoints_percent']:.2f}% at the default interval",
        flush=True,
    )
    if "products_seconds" in figure:
        tokens = TrainingSettings().batch * SHAPES[figure["shape"]].context
        step, products = tokens / study["tokens_per_second"], figure["products_seconds"]
        print(
            f"{figure['shape']}: a step of the study takes {1e3 * step:.1f} ms; its matrix products by themselves"
            f" {1e3 * products:.1f} ms, at {figure['products_flops_per_second'] / 1e9:.0f} GFLOP/s",
            flush=True,
        )


if __name__ == "__main__":
    main()
