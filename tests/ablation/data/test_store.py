import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plumbline.ablation.data.adapter_rows import AdapterRows, image_groups
from plumbline.ablation.data.store import AdapterStore, StoreWriter
from plumbline.core.errors import UserError
from plumbline.core.plan.fingerprint import fingerprint

SHAPES = {
    "blocks.10.to_q.lora.up.weight": (5, 2),
    "blocks.10.to_q.lora.down.weight": (2, 3),
    "blocks.2.to_q.lora.down.weight": (1, 4),
    "blocks.2.to_q.lora.up.weight": (6, 1),
}


def some_rows(count: int) -> AdapterRows:
    return AdapterRows(
        labels=[row % 2 for row in range(count)],
        names=["cat" if row % 2 == 0 else "dog" for row in range(count)],
        adapters=[f"row {row}" for row in range(count)],
        num_images=[4] * count,
        image_ids=[[] for _ in range(count)],
    )


def some_factors(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal((count, *shape)).astype(np.float32) for name, shape in SHAPES.items()}


def write(path: Path, factors: dict[str, np.ndarray], chunk: int, scales: np.ndarray | None = None) -> Path:
    count = len(next(iter(factors.values())))
    with StoreWriter(path, SHAPES, place="here") as writer:
        for first in range(0, count, chunk):
            writer.append({name: values[first : first + chunk] for name, values in factors.items()})
        table, classes = some_rows(count).table(place="here", rank=2)
        writer.finish(table, classes=classes, source={"kind": "test"}, scales=scales)
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    factors, scales = some_factors(10), np.arange(20.0).reshape(10, 2)
    store = AdapterStore(write(tmp_path / "store", factors, 4, scales))
    assert (store.rows, store.classes) == (10, ["cat", "dog"])
    assert [module.name for module in store.modules] == ["blocks.2.to_q", "blocks.10.to_q"]
    assert (store.modules[1].rank, store.modules[1].in_features, store.modules[1].out_features) == (2, 3, 5)
    assert {block.name: block.shape[1:] for block in store.blocks} == SHAPES
    for name, values in factors.items():
        assert isinstance(store.block(name), np.memmap)
        np.testing.assert_array_equal(store.block(name), values)
    up, down, scale = store.product(store.modules[1])
    np.testing.assert_array_equal(up, factors["blocks.10.to_q.lora.up.weight"])
    np.testing.assert_array_equal(down, factors["blocks.10.to_q.lora.down.weight"])
    np.testing.assert_array_equal(scale, scales[:, 1])
    np.testing.assert_array_equal(store.labels, np.arange(10) % 2)
    np.testing.assert_array_equal(store.groups, np.arange(10))
    store.verify()


def test_chunks_and_factor_order_do_not_change_the_bytes(tmp_path: Path) -> None:
    factors = some_factors(11)
    first = write(tmp_path / "first", factors, 3)
    second = write(tmp_path / "second", dict(reversed(factors.items())), 11)
    for file in sorted(path for path in first.rglob("*") if path.is_file()):
        assert file.read_bytes() == (second / file.relative_to(first)).read_bytes(), file.name


def test_blocks_are_mapped_read_only(tmp_path: Path) -> None:
    store = AdapterStore(write(tmp_path / "store", some_factors(4), 4))
    with pytest.raises(ValueError, match="read-only"):
        store.block("blocks.2.to_q.lora.up.weight")[0] = 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_value_that_is_not_finite_names_row_and_factor_and_leaves_nothing(tmp_path: Path, value: float) -> None:
    factors = {name: values.astype(np.float64) for name, values in some_factors(9).items()}
    factors["blocks.2.to_q.lora.up.weight"][7, 3, 0] = value
    with pytest.raises(UserError, match=r"here: row 7, blocks\.2\.to_q\.lora\.up\.weight"):
        write(tmp_path / "store", factors, 2)
    assert list(tmp_path.iterdir()) == []


def test_huge_finite_values_are_kept(tmp_path: Path) -> None:
    factors = some_factors(4)
    factors["blocks.10.to_q.lora.down.weight"][:] = np.finfo(np.float32).max
    store = AdapterStore(write(tmp_path / "store", factors, 4))
    np.testing.assert_array_equal(store.block("blocks.10.to_q.lora.down.weight"), np.finfo(np.float32).max)


def test_a_factor_of_another_shape_is_refused(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "store", SHAPES, place="here") as writer:
        writer.append(some_factors(2))
        odd = some_factors(2) | {"blocks.2.to_q.lora.up.weight": np.zeros((2, 7, 1), np.float32)}
        with pytest.raises(UserError, match=r"blocks\.2\.to_q\.lora\.up\.weight has shape \(7, 1\) in rows 2 to 3"):
            writer.append(odd)
        table, classes = some_rows(2 + 2).table(place="here", rank=2)
        writer.append(some_factors(2))
        writer.finish(table, classes=classes, source={})
    assert AdapterStore(tmp_path / "store").rows == 4


def test_a_missing_factor_is_refused(tmp_path: Path) -> None:
    factors = some_factors(2)
    del factors["blocks.2.to_q.lora.up.weight"]
    with pytest.raises(UserError, match=r"blocks\.2\.to_q\.lora\.up\.weight is missing"):
        write(tmp_path / "store", factors, 2)


@pytest.mark.parametrize("name", SHAPES)
def test_a_factor_without_its_other_half_is_refused(tmp_path: Path, name: str) -> None:
    halved = {other: shape for other, shape in SHAPES.items() if other != name}
    with pytest.raises(UserError, match=f"has no {name}"):
        StoreWriter(tmp_path / "store", halved, place="here")


