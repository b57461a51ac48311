"""The engine `lean` against its promises: CTranslate2, and its own base when it runs low-rank layers.

    python tests/benchmarks/bench_lean.py --output lean.json [--seconds 60]

All of it float32 with weights from a seed, candidates in turn in random order, ratios as medians over rounds with
their interval, the baseline against itself (A/A) beside them; prompt 4, generated 32.

- peers: speed relative to CTranslate2 (equal greedy tokens, checked) on 134M parameters at batch 1, one thread and two,
  and on the default model at batch 1, 8 and 64. To reach: 1.0 on 134M. Needs `ctranslate2`; left out without it.
- low rank: speed relative to the base at ratios 0.8 to 0.2, 134M parameters, batch 1. To reach: 1.0 at every ratio.

Nothing should run beside it. About eight minutes.
"""

import argparse
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from plumbline.core.files import read_json, write_json
from plumbline.core.measure.interleave import Candidate, interleave
from plumbline.core.measure.machine import core_count, describe_machine
from plumbline.core.run.processes import in_child
from plumbline.throughput.compression.svd import rank_of
from plumbline.throughput.engines.interface import Shape
from plumbline.throughput.engines.lean import Lean
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.models.random import write_model
from plumbline.throughput.settings import Architecture

DEFAULT = Architecture(vocabulary=512, context=64, width=64, hidden=176, layers=2, heads=4)
LARGE = Architecture(vocabulary=32_000, context=256, width=768, hidden=2048, layers=12, heads=12)
RATIOS = (0.8, 0.6, 0.4, 0.2)
PROMPT, GENERATED = 4, 32
Call = Callable[[], torch.Tensor]


def lean(folder: Path, prompts: torch.Tensor, threads: int, attention: str = "eager") -> Call:
    """A call of `lean` on the model in `folder`."""
    config = EngineConfig(dtype="float32", attention=attention, threads=threads, compile=False)
    shape = Shape(batch=len(prompts), prompt=PROMPT, generated=GENERATED)
    manifest = Manifest(variant="v", method="none", folder=str(folder))
    engine = Lean(manifest, torch.device("cpu"), config, shape)
    return lambda: engine.generate(prompts, GENERATED)


def ctranslate2(folder: Path, prompts: torch.Tensor, threads: int) -> Call:
    """A call of CTranslate2 on the model in `folder`, which is converted beside it."""
    import ctranslate2
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {f"t{number}": number for number in range(read_json(folder / "config.json")["vocab_size"])}
    special = {"bos_token": "t0", "eos_token": "t1", "unk_token": "t2"}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t2"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    converted = folder.with_name(f"{folder.name}-ctranslate2")
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(converted), force=True)
    engine = ctranslate2.Generator(str(converted), compute_type="float32", inter_threads=1, intra_threads=threads)
    rows = [[f"t{number}" for number in row] for row in prompts.tolist()]
    length = {"min_length": GENERATED, "max_length": GENERATED, "end_token": []}

    def call() -> torch.Tensor:
        found = engine.generate_batch(rows, sampling_topk=1, include_prompt_in_result=False, **length)
        return torch.tensor([each.sequences_ids[0] for each in found])

    return call


def compressed(base: Path, ratio: float, folder: Path) -> Path:
    """A model of the shape of `base` with every projection low-rank, its factors drawn from a seed."""
    torch.manual_seed(0)
    tensors = {}
    for name, weight in load_file(base / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = weight
            continue
        (rows, columns), layer = weight.shape, name.removesuffix(".weight")
        rank = rank_of(ratio, rows, columns)
        tensors[f"{layer}.0.weight"] = torch.randn(rank, columns) / columns**0.5
        tensors[f"{layer}.1.weight"] = torch.randn(rows, rank) / rank**0.5
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_bytes((base / "config.json").read_bytes())
    return folder


def compared(calls: dict[str, Call], threads: int, seconds: float) -> dict[str, Any]:
    """Speed of each call relative to the first, which also takes a turn against itself."""
    torch.set_num_threads(threads)

    def clocked(call: Call) -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    for call in calls.values():
        call()
    baseline, *others = [Candidate(name=name, run=partial(clocked, call)) for name, call in calls.items()]
    rounds = interleave(baseline, others, seconds=seconds)
    ratios = {name: rounds.ratio(name).as_json() for name in rounds.names[1:]}
    return {"baseline": baseline.name, "ratios": ratios, "rounds": len(rounds.seconds), "threads": threads}


def peers(folder: Path, architecture: Architecture, batch: int, threads: int, seconds: float) -> dict[str, Any]:
    """`lean` relative to CTranslate2. Raises AssertionError when their tokens differ."""
    write_model(folder, architecture, seed=0)
    prompts = torch.randint(3, architecture.vocabulary, (batch, PROMPT), generator=torch.Generator().manual_seed(1))
    calls = {"ctranslate2": ctranslate2(folder, prompts, threads), "lean": lean(folder, prompts, threads)}
    first, second = (call() for call in calls.values())
    assert torch.equal(first, second), "lean and CTranslate2 gave other tokens"
    return compared(calls, threads, seconds)


def low_rank(folder: Path, threads: int, seconds: float) -> dict[str, Any]:
    """Low-rank variants relative to their base, all in `lean`."""
    write_model(folder, LARGE, seed=0)
    prompts = torch.randint(3, LARGE.vocabulary, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    folders = {"base": folder}
    folders |= {f"{ratio}": compressed(folder, ratio, folder.with_name(f"low-rank-{ratio}")) for ratio in RATIOS}
    return compared({name: lean(each, prompts, threads) for name, each in folders.items()}, threads, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each large case; a small one takes a quarter")
    options = parser.parse_args()
    counts, small = sorted({1, core_count()}), options.seconds / 4
    cases: dict[str, Callable[[Path], dict[str, Any]]] = {}
    if importlib.util.find_spec("ctranslate2"):
        for threads in counts:
            name = f"peers, 134M, batch 1, threads {threads}"
            cases[name] = partial(peers, architecture=LARGE, batch=1, threads=threads, seconds=options.seconds)
        for batch in (1, 8, 64):
            name = f"peers, default model, batch {batch}"
            cases[name] = partial(peers, architecture=DEFAULT, batch=batch, threads=1, seconds=small)
    else:
        print("no peers: ctranslate2 is not installed", flush=True)
    for threads in counts:
        name = f"low rank, 134M, batch 1, threads {threads}"
        cases[name] = partial(low_rank, threads=threads, seconds=options.seconds)
    figures = {}
    for name, case in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            (model := Path(folder) / "model").mkdir()
            figures[name] = in_child(partial(case, model))
        print(f"{name}: {json.dumps(figures[name]['ratios'])}", flush=True)
    write_json(options.output, {"benchmark": "lean", "figures": figures, "machine": describe_machine()})


if __name__ == "__main__":
    main()
