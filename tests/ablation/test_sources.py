import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file as load_tensors
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from plumbline.ablation.data import factor_tables
from plumbline.ablation.data.store import AdapterStore, why_no_layers
from plumbline.ablation.sources import adapters, disk, hub, zoo
from plumbline.ablation.sources.interface import names, source
from plumbline.core.errors import UserError

SELF = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CROSS = "mid_block.attentions.0.transformer_blocks.0.attn2.to_v"
SHAPES = {
    f"{SELF}.lora.down.weight": (2, 6),
    f"{SELF}.lora.up.weight": (8, 2),
    f"{CROSS}.lora.down.weight": (2, 3),
    f"{CROSS}.lora.up.weight": (4, 2),
}
ROWS = 75
CLASSES = ["airplane", "bird", "cat"]


def factors_of(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {name: random.standard_normal((count, *shape)).astype(np.float32) for name, shape in SHAPES.items()}


def columns_of(factors: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    """A data set in the hub's layout, as plain lists."""
    count = len(next(iter(factors.values())))
    return {
        **{name: values.tolist() for name, values in factors.items()},
        "category_label": [row % 3 for row in range(count)],
        "category_name": [CLASSES[row % 3] for row in range(count)],
        "num_images": [4 + row % 3 for row in range(count)],
        "rank": [2] * count,
        "image_ids": [[row // 2, 1000 + row] for row in range(count)],
    }


def save_parquet(folder: Path, columns: dict[str, list[Any]], parts: int = 2) -> Path:
    folder.mkdir(exist_ok=True)
    table = pa.table(columns)
    size = -(-table.num_rows // parts)
    for part in range(parts):
        pq.write_table(
            table.slice(part * size, size), folder / f"train-{part:05d}-of-{parts:05d}.parquet", row_group_size=20
        )
    return folder


def check(store: AdapterStore, factors: dict[str, np.ndarray]) -> None:
    """The store holds `factors`, labelled as `columns_of` does."""
    rows = len(next(iter(factors.values())))
    assert (store.rows, store.classes) == (rows, CLASSES)
    for name, values in factors.items():
        np.testing.assert_array_equal(store.block(name), values)
    store.verify()
    table = store.table().to_pydict()
    assert table["category_label"] == [row % 3 for row in range(rows)]
    assert table["category_name"] == [CLASSES[row % 3] for row in range(rows)]
    assert table["num_images"] == [4 + row % 3 for row in range(rows)]
    assert table["rank"] == [2] * rows
    assert table["group"] == [row // 2 for row in range(rows)]
    assert table["image_ids"] == [[row // 2, 1000 + row] for row in range(rows)]
    assert table["adapter"] == [f"row {row}" for row in range(rows)]


def from_hub(tmp_path: Path, columns: dict[str, list[Any]], **options: Any) -> AdapterStore:
    hub.load(tmp_path / "store", id=str(save_parquet(tmp_path / "data", columns)), **options)
    return AdapterStore(tmp_path / "store")


def from_parquet(tmp_path: Path, columns: dict[str, list[Any]], **options: Any) -> AdapterStore:
    disk.load(tmp_path / "store", path=save_parquet(tmp_path / "data", columns), **options)
    return AdapterStore(tmp_path / "store")


def from_saved(tmp_path: Path, columns: dict[str, list[Any]], **options: Any) -> AdapterStore:
    datasets.Dataset.from_dict(columns).save_to_disk(str(tmp_path / "data"), num_shards=2)
    disk.load(tmp_path / "store", path=tmp_path / "data", **options)
    return AdapterStore(tmp_path / "store")


EVERY = pytest.mark.parametrize("read", [from_hub, from_parquet, from_saved])
Read = Callable[..., AdapterStore]


@EVERY
def test_a_data_set_becomes_a_store(tmp_path: Path, read: Read) -> None:
    factors = factors_of(ROWS)
    check(read(tmp_path, columns_of(factors)), factors)


@EVERY
def test_a_limit_takes_the_first_rows(tmp_path: Path, read: Read) -> None:
    factors = factors_of(ROWS)
    check(read(tmp_path, columns_of(factors), limit=41), {name: values[:41] for name, values in factors.items()})


def test_rows_read_at_a_time_do_not_change_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    columns, written = columns_of(factors_of(ROWS)), []
    for size in (1, 7, 100):
        monkeypatch.setattr(disk, "READ_ROWS", size)
        path = from_parquet(tmp_path, columns).path
        written.append({file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()})
    assert written[0] == written[1] == written[2]


def test_typed_matrices_of_datasets_are_read(tmp_path: Path) -> None:
    factors = factors_of(ROWS)
    features = datasets.Dataset.from_dict(columns_of(factors)).features
    for name, shape in SHAPES.items():
        features[name] = datasets.Array2D(shape, "float32")
    saved = datasets.Dataset.from_dict(columns_of(factors), features=features)
    saved.save_to_disk(str(tmp_path / "saved"))
    disk.load(tmp_path / "store", path=tmp_path / "saved")
    check(AdapterStore(tmp_path / "store"), factors)
    (tmp_path / "hub").mkdir()
    saved.to_parquet(tmp_path / "hub" / "train.parquet")
    hub.load(tmp_path / "store", id=str(tmp_path / "hub"))
    check(AdapterStore(tmp_path / "store"), factors)


def test_a_selection_of_a_saved_data_set_keeps_its_order(tmp_path: Path) -> None:
    factors, order = factors_of(ROWS), np.random.default_rng(1).permutation(ROWS)[:30]
    datasets.Dataset.from_dict(columns_of(factors)).select(order).save_to_disk(str(tmp_path / "data"))
    disk.load(tmp_path / "store", path=tmp_path / "data")
    store = AdapterStore(tmp_path / "store")
    for name, values in factors.items():
        np.testing.assert_array_equal(store.block(name), values[order])
    np.testing.assert_array_equal(store.labels, order % 3)


def test_a_split_of_a_saved_data_set_is_chosen_by_name(tmp_path: Path) -> None:
    factors = factors_of(12)
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns_of(factors))})
    saved.save_to_disk(str(tmp_path / "data"))
    disk.load(tmp_path / "store", path=tmp_path / "data", split="train")
    check(AdapterStore(tmp_path / "store"), factors)
    with pytest.raises(UserError, match=r"ablation\.disk\.split: .* has train, not None"):
        disk.load(tmp_path / "store", path=tmp_path / "data")


def with_alpha(columns: dict[str, list[Any]], name: str, values: list[Any]) -> dict[str, list[Any]]:
    for module in (SELF, CROSS) if name == "of each module" else ():
        columns[f"unet.{module}.alpha"] = values
    return columns if name == "of each module" else {**columns, name: values}


@pytest.mark.parametrize("column", ["of each module", "lora_alpha", "network_alpha", "alpha"])
@pytest.mark.parametrize("form", [float, int, lambda value: [value], lambda value: [[value]]])
def test_alpha_in_columns_becomes_the_scales(tmp_path: Path, column: str, form: Callable[[float], Any]) -> None:
    columns = with_alpha(columns_of(factors_of(ROWS)), column, [form(1 + row % 3) for row in range(ROWS)])
    store = from_parquet(tmp_path, columns)
    for module in (SELF, CROSS):
        np.testing.assert_array_equal(store.product(module)[2], (1 + np.arange(ROWS) % 3) / 2)
    assert store.manifest.source["adapters_without_alpha"] == 0


def save_splits(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns_of(factors_of(12, seed=number))), folder / name)
    return folder


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("train/0.parquet", "test/0.parquet"),
        ("lora_train.parquet", "lora_eval.parquet"),
    ],
)
def test_splits_of_a_folder_of_parquet_files_are_read_by_name_and_never_mixed(
    tmp_path: Path, first: str, second: str
) -> None:
    folder = save_splits(tmp_path / "data", first, second, ".cache/train.parquet", "data/._train-0.parquet")
    with pytest.raises(UserError, match=r"has the splits test, train; choose one with ablation\.disk\.split"):
        disk.load(tmp_path / "store", path=folder)
    with pytest.raises(UserError, match=r"ablation\.disk\.split: .* has test, train, not other"):
        disk.load(tmp_path / "store", path=folder, split="other")
    for number, split in enumerate(("train", "test")):
        disk.load(tmp_path / "store", path=folder, split=split)
        check(AdapterStore(tmp_path / "store"), factors_of(12, seed=number))


def test_a_git_lfs_pointer_among_parquet_files_is_named(tmp_path: Path) -> None:
    folder = save_splits(tmp_path / "data", "train-0.parquet")
    (folder / "train-1.parquet").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match=r"train-1\.parquet: is a Git LFS pointer.*git lfs pull"):
        disk.load(tmp_path / "store", path=folder)


def test_ids_larger_than_any_integer_of_the_table_still_group(tmp_path: Path) -> None:
    columns = columns_of(factors_of(6))
    large = 2**63 + 1
    columns["image_ids"] = pa.array([[large], [large + 1], [large], [7], [7, large + 1], []], pa.list_(pa.uint64()))
    table = from_parquet(tmp_path, columns).table().to_pydict()
    assert table["group"] == [0, 1, 0, 1, 1, 2]
    assert table["image_ids"][4] == ["7", str(large + 1)]


def test_convolutions_are_flattened_to_matrices(tmp_path: Path) -> None:
    random, columns = np.random.default_rng(0), columns_of(factors_of(6))
    down, up = random.standard_normal((6, 2, 3, 3, 3)), random.standard_normal((6, 5, 2, 1, 1))
    columns |= {"conv_in.lora.down.weight": down.tolist(), "conv_in.lora.up.weight": up.tolist()}
    store = from_parquet(tmp_path, columns)
    np.testing.assert_array_equal(store.block("conv_in.lora.down.weight"), down.reshape(6, 2, 27).astype(np.float32))
    np.testing.assert_array_equal(store.block("conv_in.lora.up.weight"), up.reshape(6, 5, 2).astype(np.float32))


def test_without_image_ids_each_adapter_is_its_own_group(tmp_path: Path) -> None:
    columns = columns_of(factors_of(6))
    del columns["image_ids"], columns["num_images"], columns["category_name"]
    table = from_parquet(tmp_path, columns).table().to_pydict()
    assert table["group"] == list(range(6))
    assert table["image_ids"] == [[]] * 6
    assert table["num_images"] == [None] * 6
    assert table["category_name"] == ["0", "1", "2"] * 2


def with_value(columns: dict[str, list[Any]], column: str, row: int, value: Any) -> None:
    columns[column][row] = value


MISTAKES = {
    "no factors": (lambda c: [c.pop(name) for name in SHAPES], "no LoRA columns"),
    "no label": (lambda c: c.pop("category_label"), "no column category_label"),
    "half a module": (lambda c: c.pop(f"{SELF}.lora.up.weight"), rf"{SELF}\.lora\.down\.weight has no .*up\.weight"),
    "NaN": (
        lambda c: with_value(c, f"{CROSS}.lora.up.weight", 50, [[0.0, float("nan")]] * 4),
        rf"row 50, {CROSS}\.lora\.up\.weight: NaN or infinity",
    ),
    "another shape": (
        lambda c: with_value(c, f"{SELF}.lora.down.weight", 37, [[0.0] * 5] * 2),
        rf"{SELF}\.lora\.down\.weight: row 37 has shape 2×5, row \d+ 2×6",
    ),
    "ragged": (
        lambda c: with_value(c, f"{SELF}.lora.down.weight", 37, [[0.0] * 6, [0.0] * 5]),
        "row 37, .* its inner lists differ in length",
    ),
    "empty matrix": (lambda c: with_value(c, f"{SELF}.lora.down.weight", 37, []), "row 37 has shape 0"),
    "null matrix": (lambda c: with_value(c, f"{SELF}.lora.down.weight", 37, None), "row 37, .* a value is missing"),
    "null weight": (
        lambda c: with_value(c, f"{SELF}.lora.down.weight", 37, [[0.0] * 5 + [None]] * 2),
        "row 37, .* a value is missing",
    ),
    "vector": (lambda c: c.update({f"{SELF}.lora.up.weight": [[1.0, 2.0]] * ROWS}), "lists of lists of numbers"),
    "one row of a class": (
        lambda c: (with_value(c, "category_label", 5, 9), with_value(c, "category_name", 5, "ship")),
        r"class 'ship' \(label 9\) has only one adapter",
    ),
    "two names": (lambda c: with_value(c, "category_name", 5, "ship"), "label 2 has two names, 'cat' and 'ship'"),
    "null label": (lambda c: with_value(c, "category_label", 44, None), "row 44: category_label is missing"),
    "text label": (
        lambda c: c.update(category_label=["a"] * ROWS),
        "category_label holds .*it must hold whole numbers",
    ),
    "text image": (lambda c: c.update(image_ids=[["a"]] * ROWS), "image_ids holds .*lists of whole numbers"),
    "a part of another format": (
        lambda c: c.update({f"unet.{SELF}.dora_scale": [[1.0]] * ROWS}),
        "dora_scale is not a factor of a plain LoRA",
    ),
    "an unknown prefix": (
        lambda c: c.update({f"net.{side}.weight": c[f"{SELF}.{side}.weight"] for side in ("lora.up", "lora.down")}),
        r"net\.lora\.(up|down)\.weight may be the diffusion model's or a text encoder's",
    ),
    "alpha of one module": (
        lambda c: c.update({f"{SELF}.alpha": [1.0] * ROWS}),
        rf"no column {CROSS}\.alpha, though other modules have one",
    ),
    "alpha of no module": (lambda c: c.update({"unet.x.alpha": [1.0] * ROWS}), r"unet\.x\.alpha is the alpha of no"),
    "null alpha": (
        lambda c: c.update({"lora_alpha": [1.0] * 44 + [None] * (ROWS - 44)}),
        "row 44, lora_alpha: None is",
    ),
    "alpha of two": (
        lambda c: c.update({"lora_alpha": [[1.0, 2.0]] * ROWS}),
        r"row 0, lora_alpha: \[1\.0, 2\.0\] is not a valid α",
    ),
    "one factor twice": (
        lambda c: c.update({f"unet.{SELF}.lora_A.weight": c[f"{SELF}.lora.down.weight"]}),
        "are the same factor",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("read", [from_hub, from_parquet])
def test_a_bad_data_set_is_reported_in_one_line_and_leaves_nothing(tmp_path: Path, read: Read, mistake: str) -> None:
    spoil, message = MISTAKES[mistake]
    columns = columns_of(factors_of(ROWS))
    spoil(columns)
    with pytest.raises(UserError, match=message) as error:
        read(tmp_path, columns)
    assert "\n" not in str(error.value)
    assert str(tmp_path / "data") in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@EVERY
def test_an_empty_data_set_is_reported(tmp_path: Path, read: Read) -> None:
    table = pa.table(columns_of(factors_of(3))).slice(0, 0)
    if read is from_saved:
        datasets.Dataset(table).save_to_disk(str(tmp_path / "data"))
    else:
        (tmp_path / "data").mkdir()
        pq.write_table(table, tmp_path / "data" / "train.parquet")
    load = hub.load if read is from_hub else disk.load
    # The hub's reader stumbles over an empty file before any row is asked for.
    with pytest.raises(UserError, match="cannot be read" if read is from_hub else "holds no adapters"):
        load(tmp_path / "store", **{"id" if read is from_hub else "path": str(tmp_path / "data")})


@pytest.mark.parametrize("load", [hub.load, disk.load])
def test_a_parquet_file_cut_short_is_reported(tmp_path: Path, load: Callable[..., None]) -> None:
    folder = save_parquet(tmp_path / "data", columns_of(factors_of(ROWS)))
    file = folder / "train-00001-of-00002.parquet"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "store", **{"id" if load is hub.load else "path": str(folder)})
    assert not (tmp_path / "store").exists()


def test_a_folder_without_data_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither"):
        disk.load(tmp_path / "store", path=tmp_path)
    with pytest.raises(UserError, match="cannot be read as a data set"):
        hub.load(tmp_path / "store", id=str(tmp_path))
    with pytest.raises(UserError, match=r"ablation\.disk\.path: .* does not exist"):
        disk.load(tmp_path / "store", path=tmp_path / "nowhere")


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ablation\.hub\.revision"):
        hub.load(tmp_path / "store", id=str(tmp_path), revision="main")


def test_a_hub_that_does_not_answer_is_reported(tmp_path: Path) -> None:
    script = (
        "import pathlib, sys; from plumbline.ablation.sources import hub; hub.load(pathlib.Path(sys.argv[1]), id='a/b')"
    )
    # Port 9 of this machine: nothing listens there.
    environment = os.environ | {"PYTHONPATH": "workflow", "HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", script, str(tmp_path / "store")]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "UserError: ablation.hub.id: a/b is not a directory here, and the hub did not provide it" in ended.stderr


# Adapters in folders ------------------------------------------------------------------------------


def peft(key: str) -> str:
    return "base_model.model." + key.replace(".lora.down", ".lora_A").replace(".lora.up", ".lora_B")


def diffusers(key: str) -> str:
    return f"unet.{key}"


def diffusers_peft(key: str) -> str:
    return "unet." + key.replace(".lora.down", ".lora_A").replace(".lora.up", ".lora_B")


def processors(key: str) -> str:
    module, _, rest = key.partition(".to_")
    return f"{module}.processor.to_{rest.replace('.lora.', '_lora.')}"


def kohya(key: str) -> str:
    module, _, side = key.partition(".lora.")
    return f"lora_unet_{module.replace('.', '_')}.lora_{side}"


def save_folder(folder: Path, factors: dict[str, np.ndarray], naming: Callable[[str], str]) -> Path:
    """One file per adapter in sub-folders of two classes, which take turns."""
    for row in range(len(next(iter(factors.values())))):
        file = folder / CLASSES[row % 2] / f"{row:02d}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({naming(name): values[row] for name, values in factors.items()}, file)
    return folder


def load_folder(tmp_path: Path, **options: Any) -> AdapterStore:
    adapters.load(tmp_path / "store", path=tmp_path / "loras", **options)
    return AdapterStore(tmp_path / "store")


@pytest.mark.parametrize("naming", [peft, diffusers, diffusers_peft, processors, kohya])
def test_every_naming_gives_the_same_store(tmp_path: Path, naming: Callable[[str], str]) -> None:
    factors = factors_of(8)
    save_folder(tmp_path / "loras", factors, naming)
    store = load_folder(tmp_path)
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    for name, values in factors.items():
        np.testing.assert_array_equal(store.block(name), values[order])
    assert store.classes == ["airplane", "bird"]
    assert store.labels.tolist() == [0] * 4 + [1] * 4
    assert store.table()["adapter"].to_pylist()[4:6] == ["bird/01.safetensors", "bird/03.safetensors"]
    assert store.groups.tolist() == list(range(8))
    np.testing.assert_array_equal(store.product(SELF)[2], 1.0)
    assert store.manifest.source["adapters_without_alpha"] == 8
    store.verify()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_type_is_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {name: torch.from_numpy(values).to(dtype) for name, values in factors_of(4).items()}
    for row in range(4):
        file = tmp_path / "loras" / CLASSES[row % 2] / f"{row}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_torch({name: values[row].clone() for name, values in tensors.items()}, file)
    store = load_folder(tmp_path)
    for name, values in tensors.items():
        np.testing.assert_array_equal(store.block(name), values[[0, 2, 1, 3]].float().numpy())


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int32])
def test_a_type_that_cannot_be_read_is_reported(tmp_path: Path, dtype: torch.dtype) -> None:
    (tmp_path / "loras" / "cat").mkdir(parents=True)
    tensors = {name: torch.from_numpy(values[0]).to(dtype) for name, values in factors_of(1).items()}
    save_torch(tensors, tmp_path / "loras" / "cat" / "a.safetensors")
    with pytest.raises(UserError, match=r"cat/a\.safetensors: .* is of type"):
        load_folder(tmp_path)


