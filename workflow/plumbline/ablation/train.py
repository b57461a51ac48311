"""Stage `ablation.train`: one trial, several runs of the classifier on one representation of one layer set."""

from pathlib import Path

import numpy as np
import torch

from plumbline.ablation.analysis.records import TrialRecord
from plumbline.ablation.classifier.result import RunResult
from plumbline.ablation.classifier.single import fit_single
from plumbline.ablation.classifier.splits import Split, read_splits
from plumbline.ablation.classifier.stacked import fit_stacked
from plumbline.ablation.data.feature_file import read_features, seconds_of
from plumbline.ablation.data.store import AdapterStore
from plumbline.ablation.settings import TrainingSettings, View
from plumbline.core.plan.target import Spec
from plumbline.core.registry import short_name
from plumbline.core.run.checkpoint import checkpoint_path, remove_checkpoints
from plumbline.core.run.device import device_name, memory_errors, torch_device
from plumbline.core.run.progress import Progress, track
from plumbline.core.run.record import Outcome, OutcomeError, recording
from plumbline.core.run.stage import stage


class TrainSpec(Spec):
    """What decides one trial."""

    view: View
    layers: str
    representation: str
    parts: list[str]
    """Representations whose features are placed side by side."""
    training: TrainingSettings
    runs: int
    seed: int


@stage
def train(
    spec: TrainSpec, adapters: Path, splits: Path, features: list[Path], output: Path, device: str = "auto"
) -> None:
    """Runs the trial and writes its record to `output`.

    adapters: the store's manifest; splits: what stage `split` wrote; features: the trial's feature files.
    """
    name = short_name(spec.representation)
    trial = f"{spec.view}/{spec.layers}/{name}"
    store = AdapterStore(adapters.parent)
    chosen = torch_device(device)
    record = recording(output, TrialRecord, trial=trial, spec=spec)
    with record as findings, memory_errors():
        findings |= {"view": spec.view, "layers": spec.layers, "representation": name}
        findings |= {"classes": store.classes, "rows": store.rows, "device": device_name(chosen)}
        findings["adapters"] = {**store.manifest.source, "skipped": len(store.manifest.skipped)}
        table, layers = read_features(features, spec.layers)
        findings |= {"feature_width": table.shape[1], "layer_count": len(layers)}
        findings["feature_seconds"] = sum(map(seconds_of, features))
        if not layers:
            raise OutcomeError(Outcome.UNAVAILABLE, f"the adapters have no layers in {spec.layers}")
        drawn = read_splits(splits, store.rows)
        results = _train_runs(spec, store, drawn, table, chosen, checkpoint_path(output, spec.model_dump_json()))
        findings |= {"runs": results, "feature_width_used": results[0].feature_width}
        if all(result.outcome is Outcome.DIVERGED for result in results):
            raise OutcomeError(Outcome.DIVERGED, f"all {len(results)} runs diverged")
    remove_checkpoints(output)


def _train_runs(
    spec: TrainSpec,
    store: AdapterStore,
    splits: list[Split],
    table: np.ndarray,
    device: torch.device,
    checkpoint: Path,
) -> list[RunResult]:
    """The trial's runs, each with its own seed and split."""
    training, labels, classes = spec.training, store.labels, len(store.classes)
    seeds = [spec.seed * 1000 + run for run in range(spec.runs)]
    if training.stacked:
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
    pairs = track(zip(splits, seeds, strict=True), len(seeds), "runs")
    return [fit_single(table, labels, one, classes, training, seed, device)[0] for one, seed in pairs]


if __name__ == "__main__":
    train.main()
