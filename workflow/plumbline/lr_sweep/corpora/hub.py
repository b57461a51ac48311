"""Text from a data set on the Hugging Face hub, or from a local folder with the same layout."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import datasets

from plumbline.core.errors import UserError
from plumbline.core.run.hub import Repository, line
from plumbline.lr_sweep.corpora.interface import Document, Source, within
from plumbline.lr_sweep.settings import CorpusSettings, HubCorpus

_READ_ROWS = 1000


def load(settings: CorpusSettings) -> Source:
    """The rows of the training split, then those of the validation split if one is named; streamed.

    The data set is read at the commit that `revision` (None: the default branch) points to now. A named validation
    split gets the share `validation_share` of `limit_bytes`. Raises UserError for a data set that cannot be reached or
    read, or that lacks the split or a text column of that name.
    """
    hub = settings.hub
    commit = _repository(hub).commit()
    splits = {hub.train_split: False} | ({hub.validation_split: True} if hub.validation_split else {})
    rows = {split: _opened(hub, commit, split) for split in splits}
    if hub.validation_split is None:
        documents = within(_documents(rows[hub.train_split], hub, hub.train_split, None), settings.limit_bytes)
    else:
        documents = chain.from_iterable(
            within(_documents(rows[split], hub, split, validation), _limit(settings, validation))
            for split, validation in splits.items()
        )
    sizes = [(rows[split].info.splits or {}).get(split) for split in splits]
    return Source(
        described={"kind": "hub", "commit": commit, **hub.model_dump(mode="json")},
        documents=documents,
        expected_bytes=sum(size.num_bytes for size in sizes if size) or None,
    )


def _limit(settings: CorpusSettings, validation: bool) -> int | None:
    if settings.limit_bytes is None:
        return None
    kept = int(settings.limit_bytes * settings.validation_share)
    return kept if validation else settings.limit_bytes - kept


def _opened(hub: HubCorpus, commit: str | None, split: str) -> datasets.IterableDataset:
    try:
        with _repository(hub).reached():
            return datasets.load_dataset(hub.id, revision=commit, split=split, streaming=True)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(f"{hub.id} ({split}): cannot be read as a data set: {line(error)}") from error


def _documents(
    rows: datasets.IterableDataset, hub: HubCorpus, split: str, validation: bool | None
) -> Iterator[Document]:
    number = 0
    for batch in _batches(rows, hub):
        if hub.column not in batch:
            raise UserError(
                f"lr_sweep.corpus.hub.column: {hub.id} ({split}) has no column {hub.column!r}; use one of"
                f" {', '.join(sorted(batch))}"
            )
        for text in batch[hub.column]:
            if text is not None and not isinstance(text, str):
                raise UserError(
                    f"lr_sweep.corpus.hub.column: {hub.id} ({split}), row {number}: {hub.column!r} holds"
                    f" {type(text).__name__}, not text; name another column"
                )
            yield Document(f"{split}/{number}", text or "", validation)
            number += 1


def _batches(rows: datasets.IterableDataset, hub: HubCorpus) -> Iterator[dict[str, list[Any]]]:
    """Columns of a thousand rows at a time; any of them can fail on the network."""
    if hub.column in (rows.column_names or ()):
        rows = rows.select_columns([hub.column])
    try:
        with _repository(hub).reached():
            yield from rows.iter(batch_size=_READ_ROWS)
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(f"{hub.id}: cannot be read as a data set: {line(error)}") from error


def _repository(hub: HubCorpus) -> Repository:
    return Repository(kind="dataset", id=hub.id, revision=hub.revision, key="lr_sweep.corpus.hub")