def test_alphas_of_kohya_become_scales_per_module(tmp_path: Path) -> None:
    factors = factors_of(4)
    for row in range(4):
        tensors = {kohya(name): values[row] for name, values in factors.items()}
        for module in (SELF, CROSS):
            tensors[f"lora_unet_{module.replace('.', '_')}.alpha"] = np.array(4.0 + row, np.float16)
        file = tmp_path / "loras" / CLASSES[row % 2] / f"{row}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, file)
    store = load_folder(tmp_path)
    np.testing.assert_array_equal(store.product(SELF)[2], np.array([4.0, 6.0, 5.0, 7.0]) / 2)
    assert store.manifest.source["adapters_without_alpha"] == 0


@pytest.mark.parametrize(
    ("config", "of_self", "of_cross"),
    [
        ({"r": 2, "lora_alpha": 8}, 4.0, 4.0),
        ({"r": 2, "lora_alpha": 8, "use_rslora": True}, 8 / np.sqrt(2), 8 / np.sqrt(2)),
        ({"r": 2, "lora_alpha": 8, "alpha_pattern": {"attn2.to_v": 3}}, 4.0, 1.5),
        # The stated rank may be another module's: the factors themselves tell.
        ({"r": 64, "lora_alpha": 8}, 4.0, 4.0),
    ],
)
def test_the_configuration_of_peft_gives_the_scales(
    tmp_path: Path, config: dict[str, Any], of_self: float, of_cross: float
) -> None:
    factors = factors_of(4)
    for row in range(4):
        folder = tmp_path / "loras" / CLASSES[row % 2] / f"adapter-{row}"
        folder.mkdir(parents=True)
        save_file({peft(name): values[row] for name, values in factors.items()}, folder / "adapter_model.safetensors")
        (folder / "adapter_config.json").write_text(json.dumps(config))
    store = load_folder(tmp_path)
    np.testing.assert_allclose(store.product(SELF)[2], of_self, rtol=1e-15)
    np.testing.assert_allclose(store.product(CROSS)[2], of_cross, rtol=1e-15)
    assert store.table()["adapter"][0].as_py() == "airplane/adapter-0"
    assert store.manifest.source["adapters_without_alpha"] == 0


