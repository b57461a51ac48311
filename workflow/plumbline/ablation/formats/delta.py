"""ΔW of one module, from the tensors that its format stores, as a pair up (out × r) and down (r × in).

scale · up · down is exactly ΔW for LoRA, LoHa and LoKr: Hadamard and Kronecker products of low-rank matrices are of low
rank too. DoRA, PiSSA and OLoRA also need the base model's weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from plumbline.ablation.formats.tensors import BadAdapter

Array = np.ndarray
FORMATS = {
    "LoRA": {"down", "up"},
    "LoHa": {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},
    "LoKr": {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b"},
}
"""Format → the parts that identify it."""
MAGNITUDES = {"lora_magnitude_vector", "dora_scale"}
"""Names of DoRA's magnitudes: PEFT's, and that of the other trainers."""
_BESIDE = {"LoRA": {"mid"}, "LoHa": {"hada_t1", "hada_t2"}, "LoKr": {"lokr_t2"}}


@dataclass(frozen=True, kw_only=True)
class Delta:
    """up (out, r), down (r, in): the module's ΔW without its scale. Raises ValueError where r is not the same."""

    up: Array
    down: Array

    def __post_init__(self) -> None:
        if self.up.shape[1] != len(self.down):
            raise ValueError(f"up {self.up.shape}, down {self.down.shape}")


def format_of(parts: Mapping[str, object], module: str) -> str:
    """The name of a module's format, from the names of its parts. Raises BadAdapter when they are not complete."""
    own = set(parts) - MAGNITUDES
    for name, required in FORMATS.items():
        if own & required:
            if extra := own - required - _BESIDE[name]:
                raise BadAdapter(
                    f"{module} has {min(extra)} beside the tensors of a {name}, which does not belong there"
                )
            _check_complete(name, own, module)
            return name
    raise BadAdapter(f"{module} has {', '.join(sorted(parts))} alone, which is not an adapter")


