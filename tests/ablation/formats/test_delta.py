"""ΔW of LoHa, LoKr, LoCon, DoRA, PiSSA and OLoRA, against dense float64 formulas and the base that each changes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from ablation.formats.writing import SELF, Saved
from plumbline.ablation.formats.adapter_file import outline, read_factors
from plumbline.ablation.formats.base import Base
from plumbline.ablation.formats.tensors import BadAdapter
from plumbline.core.errors import UserError

Parts = dict[str, np.ndarray]
TOLERANCE = 1e-6
FAST = settings(max_examples=40, deadline=None)


def normal(seed: int, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    random = np.random.default_rng(seed)
    return [random.standard_normal(shape).astype(np.float32) for shape in shapes]


def tucker(core: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(out, in, height, width) by plain loops: Σ core[i, j] · a[i, out] · b[j, in]."""
    whole = np.zeros((a.shape[1], b.shape[1], *core.shape[2:]))
    for i in range(core.shape[0]):
        for j in range(core.shape[1]):
            whole += np.multiply.outer(np.outer(a[i].astype(np.float64), b[j]), core[i, j])
    return whole


def loha(seed: int, r: int) -> tuple[Parts, np.ndarray, int]:
    a1, b1, a2, b2 = normal(seed, (6, r), (r, 5), (6, r), (r, 5))
    parts = {"hada_w1_a": a1, "hada_w1_b": b1, "hada_w2_a": a2, "hada_w2_b": b2}
    return parts, (a1.astype(np.float64) @ b1) * (a2.astype(np.float64) @ b2), r


def loha_tucker(seed: int, r: int) -> tuple[Parts, np.ndarray, int]:
    t1, a1, b1, t2, a2, b2 = normal(seed, (r, r, 3, 3), (r, 6), (r, 5), (r, r, 3, 3), (r, 6), (r, 5))
    parts = {"hada_t1": t1, "hada_w1_a": a1, "hada_w1_b": b1, "hada_t2": t2, "hada_w2_a": a2, "hada_w2_b": b2}
    return parts, tucker(t1, a1, b1) * tucker(t2, a2, b2), r


def lokr(seed: int, r: int) -> tuple[Parts, np.ndarray, int]:
    w1, a, b = normal(seed, (2, 3), (5, r), (r, 4))
    return {"lokr_w1": w1, "lokr_w2_a": a, "lokr_w2_b": b}, np.kron(w1, a.astype(np.float64) @ b), r


def lokr_both(seed: int, r: int) -> tuple[Parts, np.ndarray, int]:
    a1, b1, a2, b2 = normal(seed, (4, r), (r, 3), (5, r), (r, 4))
    parts = {"lokr_w1_a": a1, "lokr_w1_b": b1, "lokr_w2_a": a2, "lokr_w2_b": b2}
    return parts, np.kron(a1.astype(np.float64) @ b1, a2.astype(np.float64) @ b2), r


def lokr_convolution(seed: int, r: int) -> tuple[Parts, np.ndarray, int]:
    w1, t2, a, b = normal(seed, (2, 3), (r, r, 3, 3), (r, 5), (r, 4))
    return (
        {"lokr_w1": w1, "lokr_t2": t2, "lokr_w2_a": a, "lokr_w2_b": b},
        np.kron(w1[..., None, None], tucker(t2, a, b)),
        r,
    )


def locon(seed: int, r: int) -> tuple[Parts, np.ndarray, int]:
    mid, down, up = normal(seed, (r, r, 3, 3), (r, 5, 1, 1), (6, r, 1, 1))
    parts = {"lora_mid.weight": mid, "lora_down.weight": down, "lora_up.weight": up}
    return parts, tucker(mid, up[..., 0, 0].T, down[..., 0, 0]), r


FORMATS: dict[str, Callable[[int, int], tuple[Parts, np.ndarray, int]]] = {
    one.__name__: one for one in (loha, loha_tucker, lokr, lokr_both, lokr_convolution, locon)
}


def save(folder: Path, parts: Parts, alpha: float | None = None, config: str = "") -> Path:
    stem = f"lora_unet_{SELF.replace('.', '_')}"
    tensors = {f"{stem}.{part}": values for part, values in parts.items()}
    if alpha is not None:
        tensors[f"{stem}.alpha"] = np.asarray(alpha)
    return Saved(tensors, {}, {"adapter_config.json": config} if config else {}).save(folder / "a.safetensors")


