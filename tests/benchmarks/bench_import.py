"""How fast adapters are taken into the store, and how much memory that needs, at the shape of Stable Diffusion 1.5.

A data set of rank 1, 64 modules, 128 factors, 99,648 weights a row, made of random numbers, is read by each source in
a process of its own, at two sizes. Rates count the bytes of float32 weights that end up in the store. A plain copy of
as many bytes, with the flush to disk that the store also does, tells what the disk allows.

Peak memory counts mapped files too: for a saved data set, which is memory-mapped, it grows with the rows although the
system can take those pages back at any time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file

# Transformer blocks of the U-Net: where, how wide, how many.
BLOCKS = (
    ("down_blocks.0", 320, 2),
    ("down_blocks.1", 640, 2),
    ("down_blocks.2", 1280, 2),
    ("mid_block", 1280, 1),
    ("up_blocks.1", 1280, 3),
    ("up_blocks.2", 640, 3),
    ("up_blocks.3", 320, 3),
)
TEXT_WIDTH = 768

READ = """
import json, sys, time
from pathlib import Path
from plumbline.ablation.sources.interface import source

def peak():  # not ru_maxrss, which starts from the parent's
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))

load, arguments = source(sys.argv[1]), json.loads(sys.argv[3])
imported, start = peak(), time.perf_counter()
load(Path(sys.argv[2]), **arguments)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak(), "rss_after_imports_bytes": imported}))
"""


def shapes() -> dict[str, tuple[int, int]]:
    """Factor → shape: to_q and to_v of self- and cross-attention in the 16 transformer blocks."""
    found = {}
    for place, width, count in BLOCKS:
        for index in range(count):
            for attention, into in (("attn1", width), ("attn2", TEXT_WIDTH)):
                for name, columns in (("to_q", width), ("to_v", into)):
                    module = f"{place}.attentions.{index}.transformer_blocks.0.{attention}.{name}"
                    found[f"{module}.lora.down.weight"] = (1, columns)
                    found[f"{module}.lora.up.weight"] = (width, 1)
    return found


def nested(values: np.ndarray) -> pa.Array:
    """(rows, m, n) as a column of lists of lists."""
    rows, height, width = values.shape
    inner = pa.ListArray.from_arrays(np.arange(0, values.size + 1, width, dtype=np.int32), pa.array(values.ravel()))
    return pa.ListArray.from_arrays(np.arange(0, rows * height + 1, height, dtype=np.int32), inner)


def make_data(folder: Path, rows: int) -> None:
    """The same rows as a hub folder (4 files), a saved data set and a folder of PEFT files."""
    random = np.random.default_rng(0)
    labels = np.arange(rows) % 10
    (folder / "hub").mkdir(parents=True)
    part = -(-rows // 4)
    for number in range(4):
        own = labels[number * part : (number + 1) * part]
        factors = {name: random.standard_normal((len(own), *shape), np.float32) for name, shape in shapes().items()}
        names = pa.array([f"class {label}" for label in own])
        columns = {"category_label": pa.array(own), "category_name": names}
        table = pa.table({name: nested(values) for name, values in factors.items()} | columns)
        pq.write_table(table, folder / "hub" / f"train-{number}.parquet", row_group_size=100)
        for row in range(0, len(own), 4):  # a quarter of the rows, for files are many
            file = folder / "adapters" / f"class {own[row] // 2}" / f"{number}-{row:05d}.safetensors"
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({f"unet.{name}": values[row] for name, values in factors.items()}, file)
    saved = datasets.Dataset.from_parquet(
        str(folder / "hub" / "*.parquet"), cache_dir=str(folder / "cache"), keep_in_memory=False
    )
    saved.save_to_disk(str(folder / "saved"))


def copy_rate(folder: Path, size: int) -> float:
    """Bytes per second of a plain write with fsync."""
    block, start = os.urandom(2**24), time.perf_counter()
    with (folder / "copy").open("wb") as stream:
        for _ in range(size // len(block)):
            stream.write(block)
        stream.flush()
        os.fsync(stream.fileno())
    seconds = time.perf_counter() - start
    (folder / "copy").unlink()
    return size // len(block) * len(block) / seconds


def measure(folder: Path, name: str, options: dict[str, str], size: int) -> dict[str, float]:
    """One import in a fresh process."""
    command = [sys.executable, "-c", READ, name, str(folder / "store"), json.dumps(options)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return {**found, "bytes_per_second": size / found["seconds"]}


def main() -> None:
    """Measures, prints and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    weights = sum(rows * columns for rows, columns in shapes().values())
    figures: dict[str, object] = {"weights_per_row": weights, "factors": len(shapes())}
    for rows in (arguments.rows // 4, arguments.rows):
        with tempfile.TemporaryDirectory(dir=arguments.output.parent) as scratch:
            folder, size = Path(scratch), rows * weights * 4
            make_data(folder, rows)
            candidates = {
                "hub": ("hub", {"id": str(folder / "hub")}, size),
                "disk_parquet": ("disk", {"path": str(folder / "hub")}, size),
                "disk_saved": ("disk", {"path": str(folder / "saved")}, size),
                "adapters": ("adapters", {"path": str(folder / "adapters")}, size // 4),
            }
            samples: dict[str, list[dict[str, float]]] = {name: [] for name in candidates}
            writes = []
            for _ in range(arguments.repeats):
                writes.append(copy_rate(folder, size))
                for name, (source, options, stored) in candidates.items():
                    samples[name].append(measure(folder, source, options, stored))
            figures[f"rows_{rows}"] = {"plain_write_bytes_per_second": writes, **samples}
            for name, taken in samples.items():
                rate = np.median([sample["bytes_per_second"] for sample in taken]) / 1e6
                peak = max(sample["peak_rss_bytes"] for sample in taken) / 2**20
                base = taken[0]["rss_after_imports_bytes"] / 2**20
                print(f"{rows:6d} rows  {name:13s} {rate:6.0f} MB/s  peak {peak:6.0f} MiB (imports {base:.0f} MiB)")
            print(f"{rows:6d} rows  plain write   {np.median(writes) / 1e6:6.0f} MB/s")
    arguments.output.write_text(json.dumps({"benchmark": "import", "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