def rank_of(kind: str, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The r of α/r; None for a LoKr of two full matrices, whose file does not say it."""
    if kind == "LoRA":
        return shapes["down"][0]
    names = ("hada_w1_b",) if kind == "LoHa" else ("lokr_w2_b", "lokr_w1_b")
    return next((shapes[name][0] for name in names if name in shapes), None)


def is_computed(kind: str, parts: Mapping[str, object]) -> bool:
    """Whether the pair is computed rather than stored, so that the module has no factor view."""
    return kind != "LoRA" or "mid" in parts or not MAGNITUDES.isdisjoint(parts)


def pair(kind: str, parts: Mapping[str, Array], module: str) -> Delta:
    """The module's pair: the stored factors of a LoRA in their own type, else in float64.

    Raises BadAdapter when the shapes do not belong together.
    """
    try:
        if kind == "LoRA":
            return _lora(parts)
        wide = {name: values.astype(np.float64) for name, values in parts.items()}
        return _loha(wide) if kind == "LoHa" else _lokr(wide)
    except ValueError:
        shapes = ", ".join(f"{name} {'×'.join(map(str, values.shape))}" for name, values in sorted(parts.items()))
        raise BadAdapter(f"{module}: the shapes of its {kind} do not belong together ({shapes})") from None


def decomposed(delta: Array, base: Array, magnitude: Array, *, by_output: bool) -> Array:
    """DoRA's change of `base` (out, in, …): m · (W + ΔW) / ‖W + ΔW‖ − W (arXiv 2402.09353, eq. 5), (out, in·…).

    magnitude: one for each output, or for each input where not `by_output`.
    """
    changed = base + delta.reshape(base.shape)
    axes = tuple(axis for axis in range(base.ndim) if axis != (0 if by_output else 1))
    norms = np.sqrt((changed**2).sum(axis=axes, keepdims=True))
    return (magnitude.reshape(norms.shape) * changed / norms - base).reshape(len(base), -1)


def of_dense(matrix: Array) -> Delta:
    """`matrix` as a pair with the identity on its shorter side."""
    rows, columns = matrix.shape
    return Delta(up=np.eye(rows), down=matrix) if rows <= columns else Delta(up=matrix, down=np.eye(columns))


def trained(stored: Delta, base: Array, initialisation: str, scale: float) -> Delta:
    """The change of `base` (out, in) by a LoRA that began as a part of it: scale · up · down minus that part.

    PiSSA (arXiv 2404.02948) began as the largest singular components, OLoRA (arXiv 2406.01775) as scale · Q R of the
    first r columns of Q.
    """
    rank = stored.up.shape[1]
    if initialisation == "pissa":
        left, sizes, right = np.linalg.svd(base, full_matrices=False)
        began = Delta(up=left[:, :rank] * sizes[:rank], down=right[:rank])
    else:
        orthogonal, upper = np.linalg.qr(base)
        began = Delta(up=scale * orthogonal[:, :rank], down=upper[:rank])
    return Delta(up=np.hstack([scale * stored.up, -began.up]), down=np.vstack([stored.down, began.down]))


def _check_complete(name: str, own: set[str], module: str) -> None:
    missing = set() if name == "LoKr" else FORMATS[name] - own
    if name == "LoHa" and own & _BESIDE[name]:
        missing = missing | (_BESIDE[name] - own)
    if missing:
        raise BadAdapter(f"{module} is a {name} without {min(missing)}; its file is not complete")
    for whole in ("lokr_w1", "lokr_w2") if name == "LoKr" else ():
        halves = {f"{whole}_a", f"{whole}_b"}
        if (found := own & {whole, *halves}) not in ({whole}, halves):
            there = " and ".join(sorted(found)) or "neither"
            raise BadAdapter(f"{module} is a LoKr with {there}; it must have {whole}, or {whole}_a and {whole}_b")


def _flat(values: Array) -> Array:
    return values.reshape(len(values), -1)


def _lora(parts: Mapping[str, Array]) -> Delta:
    up, down = _flat(parts["up"]), _flat(parts["down"])
    if "mid" in parts:
        down = _flat(np.einsum("rs...,si->ri...", parts["mid"].astype(np.float64), down))
    return Delta(up=up, down=down)


def _low_rank(a: Array, b: Array, core: Array | None) -> Delta:
    """a · b, a (out, r) and b (r, in·…); with LyCORIS' Tucker core (r, r, …), a is (r, out) and b (r, in)."""
    if core is None:
        return Delta(up=a, down=_flat(b))
    return Delta(up=a.T, down=_flat(np.einsum("rs...,si->ri...", core, b)))


def _loha(parts: Mapping[str, Array]) -> Delta:
    """(A₁B₁) ∘ (A₂B₂): the rows of A₁ and A₂, and the columns of B₁ and B₂, multiplied with each other (FedPara)."""
    one, two = (_low_rank(parts[f"hada_w{n}_a"], parts[f"hada_w{n}_b"], parts.get(f"hada_t{n}")) for n in (1, 2))
    if (len(one.up), one.down.shape[1]) != (len(two.up), two.down.shape[1]):
        raise ValueError("the halves differ in shape")
    up = (one.up[:, :, None] * two.up[:, None, :]).reshape(len(one.up), -1)
    down = (one.down[:, None, :] * two.down[None, :, :]).reshape(-1, one.down.shape[1])
    return Delta(up=up, down=down)


def _lokr(parts: Mapping[str, Array]) -> Delta:
    """W₁ ⊗ W₂ = (A₁ ⊗ A₂)(B₁ ⊗ B₂)."""
    halves = []
    for side in ("1", "2"):
        if (whole := parts.get(f"lokr_w{side}")) is not None:
            halves.append(of_dense(_flat(whole)))
        else:
            halves.append(_low_rank(parts[f"lokr_w{side}_a"], parts[f"lokr_w{side}_b"], parts.get(f"lokr_t{side}")))
    one, two = halves
    return Delta(up=np.kron(one.up, two.up), down=np.kron(one.down, two.down))
