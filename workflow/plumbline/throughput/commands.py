"""What the study adds to the command line: `plumbline compare A B`."""

from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from plumbline.core.present.answer import Answer, Row


def compare(first: Path, second: Path, threshold: float | None) -> Answer:
    """Which trials differ between two results folders by more than `threshold`, None: the noise between processes."""
    from plumbline.throughput.analysis import compare as comparing

    comparison = comparing.compare(first, second, comparing.PROCESSES if threshold is None else threshold)
    rows = comparing.differing(comparison)
    lines: list[str | Table] = [
        f"{comparison['first']} → {comparison['second']}",
        *comparing.on_models(comparison),
        *([_table(rows)] if rows else []),
        *comparing.summary_lines(comparison),
    ]
    return Answer(comparison, lines, comparing.exit_status(comparison))


def compare_live(first: Path, second: Path, only: str, seconds: float | None, device: str) -> Answer:
    """How fast the trials of `second` are against those of `first`, both measured now, in turn."""
    from plumbline.throughput.analysis import compare_live as live
    from plumbline.throughput.measurement.settings import ComparisonSettings

    settings = ComparisonSettings() if seconds is None else ComparisonSettings(seconds=seconds)
    comparison = live.compare_live(first, second, only, settings, device)
    lines: list[str | Table] = [
        f"{comparison['first']} → {comparison['second']}, measured now",
        _live_table(comparison["trials"]),
        *live.summary_lines(comparison),
    ]
    return Answer(comparison, lines, live.exit_status(comparison))


def _live_table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("trial", "", "ratio", "95% interval", "A/A", "rounds", ""):
        table.add_column(heading, justify="left" if heading in ("trial", "") else "right", no_wrap=True)
    for row in rows:
        cells = ["–"] * 4
        if "ratio" in row:
            ratio = row["ratio"]
            ends = escape(f"[{ratio['low']:.3f}, {ratio['high']:.3f}]")
            cells = [f"{ratio['value']:.3f}", ends, f"{row['control']['value']:.3f}", str(row["rounds"])]
        table.add_row(row["trial"], row["verdict"], *cells, escape("; ".join(row["notes"])))
    return table


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("trial", "", "ratio", "95% interval", "tokens/s before", "after", ""):
        table.add_column(heading, justify="left" if heading in ("trial", "") else "right", no_wrap=True)
    for row in rows:
        ends = "–" if row["low"] is None else f"[{row['low']:.3f}, {row['high']:.3f}]"
        ratio = "–" if row["ratio"] is None else f"{row['ratio']:.3f}"
        rates = [row[f"{side}_tokens_per_second"] for side in ("first", "second")]
        shown = ["–" if rate is None else f"{rate:,.1f}" for rate in rates]
        table.add_row(row["trial"], row["direction"], ratio, escape(ends), *shown, escape("; ".join(row["notes"])))
    return table


def rows(record: dict[str, Any]) -> list[Row]:
    """What `plumbline show` says of a trial: tokens per second, milliseconds to the first token, 10^6 bytes at most."""
    keys = {name: record.get(name) for name in ("variant", "engine", "batch", "prompt", "generated")}
    latency, memory = record.get("time_to_first_token_seconds"), record.get("peak_bytes")
    found = {
        "tokens_per_second": record.get("tokens_per_second"),
        "first_token_ms": None if latency is None else 1e3 * latency,
        "peak_mb": None if memory is None else memory / 1e6,
    }
    return [Row(keys, found)]
