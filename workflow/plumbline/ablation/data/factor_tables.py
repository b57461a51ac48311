"""Reads data sets of adapters from Arrow tables: one row per adapter, one column per factor, and label columns.

A factor column holds nested lists (or datasets' Array2D): (rank, in) for down, (out, rank) for up. Convolutions,
(rank, in, height, width) and (out, rank, 1, 1), are flattened to matrices.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from plumbline.ablation.data.adapter_rows import AdapterRows
from plumbline.ablation.data.layers import DOWN, UP
from plumbline.ablation.data.store import Shape, StoreWriter
from plumbline.ablation.formats.names import LOOKS_LIKE_A_PART, parse
from plumbline.core.errors import UserError
from plumbline.core.run.progress import Progress

READ_ROWS = 64
"""Number of rows read at a time: 26 MB for rank-1 adapters of SD 1.5."""

ALPHAS = ("alpha", "lora_alpha", "network_alpha", "ss_network_alpha")
"""Columns with the α of all modules; that of one module is in `<module>.alpha`."""
LABEL, NAME, IMAGES, IMAGE_IDS = "category_label", "category_name", "num_images", "image_ids"


def write_store(
    output: Path,
    tables: Iterable[pa.Table],
    *,
    place: str,
    source: Mapping[str, Any],
    limit: int | None = None,
    total: int | None = None,
) -> None:
    """Writes the first `limit` adapters of `tables` (None: all) to a store at `output`, one table in memory at a time.

    total: the expected number of rows, for progress. Raises UserError naming the place, row and column of a mistake.
    """
    pending = iter(_limited(_readable(tables, place), limit))
    first = next(pending, None)
    if first is None:
        raise UserError(f"{place}: holds no adapters")
    columns, alphas = factor_columns(first.schema, place), alpha_columns(first.schema, place)
    blocks = {factor: matrices(first[column], column, place, 0) for factor, column in columns.items()}
    shapes: dict[str, Shape] = {factor: (block.shape[1], block.shape[2]) for factor, block in blocks.items()}
    rows, scales = AdapterRows(), []
    expected = None if total is None else min(total, limit or total)
    with (
        StoreWriter(output, shapes, place=place) as writer,
        Progress(expected, "adapters") if expected else nullcontext() as progress,
    ):
        table: pa.Table | None = first
        while table is not None:
            add_rows(rows, table, place)
            blocks = {
                factor: matrices(table[column], column, place, writer.rows, shapes[factor])
                for factor, column in columns.items()
            }
            if alphas:
                names = [alphas.get(module.name, alphas.get("", "")) for module in writer.modules]
                ranks = np.array([module.rank for module in writer.modules])
                scales.append(_alphas(table, names, place, writer.rows) / ranks)
            writer.append(blocks)
            if progress is not None:
                progress.advance(table.num_rows)
            table = next(pending, None)
        texts = sum(parse(column).place == "text" for column in first.column_names)
        source = {**source, "text_encoder_columns_left_out": texts}
        source["adapters_without_alpha"] = 0 if alphas else writer.rows
        described, classes = rows.table(place=place, rank=max(module.rank for module in writer.modules))
        stated = np.concatenate(scales) if scales else None
        writer.finish(described, classes=classes, source=source, scales=stated)


def factor_columns(schema: pa.Schema, place: str) -> dict[str, str]:
    """Factor name → column. Raises UserError when there are no factors or labels, or two columns name one factor."""
    columns: dict[str, str] = {}
    for column in schema.names:
        found = parse(column)
        if found.place == "text" or column in ALPHAS or found.part == "alpha":
            continue
        if found.part not in ("down", "up"):
            if found.part or LOOKS_LIKE_A_PART.search(column):
                raise UserError(
                    f"{place}: column {column} is not a factor of a plain LoRA, and a data set can hold no other;"
                    " remove or rename it, or save the adapters as files and use the source `adapters`"
                )
            continue
        if found.place == "unknown":
            raise UserError(
                f"{place}: column {column} may be the diffusion model's or a text encoder's; put `unet.` or"
                " `text_encoder.` before its name"
            )
        factor = found.module + (DOWN if found.part == "down" else UP)
        if factor in columns:
            raise UserError(f"{place}: columns {columns[factor]} and {column} are the same factor; remove one")
        columns[factor] = column
    if not columns:
        names = ", ".join(schema.names[:8]) + (", …" if len(schema.names) > 8 else "")
        raise UserError(f"{place}: no LoRA columns (<module>.lora.down.weight and .up.weight) among {names or 'none'}")
    if LABEL not in schema.names:
        raise UserError(f"{place}: no column {LABEL}; add one with the class of each adapter as a whole number")
    return columns


def alpha_columns(schema: pa.Schema, place: str) -> dict[str, str]:
    """Module → the column with its α, "" for one that is of all modules; empty where α is stated nowhere.

    Raises UserError when some modules have such a column and others do not.
    """
    found = {parse(column).module: column for column in schema.names if parse(column).part == "alpha"}
    if of_all := [column for column in schema.names if column in ALPHAS]:
        found[""] = of_all[0]
    parsed = [parse(column) for column in schema.names]
    modules = {key.module for key in parsed if key.part == "down" and key.place != "text"}
    known = {module: column for module, column in found.items() if module in ("", *modules)}
    if strays := sorted(set(found) - set(known)):
        raise UserError(f"{place}: column {found[strays[0]]} is the alpha of no module; remove it or add its factors")
    if known and "" not in known and (missing := sorted(modules - set(known))):
        raise UserError(f"{place}: no column {missing[0]}.alpha, though other modules have one; add it")
    return known


def _alphas(table: pa.Table, columns: Sequence[str], place: str, first_row: int) -> np.ndarray:
    """The α of each row and module, (rows, modules), from the columns that hold them."""
    read: dict[str, list[float]] = {}
    for column in dict.fromkeys(columns):
        read[column] = []
        for row, value in enumerate(table[column].to_pylist()):
            one = value
            while isinstance(one, list) and len(one) == 1:
                one = one[0]
            if isinstance(one, bool) or not isinstance(one, int | float) or not np.isfinite(one) or one == 0:
                at = f"{place}: row {first_row + row}, {column}"
                raise UserError(f"{at}: {value!r} is not a valid α; write a number other than 0")
            read[column].append(float(one))
    return np.array([read[column] for column in columns]).T


def matrices(
    column: pa.ChunkedArray | pa.Array, name: str, place: str, first_row: int, shape: Shape | None = None
) -> np.ndarray:
    """The column as (rows, m, n), without a copy where Arrow allows it.

    shape: the expected (m, n), None for that of the first row. Raises UserError naming the first row (counted from
    `first_row`) that is null or has another shape.
    """
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    rows = len(values)
    sizes: list[int] = []
    while True:
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
        if values.null_count:
            row = first_row + int(np.argmin(values.is_valid().to_numpy(zero_copy_only=False))) // prod(sizes)
            raise UserError(f"{place}: row {row}, {name}: a value is missing; remove that adapter")
        if not _is_list(values.type):
            break
        lengths = pc.list_value_length(values).to_numpy()
        if different := np.flatnonzero(lengths != lengths[0]).tolist():
            raise _unequal(column, name, place, first_row, different[0] // prod(sizes))
        if lengths[0] == 0:
            raise UserError(f"{place}: row {first_row}, {name}: is empty; remove that adapter")
        sizes.append(int(lengths[0]))
        values = values.flatten()
    if len(sizes) < 2 or not (pa.types.is_floating(values.type) or pa.types.is_integer(values.type)):
        raise UserError(f"{place}: {name} holds {column.type}, not matrices; it must hold lists of lists of numbers")
    block = values.to_numpy(zero_copy_only=False).reshape(rows, sizes[0], prod(sizes[1:]))
    if shape is not None and block.shape[1:] != shape:
        raise UserError(
            f"{place}: row {first_row}, {name}: shape {_text(sizes)}, row 0 has {_text(shape)}; they must agree"
        )
    return block


def add_rows(rows: AdapterRows, table: pa.Table, place: str) -> None:
    """Appends the labels and images in `table` to `rows`. A class without a name is named after its label."""
    first = len(rows.labels)
    labels = _integers(table, LABEL, place, first)
    if None in labels:
        raise UserError(f"{place}: row {first + labels.index(None)}: {LABEL} is missing; remove that adapter")
    names = table[NAME].to_pylist() if NAME in table.column_names else labels
    if None in names:
        raise UserError(f"{place}: row {first + names.index(None)}: {NAME} is missing; add the name of the class")
    rows.labels.extend(labels)
    rows.names.extend(str(name) for name in names)
    rows.adapters.extend(f"row {first + row}" for row in range(table.num_rows))
    known = IMAGES in table.column_names
    rows.num_images.extend(_integers(table, IMAGES, place, first) if known else [None] * table.num_rows)
    rows.image_ids.extend(_image_ids(table, place))


def _readable(tables: Iterable[pa.Table], place: str) -> Iterable[pa.Table]:
    """The tables. An error while reading one is a fault of the data set; errors elsewhere are not."""
    try:
        yield from tables
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{place}: cannot be read: {' '.join(str(error).split())}") from error


def _limited(tables: Iterable[pa.Table], limit: int | None) -> Iterable[pa.Table]:
    """The non-empty tables, up to `limit` rows in total."""
    left = limit
    for table in tables:
        kept = table if left is None else table.slice(0, left)
        if kept.num_rows:
            yield kept
        if left is not None:
            left -= kept.num_rows
            if left <= 0:
                return


def _integers(table: pa.Table, column: str, place: str, first: int) -> list[Any]:
    kind = table.schema.field(column).type
    if not pa.types.is_integer(kind):
        raise UserError(f"{place}: {column} holds {kind} (from row {first} on); it must hold whole numbers")
    values: list[Any] = table[column].to_pylist()
    return values


def _image_ids(table: pa.Table, place: str) -> Sequence[list[int]]:
    if IMAGE_IDS not in table.column_names:
        return [[] for _ in range(table.num_rows)]
    kind = table.schema.field(IMAGE_IDS).type
    if not (_is_list(kind) and (pa.types.is_integer(kind.value_type) or pa.types.is_null(kind.value_type))):
        raise UserError(f"{place}: {IMAGE_IDS} holds {kind}; it must hold lists of whole numbers, or be removed")
    return [[image for image in ids or [] if image is not None] for ids in table[IMAGE_IDS].to_pylist()]


def _unequal(column: pa.ChunkedArray | pa.Array, name: str, place: str, first_row: int, row: int) -> UserError:
    # Only the two rows that disagree are converted to Python lists.
    one, other = (_ragged_shape(column[index].as_py()) for index in (0, row))
    if one == other or row == 0:
        return UserError(
            f"{place}: row {first_row + row}, {name}: its inner lists differ in length; it is not a matrix"
        )
    return UserError(
        f"{place}: {name}: row {first_row + row} has shape {other}, row {first_row} {one}; they must agree"
    )


def _ragged_shape(value: Any) -> str:
    sizes = []
    while isinstance(value, list):
        sizes.append(len(value))
        value = value[0] if value else None
    return _text(sizes)


def _text(sizes: Sequence[int]) -> str:
    return "×".join(map(str, sizes))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
