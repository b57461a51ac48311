"""Stage `data_parallel.corpus`: German–English sentence pairs, split into train, validation and test."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, sha256_of_files, write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.stage import stage
from plumbline.data_parallel.corpora.interface import source
from plumbline.data_parallel.settings import CorpusSettings

SCHEMA = pa.schema([("split", pa.string()), ("source", pa.string()), ("target", pa.string())])


class CorpusSpec(Spec):
    """What decides the corpus."""

    corpus: CorpusSettings
    fingerprint: list[str]
    """Fingerprints of the user's files or folder, or of the generated corpus's words."""


@stage
def corpus(spec: CorpusSpec, output: Path) -> None:
    """Writes the pairs to pairs.parquet and manifest.json, with counts, source and digest, to the folder of `output`.

    Pairs with an empty side are left out and counted. Raises UserError when a split is empty.
    """
    opened = source(spec.corpus)
    rows, empty = [], 0
    for pair in opened.pairs:
        stripped = (pair.split, pair.source.strip(), pair.target.strip())
        if all(stripped):
            rows.append(stripped)
        else:
            empty += 1
    counts = Counter(split for split, _, _ in rows)
    for split in ("train", "validation", "test"):
        if not counts[split]:
            raise UserError(f"data_parallel.corpus: the source {spec.corpus.source} has no pair for the split {split}")
    with atomic(output.parent) as folder:
        folder.mkdir()
        columns = [pa.array(values) for values in zip(*rows, strict=True)]
        pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), folder / "pairs.parquet", compression="zstd")
        manifest = {
            "pairs": dict(counts),
            "pairs_with_an_empty_side": empty,
            "content_sha256": sha256_of_files([folder / "pairs.parquet"]),
            "source": opened.described,
        }
        write_json(folder / "manifest.json", manifest)


if __name__ == "__main__":
    corpus.main()
