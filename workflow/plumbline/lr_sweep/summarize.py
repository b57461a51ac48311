"""Stage `lr_sweep.summarize`: the records of all trials as tidy tables, the analysis, and the findings."""

from pathlib import Path

import pandas as pd

from plumbline.core.files import read_json, write_text
from plumbline.core.plan.target import MergeSpec
from plumbline.core.present.formatting import MISSING
from plumbline.core.present.tables import write_csv, write_latex
from plumbline.core.run.records import machine_note, machines, write_results
from plumbline.core.run.stage import stage
from plumbline.core.settings import validated
from plumbline.lr_sweep.analysis.baselines import baselines_frame
from plumbline.lr_sweep.analysis.findings import (
    edge_range,
    findings,
    loss_text,
    number_or_dash,
    plus_minus,
    rate_text,
)
from plumbline.lr_sweep.analysis.frames import rates_frame, shows_intervals, trials_frame
from plumbline.lr_sweep.analysis.seeds import spread_name
from plumbline.lr_sweep.analysis.sweep import Analysis, analyse, sweep_of
from plumbline.lr_sweep.record import CLASSES, Baselines, read_trials, sweep_trials


class SummarizeSpec(MergeSpec):
    """What decides the summary: its code and the trials' specs."""


@stage
def summarize(spec: SummarizeSpec, trials: list[Path], baselines: Path, output: Path) -> None:
    """Merges the records `trials` into `output` and writes everything computed from them beside it.

    summary.csv has a row per trial of the sweep, rates.csv a row per rate, and baselines.csv a row per n-gram table and
    per model at the best rate; the latter two are in tables/ for papers. results.json holds the analysis, the baselines
    and all records; lr_sweep_analysis.md holds the findings. Raises UserError when a record cannot be read or a trial
    is recorded twice.
    """
    everything = read_trials(trials, spec.records)
    records = sweep_trials(everything)
    tables = validated(Baselines, read_json(baselines), str(baselines))
    summary = trials_frame(records)
    rates = rates_frame(summary)
    analysis = analyse(sweep_of(records))
    compared = baselines_frame(tables, everything, analysis.best_rate)
    write_csv(summary, output.parent / "summary.csv")
    write_csv(rates, output.parent / "rates.csv")
    write_csv(compared, output.parent / "baselines.csv")
    write_latex(
        baselines_table(compared),
        output.parent / "tables" / "baselines.tex",
        caption=(
            f"Loss in nats per token on all {tables.windows:,} validation windows with its standard error over them, "
            "and the difference to the trigram table with the standard error of the paired differences."
        ),
        label="tab:lr_sweep-baselines",
    )
    note = machine_note(machines(records))
    write_latex(
        rates_table(rates, analysis),
        output.parent / "tables" / "rates.tex",
        caption=f"{_caption(analysis, summary)} {note}".strip(),
        label="tab:lr_sweep-rates",
    )
    write_results(output, everything, analysis=analysis.to_json(), baselines=tables.model_dump(mode="json"))
    write_text(output.parent / "lr_sweep_analysis.md", findings(analysis, summary, rates, records, compared))


def baselines_table(compared: pd.DataFrame) -> pd.DataFrame:
    """Each n-gram table and each model at the best rate with its loss and its difference to the trigram table."""
    rows = []
    for _, row in compared.iterrows():
        over = plus_minus(row["over_trigram"], row["over_trigram_standard_error"])
        rows.append(
            {
                "Model": row["model"],
                "Steps": f"{row['steps']:,}" if row["steps"] else MISSING,
                "Loss": plus_minus(row["loss"], row["standard_error"]),
                "Minus trigram": MISSING if row["model"] == "trigram" else over,
            }
        )
    return pd.DataFrame(rows)


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
                "Standard error": number_or_dash(row["final_validation_standard_error"]),
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
        f"Validation loss in nats per token by learning rate: {mean}; a dash where a loss is not finite. "
        f"Standard error: of one trial, over validation windows. Edge of stability: {edge}. "
        "Tokens/s: all tokens of a rate's trials over the total time of their steps."
    )


if __name__ == "__main__":
    summarize.main()
