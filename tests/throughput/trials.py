"""A tiny model with weights from a seed, and trials of it, for the tests of the stages that measure."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from plumbline.core.measure.machine import describe_machine
from plumbline.throughput.engines.interface import Shape, load
from plumbline.throughput.measurement.prompts import prompts
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.models.random import parameters_of, shapes_of, write_model
from plumbline.throughput.settings import Architecture

ARCHITECTURE = Architecture(vocabulary=97, context=64, width=32, hidden=48, layers=2, heads=4, kv_heads=2)
AUTOTUNE = {"dtype": "float32", "attention": "sdpa", "threads": 1, "compile": "off"}
TIMING = {"min_batches": 3, "max_batches": 4, "seconds": 0.05, "warmup_at_most": 3}
LIMITS = {
    "machine": describe_machine(),
    "device": "cpu",
    "bandwidths": [{"threads": 1, "bytes": size, "bytes_per_second": 1e10} for size in (2**18, 2**27)],
    "matmul_rates": [
        {"threads": 1, "dtype": dtype, "flops_per_second": rate}
        for dtype, rate in (("float32", 1e11), ("bfloat16", 2e11))
    ],
}
ROWS, PROMPT, LONGEST = 4, 5, 8


def make(folder: Path) -> dict[str, Path]:
    """Model, manifest, text, reference and limits below `folder`; options of the stages -> paths."""
    model = folder / "model"
    model.mkdir(parents=True)
    write_model(model, ARCHITECTURE, seed=0)
    spread = {
        name: tensor * 8 if tensor.ndim == 2 else tensor
        for name, tensor in load_file(model / "model.safetensors").items()
    }
    save_file(spread, model / "model.safetensors", {"format": "pt"})  # so that no two logits are near each other
    manifest = Manifest(
        variant="base", method="none", ratio=1.0, folder=str(model), weights="random", sha256="0",
        parameters=parameters_of(ARCHITECTURE), shapes=shapes_of(ARCHITECTURE),
    )  # fmt: skip
    paths = {"manifest": folder / "manifest.json", "text": folder / "text.safetensors"}
    paths |= {"reference": folder / "reference.safetensors", "limits": folder / "machine.json"}
    paths["manifest"].write_text(manifest.model_dump_json())
    save_file({"evaluation": torch.arange(96).view(6, 16)}, paths["text"])
    write_reference(paths["reference"], manifest, paths["text"])
    paths["limits"].write_text(json.dumps(LIMITS))
    return paths


def write_reference(path: Path, manifest: Manifest, text: Path) -> None:
    """Greedy tokens, every one from a pass over all that stands before it."""
    config = EngineConfig(dtype="float32", attention="eager", threads=1, compile=False)
    engine = load("lean")(manifest, torch.device("cpu"), config, Shape(batch=ROWS, prompt=PROMPT, generated=LONGEST))
    rows, margins = prompts(text, ARCHITECTURE.vocabulary, ROWS, PROMPT, 0), []
    for _ in range(LONGEST):
        best = engine.logits(rows).topk(2)
        rows = torch.cat([rows, best.indices[:, :1]], dim=1)
        margins.append(best.values[:, 0] - best.values[:, 1])
    tokens = rows[:, PROMPT:].contiguous()
    save_file({f"p{PROMPT}": tokens, f"p{PROMPT}.margin": torch.stack(margins, 1)}, path, {"outcome": "ok"})


def spec(engine: str = "lean", *, autotune: Any = None, timing: Any = None, **cell: Any) -> dict[str, Any]:
    """Of the stage `measure`; what is left out is small and fixed."""
    cell = {"variant": "base", "engine": engine, "batch": 2, "prompt": PROMPT, "generated": LONGEST} | cell
    values = {"model": "tiny", "cell": cell, "autotune": AUTOTUNE | (autotune or {}), "timing": TIMING | (timing or {})}
    return {"code": "", "inputs": "", "seed": 0, "device": "cpu", **values}


def comparison_spec(question: str, baseline: dict[str, Any], *others: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Of the stage `comparison`, whose cells differ from a trial's as given; short."""
    cells = [spec(**{"engine": "lean", **cell})["cell"] for cell in (baseline, *others)]
    values = {"model": "tiny", "question": question, "baseline": cells[0], "others": cells[1:], "tie_margin": 1e-4}
    values |= {"comparison": {"seconds": 0.3, "precision": 0.2}, "timing": TIMING, "seed": 0, "device": "cpu"}
    return {"code": "", "inputs": "", **values, **changes}
