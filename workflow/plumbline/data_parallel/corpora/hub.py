"""Sentence pairs from a data set on the Hugging Face hub, or from a local folder with the same layout."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import datasets

from plumbline.core.errors import UserError, one_line
from plumbline.core.run.hub import Repository
from plumbline.data_parallel.corpora.interface import Pair, Source
from plumbline.data_parallel.settings import CorpusSettings, HubCorpus

FIXES = {
    "scripts are no longer supported": "; set data_parallel.corpus.hub.revision: refs/convert/parquet",
    "Config name is missing": "; set data_parallel.corpus.hub.config",
}
"""By what `datasets` says: what to set."""


def load(settings: CorpusSettings) -> Source:
    """The first rows of each split, as many as `limits` says, streamed; at the commit that `revision` points to now.

    Raises UserError for a data set that cannot be reached or read, and for a row without both languages.
    """
    hub = settings.hub
    repository = Repository(kind="dataset", id=hub.id, revision=hub.revision, key="data_parallel.corpus.hub")
    commit = repository.commit()
    splits = {"train": hub.train_split, "validation": hub.validation_split, "test": hub.test_split}
    limits = settings.limits.model_dump()

    def pairs() -> Iterator[Pair]:
        for split, name in splits.items():
            try:
                with repository.reached():
                    rows = datasets.load_dataset(hub.id, hub.config, revision=commit, split=name, streaming=True)
                    for number, row in enumerate(islice(rows, limits[split])):
                        yield Pair(split, *_sides(row, hub, f"{hub.id} ({name}), row {number}"))
            except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
                fix = next((fix for sign, fix in FIXES.items() if sign in str(error)), "")
                raise UserError(f"{hub.id} ({name}): cannot be read as a data set: {one_line(error)}{fix}") from error

    return Source(described={"kind": "hub", "commit": commit, **hub.model_dump(mode="json")}, pairs=pairs())


def _sides(row: dict[str, Any], hub: HubCorpus, place: str) -> tuple[str, str]:
    """The German and English of a row: of its column `translation`, or of columns of their own. Null is empty."""
    values = row.get("translation", row)
    languages = (hub.source, hub.target)
    if isinstance(values, dict) and all(language in values for language in languages):
        values = {language: "" if values[language] is None else values[language] for language in languages}
    sides: Any = tuple(values.get(language) if isinstance(values, dict) else None for language in languages)
    if not all(isinstance(side, str) for side in sides):
        raise UserError(
            f"{place}: has no text under {hub.source!r} and {hub.target!r}; set the names `source` and `target` in"
            f" data_parallel.corpus to two of {', '.join(sorted(values if isinstance(values, dict) else row))}"
        )
    return sides[0], sides[1]
