"""Stage `lr_sweep.corpus`: the text of the chosen source as documents, some kept for validation."""

import platform
from contextlib import nullcontext
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, sha256_of_files, write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.progress import Progress
from plumbline.core.run.stage import stage
from plumbline.core.text.documents import FILE, DocumentWriter, is_held_out, move, place
from plumbline.lr_sweep.corpora.interface import PYTHON_RELEASE, Source, source
from plumbline.lr_sweep.settings import CorpusSettings


class CorpusSpec(Spec):
    """What decides the corpus."""

    corpus: CorpusSettings
    fingerprint: list[str]
    """Of the user's files or folder, where there are some."""
    python: str | None
    """The release whose documentation is read, 3.11, for the source `pydoc`; its patch stands in the manifest."""


@stage
def corpus(spec: CorpusSpec, output: Path) -> None:
    """Writes the documents, and beside them manifest.json with counts, source and digest, to the folder of `output`.

    Documents without text are left out, and counted. Of two documents and more that are split here, by hash, each side
    has at least one. Raises UserError when no document is left.
    """
    if spec.python not in (None, PYTHON_RELEASE):
        raise UserError(
            f"lr_sweep.corpus: Snakemake runs on Python {spec.python} and this job on {PYTHON_RELEASE}, whose manual"
            " differs; run both on the same, or set lr_sweep.corpus.source to files or hub"
        )
    opened = source(spec.corpus)
    with atomic(output.parent) as folder:
        folder.mkdir()
        with DocumentWriter(folder) as writer:
            blank, ends = _write(opened, spec.corpus, writer)
        if not sum(writer.documents.values()):
            limit = spec.corpus.limit_bytes
            within = f" within lr_sweep.corpus.limit_bytes ({limit}); raise it" if limit else "; name another"
            raise UserError(f"lr_sweep.corpus: the source {spec.corpus.source} holds no document{within}")
        _fill_both_sides(folder, writer, ends)
        manifest = {
            "documents": sum(writer.documents.values()),
            "validation_documents": writer.documents["validation"],
            "blank_documents": blank,
            "bytes": sum(writer.bytes.values()),
            "validation_bytes": writer.bytes["validation"],
            "sha256": writer.sha256,
            "content_sha256": sha256_of_files([folder / FILE]),
            "source": opened.described,
            "python": platform.python_version() if spec.python else None,
        }
        write_json(folder / "manifest.json", manifest)


def _write(opened: Source, settings: CorpusSettings, writer: DocumentWriter) -> tuple[int, list[tuple[float, int]]]:
    """Writes the source's documents; returns how many were left out for want of text.

    And of those split here, place by hash and number of the first and the last in the order of their places.
    """
    limits = [size for size in (opened.expected_bytes, settings.limit_bytes) if size]
    blank = number = 0
    ends: list[tuple[float, int]] = []
    with Progress(min(limits), "bytes") if limits else nullcontext() as progress:
        for name, text, own in opened.documents:
            if not text.strip():
                blank += 1
                continue
            if own is None:
                ends = sorted({*ends, (place(text), number)})
                ends = [ends[0], ends[-1]]
            number += 1
            size = writer.write(name, text, is_held_out(text, settings.validation_share) if own is None else own)
            if progress:
                progress.advance(size)
        if progress:
            progress.total = progress.done  # until here it was an estimate
    return blank, ends


def _fill_both_sides(folder: Path, writer: DocumentWriter, ends: list[tuple[float, int]]) -> None:
    """Where chance left a side without a document, it gets the one that is nearest to it by hash."""
    if sum(writer.documents.values()) < 2 or not ends:
        return
    for side, other, (_, number) in (("validation", "training", ends[0]), ("training", "validation", ends[-1])):
        if not writer.documents[side]:
            size = move(folder, number, validation=side == "validation")
            for counts, moved in ((writer.documents, 1), (writer.bytes, size)):
                counts[side] += moved
                counts[other] -= moved


if __name__ == "__main__":
    corpus.main()
