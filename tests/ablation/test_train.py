"""Stage `ablation.train`: its record, and the removal of its checkpoint."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from plumbline.ablation.analysis.records import TrialRecord
from plumbline.ablation.data.adapter_rows import AdapterRows
from plumbline.ablation.data.feature_file import feature_writer
from plumbline.ablation.data.store import StoreWriter
from plumbline.ablation.settings import TrainingSettings
from plumbline.ablation.split import SplitSpec, split_adapters
from plumbline.ablation.train import TrainSpec, train
from plumbline.core.files import write_json
from plumbline.core.run.record import Outcome

LAYER = "blocks.0.attn1.to_q"
CLASSES = ("cat", "dog")
ROWS = 60


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    """The manifest of a store of 60 adapters and a feature file whose three columns separate the classes."""
    random, labels = np.random.default_rng(0), np.arange(ROWS) % 2
    shapes = {f"{LAYER}.lora.down.weight": (1, 4), f"{LAYER}.lora.up.weight": (4, 1)}
    rows = AdapterRows(
        labels=labels.tolist(),
        names=[CLASSES[label] for label in labels],
        adapters=[f"row {row}" for row in range(ROWS)],
        num_images=[None] * ROWS,
        image_ids=[[] for _ in range(ROWS)],
    )
    with StoreWriter(tmp_path / "adapters", shapes, place="here") as writer:
        writer.append({name: random.standard_normal((ROWS, *shape)) for name, shape in shapes.items()})
        table, classes = rows.table(place="here", rank=1)
        writer.finish(table, classes=classes, source={"kind": "disk", "path": "here"})
    features = tmp_path / "stats.safetensors"
    with feature_writer(features, ROWS, {LAYER: 3}, {}) as stream:
        stream.write(LAYER, (labels[:, None] + 0.3 * random.standard_normal((ROWS, 3))).astype(np.float32))
    write_json(features.with_suffix(".json"), {"seconds": 1.5})
    return tmp_path / "adapters" / "manifest.json", features


def run(inputs: tuple[Path, Path], output: Path, layers: str = "all_layers", **training: bool) -> TrialRecord:
    settings = TrainingSettings(hidden=8, layers=1, max_epochs=3, learning_rate=0.01, **training)
    fields = {"view": "product", "layers": layers, "representation": "my_lab:stats", "parts": ["my_lab:stats"]}
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


def test_stacked_and_single_runs_give_the_same_record(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    one, other = (run(inputs, tmp_path / f"{stacked}.json", stacked=stacked) for stacked in (True, False))
    assert [result.confusion for result in one.runs] == [result.confusion for result in other.runs]


def test_trial_on_layers_that_the_adapters_lack_is_unavailable(inputs: tuple[Path, Path], tmp_path: Path) -> None:
    record = run(inputs, tmp_path / "trial.json", "text_only")
    assert (record.outcome, record.message) == (Outcome.UNAVAILABLE, "the adapters have no layers in text_only")
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