def test_metadata_of_diffusers_gives_the_scales(tmp_path: Path) -> None:
    factors = factors_of(4)
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 2, "unet.lora_alpha": 6, "text_encoder.lora_alpha": 1})}
    for row in range(4):
        file = tmp_path / "loras" / CLASSES[row % 2] / f"{row}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({diffusers_peft(name): values[row] for name, values in factors.items()}, file, metadata=metadata)
    np.testing.assert_array_equal(load_folder(tmp_path).product(SELF)[2], 3.0)


def test_text_encoders_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "loras", factors_of(4), kohya)
    for file in folder.rglob("*.safetensors"):
        values = factors_of(1)
        text = {f"lora_te_layers_0_fc1.lora_{side}.weight": np.ones((2, 2), np.float32) for side in ("down", "up")}
        tensors = {kohya(name): value[0] for name, value in values.items()}
        save_file(tensors | text | {"lora_te_layers_0_fc1.alpha": np.array(1.0)}, file)
    store = load_folder(tmp_path)
    assert {block.name for block in store.blocks} == set(SHAPES)
    assert store.manifest.source["text_encoder_keys_left_out"] == 4 * 3


def test_a_csv_labels_adapters_and_says_which_images_they_share(tmp_path: Path) -> None:
    factors = factors_of(4)
    save_folder(tmp_path / "loras", factors, diffusers)
    (tmp_path / "labels.csv").write_text(
        "adapter,label,num_images,image_ids\n"
        "bird/03.safetensors,zebra,,7 8\n"
        "airplane/00.safetensors,ape,3,8 9\n"
        "airplane/02.safetensors,zebra,5,\n"
        "bird/01.safetensors,ape,,\n"
    )
    store = load_folder(tmp_path, labels=tmp_path / "labels.csv")
    for name, values in factors.items():
        np.testing.assert_array_equal(store.block(name), values[[3, 0, 2, 1]])
    table = store.table().to_pydict()
    assert store.classes == ["ape", "zebra"]
    assert table["category_label"] == [1, 0, 1, 0]
    assert table["num_images"] == [2, 3, 5, None]
    assert table["image_ids"] == [[7, 8], [8, 9], [], []]
    assert table["group"] == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("file,label\na,b\n", "has no column adapter"),
        ("adapter,label\n", "lists no adapters"),
        ("adapter,label\nbird/09.safetensors,x\n", r"line 2: bird/09\.safetensors is not a file in"),
        ("adapter,label\nbird/01.safetensors,x\n../secret.safetensors,x\n", r"line 3: \.\./secret.* is outside"),
        ("adapter,label\n/etc/passwd,x\n", "line 2: /etc/passwd is outside"),
        ("adapter,label\nbird/01.safetensors,\n", "line 2: `adapter` or `label` is empty"),
        ("adapter,label\nbird/01.safetensors,x\nbird/../bird/01.safetensors,y\n", "more than once"),
        ("adapter,label,image_ids\nbird/01.safetensors,x,1 b\n", r"line 2: image_ids must hold whole numbers, not 'b'"),
    ],
)
def test_a_bad_csv_is_reported_with_its_line(tmp_path: Path, lines: str, message: str) -> None:
    save_folder(tmp_path / "loras", factors_of(4), diffusers)
    save_file({"a": np.zeros(1)}, tmp_path / "secret.safetensors")
    (tmp_path / "labels.csv").write_text(lines)
    with pytest.raises(UserError, match=message):
        load_folder(tmp_path, labels=tmp_path / "labels.csv")
    assert not (tmp_path / "store").exists()


