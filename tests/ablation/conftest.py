"""A store of a few adapters and a feature file, for the tests of stages that train."""

from pathlib import Path

import numpy as np
import pytest

from plumbline.ablation.data.adapter_rows import AdapterRows
from plumbline.ablation.data.feature_file import feature_writer
from plumbline.ablation.data.store import StoreWriter
from plumbline.core.files import write_json

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
