"""Singular values and moments of a product from its factors, against a dense SVD; drift under a change of gauge.

python tests/benchmarks/bench_products.py --output bench_products.json
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by BLAS when numpy is first imported

import numpy as np
import scipy.stats

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from plumbline.ablation.linalg.moments import product_moments
from plumbline.ablation.linalg.spectrum import product_singular_values
from plumbline.ablation.representations.interface import load, names

SIDE, RANK, MODULES = 1280, 4, 256


def best_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Processor seconds of one thread, best of the repeats: what else runs counts less than on a wall."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def from_factors(up: np.ndarray, down: np.ndarray) -> None:
    product_singular_values(up, down)
    product_moments(up, down)


def speed(up: np.ndarray, down: np.ndarray, repeats: int) -> dict[str, float]:
    dense = up[0] @ down[0]
    factors = best_seconds(lambda: from_factors(up, down), repeats) / len(up)
    sigma = best_seconds(lambda: product_singular_values(up, down), repeats) / len(up)
    vectors = best_seconds(lambda: np.linalg.svd(dense), repeats)
    values = best_seconds(lambda: np.linalg.svdvals(dense), repeats)
    return {
        "factors_sigma_and_moments_processor_seconds": factors,
        "factors_sigma_processor_seconds": sigma,
        "dense_svd_processor_seconds": vectors,
        "dense_singular_values_processor_seconds": values,
        "dense_svd_over_factors_ratio": vectors / factors,
        "dense_singular_values_over_factors_ratio": values / factors,
        "dense_singular_values_over_factors_sigma_ratio": values / sigma,
    }


def accuracy(up: np.ndarray, down: np.ndarray) -> dict[str, float]:
    """Largest relative error of σ and of the four moments against the dense product in float64."""
    sigma, moments = product_singular_values(up, down), product_moments(up, down)
    sigma_error = moment_error = 0.0
    for i, dense in enumerate(up @ down):
        expected = np.linalg.svdvals(dense)[: sigma.shape[1]]
        sigma_error = max(sigma_error, float(np.max(np.abs(sigma[i] - expected) / expected)))
        x = dense.ravel()
        truth = [x.mean(), x.std(), scipy.stats.skew(x), scipy.stats.kurtosis(x, fisher=False)]
        found = [getattr(moments, name)[i] for name in ("mean", "sd", "skewness", "kurtosis")]
        scales = [x.std(), x.std(), 1.0, 1.0]
        errors = [abs(a - b) / scale for a, b, scale in zip(found, truth, scales, strict=True)]
        moment_error = max(moment_error, *errors)
    return {"sigma_relative_error": sigma_error, "moments_error_in_sd_units": float(moment_error)}


def drift(rng: np.random.Generator) -> dict[str, float]:
    """Per representation: relative change of its features under (B, A) -> (B G, G⁻¹ A), G of condition 10."""
    worst = dict.fromkeys(names(), 0.0)
    for r in (1, 2, 4, 8):
        up, down = rng.standard_normal((16, 160, r)), rng.standard_normal((16, r, 96))
        left, right = (np.linalg.qr(rng.standard_normal((r, r)))[0] for _ in range(2))
        gauge = left * np.geomspace(1, 10, r) @ right
        for name in worst:
            here = load(name).product(up, down)
            there = load(name).product(up @ gauge, np.linalg.solve(gauge, down))
            change = np.linalg.norm(there - here, axis=-1) / np.linalg.norm(here, axis=-1)
            worst[name] = max(worst[name], float(change.max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="where the JSON goes")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    up, down = rng.standard_normal((MODULES, SIDE, RANK)), rng.standard_normal((MODULES, RANK, SIDE))
    figures = {
        "shape": [SIDE, RANK, SIDE],
        "speed": speed(up, down, options.repeats),
        "accuracy": accuracy(up[:2], down[:2]),
        "gauge_drift": drift(rng),
    }
    for part in ("speed", "accuracy", "gauge_drift"):
        print(part, *(f"  {key:<50} {value:.3g}" for key, value in figures[part].items()), sep="\n")
    if options.output:
        options.output.write_text(json.dumps({"benchmark": "products", "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
