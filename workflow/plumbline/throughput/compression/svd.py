"""Low-rank factors of a linear layer, optimal in one of two norms."""

from fractions import Fraction
from typing import NamedTuple

import torch
from torch import Tensor


class Factors(NamedTuple):
    """W (m, n) ≈ second (m, rank) · first (rank, n), float64."""

    first: Tensor
    second: Tensor
    error: float
    """Norm of W − second · first, computed from the matrices."""
    discarded: float
    """√Σσ² of the discarded singular values, which the error must equal (Eckart and Young 1936)."""
    norm: float
    """Norm of W."""


class Moments(NamedTuple):
    """A linear layer's second moments on calibration text: x (n,) is its input at a token, g (m,) the gradient."""

    inputs: Tensor
    """Σ x xᵀ (n, n), float64."""
    gradients: Tensor
    """Σ g gᵀ (m, m), float64, with respect to the layer's output."""
    tokens: int


def rank_of(ratio: float, rows: int, columns: int) -> int:
    """The rank at which the factors have `ratio` of the layer's parameters, rounded down, at least 1."""
    # In fractions: 0.7 · 100 · 100 / 200 is 35, and 34.99… in floats.
    return max(1, int(Fraction(str(ratio)) * rows * columns / (rows + columns)))


def plain(weight: Tensor, rank: int) -> Factors:
    """The best factors of `weight` (m, n) in the Frobenius norm."""
    weight = weight.double()
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    first, second = _balanced(values[:rank, None] * right[:rank], left[:, :rank])
    error = torch.linalg.matrix_norm(weight - second @ first)
    return Factors(first, second, float(error), _root_sum(values[rank:]), float(torch.linalg.matrix_norm(weight)))


def whitened(weight: Tensor, moments: Moments, rank: int) -> Factors:
    """The factors M of rank `rank` with the least √tr(G (W − M) C (W − M)ᵀ), W being `weight` (m, n).

    C = S Sᵀ (Cholesky) is the mean of x xᵀ, so that errors are weighted by real inputs (Wang et al. 2024, "SVD-LLM").
    G = L Lᵀ is the mean of g gᵀ, so that they are also weighted by their effect on the loss (Martens and Grosse 2015,
    "K-FAC": C ⊗ G approximates the layer's Fisher matrix). The norm is ‖Lᵀ (W − M) S‖, so Lᵀ M S is the truncated SVD
    of Lᵀ W S. With U its leading left vectors, M = L⁻ᵀ U Uᵀ Lᵀ W, and S is never inverted. C and G are regularised by
    `ridge`.
    """
    weight = weight.double()
    inputs, gradients = _mean(moments.inputs, moments.tokens), _mean(moments.gradients, moments.tokens)
    root_inputs, root_gradients = torch.linalg.cholesky(inputs), torch.linalg.cholesky(gradients)
    felt = root_gradients.mT @ weight
    left, values, _ = torch.linalg.svd(felt @ root_inputs, full_matrices=False)
    leading = left[:, :rank]
    second = torch.linalg.solve_triangular(root_gradients.mT, leading, upper=True)
    first, second = _balanced(leading.mT @ felt, second)
    error, norm = (_norm_in(part, inputs, gradients) for part in (weight - second @ first, weight))
    return Factors(first, second, error, _root_sum(values[rank:]), norm)


def ridge(moment: Tensor, tokens: int) -> float:
    """What is added to the diagonal of Σ x xᵀ (n, n): the mean squared length of x, Σ‖x‖² / tokens.

    It acts as one more token in each direction. Relative to the mean eigenvalue it is n / tokens, about the error of a
    covariance estimated from that many tokens; unseen directions still count, and the Cholesky factor exists. It is 1
    for a layer without tokens (such as an unused expert), which weights all directions equally.
    """
    total = float(moment.trace())
    return total / tokens if total > 0 else 1.0


def _mean(moment: Tensor, tokens: int) -> Tensor:
    """Σ x xᵀ with its ridge, divided by the tokens."""
    eye = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    return (moment + ridge(moment, tokens) * eye) / max(tokens, 1)


def _balanced(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """The same product, with rows of `first` as long as columns of `second`, so that both fit into half precision."""
    rows, columns = torch.linalg.vector_norm(first, dim=1), torch.linalg.vector_norm(second, dim=0)
    scale = torch.where(rows > 0, (columns / rows).sqrt(), 1.0)
    return first * scale[:, None], second / scale


def _norm_in(matrix: Tensor, inputs: Tensor, gradients: Tensor) -> float:
    """√tr(G A C Aᵀ)."""
    return float(((gradients @ matrix @ inputs) * matrix).sum().clamp(min=0).sqrt())


def _root_sum(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values))