def test_factors_of_two_ranks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="down is 1×4 and up 6×2"):
        StoreWriter(tmp_path / "store", SHAPES | {"blocks.2.to_q.lora.up.weight": (6, 2)}, place="here")


def test_leaving_without_finish_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="finish"), StoreWriter(tmp_path / "store", SHAPES, place="here") as writer:
        writer.append(some_factors(2))
    assert list(tmp_path.iterdir()) == []


def test_a_failed_import_leaves_the_old_store(tmp_path: Path) -> None:
    store = write(tmp_path / "store", some_factors(4), 4)
    before = fingerprint(store)
    with pytest.raises(UserError):
        write(store, some_factors(4) | {"blocks.2.to_q.lora.up.weight": np.full((4, 6, 1), np.nan)}, 4)
    assert fingerprint(store) == before


def test_a_folder_that_is_not_a_store_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not an adapter store"):
        AdapterStore(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema: Input should be 1"),
        ({"modules": None}, "modules"),
        ({"rows": 5}, r"scales\.npy: is float64 \(4, 2\)"),
    ],
)
def test_a_manifest_that_does_not_fit_is_reported(tmp_path: Path, change: dict[str, object], message: str) -> None:
    manifest = write(tmp_path / "store", some_factors(4), 4) / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | change))
    with pytest.raises(UserError, match=message):
        AdapterStore(tmp_path / "store")


def test_a_manifest_that_points_outside_the_store_is_refused(tmp_path: Path) -> None:
    manifest = write(tmp_path / "store", some_factors(4), 4) / "manifest.json"
    values = json.loads(manifest.read_text())
    values["blocks"][0]["file"] = "../elsewhere.npy"
    manifest.write_text(json.dumps(values))
    with pytest.raises(UserError, match="outside the store"):
        AdapterStore(tmp_path / "store")


@pytest.mark.parametrize("file", ["blocks/001.npy", "scales.npy", "rows.parquet"])
def test_a_missing_file_is_reported(tmp_path: Path, file: str) -> None:
    (write(tmp_path / "store", some_factors(4), 4) / file).unlink()
    with pytest.raises(UserError, match=f"{file}: is missing"):
        AdapterStore(tmp_path / "store")


@pytest.mark.parametrize("cut", [1, 200, 1000])
def test_a_block_that_is_cut_short_is_reported(tmp_path: Path, cut: int) -> None:
    file = write(tmp_path / "store", some_factors(64), 4) / "blocks/001.npy"
    os.truncate(file, file.stat().st_size - cut)
    with pytest.raises(UserError, match=r"001\.npy: is truncated"):
        AdapterStore(tmp_path / "store")


@pytest.mark.parametrize("file", ["blocks/002.npy", "scales.npy", "rows.parquet"])
def test_verify_finds_a_changed_byte(tmp_path: Path, file: str) -> None:
    path = write(tmp_path / "store", some_factors(64), 4) / file
    store = AdapterStore(tmp_path / "store")
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{file}: does not match its hash"):
        store.verify()


@given(st.lists(st.lists(st.integers(0, 12), max_size=3), min_size=1, max_size=12))
def test_groups_are_the_rows_linked_by_shared_images(image_ids: list[list[int]]) -> None:
    # Reference: merge overlapping sets of rows until none overlap.
    merged = [({row}, set(ids)) for row, ids in enumerate(image_ids)]
    while pair := next(((a, b) for a in merged for b in merged if a is not b and a[1] & b[1]), None):
        merged = [entry for entry in merged if entry is not pair[0] and entry is not pair[1]]
        merged.append((pair[0][0] | pair[1][0], pair[0][1] | pair[1][1]))
    groups = image_groups(image_ids)
    found = {frozenset(np.flatnonzero(groups == group).tolist()) for group in groups}
    assert found == {frozenset(rows) for rows, _ in merged}
    assert list(dict.fromkeys(groups.tolist())) == list(range(len(merged)))


def table_of(labels: list[int], names: list[str]) -> tuple[pa.Table, list[str]]:
    count = len(labels)
    rows = AdapterRows(
        labels=labels, names=names, adapters=names, num_images=[None] * count, image_ids=[[] for _ in names]
    )
    return rows.table(place="here", rank=1)


def test_labels_are_renumbered_without_gaps() -> None:
    table, classes = table_of([7, 3, 3, 7], ["dog", "cat", "cat", "dog"])
    assert classes == ["cat", "dog"]
    assert table["category_label"].to_pylist() == [1, 0, 0, 1]
    assert table["category_name"].to_pylist() == ["dog", "cat", "cat", "dog"]
    assert table["num_images"].to_pylist() == [None] * 4


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 0, 1, 1], ["cat", "dog", "x", "x"], "label 0 has two names, 'cat' and 'dog'"),
        ([0, 0, 1, 1], ["cat", "cat", "cat", "cat"], "'cat' is used for two labels"),
        ([0, 0, 1], ["cat", "cat", "dog"], r"class 'dog' \(label 1\) has only one adapter"),
        ([0, 0], ["cat", "cat"], "all adapters belong to class"),
        ([], [], "holds no adapters"),
    ],
)
def test_classes_that_cannot_be_learned_are_refused(labels: list[int], names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        table_of(labels, names)


def test_store_imports_neither_torch_nor_pandas() -> None:
    script = (
        "import sys; import plumbline.ablation.data.store; "
        "assert not {'torch', 'pandas', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ | {"PYTHONPATH": "workflow"})