def change(file: Path, edit: Callable[[dict[str, np.ndarray]], Any]) -> None:
    tensors = {diffusers(name): values[0] for name, values in factors_of(1, seed=5).items()}
    edit(tensors)
    save_file(tensors, file)


BAD_ADAPTERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut short": (lambda file: os.truncate(file, file.stat().st_size - 10), "is not a complete safetensors file"),
    "garbage": (lambda file: file.write_bytes(b"\x80\x04" * 50), "is not a complete safetensors file"),
    "empty file": (lambda file: file.write_bytes(b""), "is not a complete safetensors file"),
    "no factors": (lambda file: change(file, lambda t: t.clear()), "holds no LoRA factors"),
    "half a module": (
        lambda file: change(file, lambda t: t.pop(f"unet.{SELF}.lora.up.weight")),
        rf"{SELF}\.lora\.down\.weight has no {SELF}\.lora\.up\.weight beside it",
    ),
    "module less": (
        lambda file: change(file, lambda t: [t.pop(f"unet.{CROSS}.lora.{side}.weight") for side in ("up", "down")]),
        rf"differs from most: lacks {CROSS}\.lora\.down\.weight",
    ),
    "another rank": (
        lambda file: change(
            file,
            lambda t: t.update(
                {f"unet.{SELF}.lora.down.weight": np.ones((3, 6)), f"unet.{SELF}.lora.up.weight": np.ones((8, 3))}
            ),
        ),
        rf"differs from most: has {SELF}\.lora\.down\.weight of shape \(3, 6\) where most have \(2, 6\) \(2 factors\)",
    ),
    "NaN": (
        lambda file: change(file, lambda t: t.update({f"unet.{SELF}.lora.up.weight": np.full((8, 2), np.nan)})),
        rf"{SELF}\.lora\.up\.weight: NaN or infinity",
    ),
    "DoRA": (
        lambda file: change(file, lambda t: t.update({f"unet.{SELF}.lora_magnitude_vector": np.ones(3)})),
        r"also has .*to_q\.lora_magnitude_vector",
    ),
    "another format": (
        lambda file: change(file, lambda t: t.update({f"unet.{SELF}.oft_blocks": np.ones((2, 2))})),
        "is not a tensor of a LoRA, DoRA, LoHa or LoKr",
    ),
    "alpha of nothing": (
        lambda file: change(file, lambda t: t.update({"unet.x.alpha": np.ones(1)})),
        "has an alpha for x",
    ),
}


