"""Stage `disaggregation.summarize`: all blocks as one table, and the findings."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from plumbline.core.errors import UserError
from plumbline.core.files import write_text
from plumbline.core.measure.interleave import CONTROL
from plumbline.core.plan.target import MergeSpec
from plumbline.core.present.findings import findings_text
from plumbline.core.present.formatting import MISSING, plural, reason, with_interval
from plumbline.core.present.tables import write_csv, write_latex
from plumbline.core.run.record import Outcome
from plumbline.core.run.records import machine_note, machines, write_results
from plumbline.core.run.stage import stage
from plumbline.disaggregation.analysis import Cell, cells, cells_frame
from plumbline.disaggregation.record import MeasureRecord, read_trials
from plumbline.disaggregation.settings import FULL, GENERATE
from plumbline.disaggregation.workload_analysis import (
    WorkloadCell,
    differences_told,
    gains_told,
    speedups,
    workload_cells,
    workloads_frame,
    workloads_table,
)
from plumbline.disaggregation.workload_record import WorkloadRecord, read_workloads

COLUMNS = [
    "Link",
    "Context",
    "Variant",
    "Against local",
    "Against full",
    "Bytes per token",
    "Round trips per token",
]
WITHOUT = {
    "no_stream": "the client asks for each token",
    "no_server_sampling": "the worker sends the last position's logits, and the client asks and chooses",
    "remote": "the worker sends the logits of every position, and the client asks and chooses",
    "no_semantics": "keys and values travel both ways in every step",
}


class SummarizeSpec(MergeSpec):
    """What decides the summary: its code and the records' specs."""


@stage
def summarize(spec: SummarizeSpec, trials: list[Path], workloads: list[Path], output: Path) -> None:
    """Merges all records into `output` and writes everything computed from them beside it.

    Raises UserError for a record that cannot be read or was made from another spec, and for one with wrong tokens:
    no speed is worth anything then.
    """
    records, others = read_trials(trials, spec.records), read_workloads(workloads, spec.records)
    for record in [*records, *others]:
        if record.outcome is Outcome.INVALID_OUTPUT:
            raise UserError(
                f"disaggregation: {record.trial}: {record.message}; nothing is summarized until that is fixed"
            )
    found, folder = cells(records), output.parent
    write_csv(cells_frame(found), folder / "summary.csv")
    write_latex(
        decode_table(found),
        folder / "tables" / "decode.tex",
        caption="Time per token against the same computation without a wire, and against the full runtime, with 95%"
        " intervals over blocks and rounds; bytes both ways and round trips.",
        label="tab:disaggregation-decode",
    )
    graphs, gains = workload_cells(others), speedups(others)
    write_csv(workloads_frame(graphs, gains), folder / "workloads.csv")
    write_latex(
        workloads_table(graphs),
        folder / "tables" / "workloads.tex",
        caption="Time of a call against local, and against the full runtime, with 95% intervals over blocks and rounds;"
        " bytes both ways between the client and two workers, and round trips.",
        label="tab:disaggregation-workloads",
    )
    write_results(output, records, workloads=[one.to_json() for one in others])
    write_text(folder / "disaggregation_analysis.md", findings(records, found, others))


def decode_table(found: Sequence[Cell]) -> pd.DataFrame:
    """Each cell with its intervals, bytes and round trips."""
    rows = []
    for one in found:
        local, full = one.against_local, one.against_full
        trips = one.round_trips_per_token
        values = (
            one.link,
            str(one.context),
            "local again" if one.name == CONTROL else one.name.replace("_", " "),
            with_interval(local.value, local.low, local.high, digits=2),
            MISSING if full is None else with_interval(full.value, full.low, full.high, digits=2),
            MISSING if one.bytes_per_token is None else f"{one.bytes_per_token:,.0f}",
            MISSING if trips is None else f"{trips:.2f}",
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


def findings(records: Sequence[MeasureRecord], found: Sequence[Cell], others: Sequence[WorkloadRecord] = ()) -> str:
    """The study's findings as Markdown. others: records of workloads of captured graphs."""
    graphs = workload_cells(others)
    return findings_text(
        "How close to local is a model on a remote worker, and what do semantics save?",
        {
            "How close to local is decoding on a worker?": _cost(found),
            "What does it cost to leave semantics out?": _bought(found),
            "What do two workers gain?": gains_told(speedups(others)),
            "What does each thing that the runtime knows save in the other workloads?": differences_told(graphs),
            "Caveats": [*_caveats([*records, *others], found), *_shared(graphs)],
        },
    )


def _cost(found: Sequence[Cell]) -> Iterator[str]:
    for one in found:
        ratio = with_interval(one.against_local.value, one.against_local.low, one.against_local.high, digits=2)
        where = f"{one.link}, context {one.context}"
        if one.name == CONTROL:
            yield f"{where}: local against itself (A/A): {ratio}. Smaller differences cannot be resolved."
        elif one.name == GENERATE:
            yield f"{where}: transformers' generate takes {ratio} times as long as the worker's loop run locally."
        elif one.name == FULL:
            yield (
                f"{where}: the full runtime takes {ratio} times as long as local ({one.verdict}), and sends"
                f" {one.bytes_per_token:,.0f} bytes per token, the prompt included."
            )


def _bought(found: Sequence[Cell]) -> Iterator[str]:
    for one in found:
        if one.against_full is not None:
            ratio = with_interval(one.against_full.value, one.against_full.low, one.against_full.high, digits=2)
            yield (
                f"{one.link}, context {one.context}, {one.name.replace('_', ' ')} ({WITHOUT[one.name]}): generation,"
                f" prompt included, takes {ratio} times as long as full and sends {one.bytes_per_token:,.0f} bytes per"
                " token."
            )


def _shared(graphs: Sequence[WorkloadCell]) -> Iterator[str]:
    if graphs:
        yield (
            "In the other workloads the client and two workers share the machine: with two cores, the client takes time"
            " from the workers while it sends. Both workers are on the far side of the link, and nothing limits what"
            " they send to each other; those bytes are not among the ones that are told."
        )


def _caveats(records: Sequence[MeasureRecord | WorkloadRecord], found: Sequence[Cell]) -> Iterator[str]:
    for record in records:
        if not record.ok:
            yield f"{record.trial}: {reason(record.outcome, record.message)}."
    if found:
        blocks = min(one.blocks for one in found)
        yield f"Intervals cover the spread over rounds and over {plural(blocks, 'block')} of fresh processes."
    yield (
        "Of decoding, each variant but the last leaves out what the one before it does, and one thing more, so no ratio"
        " is that of a single feature. The intervals are not corrected for their number."
    )
    yield "Worker and client share one machine, so its cores and memory bandwidth are shared as well."
    for parameters in sorted({one.parameters for one in records if one.parameters and one.stage == "measure"}):
        yield (
            f"The model that decodes has {parameters:,} parameters: the larger the model, the less a network costs"
            " against it."
        )
    if note := machine_note(machines(records)):
        yield note


if __name__ == "__main__":
    summarize.main()
