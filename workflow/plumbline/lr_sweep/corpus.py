"""Stage `lr_sweep.corpus`: the text as documents, split into training and validation."""

import platform
from contextlib import nullcontext
from pathlib import Path

from plumbline.core.errors import UserError
from plumbline.core.files import atomic, sha256_of_files, write_json
from plumbline.core.plan.target import Spec
from plumbline.core.run.progress import Progress
from plumbline.core.run.stage import stage
from plumbline.core.text.documents import FILE, DocumentWriter, hash_fraction, is_held_out, move
from plumbline.lr_sweep.corpora.interface import PYTHON_RELEASE, Source, source
from plumbline.lr_sweep.settings import CorpusSettings


class CorpusSpec(Spec):
    """What decides the corpus."""

    corpus: CorpusSettings
    fingerprint: list[str]
    """Fingerprints of the user's files or folder; empty when there are none."""
    python: str | None
    """For the source `pydoc`, the Python release whose documentation is read, e.g. 3.11; otherwise None."""


@stage
def corpus(spec: CorpusSpec, output: Path) -> None:
    """Writes the documents and manifest.json, with counts, source and digest, to the folder of `output`.

    Documents without text are skipped and counted. When the documents are split here, by hash, each side gets at least
    one of two or more. Raises UserError when there is no document.
    """
    if spec.python not in (None, PYTHON_RELEASE):
        raise UserError(
            f"lr_sweep.corpus: Snakemake runs on Python {spec.python} but this job on {PYTHON_RELEASE}, whose"
            " documentation differs; use the same Python for both, or set lr_sweep.corpus.source to files or hub"
        )
    opened = source(spec.corpus)
    with atomic(output.parent) as folder:
        folder.mkdir()
        with DocumentWriter(folder) as writer:
            blank, extremes = _write(opened, spec.corpus, writer)
        if not sum(writer.documents.values()):
            limit = spec.corpus.limit_bytes
            fix = f" within lr_sweep.corpus.limit_bytes ({limit}); raise it" if limit else "; use another source"
            raise UserError(f"lr_sweep.corpus: the source {spec.corpus.source} has no document{fix}")
        _fill_empty_side(folder, writer, extremes)
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
    """Writes the source's documents; returns the number of blank ones, which are skipped.

    Also returns (hash fraction, number) of the documents with the smallest and the largest hash, among those that are
    split here.
    """
    limits = [size for size in (opened.expected_bytes, settings.limit_bytes) if size]
    blank = number = 0
    extremes: list[tuple[float, int]] = []
    with Progress(min(limits), "bytes") if limits else nullcontext() as progress:
        for name, text, held_out in opened.documents:
            if not text.strip():
                blank += 1
                continue
            if held_out is None:
                ordered = sorted({*extremes, (hash_fraction(text), number)})
                extremes = [ordered[0], ordered[-1]]
                held_out = is_held_out(text, settings.validation_share)
            number += 1
            size = writer.write(name, text, held_out)
            if progress:
                progress.advance(size)
        if progress:
            progress.total = progress.done  # the total was an estimate
    return blank, extremes


def _fill_empty_side(folder: Path, writer: DocumentWriter, extremes: list[tuple[float, int]]) -> None:
    """If chance left one side without a document, moves the one with the closest hash to it."""
    if sum(writer.documents.values()) < 2 or not extremes:
        return
    for side, other, (_, number) in (("validation", "training", extremes[0]), ("training", "validation", extremes[-1])):
        if not writer.documents[side]:
            size = move(folder, number, validation=side == "validation")
            for counts, moved in ((writer.documents, 1), (writer.bytes, size)):
                counts[side] += moved
                counts[other] -= moved


if __name__ == "__main__":
    corpus.main()
