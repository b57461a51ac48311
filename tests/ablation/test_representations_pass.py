from pathlib import Path

import numpy as np
import pytest

from plumbline.ablation.data.feature_pass import feature_blocks, width
from plumbline.ablation.representations.interface import Representation, load, representation
from plumbline.core.errors import UserError


class FolderAdapters:
    """Two modules of 41 adapters in memory-mapped files, as the store has them."""

    def __init__(self, folder: Path) -> None:
        rng = np.random.default_rng(0)
        self.modules = {"b0.attn1.to_q": (16, 2, 12), "b0.attn2.to_v": (8, 1, 20)}
        self.arrays, self.folder = {}, folder
        for number, (module, (m, r, n)) in enumerate(self.modules.items()):
            for side, shape in (("up", (41, m, r)), ("down", (41, r, n))):
                name = f"{module}.lora.{side}.weight"
                self.arrays[name] = rng.standard_normal(shape).astype(np.float32)
                np.save(folder / f"{name}.npy", self.arrays[name])
            self.arrays[f"{module}.scale"] = rng.uniform(0.5, 2.0, 41) * (1 + number)

    def block(self, name: str) -> np.ndarray:
        return np.load(self.folder / f"{name}.npy", mmap_mode="r")

    def product(self, module: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        up, down = (self.block(f"{module}.lora.{side}.weight") for side in ("up", "down"))
        return up, down, self.arrays[f"{module}.scale"]


@pytest.fixture
def adapters(tmp_path: Path) -> FolderAdapters:
    return FolderAdapters(tmp_path)


@pytest.mark.parametrize("chunk_bytes", [1, 5_000, 1 << 30])
def test_factor_pass_gives_the_features_of_every_row_whatever_the_chunks(
    adapters: FolderAdapters, chunk_bytes: int
) -> None:
    name, represent = "b0.attn1.to_q.lora.up.weight", load("stats")
    found = np.full((41, width(adapters, represent, "factor", name)), np.nan, np.float32)
    for _, rows, features in feature_blocks(adapters, represent, "factor", [name], chunk_bytes):
        found[rows] = features
    np.testing.assert_array_equal(found, represent(adapters.arrays[name]).astype(np.float32))


@pytest.mark.parametrize("chunk_bytes", [1, 5_000, 1 << 30])
def test_product_pass_represents_the_scaled_product_whatever_the_chunks(
    adapters: FolderAdapters, chunk_bytes: int
) -> None:
    represent = load("flat")
    for module in adapters.modules:
        up, down = (adapters.arrays[f"{module}.lora.{side}.weight"].astype(float) for side in ("up", "down"))
        expected = (up @ down * adapters.arrays[f"{module}.scale"][:, None, None]).reshape(41, -1)
        found = np.full((41, width(adapters, represent, "product", module)), np.nan, np.float32)
        for _, rows, features in feature_blocks(adapters, represent, "product", [module], chunk_bytes):
            found[rows] = features
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_names_come_in_the_order_asked_for(adapters: FolderAdapters) -> None:
    asked = list(reversed(adapters.modules))
    assert [name for name, _, _ in feature_blocks(adapters, load("stats"), "product", asked)] == asked


def test_a_representation_of_products_refuses_factors(adapters: FolderAdapters) -> None:
    with pytest.raises(UserError, match="probes"):
        next(feature_blocks(adapters, load("probes"), "factor", ["b0.attn1.to_q.lora.up.weight"]))


def test_features_that_are_not_finite_are_reported_with_their_row(adapters: FolderAdapters) -> None:
    name = "b0.attn2.to_v.lora.up.weight"
    worst = int(adapters.arrays[name].min(axis=(1, 2)).argmin())

    def roots(stack: np.ndarray) -> np.ndarray:
        smallest = stack.min(axis=(1, 2))
        return np.where(smallest == adapters.arrays[name].min(), np.nan, smallest)[:, None]

    represent = Representation(roots, name="roots", width=1)
    with pytest.raises(UserError, match=f"row {worst}:"):
        list(feature_blocks(adapters, represent, "factor", [name]))


def test_a_representation_of_the_wrong_shape_is_named_with_both_shapes():
    flawed = representation(width=1)(lambda stack: stack.max(axis=(-2, -1)))
    with pytest.raises(UserError, match=r"makes shape \(5,\) of 5 matrices; \(5, 1\) is needed"):
        flawed(np.ones((5, 2, 3)))
