"""Which time limit has stopped a trial, so that a longer one runs it again and a changed one nothing else.

The limit is no part of a spec: a trial that ends within one gives the same result within another. A trial that was
stopped is the exception. Its limit is noted beside its record, and once today's limit is longer, the spec names the
one that was too short: the record is stale.
"""

import json
from pathlib import Path

from plumbline.core.files import write_text


def stopped_at(record: Path, limit_seconds: float | None) -> float | None:
    """The limit in seconds that an attempt at the trial before its last one met, for its spec today.

    limit_seconds: today's; None for no limit. None for a trial that no limit has stopped, or that today's would too.
    """
    try:
        before, last = json.loads(_path(record).read_text())
    except FileNotFoundError:
        return None
    is_longer = last is not None and (limit_seconds is None or limit_seconds > last)
    return last if is_longer else before


def note(record: Path, before: float | None, last: float | None) -> None:
    """Notes the limits in seconds that earlier attempts met, and that this one met; before its record is written."""
    if before is None and last is None:
        _path(record).unlink(missing_ok=True)
    else:
        write_text(_path(record), json.dumps([before, last]) + "\n")


def _path(record: Path) -> Path:
    return record.with_suffix(".timeout")
