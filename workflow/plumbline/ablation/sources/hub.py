"""Adapters in a data set on the Hugging Face hub, or in a local folder laid out like one."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets
import pyarrow as pa
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from plumbline.ablation.factor_tables import READ_ROWS, write_store
from plumbline.core.errors import UserError

# HTTPError is what the hub's HTTP client raises without an answer; which client that is differs between versions.
_UNREACHABLE = (HfHubHTTPError, HTTPError, ConnectionError)


def load(output: Path, *, id: str, revision: str | None = None, split: str = "train", limit: int | None = None) -> None:
    """Writes the first `limit` adapters (None: all) of a split to a store at `output`.

    id: of the data set, read at the commit that `revision` (None: the default branch) stands for now, or a local
    folder of parquet files. Rows are streamed: nothing is kept beside the store, and a limit fetches little more than
    its rows.
    """
    dataset, place = id, f"{id} ({split})"
    local = Path(dataset).is_dir()
    if local and revision is not None:
        raise UserError(f"ablation.hub.revision: {dataset} is a folder, which has none; remove the key")
    commit = None if local else _commit(dataset, revision)
    source = {"kind": "hub", "dataset": dataset, "revision": commit, "split": split, "limit": limit}
    try:
        rows = datasets.load_dataset(dataset, revision=commit, split=split, streaming=True)
        stated = (rows.info.splits or {}).get(split)
    except _UNREACHABLE as error:
        raise _unreachable(dataset, error) from error
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(f"{place}: cannot be read as a data set: {_line(error)}") from error
    tables = _streamed(rows.with_format("arrow").iter(batch_size=READ_ROWS), dataset)
    total = stated.num_examples if stated else None
    write_store(output, tables, place=place, source=source, limit=limit, total=total)


def _streamed(tables: Iterable[pa.Table], dataset: str) -> Iterator[pa.Table]:
    """The tables; the network can fail at any of them."""
    try:
        yield from tables
    except _UNREACHABLE as error:
        raise _unreachable(dataset, error) from error
    except datasets.exceptions.DatasetsError as error:
        raise UserError(f"{dataset}: cannot be read as a data set: {_line(error)}") from error


def _commit(dataset: str, revision: str | None) -> str:
    """The commit that `revision` stands for, so that the record names data that cannot change."""
    try:
        commit = HfApi().dataset_info(dataset, revision=revision).sha
    except _UNREACHABLE as error:
        raise _unreachable(dataset, error) from error
    except ValueError as error:  # an id that the hub's client refuses
        raise UserError(f"ablation.hub.id: {dataset} is no folder here and no id: {_line(error)}") from error
    if commit is None:
        raise UserError(f"{dataset}: the hub names no commit; give `revision`")
    return commit


def _unreachable(dataset: str, error: BaseException) -> UserError:
    return UserError(
        f"{dataset}: is no folder here, and the hub does not give it ({_line(error)}); check the id and the network,"
        " or download it elsewhere and give the folder"
    )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
