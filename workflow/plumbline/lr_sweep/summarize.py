"""Stage `lr_sweep.summarize`: the records of all trials as tidy tables, the analysis, and the findings."""

from pathlib import Path

import pandas as pd

from plumbline.core.files import write_text
from plumbline.core.plan.target import MergeSpec
from plumbline.core.present.formatting import MISSING
from plumbline.core.present.tables import write_csv, write_latex
from plumbline.core.run.records import machine_note, machines, write_results
from plumbline.core.run.stage import stage
from plumbline.lr_sweep.analysis.findings import edge_range, findings, loss_text, rate_text
from plumbline.lr_sweep.analysis.frames import rates_frame, shows_intervals, trials_frame
from plumbline.lr_sweep.analysis.seeds import spread_name
from plumbline.lr_sweep.analysis.sweep import Analysis, analyse, sweep_of
from plumbline.lr_sweep.record import CLASSES, read_trials


class SummarizeSpec(MergeSpec):
    """What decides the summary: its code and the trials' specs."""


@stage
def summarize(spec: SummarizeSpec, trials: list[Path], output: Path) -> None:
    """Merges the records `trials` into `output` and writes everything computed from them beside it.

    summary.csv has a row per trial, rates.csv a row per rate, and tables/rates.tex is the latter for papers.
    results.json holds the analysis and all records; lr_sweep_analysis.md holds the findings. Raises UserError when a
    record cannot be read or a trial is recorded twice.
    """
    records = read_trials(trials, spec.records)
    summary = trials_frame(records)
    rates = rates_frame(summary)
    analysis = analyse(sweep_of(records))
    write_csv(summary, output.parent / "summary.csv")
    write_csv(rates, output.parent / "rates.csv")
    note = machine_note(machines(records))
    write_latex(
        rates_table(rates, analysis),
        output.parent / "tables" / "rates.tex",
        caption=f"{_caption(analysis, summary)} {note}".strip(),
        label="tab:lr_sweep-rates",
    )
    write_results(output, records, analysis=analysis.to_json())
    write_text(output.parent / "lr_sweep_analysis.md", findings(analysis, summary, rates, records))


def rates_table(rates: pd.DataFrame, analysis: Analysis) -> pd.DataFrame:
    """Each rate with its final and best validation loss, how its trials ended, and its speed."""
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
    """`2 converged`, `1 converged, 1 diverged`; trials without a loss are counted as such."""
    parts = [f"{row[name]:.0f} {name}" for name in CLASSES if row[name]]
    if row["with_loss"] < row["seeds"]:
        parts.append(f"{row['seeds'] - row['with_loss']:.0f} without a loss")
    return ", ".join(parts)


def _caption(analysis: Analysis, trials: pd.DataFrame) -> str:
    edge = edge_range(analysis.edge) if analysis.edge.reached else "not reached"
    several = trials[trials["class"].notna()].groupby("rate").size().max() > 1
    mean = f"mean over seeds with the {spread_name(interval=shows_intervals(trials))}" if several else "one seed"
    return (
        f"Validation loss in nats per token by learning rate: {mean}; a dash where a loss is not finite. Edge of "
        f"stability: {edge}. Tokens/s: all tokens of a rate's trials over the total time of their steps."
    )


if __name__ == "__main__":
    summarize.main()
