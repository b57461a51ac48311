"""One side of `plumbline compare --live`: loads a trial's candidate, then times one call for each line it is sent.

    python -m plumbline.throughput.live_worker FOLDER TRIAL DEVICE

FOLDER holds trials/, models/ and references/. Writes a line of JSON when it is ready, {"error": null} or what is wrong,
and then the seconds of a call for each line on its standard input. Runs the code of its own worktree, which the parent
puts on PYTHONPATH.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

from plumbline.core.errors import UserError, one_line
from plumbline.core.measure.priority import take_priority
from plumbline.core.run.device import memory_errors, torch_device
from plumbline.core.run.record import OutcomeError
from plumbline.core.settings import validated
from plumbline.throughput.grid import Cell
from plumbline.throughput.measurement.entry import Entry
from plumbline.throughput.measurement.interleaved import Loaded, Request, WrongTokensError
from plumbline.throughput.measurement.settings import AutotuneSettings, ComparisonSettings, TrialTiming
from plumbline.throughput.models.manifest import Manifest, read_manifest
from plumbline.throughput.record import TrialRecord


def candidate(folder: Path, trial: str, device: str) -> Loaded:
    """The candidate of a trial, warmed up. Raises OutcomeError, UserError or MemoryError when it cannot run."""
    path = folder / "trials" / f"{trial}.json"
    record = TrialRecord.read(path)
    manifest = _manifest(folder, record)
    if record.engine_config is None:
        raise UserError(f"compare: {path} has no engine_config; run the trial again")
    entry = Entry(
        name=trial,
        cell=Cell(**{name: record.spec["cell"][name] for name in Cell._fields}),
        config=record.engine_config,
        manifest=manifest,
        reference=folder / "references" / f"{record.variant}.safetensors",
    )
    request = Request(
        entries=[entry],
        comparison=ComparisonSettings(),
        timing=validated(TrialTiming, record.spec["timing"], f"{path}: timing"),
        tie_margin=validated(AutotuneSettings, record.spec["autotune"], f"{path}: autotune").tie_margin,
        seed=record.spec["seed"],
        process=0,
        text=folder / "models" / "base" / "text.safetensors",
        device=device,
        reload=False,
    )
    with memory_errors():
        return Loaded(entry, request, torch_device(device))


def _manifest(study: Path, record: TrialRecord) -> Manifest:
    """Of the variant, in the engine's format where it has one."""
    of_engine = study / "models" / f"{record.variant}+{record.engine}"
    manifest = read_manifest((of_engine if of_engine.is_dir() else study / "models" / record.variant) / "manifest.json")
    changes: dict[str, Any] = {"folder": _within(study.parent, manifest.folder)}
    if manifest.converted is not None:
        changes["converted"] = manifest.converted.model_copy(update={"folder": str(of_engine)})
    return manifest.model_copy(update=changes)


def _within(results: Path, folder: str) -> str:
    """`folder`, which was relative to where Snakemake ran, in this copy of the results if it has it."""
    parts = Path(folder).parts
    copies = (results / Path(*parts[first:]) for first in range(len(parts) - 1))
    return next((str(copy) for copy in copies if (copy / "config.json").exists()), folder)


def answer(loaded: Loaded, replies: TextIO) -> None:
    """Times a call for each line on the standard input, until it is closed."""
    for _ in sys.stdin:
        try:
            reply: dict[str, Any] = {"seconds": loaded.seconds()}
        except WrongTokensError as error:
            reply = {"error": error.args[1]}
        print(json.dumps(reply), file=replies, flush=True)


def main() -> None:
    """Serves until the standard input is closed."""
    take_priority()  # before there are threads, which have it then
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    folder, trial, device = sys.argv[1:]
    try:
        loaded = candidate(Path(folder), trial, device)
    except (OutcomeError, UserError, MemoryError) as error:
        print(json.dumps({"error": one_line(error)}), file=replies, flush=True)
        return
    print(json.dumps({"error": None}), file=replies, flush=True)
    answer(loaded, replies)


if __name__ == "__main__":
    main()