@pytest.mark.parametrize("fault", BAD_ADAPTERS)
@pytest.mark.parametrize("bad", ["airplane/00.safetensors", "bird/05.safetensors"])
def test_a_bad_adapter_stops_the_import_or_is_skipped_and_listed(tmp_path: Path, fault: str, bad: str) -> None:
    factors = factors_of(8)
    folder = save_folder(tmp_path / "loras", factors, diffusers)
    spoil, message = BAD_ADAPTERS[fault]
    spoil(folder / bad)
    with pytest.raises(UserError, match=message) as error:
        load_folder(tmp_path)
    assert bad in str(error.value)
    assert "on_bad_adapter: skip" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["loras"]
    store = load_folder(tmp_path, on_bad_adapter="skip")
    left = [row for row in (0, 2, 4, 6, 1, 3, 5, 7) if f"{CLASSES[row % 2]}/{row:02d}.safetensors" != bad]
    for name, values in factors.items():
        np.testing.assert_array_equal(store.block(name), values[left])
    (skipped,) = store.manifest.skipped
    assert skipped.adapter == bad
    assert len(store.labels) == 7


def save_with_alpha(folder: Path, known: set[int], rows: int = 4) -> Path:
    """Kohya files in two classes, of which those in `known` state α = 6."""
    factors = factors_of(rows)
    for row in range(rows):
        tensors = {kohya(name): values[row] for name, values in factors.items()}
        if row in known:
            tensors |= {f"lora_unet_{module.replace('.', '_')}.alpha": np.array(6) for module in (SELF, CROSS)}
        file = folder / CLASSES[row % 2] / f"{row}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, file)
    return folder


