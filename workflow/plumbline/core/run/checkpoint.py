"""The state of a long stage on disk, so that a killed one resumes where it was.

Torch, which takes more than a second to import, is imported where a state is written or read: a stage that starts
others only names their checkpoint.
"""

import io
import json
import logging
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plumbline.core.errors import UserError
from plumbline.core.files import write_bytes
from plumbline.core.plan.target import differences, digest

if TYPE_CHECKING:
    import torch

log = logging.getLogger("plumbline")


def checkpoint_path(output: Path, identity: str) -> Path:
    """Where the stage that makes `output` from the spec `identity` keeps its checkpoint: hidden, beside the output."""
    return output.with_name(f".{output.stem}.{digest(identity)}.checkpoint")


def save_checkpoint(path: Path, identity: str, state: dict[str, Any]) -> None:
    """Writes `state`, which belongs to `identity`, to `path`, whole or not at all.

    Raises UserError when the disk is full; the checkpoint that was there before then stays.
    """
    import torch

    held = io.BytesIO()  # torch's own writer turns a full disk into an error that does not say so
    torch.save({"identity": identity, **state}, held)
    write_bytes(path, held.getbuffer())


def load_checkpoint(path: Path, identity: str, device: "torch.device | str" = "cpu") -> dict[str, Any] | None:
    """The state at `path`; None when there is none, or one of another identity, which the log says.

    Raises UserError when the file is not a checkpoint.
    """
    import torch

    if not path.exists():
        for other in path.parent.glob(f"{path.name.rpartition('.')[0].rpartition('.')[0]}.*.checkpoint"):
            log.info("%s belongs to another spec: starting from the beginning", other)
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
        found = state.pop("identity")
    except (RuntimeError, EOFError, OSError, LookupError, AttributeError, TypeError, pickle.UnpicklingError) as error:
        # not torch's own words: they advise reading the file unsafely
        raise UserError(
            f"{path}: is not a checkpoint ({type(error).__name__}); delete it to start from the beginning"
        ) from error
    if found != identity:
        log.warning("%s belongs to another spec%s: starting from the beginning", path, _where(found, identity))
        return None
    return state


def remove_checkpoints(output: Path) -> None:
    """Removes the checkpoints of a stage that has its output, those of earlier specs among them."""
    for path in output.parent.glob(f".{output.stem}.*.checkpoint"):
        path.unlink()


def _where(found: str, identity: str) -> str:
    """Where two specs differ, in brackets; nothing for identities that are not JSON."""
    try:
        return f" ({'; '.join(differences(json.loads(found), json.loads(identity)))})"
    except json.JSONDecodeError:
        return ""
