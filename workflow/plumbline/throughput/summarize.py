"""Stage `throughput.summarize`: the records of all trials as tidy tables, lines of JSON, and sentences."""

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from plumbline.core.files import write_text
from plumbline.core.plan.target import MergeSpec
from plumbline.core.present.formatting import MISSING, with_interval
from plumbline.core.present.tables import write_csv, write_latex
from plumbline.core.run.record import SCHEMA
from plumbline.core.run.records import check_specs
from plumbline.core.run.stage import stage
from plumbline.throughput.analysis.evaluation import evaluation_lines
from plumbline.throughput.analysis.findings import findings
from plumbline.throughput.analysis.formatting import rate_text, ratio_text
from plumbline.throughput.analysis.frames import (
    contrasts_frame,
    main_cell,
    statistics_frame,
    trials_frame,
    variants_frame,
)
from plumbline.throughput.analysis.records import cell_text, machine_note, read_manifests, read_others, read_records

DISTURBED_MARK = " (!)"


class SummarizeSpec(MergeSpec):
    """What decides the summary: its code and the specs of the trials, variants and largest batches."""


@stage
def summarize(
    spec: SummarizeSpec, manifests: list[Path], trials: list[Path], max_batch: list[Path], output: Path
) -> None:
    """Merges the records into `output` and writes everything computed from them beside it.

    evaluation_results.jsonl has a line per trial; summary.csv a row per trial with intervals;
    summary_statistics.csv a row per variant and engine; tables/ what goes into papers; results.json the analysis and
    all records; throughput_analysis.md the study's answers. Raises UserError when a record cannot be read or does not
    belong to the others.
    """
    records, variants, largest = read_records(trials), read_manifests(manifests), read_others(max_batch)
    check_specs([*records, *largest], spec.records)
    summary = trials_frame(records, variants)
    by_variant = variants_frame(variants, records, summary)
    contrasts = contrasts_frame(records)
    lines = [json.dumps(line, ensure_ascii=False, allow_nan=False) for line in evaluation_lines(records, variants)]
    write_text(output.parent / "evaluation_results.jsonl", "".join(f"{line}\n" for line in lines))
    write_csv(summary, output.parent / "summary.csv")
    write_csv(statistics_frame(records, summary), output.parent / "summary_statistics.csv")
    note, place = machine_note(records), main_cell(summary)
    _write_tables(summary, by_variant, place, note, output.parent / "tables")
    analysis = {"main_cell": place, "contrasts": _rows(contrasts), "variants": _rows(by_variant)}
    merged = {"schema": SCHEMA, "study": "throughput", "analysis": analysis}
    merged |= {"manifests": [manifest.model_dump(mode="json") for manifest in variants]}
    merged |= {"trials": records, "max_batch": largest}
    text = json.dumps(merged, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_text(output, text + "\n")
    write_text(output.parent / "throughput_analysis.md", findings(summary, by_variant, contrasts, records, largest))


def throughput_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Every trial with its speed, time per token, peak memory and share of the ceiling, or what it found instead."""
    rows = []
    for _, row in summary.iterrows():
        ok = row["outcome"] == "ok"
        cells = {"Variant": row["variant"], "Engine": row["engine"]}
        cells |= {"Batch": str(row["batch"]), "Prompt": str(row["prompt"]), "Generated": str(row["generated"])}
        cells["Dtype"] = row["dtype"] if ok else MISSING
        mark = DISTURBED_MARK if row["disturbed"] else ""
        cells["Tokens/s"] = rate_text(row) + mark if ok else str(row["outcome"]).replace("_", " ")
        cells["First token (ms)"] = _figure(1e3 * row["time_to_first_token_seconds"], "{:,.2f}")
        cells["Peak (MB)"] = _figure(row["peak_bytes"] / 1e6, "{:,.0f}")
        share = (100 * row[f"ceiling_share{end}"] for end in ("", "_low", "_high"))
        cells["Of ceiling (%)"] = with_interval(*share)
        rows.append(cells)
    return pd.DataFrame(rows)


def variants_table(by_variant: pd.DataFrame) -> pd.DataFrame:
    """Every variant with its size, its perplexity, and its speed against the base's."""
    rows = []
    for _, row in by_variant.iterrows():
        cells = {"Variant": row["variant"], "Method": row["method"], "Ratio": _figure(row["ratio"], "{:.3g}")}
        if row["method"] == "own" and not math.isnan(row["ratio"]):
            cells["Ratio"] += " (as named)"
        cells["Parameters"] = MISSING if pd.isna(row["parameters"]) else f"{row['parameters']:,}"
        good = row["outcome"] == "ok"
        cells["Perplexity"] = _figure(row["perplexity"], "{:,.2f}") if good else str(row["outcome"]).replace("_", " ")
        cells["Tokens/s"] = rate_text(row)
        mark = DISTURBED_MARK if row["disturbed"] else ""
        cells["Of the base's"] = MISSING if math.isnan(row["speedup"]) else ratio_text(row, "speedup") + mark
        rows.append(cells)
    return pd.DataFrame(rows)


def _write_tables(
    summary: pd.DataFrame, by_variant: pd.DataFrame, place: dict[str, Any], note: str, folder: Path
) -> None:
    caption = (
        "Every trial: tokens per second with the bootstrap 95% interval over the batches of its process, time to the "
        "first token of all rows, peak memory in 10^6 bytes, and the share of the ceiling that the machine's "
        f"measured limits set, with the interval over decode steps. {_mark_text(summary)}{note}"
    )
    write_latex(
        throughput_table(summary),
        folder / "throughput.tex",
        caption=caption.strip(),
        label="tab:throughput-trials",
        group_by="Variant",
    )
    tokens = by_variant["evaluation_tokens"].dropna()
    over = f"over {tokens.max():,} tokens of held-out text" if len(tokens) else "without held-out text"
    caption = (
        f"Variants. Ratio: share of each linear layer's parameters kept. Perplexity {over}, the same text for all: "
        f"one figure. Tokens per second at {cell_text(place)} with engine {place['engine']}, with the bootstrap 95% "
        f"interval over the batches of the process. {_mark_text(by_variant)}{note}"
    )
    write_latex(
        variants_table(by_variant), folder / "variants.tex", caption=caption.strip(), label="tab:throughput-variants"
    )


def _mark_text(frame: pd.DataFrame) -> str:
    """What the mark means, where one stands."""
    if not (frame["disturbed"] != "").any():
        return ""
    return (
        f"{DISTURBED_MARK.strip()}: a trial behind it was measured while the machine was busy or slowed, before "
        "warm-up had become steady, while the speed drifted, or with widely scattered batches; no verdict rests on it. "
    )


def _figure(value: float, form: str) -> str:
    return MISSING if math.isnan(value) else form.format(value)


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """A frame as JSON: a dict per row, null for what is missing."""
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


if __name__ == "__main__":
    summarize.main()