def check(file: Path, expected: np.ndarray, base: Base | None = None, tolerance: float = TOLERANCE) -> None:
    outline(file)
    found = read_factors(file, file.parent, base)
    up, down = (found.factors[f"{SELF}.lora.{side}.weight"].astype(np.float64) for side in ("up", "down"))
    flat = expected.reshape(len(expected), -1)
    np.testing.assert_allclose(found.scales[SELF] * up @ down, flat, rtol=0, atol=tolerance * np.abs(flat).max())
    assert found.states_alpha
    assert found.computed


@pytest.mark.parametrize("name", FORMATS)
@FAST
@given(seed=st.integers(0, 2**32), r=st.integers(1, 4), alpha=st.floats(0.1, 100))
def test_the_pair_of_a_format_is_its_own_formula(
    tmp_path_factory: pytest.TempPathFactory, name: str, seed: int, r: int, alpha: float
) -> None:
    parts, dense, rank = FORMATS[name](seed, r)
    check(save(tmp_path_factory.mktemp("a"), parts, alpha), alpha / rank * dense)


def test_a_lokr_of_two_full_matrices_has_no_scale_for_lycoris_and_alpha_over_r_for_peft(tmp_path: Path) -> None:
    w1, w2 = normal(0, (2, 3), (5, 4))
    parts, dense = {"lokr_w1": w1, "lokr_w2": w2}, np.kron(w1.astype(np.float64), w2)
    check(save(tmp_path / "lycoris", parts, 7.0), dense)
    check(save(tmp_path / "peft", parts, config='{"peft_type": "LOKR", "r": 8, "alpha": 4}'), dense / 2)
    with pytest.raises(BadAdapter, match="states α but no rank"):
        read_factors(save(tmp_path / "no rank", parts, config='{"alpha": 4}'), tmp_path)


def test_an_older_scalar_multiplies_the_change(tmp_path: Path) -> None:
    parts, dense, rank = loha(0, 2)
    check(save(tmp_path, {**parts, "scalar": np.array(0.25, np.float32)}, 3.0), 0.25 * 3.0 / rank * dense)


# DoRA: (name, shape of the magnitude, axes of the norm) for a base of (6, 5) or (6, 5, 3, 3).
MAGNITUDES = [
    ("lora_magnitude_vector", (6,), (1, 2, 3)),
    ("lora_magnitude_vector", (1, 6, 1, 1), (1, 2, 3)),
    ("dora_scale", (6, 1), (1, 2, 3)),
    ("dora_scale", (6, 1, 1, 1), (1, 2, 3)),
    ("dora_scale", (1, 5), (0, 2, 3)),
    ("dora_scale", (1, 5, 1, 1), (0, 2, 3)),
]


@pytest.mark.parametrize(("name", "shape", "axes"), MAGNITUDES)
@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_dora_changes_its_base_by_the_formula(
    tmp_path: Path, name: str, shape: tuple[int, ...], axes: tuple[int, ...], kernel: tuple[int, ...]
) -> None:
    base, down, up, magnitude = normal(1, (6, 5, *kernel), (2, 5, *kernel), (6, 2, *([1] * len(kernel))), shape)
    save_file({f"{SELF}.weight": base}, tmp_path / "base.safetensors")
    wide = base.astype(np.float64)
    moved = wide + 1.5 * (up.reshape(6, 2).astype(np.float64) @ down.reshape(2, -1)).reshape(base.shape)
    norms = np.sqrt((moved**2).sum(axis=tuple(axis for axis in axes if axis < base.ndim), keepdims=True))
    expected = magnitude.reshape(norms.shape) * moved / norms - wide
    file = save(tmp_path / "a", {"lora_down.weight": down, "lora_up.weight": up, name: magnitude}, 3.0)
    check(file, expected, Base(tmp_path / "base.safetensors"))
    with pytest.raises(BadAdapter, match=r"is a DoRA, .*set ablation\.adapters\.base"):
        read_factors(file, tmp_path)


