"""Stage `throughput.summarize`: the records of all trials as tidy tables, JSON lines and findings."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from plumbline.core.files import write_text
from plumbline.core.plan.target import MergeSpec
from plumbline.core.present.formatting import MISSING, with_interval
from plumbline.core.present.tables import write_csv, write_latex
from plumbline.core.run.records import check_specs, machine_note, machines, write_results
from plumbline.core.run.stage import stage
from plumbline.throughput.analysis.evaluation import evaluation_lines
from plumbline.throughput.analysis.findings import findings
from plumbline.throughput.analysis.formatting import excess_text, rate_text, ratio_text, share_text
from plumbline.throughput.analysis.frames import (
    main_cell,
    statistics_frame,
    trials_frame,
    variants_frame,
)
from plumbline.throughput.analysis.records import (
    cell_text,
    read_comparisons,
    read_manifests,
    read_max_batches,
    read_trials,
)
from plumbline.throughput.analysis.speedups import speedups_frame
from plumbline.throughput.settings import BASE


class SummarizeSpec(MergeSpec):
    """What decides the summary: its code and the specs of the trials, comparisons, variants and largest batches."""


@stage
def summarize(
    spec: SummarizeSpec,
    manifests: list[Path],
    trials: list[Path],
    comparisons: list[Path],
    max_batch: list[Path],
    output: Path,
) -> None:
    """Merges the records into `output` and writes everything computed from them beside it.

    evaluation_results.jsonl has a line per trial; summary.csv a row per trial with intervals; summary_statistics.csv a
    row per variant and engine; speedups.csv a row per compared candidate; tables/ LaTeX for papers; results.json the
    analysis and all records; throughput_analysis.md the findings. Raises UserError when a record cannot be read or does
    not belong to the others.
    """
    records, variants, max_batches = read_trials(trials), read_manifests(manifests), read_max_batches(max_batch)
    compared = read_comparisons(comparisons)
    check_specs([*records, *compared, *max_batches], spec.records)
    summary, speedups = trials_frame(records, variants), speedups_frame(compared)
    by_variant = variants_frame(variants, summary, speedups)
    lines = [json.dumps(line, ensure_ascii=False, allow_nan=False) for line in evaluation_lines(records, variants)]
    write_text(output.parent / "evaluation_results.jsonl", "".join(f"{line}\n" for line in lines))
    write_csv(summary, output.parent / "summary.csv")
    write_csv(statistics_frame(summary, speedups), output.parent / "summary_statistics.csv")
    write_csv(speedups, output.parent / "speedups.csv")
    note, place = machine_note(machines([*records, *compared])), main_cell(summary, speedups)
    _write_tables(summary, by_variant, place, note, output.parent / "tables")
    write_results(
        output,
        records,
        analysis={"main_cell": place, "speedups": _rows(speedups), "variants": _rows(by_variant)},
        manifests=[manifest.model_dump(mode="json") for manifest in variants],
        comparisons=[record.to_json() for record in compared],
        max_batch=[record.to_json() for record in max_batches],
    )
    text = findings(summary, by_variant, speedups, records, compared, max_batches, variants)
    write_text(output.parent / "throughput_analysis.md", text)


def throughput_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Every trial with its speed, time to the first token, peak memory and share of the ceiling, or its outcome."""
    rows = []
    for _, row in summary.iterrows():
        ok = row["outcome"] == "ok"
        cells = {"Variant": row["variant"], "Engine": row["engine"]}
        cells |= {"Batch": str(row["batch"]), "Prompt": str(row["prompt"]), "Generated": str(row["generated"])}
        cells["Dtype"] = row["dtype"] if ok else MISSING
        cells["Tokens/s"] = rate_text(row) if ok else str(row["outcome"]).replace("_", " ")
        cells["First token (ms)"] = _text(1e3 * row["time_to_first_token_seconds"], "{:,.2f}")
        cells["Peak (MB)"] = _text(row["peak_bytes"] / 1e6, "{:,.0f}")
        share = (100 * row[f"ceiling_share{end}"] for end in ("", "_low", "_high"))
        cells["Of ceiling (%)"] = with_interval(*share)
        rows.append(cells)
    return pd.DataFrame(rows)


def variants_table(by_variant: pd.DataFrame) -> pd.DataFrame:
    """Every variant with its size, its perplexity, and its speed relative to the base."""
    rows = []
    for _, row in by_variant.iterrows():
        cells = {"Variant": row["variant"], "Method": row["method"], "Ratio": _ratio(row)}
        cells["Parameters"] = MISSING if pd.isna(row["parameters"]) else f"{row['parameters']:,}"
        good = row["outcome"] == "ok"
        cells["Perplexity"] = _text(row["perplexity"], "{:,.2f}") if good else str(row["outcome"]).replace("_", " ")
        cells["Loss above base (nats)"] = excess_text(row) if good and row["variant"] != BASE else MISSING
        cells["Tokens/s"] = rate_text(row)
        cells["Relative to base"] = _relative(row)
        rows.append(cells)
    return pd.DataFrame(rows)


def _write_tables(
    summary: pd.DataFrame, by_variant: pd.DataFrame, place: dict[str, Any], note: str, folder: Path
) -> None:
    caption = (
        "All trials: tokens per second with the bootstrap 95% interval over the batches of the trial's process, time "
        "until all rows have their first token, peak memory in 10^6 bytes, and share of the ceiling set by the "
        f"machine's measured limits, with the interval over decode steps. {note}"
    )
    write_latex(
        throughput_table(summary),
        folder / "throughput.tex",
        caption=caption.strip(),
        label="tab:throughput-trials",
        group_by="Variant",
    )
    tokens = by_variant["evaluation_tokens"].dropna()
    over = f"on {tokens.max():,} tokens of held-out text" if len(tokens) else "without held-out text"
    caption = (
        "Variants. Ratio: share of each linear layer's parameters kept, or of all matrices in the decoder blocks where "
        f"that differs. Perplexity {over}, the same for all variants; "
        "loss above the base in nats per token, paired over its windows, with the bootstrap 95% interval. "
        f"Tokens per second at {cell_text(place)} with engine {place['engine']}, with the bootstrap 95% interval over "
        "the batches of the process; processes ran one after another, so only the next column compares. Relative to "
        "base: all variants interleaved there, with the 95% interval "
        f"over rounds and processes; A/A is the base against itself. {note}"
    )
    write_latex(
        variants_table(by_variant), folder / "variants.tex", caption=caption.strip(), label="tab:throughput-variants"
    )


def _relative(row: pd.Series) -> str:
    """`0.92 [0.90, 0.94] slower`; of the base, `1.00 [0.99, 1.01] A/A`."""
    if not pd.isna(row["speedup"]):
        return f"{ratio_text(row, 'speedup')} {row['speedup_verdict']}"
    if row["variant"] == BASE and not pd.isna(row["speedup_control"]):
        return f"{ratio_text(row, 'speedup_control')} A/A"
    return MISSING


def _ratio(row: pd.Series) -> str:
    if math.isnan(row["ratio"]):
        return MISSING
    return share_text(row["ratio"], row["reached"]) + (
        " (by name)" if row["method"] == "user" and math.isnan(row["reached"]) else ""
    )


def _text(value: float, form: str) -> str:
    return MISSING if math.isnan(value) else form.format(value)


def _rows(frame: pd.DataFrame) -> Any:
    """A frame as JSON: an object per row, null for what is missing."""
    return json.loads(frame.to_json(orient="records", double_precision=15))


if __name__ == "__main__":
    summarize.main()
