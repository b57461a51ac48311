"""Stage `ablation.train`: one trial, several runs of each classifier on one representation of one layer set."""

from pathlib import Path

import numpy as np
import torch

from plumbline.ablation.analysis.records import TrialRecord
from plumbline.ablation.classifier.linear import fit_linear
from plumbline.ablation.classifier.packed import pack
from plumbline.ablation.classifier.result import RunResult
from plumbline.ablation.classifier.single import fit_single
from plumbline.ablation.classifier.splits import Split, read_splits
from plumbline.ablation.classifier.stacked import fit_stacked
from plumbline.ablation.classifier.transformer import fit_transformer
from plumbline.ablation.data.feature_file import read_features, seconds_of
from plumbline.ablation.data.store import AdapterStore, why_no_layers
from plumbline.ablation.linalg.canonical import TOKEN
from plumbline.ablation.settings import Classifier, LinearSettings, TrainingSettings, TransformerSettings, View
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
    classifier: list[Classifier]
    training: TrainingSettings
    linear: LinearSettings
    transformer: TransformerSettings | None = None
    """None where the trial has no canonical tokens."""
    runs: int
    seed: int


def import_ahead() -> None:
    """Imports, before the processes of a batch fork, what each of them would take a while to."""
    import scipy.optimize  # noqa: F401


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
        findings |= {"labels": pack(store.labels), "groups": pack(store.groups)}
        findings["adapters"] = {**store.manifest.source, "skipped": len(store.manifest.skipped)}
        table, layers = read_features(features, spec.layers)
        findings |= {"feature_width": table.shape[1], "layer_count": len(layers)}
        findings["feature_seconds"] = sum(map(seconds_of, features))
        if not layers:
            raise OutcomeError(Outcome.UNAVAILABLE, why_no_layers(store, spec.view, spec.layers))
        drawn = read_splits(splits, store.rows)
        checkpoint = checkpoint_path(output, spec.model_dump_json())
        results = []
        for classifier in spec.classifier:
            if classifier == "mlp":
                results += _train_perceptrons(spec, store, drawn, table, chosen, checkpoint)
            elif classifier == "transformer":
                results += _train_transformers(spec, store, drawn, table, chosen)
            else:
                seeds = track(_seeds(spec), spec.runs, "linear runs")
                results += fit_linear(table, store.labels, drawn, len(store.classes), spec.linear, seeds)
        findings |= {"runs": results, "feature_width_used": results[0].feature_width}
        if all(result.outcome is Outcome.DIVERGED for result in results):
            raise OutcomeError(Outcome.DIVERGED, f"all {len(results)} runs diverged")
    remove_checkpoints(output)


def _seeds(spec: TrainSpec) -> list[int]:
    return [spec.seed * 1000 + run for run in range(spec.runs)]


def _train_perceptrons(
    spec: TrainSpec,
    store: AdapterStore,
    splits: list[Split],
    table: np.ndarray,
    device: torch.device,
    checkpoint: Path,
) -> list[RunResult]:
    """The trial's runs of `mlp`, each with its own seed and split."""
    training, labels, classes, seeds = spec.training, store.labels, len(store.classes), _seeds(spec)
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


def _train_transformers(
    spec: TrainSpec, store: AdapterStore, splits: list[Split], table: np.ndarray, device: torch.device
) -> list[RunResult]:
    """The trial's runs of `transformer`, each with its own seed and split."""
    assert spec.transformer is not None
    with Progress(spec.transformer.epochs, "epochs") as progress:
        return fit_transformer(
            table,
            store.labels,
            splits,
            len(store.classes),
            spec.transformer,
            _seeds(spec),
            TOKEN,
            device,
            lambda: progress.advance(),
        )


if __name__ == "__main__":
    train.main()