@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_what_began_as_a_part_of_the_base_counts_from_there(tmp_path: Path, kind: str) -> None:
    (base,) = normal(2, (6, 5))
    save_file({f"unet.{SELF}.weight": base}, tmp_path / "base.safetensors")
    wide, scale = base.astype(np.float64), 1.5
    if kind == "pissa":
        u, s, v = np.linalg.svd(wide, full_matrices=False)
        up, down = u[:, :2] * np.sqrt(s[:2] / scale), np.sqrt(s[:2] / scale)[:, None] * v[:2]
    else:
        q, upper = np.linalg.qr(wide)
        up, down = q[:, :2], upper[:2]
    step_up, step_down = normal(3, (6, 2), (2, 5))
    moved_up, moved_down = up + 0.1 * step_up, down + 0.1 * step_down
    parts = {"lora_down.weight": moved_down.astype(np.float32), "lora_up.weight": moved_up.astype(np.float32)}
    file = save(tmp_path / "a", parts, config=f'{{"lora_alpha": 3, "r": 2, "init_lora_weights": "{kind}"}}')
    check(file, scale * (moved_up @ moved_down - up @ down), Base(tmp_path / "base.safetensors"), 1e-5)
    with pytest.raises(BadAdapter, match=r"was initialised from the base model .*ablation\.adapters\.base"):
        read_factors(file, tmp_path)


@pytest.mark.parametrize("kind", ["pissa_niter_4", "corda", "lora_ga", "loftq", "something_new"])
def test_a_beginning_that_no_file_tells_is_refused_even_with_the_base(tmp_path: Path, kind: str) -> None:
    base, down, up = normal(0, (6, 5), (2, 5), (6, 2))
    save_file({f"{SELF}.weight": base}, tmp_path / "base.safetensors")
    parts = {"lora_down.weight": down, "lora_up.weight": up}
    file = save(tmp_path / "a", parts, config=f'{{"lora_alpha": 3, "init_lora_weights": "{kind}"}}')
    with pytest.raises(BadAdapter, match="path_initial_model_for_weight_conversion"):
        read_factors(file, tmp_path, Base(tmp_path / "base.safetensors"))


@pytest.mark.parametrize("kind", ["true", "false", '"gaussian"', '"eva"', '"orthogonal"', '"mica"', "null"])
def test_a_beginning_that_leaves_the_base_alone_is_plain(tmp_path: Path, kind: str) -> None:
    down, up = normal(0, (2, 5), (6, 2))
    file = save(tmp_path, {"lora_down.weight": down, "lora_up.weight": up}, 2.0, f'{{"init_lora_weights": {kind}}}')
    assert read_factors(file, tmp_path).computed == set()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"hada_w1_a": (6, 2), "hada_w1_b": (2, 5), "hada_w2_a": (6, 2)}, "is a LoHa without hada_w2_b"),
        (
            {"hada_w1_a": (6, 2), "hada_w1_b": (2, 5), "hada_w2_a": (6, 2), "hada_w2_b": (2, 4)},
            "not belong together",
        ),
        (
            {"hada_w1_a": (6, 3), "hada_w1_b": (2, 5), "hada_w2_a": (6, 2), "hada_w2_b": (2, 5)},
            "not belong together",
        ),
        ({"lokr_w1": (2, 2)}, "a LoKr with neither; it must have lokr_w2"),
        ({"lokr_w1": (2, 2), "lokr_w1_a": (2, 1), "lokr_w2": (2, 2)}, "must have lokr_w1, or lokr_w1_a and"),
        ({"lokr_w1": (2, 2), "lora_up.weight": (2, 2), "lora_down.weight": (2, 2)}, "beside the tensors of a LoRA"),
        ({"dora_scale": (6, 1)}, "alone, which is not an adapter"),
    ],
)
def test_parts_that_are_no_format_are_named(tmp_path: Path, parts: dict[str, tuple[int, ...]], message: str) -> None:
    file = save(tmp_path, {part: np.ones(shape, np.float32) for part, shape in parts.items()})
    with pytest.raises(BadAdapter, match=message):
        read_factors(file, tmp_path)


def test_a_base_without_the_layer_or_without_weights_is_named(tmp_path: Path) -> None:
    save_file({"other.weight": np.ones((2, 2))}, tmp_path / "base.safetensors")
    with pytest.raises(BadAdapter, match=r"of which ablation\.adapters\.base .* has no weight"):
        Base(tmp_path / "base.safetensors").weight(SELF)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no weights"):
        Base(tmp_path / "empty")
