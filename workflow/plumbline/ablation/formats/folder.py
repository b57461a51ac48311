"""A folder of adapters: every class and every file that may be an adapter, read or accounted for.

`<class>/<adapter>.safetensors`, or `<class>/<adapter>/` with one file somewhere in it, or with the checkpoints of one
run. What a file manager hides is left out (see `core.files.visible_files`); links are followed.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from plumbline.ablation.data.layers import natural_order
from plumbline.ablation.formats.config import FILE
from plumbline.ablation.formats.tensors import CONVERT, PICKLES
from plumbline.core.errors import UserError
from plumbline.core.files import is_hidden, visible_files

READ = (".safetensors", ".sft")
LAST = "last"
CHECKPOINT = "ablation.adapters.checkpoint"
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
_STATE = re.compile(r"(optimizer|scheduler|scaler|sampler|training_args|random_states|rng_state|pytorch_model_fsdp).*")
"""Names of what trainers keep beside the weights, to resume."""
_NUMBERED = re.compile(r"(?P<name>.+)-(\d{6,8}|step\d+|epoch\d+)(?P<suffix>\.[^.]+)")
"""Names of a run's checkpoints beside its final weights, as kohya's trainer gives them."""
NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """What may be an adapter. name: its path in the folder; label: its class; fault: why it cannot be read."""

    name: str
    label: str
    file: Path
    fault: str = ""


def is_read(file: Path) -> bool:
    return file.suffix.lower() in READ


def is_pickle(file: Path) -> bool:
    return file.suffix.lower() in PICKLES and not _STATE.match(file.name)


def candidates(root: Path, checkpoint: str | None = None) -> list[Candidate]:
    """What may be an adapter under `root`, in the order of their names; their class is the top-level folder.

    checkpoint: which one to take where a folder holds the checkpoints of one run: `last`, or its name. Raises UserError
    for a folder that is not laid out by class.
    """
    everything = visible_files(root)
    stems = {file.with_suffix("") for file in everything if is_read(file)}
    files = [file for file in everything if is_read(file) or (is_pickle(file) and file.with_suffix("") not in stems)]
    configured = {file.parent for file in everything if file.name == FILE}
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not is_hidden(entry.name))
    _check_layout(root, folders, files)
    units: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for file in files:
        units[_unit(file.relative_to(root).parts[:2], stems, root)].append(file)
    for folder in configured:
        parts = folder.relative_to(root).parts
        if len(parts) == 2:
            units[parts].append(folder / FILE)
    found = [_candidate(root, parts, units[parts], checkpoint) for parts in sorted(units)]
    labels = {candidate.label for candidate in found}
    empty = [
        Candidate(name=name, label=name, file=root / name, fault="is a class folder without any adapter")
        for name in folders
        if name not in labels
    ]
    return _once(found, root) + empty


def _check_layout(root: Path, folders: Sequence[str], files: Sequence[Path]) -> None:
    if loose := [file for file in files if file.parent == root]:
        raise UserError(
            f"{loose[0]}: has no class; move it to <class>/<adapter>.safetensors or <class>/<adapter>/, or use a CSV"
        )
    if {"blobs", "snapshots"} <= set(folders):
        raise UserError(f"{root}: is a hub cache; point ablation.adapters.path at a folder in {root / 'snapshots'}")
    if len(folders) > 1 and {name.lower() for name in folders} <= _SPLITS:
        raise UserError(
            f"{root}: its folders {', '.join(folders)} look like splits, not classes; point ablation.adapters.path at"
            " one of them, or label the adapters by a CSV"
        )
    if not any(map(is_read, files)):
        pickles = f", but {len(files)} like {files[0].name}, which {CONVERT}" if files else ""
        raise UserError(f"{root}: holds no .safetensors files{pickles}")


def listed(root: Path, name: str) -> Path | None:
    """The adapter that a CSV calls `name`: a file, or a folder with one; None where there is none.

    The name may be written with another normal form of its accents, or with Windows' backslashes.
    """
    for form in (name, name.replace("\\", "/")):
        for spelled in (form, *(unicodedata.normalize(kind, form) for kind in ("NFC", "NFD"))):
            path = root / spelled
            if path.is_file() or path.is_symlink():
                return path
            if path.is_dir():
                files = [file for file in visible_files(path) if is_read(file)]
                return files[0] if len(files) == 1 else None
    return None


def _once(found: Sequence[Candidate], root: Path) -> list[Candidate]:
    """`found`, in which a file that links give two names is an adapter under the first alone."""
    names: dict[Path, str] = {}
    kept = []
    for one in found:
        if not one.fault and (first := names.setdefault(one.file.resolve(), one.name)) != one.name:
            one = replace(one, fault=f"is the same file as {root / first}, by a link; remove one of the two")
        kept.append(one)
    return kept


def _unit(parts: tuple[str, ...], stems: Container[Path], root: Path) -> tuple[str, ...]:
    """What a file belongs to: its class and its folder; for kohya's `<name>-000002` the file `<name>` beside it."""
    label, name = parts
    if (found := _NUMBERED.fullmatch(name)) and root / label / found["name"] in stems:
        return label, f"{found['name']}{found['suffix']}"
    return parts


