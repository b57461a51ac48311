"""Stage `ablation.train`: its record, and the removal of its checkpoint."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from ablation.conftest import CLASSES, ROWS
from plumbline.ablation.analysis.records import TrialRecord
from plumbline.ablation.classifier.packed import unpack
from plumbline.ablation.classifier.result import confusion_matrix
from plumbline.ablation.settings import TrainingSettings
from plumbline.ablation.split import SplitSpec, split_adapters
from plumbline.ablation.train import TrainSpec, train
from plumbline.core.run.record import Outcome

NO_LAYERS = (
    "the adapters have no layers in text_only: none is cross-attention; their first layer is blocks.0.attn1.to_q"
)


def run(
    inputs: tuple[Path, Path], output: Path, layers: str = "all_layers", classifier: str = "mlp", **training: bool
) -> TrialRecord:
    settings = TrainingSettings(hidden=8, layers=1, max_epochs=3, learning_rate=0.01, **training)
    fields = {"view": "product", "layers": layers, "representation": "my_lab:stats", "parts": ["my_lab:stats"]}
    fields |= {"classifier": classifier.split(), "linear": {}}
    spec = TrainSpec(code="", inputs="", training=settings, runs=2, seed=1, **fields)
    splits = output.with_suffix(".splits")
    drawn = {"split": settings.split, "split_by_images": settings.split_by_images}
    split_adapters(SplitSpec(code="", inputs="", runs=2, seed=1, **drawn), inputs[0], splits)
    train(spec, inputs[0], splits, [inputs[1]], output, device="cpu")
    return TrialRecord.read(output)


def test_record_holds_the_trial_its_adapters_and_every_run(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    record = run(inputs, tmp_path / "trial.json")
    assert (record.trial, record.representation, record.outcome) == ("product/all_layers/stats", "stats", Outcome.OK)
    assert (record.classes, record.rows, record.device) == (list(CLASSES), ROWS, "cpu")
    assert record.adapters.model_dump() == {"kind": "disk", "path": "here", "skipped": 0}
    assert (record.feature_width, record.feature_width_used, record.layer_count) == (3, 3, 1)
    assert record.feature_seconds == 1.5
    assert [result.seed for result in record.runs] == [1000, 1001]
    assert [np.sum(result.confusion) for result in record.good_runs] == [ROWS // 5] * 2
    assert (unpack(record.labels) == np.arange(ROWS) % 2).all()
    assert (unpack(record.groups) == np.arange(ROWS)).all()


def test_predictions_of_each_adapter_give_the_confusion_matrix_again(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    record = run(inputs, tmp_path / "trial.json")
    for result in record.good_runs:
        tested = result.predictions >= 0
        found = confusion_matrix(unpack(record.labels)[tested], result.predictions[tested], 2)
        assert found.tolist() == result.confusion
        assert result.train_rows == 42


def test_record_holds_the_runs_of_every_classifier_on_the_same_splits(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    record = run(inputs, tmp_path / "trial.json", classifier="mlp linear")
    assert record.classifiers == ["mlp", "linear"]
    assert [(one.classifier, one.seed) for one in record.runs] == [
        ("mlp", 1000), ("mlp", 1001), ("linear", 1000), ("linear", 1001)
    ]  # fmt: skip
    tested = [one.predictions >= 0 for one in record.runs]
    assert (tested[0] == tested[2]).all()
    assert (tested[1] == tested[3]).all()
    assert all(one.test.accuracy > 0.9 for one in record.good_runs_of("linear"))


def test_stacked_and_single_runs_give_the_same_record(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = (run(inputs, tmp_path / f"{stacked}.json", stacked=stacked) for stacked in (True, False))
    assert [result.confusion for result in one.runs] == [result.confusion for result in other.runs]


def test_trial_on_layers_that_the_adapters_lack_is_unavailable(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    record = run(inputs, tmp_path / "trial.json", "text_only")
    assert (record.outcome, record.message) == (Outcome.UNAVAILABLE, NO_LAYERS)
    assert (record.runs, record.layer_count) == ([], 0)


def test_a_trial_imports_no_scikit_learn() -> None:
    """Importing it takes as long as a small trial; the splits are drawn once, by a stage of their own."""
    script = "import sys, plumbline.ablation.train; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": "workflow"})


def test_finished_trial_leaves_no_checkpoint_of_its_own_nor_of_another_spec(
    inputs: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / ".trial.0123456789ab.checkpoint").touch()
    run(inputs, tmp_path / "trial.json")
    assert not list(tmp_path.glob(".*.checkpoint"))