@pytest.mark.parametrize("skip", ["fail", "skip"])
def test_alpha_that_some_adapters_state_and_others_do_not_has_to_be_assumed_by_the_user(
    tmp_path: Path, skip: str
) -> None:
    save_with_alpha(tmp_path / "loras", {0, 2})
    with pytest.raises(UserError, match=r"2 adapters state α and 2 do not, among them bird/1.*assume_alpha"):
        load_folder(tmp_path, on_bad_adapter=skip)
    assert not (tmp_path / "store").exists()
    for assumed, scale in (("rank", 1.0), (4.0, 2.0)):
        store = load_folder(tmp_path, assume_alpha=assumed)
        np.testing.assert_array_equal(store.product(SELF)[2], [3.0, 3.0, scale, scale])
        assert store.manifest.source["adapters_without_alpha"] == 2
        assert store.manifest.source["assume_alpha"] == assumed


def test_alpha_stated_for_some_layers_of_an_adapter_is_not_stated(tmp_path: Path) -> None:
    save_with_alpha(tmp_path / "loras", {0, 1, 2, 3})
    file = tmp_path / "loras" / "bird" / "3.safetensors"
    tensors = load_tensors(file)
    del tensors[f"lora_unet_{CROSS.replace('.', '_')}.alpha"]
    save_file(tensors, file)
    with pytest.raises(UserError, match="3 adapters state α and 1 do not, among them bird/3"):
        load_folder(tmp_path)


