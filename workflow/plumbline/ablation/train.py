"""Stage `ablation.train`: one trial, the classifier trained several times on one representation of one layer set."""

from pathlib import Path
from typing import Any

import numpy as np

from plumbline.ablation.classifier.result import RunResult
from plumbline.ablation.classifier.single import fit_single
from plumbline.ablation.classifier.splits import Split, fixed_split, split
from plumbline.ablation.classifier.stacked import fit_stacked
from plumbline.ablation.data.feature_file import read_features, seconds_of
from plumbline.ablation.data.store import AdapterStore
from plumbline.ablation.settings import TrainingSettings, View
from plumbline.core.plan.target import Spec, digest
from plumbline.core.registry import short_name
from plumbline.core.run.device import device_name, memory_errors, torch_device
from plumbline.core.run.progress import Progress
from plumbline.core.run.record import Outcome, OutcomeError, recording
from plumbline.core.run.stage import stage


class TrainSpec(Spec):
    """What decides one trial."""

    view: View
    layers: str
    representation: str
    parts: list[str]
    """Representations whose features are read side by side."""
    training: TrainingSettings
    runs: int
    seed: int


@stage
def train(spec: TrainSpec, adapters: Path, features: list[Path], output: Path, device: str = "auto") -> None:
    """Runs the trial and writes its record to `output`. adapters: the store's manifest; features: its feature files."""
    name = short_name(spec.representation)
    trial = f"{spec.view}/{spec.layers}/{name}"
    store = AdapterStore(adapters.parent)
    chosen = torch_device(device)
    with recording(output, study="ablation", stage="train", trial=trial, spec=spec) as findings, memory_errors():
        findings |= {"view": spec.view, "layers": spec.layers, "representation": name}
        findings |= {"classes": store.classes, "rows": store.rows, "device": device_name(chosen), "runs": []}
        table, layers = read_features(features, spec.layers)
        findings["adapters"] = {**store.manifest["source"], "skipped": len(store.manifest["skipped"])}
        findings |= {"feature_width": table.shape[1], "layer_count": len(layers)}
        findings["feature_seconds"] = sum(map(seconds_of, features))
        if not layers:
            raise OutcomeError(Outcome.UNAVAILABLE, f"the adapters have no layers in {spec.layers}")
        checkpoint = output.with_name(f".{output.stem}.{digest(spec.model_dump_json())}.checkpoint")
        results = _fit(spec, store, table, chosen, checkpoint)
        findings["runs"] = [result.to_json() for result in results]
        findings["feature_width_used"] = results[0].feature_width
        if all(result.outcome != "ok" for result in results):
            raise OutcomeError(Outcome.DIVERGED, f"all {len(results)} runs diverged")


def _fit(spec: TrainSpec, store: AdapterStore, table: np.ndarray, device: Any, checkpoint: Path) -> list[RunResult]:
    """The trial's runs: each with its own split, unless the split is fixed, and its own seed."""
    training, labels = spec.training, store.labels
    seeds = [spec.seed * 1000 + run for run in range(spec.runs)]
    splits = [_split(training, store, seed) for seed in seeds]
    classes = len(store.classes)
    if not training.stacked:
        with Progress(len(seeds), "runs") as progress:
            results = []
            for one, seed in zip(splits, seeds, strict=True):
                results.append(fit_single(table, labels, one, classes, training, seed, device)[0])
                progress.advance()
        return results
    with Progress(training.max_epochs, "epochs at most") as progress:
        return fit_stacked(
            table,
            labels,
            splits,
            classes,
            training,
            seeds,
            device,
            lambda epoch, _: progress.advance(epoch - progress.done),
            checkpoint=checkpoint,
        )


def _split(training: TrainingSettings, store: AdapterStore, seed: int) -> Split:
    if training.split == "fixed":
        return fixed_split(store.labels)
    groups = store.groups if training.split_by_images else np.arange(store.rows)
    return split(store.labels, groups, seed=seed)


if __name__ == "__main__":
    train.main()
