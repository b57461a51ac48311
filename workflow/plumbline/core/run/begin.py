"""What a run does before Snakemake plans its jobs: it locks the results, and renames what Snakemake would miss."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from plumbline.core.plan.provenance import (
    move_stale,
    outputs_without_metadata,
    read_contents,
    readers_of_stale_contents,
)
from plumbline.core.plan.target import Target
from plumbline.core.run import lock


def begin(targets: Sequence[Target], results: Path, metadata: Path, *, touch: bool) -> list[str]:
    """Locks `results` and renames stale outputs that are not in Snakemake's `metadata`; returns a line for each.

    `touch`: the run marks outputs as up to date instead of making them, so that they stay where they are.
    Raises UserError when another run holds the lock.
    """
    lock.hold(results)
    read_contents(targets, results)
    return [] if touch else move_stale(outputs_without_metadata(targets, results, metadata))


def would_begin(targets: Sequence[Target], results: Path, metadata: Path) -> Iterator[str]:
    """What a dry run has to say: the outputs that a run would rename, and what decides about readers of contents."""
    read_contents(targets, results)
    for output, why in outputs_without_metadata(targets, results, metadata).items():
        yield f"{output} will be renamed to .stale and rebuilt (the jobs listed below do not include it): {why}"
    for read, readers in readers_of_stale_contents(targets, results).items():
        yield f"{read} is stale: {readers} finished targets rerun only if its content changes"
