"""Standardises features by the training rows of a run."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from plumbline.ablation.classifier.splits import Split
from plumbline.core.errors import UserError

COLUMNS_AT_ONCE = 512  # float64 copies of this many columns stay in cache
CONSTANT = 4 * float(np.finfo(np.float32).eps)  # a smaller deviation, relative to the values, is rounding
RESIDENT_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Mean and 1 / standard deviation of each column over some rows, (W,) float64; both 0 for a constant column."""

    mean: NDArray[np.float64]
    inverse: NDArray[np.float64]

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(W,): which columns vary."""
        return self.inverse > 0


def scaling(features: NDArray[Any], rows: NDArray[np.int64]) -> Scaling:
    """The scaling of `features` (N, W) by `rows`.

    A column is constant, and dropped, when its (population) standard deviation is within float32 rounding of its
    values. Raises UserError when every column is constant.
    """
    mean, inverse = np.zeros(features.shape[1]), np.zeros(features.shape[1])
    for start in range(0, features.shape[1], COLUMNS_AT_ONCE):
        part = slice(start, start + COLUMNS_AT_ONCE)
        values = features[rows, part].astype(np.float64)
        centre = values.mean(axis=0)
        size = np.abs(values).max(axis=0)
        values -= centre
        deviation = np.sqrt(np.einsum("nw,nw->w", values, values) / len(values))
        varies = deviation > np.maximum(CONSTANT * size, 1e-30)
        mean[part] = np.where(varies, centre, 0)
        np.divide(1, deviation, out=inverse[part], where=varies)
    if not inverse.any():
        raise UserError(
            f"features: all {features.shape[1]} columns are constant over the {len(rows)} training rows; "
            "use another representation or other adapters"
        )
    return Scaling(mean=mean, inverse=inverse)


def check_finite(features: NDArray[Any]) -> None:
    """Raises UserError naming the first value of `features` that is not finite."""
    if not np.isfinite(features.sum(dtype=np.float64)):
        bad = np.argwhere(~np.isfinite(features))
        if len(bad):
            row, column = bad[0]
            raise UserError(
                f"features: row {row}, column {column} is {features[row, column]}; check the adapter of that row, "
                "and delete the feature file to have it rebuilt"
            )


class StandardisedRows:
    """Batches of standardised rows for several runs, each scaled by its own training rows.

    Runs that train on the same rows share one standardised table (N, W). Otherwise each run has its own table as long
    as all of them fit in `resident_bytes`; beyond that, raw rows are gathered and scaled batch by batch. All three ways
    compute (x − mean) · (1/sd) and give the same numbers. Columns that no run keeps are dropped; one that only some
    runs keep is zero in the others.
    """

    def __init__(
        self,
        features: NDArray[Any],
        splits: list[Split],
        device: torch.device,
        resident_bytes: int = RESIDENT_BYTES,
    ) -> None:
        check_finite(features)
        shared = all(np.array_equal(splits[0].train, other.train) for other in splits[1:])
        scalings = [scaling(features, one.train) for one in (splits[:1] if shared else splits)]
        columns = np.any([one.kept for one in scalings], axis=0)
        table = torch.from_numpy(np.ascontiguousarray(features[:, columns])).to(device)

        def stacked(name: str) -> Tensor:
            values = np.stack([getattr(one, name)[columns] for one in scalings])
            return torch.from_numpy(values).to(device, table.dtype)

        self.width = int(columns.sum())
        kept = np.stack([one.kept[columns] for one in scalings] * (len(splits) if shared else 1))
        self.kept = torch.from_numpy(kept).to(device)
        mean, inverse = stacked("mean"), stacked("inverse")
        rows = len(features)
        self._scale: tuple[Tensor, Tensor] | None = None
        self._first_row = torch.zeros(len(splits), dtype=torch.int64, device=device)
        if len(scalings) * table.nbytes <= max(resident_bytes, table.nbytes):
            self._table = table.new_empty(len(scalings), rows, self.width)
            for run, out in enumerate(self._table):
                torch.sub(table, mean[run], out=out).mul_(inverse[run])
            self._table = self._table.view(-1, self.width)
            if not shared:
                self._first_row = torch.arange(len(splits), device=device) * rows
        else:
            self._table = table
            self._scale = mean[:, None], inverse[:, None]
        self._buffer = table.new_empty(0)

    def locate(self, runs: Tensor, rows: Tensor) -> Tensor:
        """The places of `rows` (A, b) of the runs numbered `runs` (A,), as `batch` takes them."""
        return rows + self._first_row[runs, None]

    def batch(self, runs: Tensor, places: Tensor) -> Tensor:
        """The rows at `places` (A, b), as (A, b, W), in a buffer that the next call overwrites: page faults of a new
        allocation would cost more than the gather itself."""
        needed = places.numel() * self.width
        if self._buffer.numel() < needed:
            self._buffer = self._table.new_empty(needed)
        flat = self._buffer[:needed].view(-1, self.width)
        torch.index_select(self._table, 0, places.reshape(-1), out=flat)
        values = flat.view(*places.shape, self.width)
        if self._scale is not None:
            mean, inverse = self._scale
            values.sub_(mean[runs]).mul_(inverse[runs])
        return values
