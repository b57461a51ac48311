"""Stage `lr_sweep.summarize`: the records of all trials as tidy tables, an analysis, and its sentences."""

import json
from pathlib import Path

import pandas as pd

from plumbline.core.files import write_text
from plumbline.core.plan.target import MergeSpec
from plumbline.core.present.formatting import MISSING
from plumbline.core.present.tables import write_csv, write_latex
from plumbline.core.run.record import SCHEMA, check_specs
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.analysis.findings import edge_range, findings, loss_text, rate_text
from plumbline.lr_sweep.analysis.frames import rates_frame, shows_intervals, trials_frame
from plumbline.lr_sweep.analysis.records import CLASSES, machine_note, read_records
from plumbline.lr_sweep.analysis.seeds import spread_name
from plumbline.lr_sweep.analysis.sweep import Analysis, analyse, sweep_of


class SummarizeSpec(MergeSpec):
    """What decides the summary: its code and the trials' specs."""


@stage
def summarize(spec: SummarizeSpec, trials: list[Path], output: Path) -> None:
    """Merges the records `trials` into `output` and writes everything computed from them beside it.

    summary.csv has a row per trial, rates.csv a row per rate; tables/rates.tex is the latter for papers;
    results.json holds the analysis and all records with their learning curves; lr_sweep_analysis.md the study's
    answers. Raises UserError when a record cannot be read or does not belong to the others.
    """
    records = read_records(trials)
    check_specs(records, spec.records)
    summary = trials_frame(records)
    rates = rates_frame(summary)
    analysis = analyse(sweep_of(records))
    write_csv(summary, output.parent / "summary.csv")
    write_csv(rates, output.parent / "rates.csv")
    note = machine_note(records)
    write_latex(
        rates_table(rates, analysis),
        output.parent / "tables" / "rates.tex",
        caption=f"{_caption(analysis, summary)} {note}".strip(),
        label="tab:lr_sweep-rates",
    )
    merged = {"schema": SCHEMA, "study": "lr_sweep", "analysis": analysis.as_json(), "trials": records}
    text = json.dumps(merged, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_text(output, text + "\n")
    write_text(output.parent / "lr_sweep_analysis.md", findings(analysis, summary, rates, records))


def rates_table(rates: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """Every rate with its final and best validation loss, what became of its trials, and its speed."""
    rows = []
    for _, row in rates.iterrows():
        name = rate_text(row["rate"]) + (" (best)" if row["rate"] == analysis.best_rate else "")
        speed = MISSING if pd.isna(row["tokens_per_second"]) else f"{row['tokens_per_second']:,.0f}"
        rows.append(
            {
                "Learning rate": name,
                "Final validation loss": loss_text(row),
                "Best validation loss": loss_text(row, "best_validation_loss"),
                "Trials": _trials_text(row),
                "Tokens/s": speed,
            }
        )
    return pd.DataFrame(rows)


def _trials_text(row: pd.Series) -> str:
    """`2 converged`, `1 converged, 1 diverged`; trials without a loss are named as such."""
    parts = [f"{row[name]:.0f} {name}" for name in CLASSES if row[name]]
    if row["with_loss"] < row["seeds"]:
        parts.append(f"{row['seeds'] - row['with_loss']:.0f} without a loss")
    return ", ".join(parts)


def _caption(analysis: Analysis, trials: pd.DataFrame) -> str:
    edge = edge_range(analysis.edge) if analysis.edge.reached else "not reached"
    several = trials[trials["class"].notna()].groupby("rate").size().max() > 1
    mean = f"mean over seeds with the {spread_name(interval=shows_intervals(trials))}" if several else "one seed"
    return (
        f"Validation loss in nats per token by learning rate: {mean}; a dash where a loss is not finite. Training "
        f"diverges (edge of stability): {edge}. Tokens/s: all tokens of a rate's trials over all the seconds of their "
        "steps."
    )


if __name__ == "__main__":
    summarize.main()
