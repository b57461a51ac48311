"""The state of a trial on disk, so that a killed one goes on where it was."""

import io
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from plumbline.core.errors import UserError
from plumbline.core.files import atomic
from plumbline.core.plan.target import differences, digest

log = logging.getLogger("plumbline")


def checkpoint_path(record: Path, identity: str) -> Path:
    """Where the trial with this record and this spec keeps its checkpoint."""
    return record.with_name(f".{record.stem}.{digest(identity)}.checkpoint")


def save(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Writes `state`, of the spec `identity`, to `path`, whole or not at all.

    Raises UserError when the disk is full; the checkpoint that was there before then stays.
    """
    held = io.BytesIO()  # torch's own writer turns a full disk into an error that does not say so
    torch.save({"spec": identity, **state}, held)
    with atomic(path) as partial:
        partial.write_bytes(held.getbuffer())


def load(path: Path, identity: str, device: torch.device) -> dict[str, Any] | None:
    """The state at `path`, None when there is none.

    Raises UserError when the file is not a checkpoint, or one of another spec, and says where the specs differ.
    """
    if not path.exists():
        for other in path.parent.glob(".*.checkpoint"):
            log.info("%s: of another spec; the trial starts from the beginning", other)
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        found = state.pop("spec")
    except (RuntimeError, EOFError, OSError, LookupError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        # not torch's own words: they tell to read the file unsafely
        what = type(error).__name__
        raise UserError(
            f"{path}: is not a checkpoint ({what}); delete it to start the trial from the beginning"
        ) from error
    if found != identity:
        where = "; ".join(differences(json.loads(found), json.loads(identity)))
        raise UserError(
            f"{path}: a checkpoint of another spec ({where}); delete it to start the trial from the beginning"
        )
    log.info("%s: goes on after step %d", path, state["step"])
    return state


def remove_all(record: Path) -> None:
    """Removes the checkpoints of a trial that has its record, those of earlier specs among them."""
    for path in record.parent.glob(f".{record.stem}.*.checkpoint"):
        path.unlink()
