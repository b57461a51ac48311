"""Time and memory of every representation at the shape of Stable Diffusion 1.5 adapters of rank 1.

    python tests/benchmarks/bench_features.py --output bench_features.json

Rows of 128 factors, 99,648 weights. Factor view: each representation in a pass of its own, data in memory, one
thread. Memory: each pass over files of 1,000 and of 20,000 rows in a process of its own. Product view: a few rows.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read by BLAS when numpy is first imported

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "workflow"))

from plumbline.ablation.data.feature_pass import feature_blocks
from plumbline.ablation.representations.interface import View, load, names

REFERENCE_NINE = [
    "simple_stats",
    "rank_based",
    "stats",
    "spectral",
    "matrix_norms",
    "distribution",
    "frequency",
    "info_theoretic",
]
"""Eight functions; the ninth, the ensemble, concatenates features of these and costs no pass."""


def sd15_modules() -> dict[str, tuple[int, int]]:
    """(out, in) of to_q and to_v in the 16 transformer blocks of SD-1.5; text states are 768 wide."""
    widths = [320] * 5 + [640] * 5 + [1280] * 6
    modules = {}
    for block, width in enumerate(widths):
        for layer, inputs in (("attn1.to_q", width), ("attn1.to_v", width), ("attn2.to_q", width), ("attn2.to_v", 768)):
            modules[f"transformer_blocks.{block}.{layer}"] = (width, inputs)
    return modules


class Adapters:
    """Random rank-1 adapters; factors of one shape share their values, so that a small file stands for a large one."""

    def __init__(self, rows: int, folder: Path | None = None) -> None:
        rng = np.random.default_rng(0)
        self.rows = rows
        self.modules = sd15_modules()
        self.folder = folder
        self.values: dict[int, np.ndarray] = {}
        for size in sorted({size for shape in self.modules.values() for size in shape}):
            values = rng.standard_normal((rows, size), np.float32) * np.float32(0.02)
            if folder is None:
                self.values[size] = values
            else:
                np.save(folder / f"{size}.npy", values)

    def names(self, view: View) -> list[str]:
        if view == "product":
            return list(self.modules)
        return [f"{module}.{side}" for module in self.modules for side in ("up", "down")]

    def block(self, name: str) -> np.ndarray:
        module, _, side = name.rpartition(".")
        size = self.modules[module][side == "down"]
        values = self.values[size] if self.folder is None else np.load(self.folder / f"{size}.npy", mmap_mode="r")
        return values.reshape((self.rows, size, 1) if side == "up" else (self.rows, 1, size))

    def product(self, module: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.block(f"{module}.up"), self.block(f"{module}.down"), np.ones(self.rows)


def seconds_per_row(adapters: Adapters, name: str, view: View) -> dict[str, float]:
    """Wall and processor seconds a row of one pass that drops its features."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in feature_blocks(adapters, load(name), view, adapters.names(view)):
        pass
    return {
        "wall_seconds_per_row": (time.perf_counter() - wall) / adapters.rows,
        "processor_seconds_per_row": (time.process_time() - processor) / adapters.rows,
    }


def factor_view(rows: int, repeats: int) -> dict[str, Any]:
    """Best of interleaved repeats, per representation, and their totals."""
    adapters = Adapters(rows)
    best: dict[str, dict[str, float]] = {}
    for _ in range(repeats):
        for name in [*REFERENCE_NINE, "flat"]:
            found = seconds_per_row(adapters, name, "factor")
            best[name] = {key: min(value, best.get(name, found)[key]) for key, value in found.items()}
    total = {key: sum(best[name][key] for name in REFERENCE_NINE) for key in best["stats"]}
    return {"representations": best, "all_nine": total, "rows": rows, "repeats": repeats}


def product_view(rows: int) -> dict[str, Any]:
    """One pass of every representation over few rows: those of dense entries take long."""
    adapters = Adapters(rows)
    return {name: seconds_per_row(adapters, name, "product") for name in names() if name != "flat"}


def memory(rows: int) -> dict[str, Any]:
    """Seconds and peak resident memory of one process that makes all passes over files of `rows` rows."""
    with scratch() as folder:
        Adapters(rows, folder)
        command = [sys.executable, __file__, "--pass-over", str(folder), "--rows", str(rows)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


@contextmanager
def scratch() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="bench-features-") as folder:
        yield Path(folder)


def pass_over(folder: Path, rows: int) -> dict[str, Any]:
    adapters = Adapters(0, folder=None)
    adapters.rows, adapters.folder = rows, folder
    start = time.perf_counter()
    for name in REFERENCE_NINE:
        seconds_per_row(adapters, name, "factor")
    return {
        "seconds": time.perf_counter() - start,
        "bytes_read": rows * 99_648 * 4 * len(REFERENCE_NINE),
        "peak_resident_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def summary(figures: dict[str, Any]) -> str:
    lines = ["factor view, milliseconds a row: wall, processor"]
    factor = figures["factor_view"]
    for name, each in [*factor["representations"].items(), ("all nine", factor["all_nine"])]:
        lines.append(f"  {name:<16}" + "".join(f"{1e3 * value:9.3f}" for value in each.values()))
    lines.append("product view, milliseconds a row: wall, processor")
    for name, each in figures["product_view"].items():
        lines.append(f"  {name:<16}" + "".join(f"{1e3 * value:9.2f}" for value in each.values()))
    for rows, each in figures["memory"].items():
        lines.append(f"{rows}: {each['seconds']:.1f} s, peak {each['peak_resident_bytes'] / 2**20:.0f} MiB")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="where the JSON goes")
    parser.add_argument("--rows", type=int, default=512, help="rows in memory for the factor view")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--product-rows", type=int, default=2)
    parser.add_argument("--memory-rows", type=int, nargs="*", default=[1_000, 20_000])
    parser.add_argument("--pass-over", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.pass_over:
        print(json.dumps(pass_over(options.pass_over, options.rows)))
        return
    weights = sum(m + n for m, n in sd15_modules().values())
    figures = {
        "weights_per_row": weights,
        "factor_view": factor_view(options.rows, options.repeats),
        "product_view": product_view(options.product_rows),
        "memory": {f"{rows}_rows": memory(rows) for rows in options.memory_rows},
    }
    print(summary(figures))
    if options.output:
        options.output.write_text(json.dumps({"benchmark": "features", "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
