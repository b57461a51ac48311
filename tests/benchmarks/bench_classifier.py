"""Ten runs of the classifier at once against the same ten one after another, on one thread or a GPU.

    python tests/benchmarks/bench_classifier.py --output classifier.json [--device cuda] [--repeats 3]

1,000 rows, ten classes, a fixed number of epochs, no early stop; the two ways take turns, and the ratio is that of
their summed seconds. The single runs use torch.nn modules and torch.optim.Adam as it comes. About two minutes on a CPU.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from plumbline.ablation.classifier.single import fit_single
from plumbline.ablation.classifier.splits import split
from plumbline.ablation.classifier.stacked import fit_stacked
from plumbline.ablation.settings import ClassifierSettings
from plumbline.core.files import write_json

ROWS, CLASSES, RUNS = 1000, 10, 10
CASES = ((160, 32), (160, 64), (1072, 32), (1072, 64))


def compare(width: int, hidden: int, epochs: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Seconds of each repeat of both ways, their ratio, and whether they found the same."""
    random = np.random.default_rng(0)
    labels = np.arange(ROWS) % CLASSES
    centres = random.normal(size=(CLASSES, width)) * 4 / np.sqrt(width)
    features = (centres[labels] + random.normal(size=(ROWS, width))).astype(np.float32)
    splits = [split(labels, np.arange(ROWS), seed=seed) for seed in range(RUNS)]
    settings = ClassifierSettings(hidden=hidden, max_epochs=epochs, patience=epochs)
    seconds: dict[str, list[float]] = {"stacked": [], "single": []}
    accuracy = {}
    for repeat in range(repeats + 1):
        for way in ("stacked", "single") if repeat % 2 else ("single", "stacked"):
            began = time.perf_counter()
            if way == "stacked":
                results = fit_stacked(features, labels, splits, CLASSES, settings, list(range(RUNS)), device)
            else:
                results = [
                    fit_single(features, labels, one, CLASSES, settings, seed, device)[0]
                    for seed, one in enumerate(splits)
                ]
            if repeat > 0:  # the first round warms up
                seconds[way].append(time.perf_counter() - began)
            accuracy[way] = float(np.mean([result.test.accuracy for result in results if result.test]))
    steps = epochs * -(-int(0.7 * ROWS) // settings.batch_size) * repeats
    return {
        "width": width,
        "hidden": hidden,
        "stacked_seconds": seconds["stacked"],
        "single_seconds": seconds["single"],
        "stacked_seconds_per_step": sum(seconds["stacked"]) / steps,
        "speedup_ratio": sum(seconds["single"]) / sum(seconds["stacked"]),
        "stacked_test_accuracy": accuracy["stacked"],
        "single_test_accuracy": accuracy["single"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cases = []
    for width, hidden in CASES:
        case = compare(width, hidden, options.epochs, options.repeats, torch.device(options.device))
        cases.append(case)
        print(
            f"width {width}, hidden {hidden}: stacked {np.mean(case['stacked_seconds']):.2f} s, one after another "
            f"{np.mean(case['single_seconds']):.2f} s, {case['speedup_ratio']:.1f} × "
            f"({1e3 * case['stacked_seconds_per_step']:.2f} ms a stacked step)",
            flush=True,
        )
    device = torch.cuda.get_device_name() if options.device.startswith("cuda") else "cpu, one thread"
    write_json(
        options.output,
        {
            "benchmark": "classifier",
            "figures": {"cases": cases, "least_speedup_ratio": min(case["speedup_ratio"] for case in cases)},
            "machine": {"device": device, "torch": torch.__version__},
        },
    )


if __name__ == "__main__":
    main()
