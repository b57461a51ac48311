"""What the figures are drawn from: the study's records and manifests, their frames, and each variant's style."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from plumbline.core.present.plotting import MARKERS
from plumbline.core.run.records import machine_note, machines
from plumbline.throughput.analysis.formatting import share_text
from plumbline.throughput.analysis.frames import trials_frame, variants_frame
from plumbline.throughput.analysis.speedups import speedups_frame
from plumbline.throughput.grid import main_engine
from plumbline.throughput.models.manifest import Manifest
from plumbline.throughput.record import ComparisonRecord, TrialRecord
from plumbline.throughput.settings import BASE


@dataclass(frozen=True, kw_only=True)
class Results:
    """The records and manifests, and what is computed from them."""

    records: list[TrialRecord]
    manifests: list[Manifest]
    comparisons: list[ComparisonRecord]

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per trial."""
        return trials_frame(self.records, self.manifests)

    @cached_property
    def variants(self) -> pd.DataFrame:
        """A row per variant."""
        return variants_frame(self.manifests, self.trials, self.speedups)

    @cached_property
    def speedups(self) -> pd.DataFrame:
        """A row per compared candidate."""
        return speedups_frame(self.comparisons)

    @cached_property
    def styles(self) -> dict[str, dict[str, Any]]:
        """Variant -> colour and marker, the same in every figure: the base black, the others by their order."""
        names = list(dict.fromkeys(self.trials["variant"]))
        others = [name for name in names if name != BASE]
        colours = plt.get_cmap("viridis")(np.linspace(0.12, 0.88, max(len(others), 2)))
        styles: dict[str, dict[str, Any]] = {BASE: {"color": "black", "marker": MARKERS[0]}}
        for number, name in enumerate(others):
            styles[name] = {"color": tuple(colours[number]), "marker": MARKERS[(number + 1) % len(MARKERS)]}
        return {name: styles[name] for name in names}

    @cached_property
    def labels(self) -> dict[str, str]:
        """Variant -> its ratio, with the method where several are measured; a user-supplied variant's name."""
        methods = set(self.trials["method"]) - {"none", None}
        reached = {manifest.variant: manifest.reached for manifest in self.manifests}
        labels = {}
        for variant, group in self.trials.groupby("variant", sort=False):
            ratio, method = group["ratio"].iloc[0], group["method"].iloc[0]
            if variant == BASE:
                labels[str(variant)] = "1 (base)"
            elif np.isnan(ratio) or method == "user":
                labels[str(variant)] = str(variant)
            else:
                label = share_text(ratio, reached.get(str(variant)))
                labels[str(variant)] = label + (f" {method}" if len(methods) > 1 else "")
        return labels

    @cached_property
    def main_engine(self) -> str:
        """The engine with most trials."""
        return main_engine(list(self.trials["engine"]))

    @property
    def machine_note(self) -> str:
        """A sentence when the trials ran on different machines, else nothing."""
        return machine_note(machines(self.records))
