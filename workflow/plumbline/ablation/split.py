"""Stage `ablation.split`: which adapters each run trains, validates and tests on; the same for every trial."""

from pathlib import Path
from typing import Literal

import numpy as np

from plumbline.ablation.classifier.splits import fixed_split, split, write_splits
from plumbline.ablation.data.store import AdapterStore
from plumbline.core.plan.target import Spec
from plumbline.core.run.stage import stage


class SplitSpec(Spec):
    """What decides the splits, besides the adapters."""

    split: Literal["resampled", "fixed"]
    split_by_images: bool
    runs: int
    seed: int


@stage
def split_adapters(spec: SplitSpec, adapters: Path, output: Path) -> None:
    """Writes a split per run to `output`: drawn from the run's seed, or the one fixed split. adapters: the manifest."""
    store = AdapterStore(adapters.parent)
    groups = store.groups if spec.split_by_images else np.arange(store.rows)
    seeds = [spec.seed * 1000 + run for run in range(spec.runs)]
    if spec.split == "fixed":
        splits = [fixed_split(store.labels)] * len(seeds)
    else:
        splits = [split(store.labels, groups, seed=seed) for seed in seeds]
    write_splits(output, splits)


if __name__ == "__main__":
    split_adapters.main()