def test_a_class_that_is_skipped_whole_is_listed(tmp_path: Path) -> None:
    save_folder(tmp_path / "loras", factors_of(8), diffusers)
    for number in range(3):
        file = tmp_path / "loras" / "dog" / str(number) / "adapter_model.bin"
        file.parent.mkdir(parents=True)
        torch.save({}, file)
    with pytest.raises(UserError, match=r"dog/0/adapter_model\.bin: is a PyTorch pickle.*on_bad_adapter"):
        load_folder(tmp_path)
    store = load_folder(tmp_path, on_bad_adapter="skip")
    assert store.classes == ["airplane", "bird"]
    assert store.manifest.source["classes_lost"] == ["dog"]
    assert [one.adapter for one in store.manifest.skipped] == ["dog/0", "dog/1", "dog/2"]


def test_a_git_lfs_pointer_does_not_send_the_user_to_skip_adapters(tmp_path: Path) -> None:
    save_folder(tmp_path / "loras", factors_of(4), diffusers)
    (tmp_path / "loras" / "bird" / "01.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(UserError, match=r"01\.safetensors: is a Git LFS pointer.*git lfs pull") as error:
        load_folder(tmp_path)
    assert "skip" not in str(error.value)


def test_adapters_of_another_format_have_a_product_view_and_no_factor_view(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shapes = {"hada_w1_a": (4, 2), "hada_w1_b": (2, 3), "hada_w2_a": (4, 2), "hada_w2_b": (2, 3)}
    for row in range(4):
        parts = {f"unet.{SELF}.{part}": random.standard_normal(shape) for part, shape in shapes.items()}
        file = tmp_path / "loras" / CLASSES[row % 2] / f"{row}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({**parts, f"unet.{SELF}.alpha": np.array(1.0)}, file)
    store = load_folder(tmp_path)
    up, down, scale = store.product(SELF)
    last = {part: parts[f"unet.{SELF}.{part}"] for part in shapes}
    dense = (last["hada_w1_a"] @ last["hada_w1_b"]) * (last["hada_w2_a"] @ last["hada_w2_b"]) / 2
    np.testing.assert_allclose(scale[3] * up[3].astype(float) @ down[3], dense, rtol=0, atol=1e-6 * np.abs(dense).max())
    assert store.computed == ["LoHa"]
    assert "no factor view: B and A of LoHa are computed" in why_no_layers(store, "factor", "all_layers")


def test_nothing_readable_is_reported_even_when_skipping(tmp_path: Path) -> None:
    for file in save_folder(tmp_path / "loras", factors_of(4), diffusers).rglob("*.safetensors"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="none of its 4 adapters can be read"):
        load_folder(tmp_path, on_bad_adapter="skip")


@pytest.mark.parametrize("skip", ["fail", "skip"])
def test_an_adapter_without_a_class_is_reported(tmp_path: Path, skip: str) -> None:
    folder = save_folder(tmp_path / "loras", factors_of(4), diffusers)
    (folder / "bird" / "01.safetensors").rename(folder / "01.safetensors")
    with pytest.raises(UserError, match=r"01\.safetensors: has no class"):
        load_folder(tmp_path, on_bad_adapter=skip)


def test_an_empty_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "loras").mkdir()
    with pytest.raises(UserError, match=r"holds no \.safetensors files"):
        load_folder(tmp_path)
    with pytest.raises(UserError, match=r"ablation\.adapters\.path: .* is not a directory"):
        adapters.load(tmp_path / "store", path=tmp_path / "nowhere")


def test_adapters_are_written_in_chunks_of_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_folder(tmp_path / "loras", factors_of(8), peft)
    whole = {file.name: file.read_bytes() for file in load_folder(tmp_path).path.rglob("*.npy")}
    monkeypatch.setattr(adapters, "CHUNK_BYTES", 1)
    assert whole == {file.name: file.read_bytes() for file in load_folder(tmp_path).path.rglob("*.npy")}


# The zoo ------------------------------------------------------------------------------------------


def save_shards(folder: Path, factors: dict[str, np.ndarray], sizes: list[int], **changed: np.ndarray) -> list[Path]:
    count = sum(sizes)
    columns = {
        "labels": np.arange(count) % 3,
        "folds": np.arange(count) // 3 % 2,
        "num_images": np.full(count, 2),
        "image_ids": np.stack([np.arange(count) % 6, 10 + np.arange(count), np.full(count, -1)], axis=1),
        "losses": np.zeros((count, 5), np.float32),
    } | changed
    shards, first = [], 0
    for number, size in enumerate(sizes):
        shards.append(folder / f"{number}.safetensors")
        save_file(
            {k: np.ascontiguousarray(v[first : first + size]) for k, v in (factors | columns).items()}, shards[-1]
        )
        first += size
    return shards


@pytest.mark.parametrize("sizes", [[24], [7, 16, 1]])
def test_shards_of_the_zoo_are_merged_and_a_class_in_a_fold_is_a_group(tmp_path: Path, sizes: list[int]) -> None:
    factors = factors_of(24)
    zoo.load(tmp_path / "store", shards=save_shards(tmp_path, factors, sizes), classes=CLASSES, scale=0.5)
    store = AdapterStore(tmp_path / "store")
    for name, values in factors.items():
        np.testing.assert_array_equal(store.block(name), values)
    table = store.table().to_pydict()
    assert store.classes == CLASSES
    np.testing.assert_array_equal(store.labels, np.arange(24) % 3)
    np.testing.assert_array_equal(store.groups, 2 * (np.arange(24) % 3) + np.arange(24) // 3 % 2)
    assert table["image_ids"][4] == [4, 14]
    assert table["num_images"] == [2] * 24
    assert table["adapter"][23] == "zoo 23"
    np.testing.assert_array_equal(store.product(SELF)[2], 0.5)


@pytest.mark.parametrize("shared", [np.arange(24) % 3, np.arange(24) // 3 % 2])
def test_an_image_in_two_folds_or_classes_is_reported(tmp_path: Path, shared: np.ndarray) -> None:
    shards = save_shards(tmp_path, factors_of(24), [12, 12], image_ids=shared[:, None])
    with pytest.raises(UserError, match="image 0 is in two folds or classes"):
        zoo.load(tmp_path / "store", shards=shards, classes=CLASSES)
    assert not (tmp_path / "store").exists()


def test_a_shard_cut_short_is_reported(tmp_path: Path) -> None:
    shards = save_shards(tmp_path, factors_of(24), [12, 12])
    os.truncate(shards[1], 300)
    with pytest.raises(UserError, match=r"1\.safetensors: is not a complete shard"):
        zoo.load(tmp_path / "store", shards=shards, classes=CLASSES)
    assert not (tmp_path / "store").exists()


# The registry -------------------------------------------------------------------------------------


def test_the_folder_is_the_registry() -> None:
    assert names() == ["adapters", "disk", "hub", "zoo"]
    assert source("disk") is disk.load


def test_a_dotted_path_names_a_source_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_lab_sources.py").write_text("def load_ours(output, **options): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert source("my_lab_sources:load_ours").__name__ == "load_ours"
    with pytest.raises(UserError, match="my_lab_sources has no nothing"):
        source("my_lab_sources:nothing")


@pytest.mark.parametrize(
    ("name", "message"), [("hubb", "choose from adapters, disk, hub, zoo"), ("no_lab:x", "no_lab")]
)
def test_an_unknown_source_is_reported(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        source(name)


def test_reading_in_place_makes_no_copy_of_the_column() -> None:
    column = pa.array(factors_of(4)[f"{SELF}.lora.up.weight"].tolist())
    block = factor_tables.matrices(column, "x", "here", 0)
    assert block.shape == (4, 8, 2)
    assert not block.flags.owndata
    assert np.shares_memory(block, column.flatten().flatten().to_numpy())
