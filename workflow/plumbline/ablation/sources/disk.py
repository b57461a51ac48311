"""Source `disk`: a data set written by `save_to_disk`, a parquet file, or a folder of parquet files."""

import re
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from plumbline.ablation.data.factor_tables import READ_ROWS, write_store
from plumbline.core.errors import UserError
from plumbline.core.files import is_lfs_pointer, visible_files

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words in names of files or folders → the split they are of, as `datasets` reads them."""
_SAVED = ("dataset_info.json", "dataset_dict.json")


def load(output: Path, *, path: Path | str, split: str | None = None, limit: int | None = None) -> None:
    """Writes the first `limit` adapters (None: all) in `path` to a store at `output`.

    split: the split to read, if `path` was saved with several. Parquet files are read in the order of their names.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"ablation.disk.path: {path} does not exist")
    source = {"kind": "disk", "path": str(path), "split": split, "limit": limit}
    saved = path.is_dir() and any((path / name).is_file() for name in _SAVED)
    try:
        tables, total = _saved(path, split) if saved else _parquet(path, split)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    write_store(output, tables, place=str(path), source=source, limit=limit, total=total)


def _saved(path: Path, split: str | None) -> tuple[Iterable[pa.Table], int]:
    """The tables of a data set written by `save_to_disk`, and the number of rows."""
    import datasets  # slow to import, and not needed for parquet

    try:
        saved = datasets.load_from_disk(str(path))
    except IndexError:  # datasets 5 raises it for a data set without rows, which it saves without files
        raise UserError(f"{path}: holds no adapters") from None
    if isinstance(saved, datasets.DatasetDict):
        if split not in saved:
            raise UserError(f"ablation.disk.split: {path} has {', '.join(saved)}, not {split}; choose one of them")
        saved = saved[split]
    elif split is not None:
        raise UserError(f"ablation.disk.split: {path} holds a single data set without splits; remove the key")
    return saved.with_format("arrow").iter(batch_size=READ_ROWS), len(saved)


def _parquet(path: Path, split: str | None) -> tuple[Iterable[pa.Table], int]:
    """The tables of a parquet file or folder, and the number of rows."""
    files = [file for file in visible_files(path) if file.suffix == ".parquet"] if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: holds neither a data set written by save_to_disk nor parquet files")
    splits: dict[str, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file.relative_to(path) if path.is_dir() else Path(file.name)), []).append(file)
    named = ", ".join(sorted(filter(None, splits))) or "no splits"
    if split is not None and split not in splits:
        raise UserError(f"ablation.disk.split: {path} has {named}, not {split}; choose one of them or remove the key")
    if split is None and len(splits) > 1:
        others = " and files without a split" if "" in splits else ""
        raise UserError(f"{path}: has the splits {named}{others}; choose one with ablation.disk.split")
    chosen = files if split is None else splits[split]
    for file in chosen:
        if is_lfs_pointer(file):
            raise UserError(f"{file}: is a Git LFS pointer, not the file itself; run `git lfs pull` in its repository")
    total = sum(pq.ParquetFile(file).metadata.num_rows for file in chosen)
    return (pa.Table.from_batches([batch]) for file in chosen for batch in _batches(file)), total


def _split_of(file: Path) -> str:
    """The split that a file's name or folder says it is of, by the hub's conventions; empty where it says none."""
    for part in reversed(file.with_suffix("").parts):
        for word in re.split(r"[^a-z]+", part.lower()):
            if word in _SPLITS:
                return _SPLITS[word]
    return ""


def _batches(file: Path) -> Iterable[pa.RecordBatch]:
    # Without pre-buffering, memory holds one batch instead of a row group. More threads were no faster (measured).
    with pq.ParquetFile(file, pre_buffer=False) as opened:
        yield from opened.iter_batches(batch_size=READ_ROWS, use_threads=False)