def _candidate(root: Path, parts: tuple[str, ...], files: Sequence[Path], checkpoint: str | None) -> Candidate:
    name, readable = "/".join(parts), [file for file in files if is_read(file)]
    place = {"name": name, "label": parts[0]}
    if len(readable) == 1 and (checkpoint in (None, LAST) or readable[0].parent == root / parts[0]):
        return Candidate(**place, file=readable[0], fault=broken_link(readable[0]))
    if not readable:
        pickles = [file for file in files if is_pickle(file)]
        fault = CONVERT if pickles else f"has {FILE}, but no weights in a .safetensors file"
        return Candidate(**place, file=(pickles or files)[0], fault=fault)
    named = {_shown(root / parts[0], file): file for file in readable}
    named = {shown: named[shown] for shown in sorted(named, key=natural_order)}
    if checkpoint is None:
        return Candidate(**place, file=root / name, fault=_several(named))
    chosen = _chosen(named, checkpoint)
    if chosen is None:
        fault = f"has no checkpoint that is {checkpoint}; choose one of {_some(list(named))}"
        return Candidate(**place, file=root / name, fault=fault)
    return Candidate(**place, file=chosen, fault=broken_link(chosen))


def _chosen(named: Mapping[str, Path], checkpoint: str) -> Path | None:
    """The checkpoint of that name, or the last one; None if there is none or the last one cannot be determined."""
    if checkpoint != LAST:
        return next((file for name, file in named.items() if checkpoint in (name, Path(name).name)), None)
    depth = min(len(file.parts) for file in named.values())
    outer = [name for name, file in named.items() if len(file.parts) == depth]
    # The final weights: above the checkpoints' folders, or with a name that theirs continue.
    for name in outer if len(outer) == 1 and len(named) > 1 else named:
        if len(outer) == 1 or all(other.startswith(name) for other in named):
            return named[name]
    numbered = {name: re.findall(r"\d+", name) for name in named}
    is_run = len({re.sub(r"\d+", "", name) for name in named}) == 1 and all(numbered.values())
    return named[max(named, key=natural_order)] if is_run else None


def _several(named: Mapping[str, Path]) -> str:
    return (
        f"holds {len(named)} .safetensors files ({_some(list(named))}). If they are checkpoints of one run, choose one"
        f" with {CHECKPOINT}: {LAST}, or its name; if they are adapters, move each to <class>/ or use a CSV"
    )


def _shown(folder: Path, file: Path) -> str:
    """What distinguishes a run's file from the others: its inner folder below that of its class, or its own name."""
    inner = file.relative_to(folder).parts[1:-1]
    return "/".join(inner) or file.stem


def broken_link(file: Path) -> str:
    """What is wrong with a link to nothing; empty for other files."""
    if file.exists():
        return ""
    return f"is a link to {file.readlink()}, which does not exist; download that file or remove the link"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
