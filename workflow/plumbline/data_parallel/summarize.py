"""Stage `data_parallel.summarize`: all records as tidy tables, the speed-ups, the predictions, the findings."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from plumbline.core.files import write_text
from plumbline.core.plan.target import MergeSpec
from plumbline.core.present.formatting import MISSING, bytes_text, with_interval
from plumbline.core.present.tables import write_csv, write_latex
from plumbline.core.run.records import check_specs, write_results
from plumbline.core.run.stage import stage
from plumbline.data_parallel.analysis.findings import findings
from plumbline.data_parallel.analysis.frames import epochs_frame, trials_frame
from plumbline.data_parallel.analysis.network import fixed_seconds, predictions
from plumbline.data_parallel.analysis.speedups import Speedup, speedups, speedups_frame
from plumbline.data_parallel.record import ComparisonRecord, EqualityRecord, read_trials


class SummarizeSpec(MergeSpec):
    """What decides the summary: its code and the records' specs."""


@stage
def summarize(spec: SummarizeSpec, trials: list[Path], equality: Path, comparison: Path, output: Path) -> None:
    """Merges all records into `output` and writes everything computed from them beside it.

    summary.csv has a row per trial, speedups.csv a row per candidate of the comparison; tables/ holds both and the
    proof of equality for papers; data_parallel_analysis.md the findings. Raises UserError for a record that cannot be
    read or was made from another spec.
    """
    proof, speed = EqualityRecord.read(equality), ComparisonRecord.read(comparison)
    records = read_trials(trials, spec.records)
    check_specs([proof, speed], spec.records)
    summary = trials_frame(records, epochs_frame(records))
    found = speedups(speed)
    predicted = predictions(speed, found, fixed_seconds(records))
    folder = output.parent
    write_csv(summary, folder / "summary.csv")
    write_csv(speedups_frame(found), folder / "speedups.csv")
    write_latex(
        trials_table(summary),
        folder / "tables" / "trials.tex",
        caption="Training time of an epoch (mean over ranks) and tokens per second (sum over ranks), mean and standard"
        " deviation over epochs without the first; BLEU of the test split and of held-out combinations.",
        label="tab:data_parallel-trials",
    )
    write_latex(
        speedups_table(found),
        folder / "tables" / "speedups.tex",
        caption="Tokens per second over those of one process, and over those of as many independent processes at the"
        " same time, from interleaved turns, with 95% intervals over launches.",
        label="tab:data_parallel-speedups",
    )
    write_latex(
        equality_table(proof),
        folder / "tables" / "equality.tex",
        caption=f"Differences from training in one process after {proof.steps} steps: the largest of any parameter,"
        " and the median one as a share of what training changes in the median parameter.",
        label="tab:data_parallel-equality",
    )
    merged: dict[str, Any] = {"equality": proof.to_json(), "comparison": speed.to_json()}
    write_results(output, records, **merged, predictions=[asdict(one) for one in predicted])
    text = findings(records, summary, proof, speed, found, predicted)
    write_text(folder / "data_parallel_analysis.md", text)


def trials_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Each trial with its times, rates and BLEU."""
    rows = []
    for _, row in summary.iterrows():
        if row["outcome"] != "ok":
            rows.append({"Trial": row["label"], "Batch": str(row["batch"]), "Time (s)": row["outcome"]})
            continue
        rows.append(
            {
                "Trial": row["label"],
                "Batch": str(row["batch"]),
                "Time (s)": _spread(row, "training_time", 2),
                "Tokens/s": _spread(row, "tokens_per_second", 0),
                "Validation loss": f"{row['validation_loss']:.3f}",
                "BLEU": f"{row['test_bleu']:.1f}",
                "BLEU held out": f"{row['held_out_bleu']:.1f}" if "held_out_bleu" in row else MISSING,
            }
        )
    return pd.DataFrame(rows)


def _spread(row: pd.Series, name: str, digits: int) -> str:
    mean, deviation = row[f"{name}_mean"], row[f"{name}_deviation"]
    return f"{mean:,.{digits}f}" + ("" if pd.isna(deviation) else f" ± {deviation:,.{digits}f}")


def speedups_table(found: list[Speedup]) -> pd.DataFrame:
    """Each candidate of the comparison with its speed-up, its share of the ceiling and the verdict."""
    rows = []
    for one in found:
        ceiling = one.of_ceiling
        rows.append(
            {
                "Candidate": "1 process again" if one.turns.name == "control" else one.turns.name,
                "Speed-up": with_interval(one.ratio.value, one.ratio.low, one.ratio.high, digits=2),
                "Of the ceiling": MISSING
                if ceiling is None
                else with_interval(ceiling.value, ceiling.low, ceiling.high, digits=2),
                "Verdict": str(one.verdict),
            }
        )
    return pd.DataFrame(rows, columns=["Candidate", "Speed-up", "Of the ceiling", "Verdict"])


def equality_table(record: EqualityRecord) -> pd.DataFrame:
    """Each method, world and dtype with its largest difference, its bound, its bytes on the wire and in memory."""
    rows = []
    for one in record.differences:
        held = sum(one.memory_bytes.values())
        rows.append(
            {
                "Method": one.method,
                "World": str(one.world),
                "Dtype": one.dtype,
                "Largest difference": one.outcome if one.largest is None else f"{one.largest:.1e}",
                "Median, share of change": MISSING if one.relative is None else f"{100 * one.relative:.1g}%",
                "Bound": one.promise or MISSING,
                "Bytes sent per step": MISSING
                if one.wire_bytes_per_step is None
                else bytes_text(one.wire_bytes_per_step),
                "Memory per rank": bytes_text(held) if held else MISSING,
            }
        )
    return pd.DataFrame(rows)


def read_merged(merged: Any) -> tuple[EqualityRecord, ComparisonRecord]:
    """The proof and the comparison in what `results.json` holds."""
    return EqualityRecord.model_validate(merged["equality"]), ComparisonRecord.model_validate(merged["comparison"])


if __name__ == "__main__":
    summarize.main()
