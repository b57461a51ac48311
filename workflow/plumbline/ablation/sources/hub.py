"""Source `hub`: a data set on the Hugging Face hub, or a local folder with the same layout."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import datasets
import pyarrow as pa

from plumbline.ablation.data.factor_tables import READ_ROWS, write_store
from plumbline.core.errors import UserError
from plumbline.core.run.hub import Repository, line


def load(output: Path, *, id: str, revision: str | None = None, split: str = "train", limit: int | None = None) -> None:
    """Writes the first `limit` adapters (None: all) of a split to a store at `output`.

    id: the hub id of a data set, read at the commit that `revision` (None: the default branch) points to now, or a
    local folder of parquet files. Rows are streamed: nothing but the store is kept, and with a limit little more than
    its rows is downloaded.
    """
    repository, place = Repository(kind="dataset", id=id, revision=revision, key="ablation.hub"), f"{id} ({split})"
    commit = repository.commit()
    source = {"kind": "hub", "dataset": id, "revision": commit, "split": split, "limit": limit}
    try:
        with repository.reached():
            rows = datasets.load_dataset(id, revision=commit, split=split, streaming=True)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(f"{place}: cannot be read as a data set: {line(error)}") from error
    stated = (rows.info.splits or {}).get(split)
    tables = _streamed(rows.with_format("arrow").iter(batch_size=READ_ROWS), repository)
    total = stated.num_examples if stated else None
    write_store(output, tables, place=place, source=source, limit=limit, total=total)


def _streamed(tables: Iterable[pa.Table], repository: Repository) -> Iterator[pa.Table]:
    """The tables. The network can fail at each of them."""
    try:
        with repository.reached():
            yield from tables
    except datasets.exceptions.DatasetsError as error:
        raise UserError(f"{repository.id}: cannot be read as a data set: {line(error)}") from error
