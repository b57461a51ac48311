"""Stage `disaggregation.summarize`: all blocks as tables, and the findings with what shows each."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from plumbline.core.errors import UserError
from plumbline.core.files import write_json, write_text
from plumbline.core.measure.interleave import CONTROL
from plumbline.core.plan.target import MergeSpec
from plumbline.core.present.formatting import MISSING, number, p_text, with_interval
from plumbline.core.present.tables import write_csv, write_latex
from plumbline.core.run.record import Outcome
from plumbline.core.run.records import write_results
from plumbline.core.run.stage import stage
from plumbline.disaggregation.analysis.claims import all_claims, claims_text, findings
from plumbline.disaggregation.analysis.contrasts import Contrast, calls, contrasts, contrasts_frame, decoding
from plumbline.disaggregation.analysis.cost import judged
from plumbline.disaggregation.analysis.cost_tables import cost_frame, cost_table
from plumbline.disaggregation.analysis.decode import Cell, cells, cells_frame
from plumbline.disaggregation.analysis.heat_map import heat_frame, heat_table, squares
from plumbline.disaggregation.analysis.workloads import (
    UNAVAILABLE,
    speedups,
    workload_cells,
    workloads_frame,
    workloads_table,
)
from plumbline.disaggregation.families import Families
from plumbline.disaggregation.record import MeasureRecord, read_trials
from plumbline.disaggregation.settings import MARGIN, SENDING
from plumbline.disaggregation.workload_record import read_workloads

COLUMNS = [
    "Link",
    "Context",
    "Variant",
    "Against local",
    "Against full",
    "Bytes per token",
    "Round trips per token",
]
CONTRAST_COLUMNS = ["Variant", "Against", "Times as long", "p (Holm)", "Cliff's delta", "p (TOST)"]
CAPTIONS = {
    "features": "What each semantic feature saves: time per token of the full runtime without it, against the full"
    " runtime, or, where nothing can be streamed without it, also against a full runtime that does not stream.",
    "baselines": "Time per token of the full runtime and of the captured step against local, and of the baselines"
    " against the full runtime.",
    "workload_features": "What each thing that the runtime knows saves in the other workloads: time of a call of the"
    " full runtime without it, against the full runtime.",
    "workload_baselines": "Time of a call of the other workloads: of the full runtime and of the captured graph against"
    " local, and of the baselines against the full runtime.",
}
"""Of the tables of contrasts: a family, of decoding or, after `workload_`, of the other workloads."""
TESTS = (
    f" With 95% intervals over blocks and rounds; t-tests over blocks, Holm-corrected over the table; Cliff's delta of"
    f" the blocks' medians; TOST that the times are within {MARGIN:.0%}."
)


class SummarizeSpec(MergeSpec):
    """What decides the summary: its code, the records' specs, and what is compared with what."""

    contrasts: Families
    workload_contrasts: Families


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
        decode_table(found, records),
        folder / "tables" / "decode.tex",
        caption="Time per token against the same computation without a wire, and against the full runtime, with 95%"
        " intervals over blocks and rounds; bytes both ways and round trips.",
        label="tab:disaggregation-decode",
    )
    compared = contrasts(decoding(records), spec.contrasts)
    called = contrasts(calls(others), spec.workload_contrasts)
    write_csv(contrasts_frame([*compared, *called]), folder / "contrasts.csv")
    for table, caption in CAPTIONS.items():
        family = table.removeprefix("workload_")
        write_latex(
            contrast_table(compared, family) if table == family else workload_contrast_table(called, family),
            folder / "tables" / f"{table}.tex",
            caption=caption + TESTS,
            label=f"tab:disaggregation-{table.replace('_', '-')}",
        )
    graphs, gains = workload_cells(others), speedups(others)
    write_csv(workloads_frame(graphs, gains), folder / "workloads.csv")
    write_latex(
        workloads_table(graphs, others),
        folder / "tables" / "workloads.tex",
        caption="Time of a call against local, and against the full runtime, with 95% intervals over blocks and rounds;"
        " bytes both ways between the client and workers or owners, and round trips.",
        label="tab:disaggregation-workloads",
    )
    matrix = squares(records, others, found, graphs)
    write_csv(heat_frame(matrix), folder / "heat_map.csv")
    write_latex(
        heat_table(matrix),
        folder / "tables" / "heat_map.tex",
        caption="Time over local of each baseline in each workload, with 95% intervals over blocks and rounds: of"
        " decoding per token, of the micro workload the geometric mean over its programs, of the others per call.",
        label="tab:disaggregation-heat-map",
    )
    costs = judged(others)
    write_csv(cost_frame(costs), folder / "cost_model.csv")
    write_json(folder / "calibration.json", None if costs is None else costs.model.model_dump(mode="json"))
    write_latex(
        cost_table(costs),
        folder / "tables" / "cost_model.tex",
        caption="How near the cost model comes to what was measured, for families of operations and workloads that it"
        " was not calibrated with: mean absolute relative error and, over all families, rank"
        " correlation, with 95% intervals over programs, and how much longer programs take than at the best place:"
        " where the model puts them, always here, and always on one worker.",
        label="tab:disaggregation-cost-model",
    )
    predictions = [asdict(one) for one in (costs.predictions if costs else ())]
    write_results(output, records, workloads=[one.to_json() for one in others], predictions=predictions)
    claims = all_claims(records, found, compared, others, called, costs, matrix)
    write_text(folder / "disaggregation_analysis.md", findings(claims))
    write_text(folder / "claims.md", claims_text(claims))


def decode_table(found: Sequence[Cell], records: Sequence[MeasureRecord]) -> pd.DataFrame:
    """Each cell with its intervals, bytes and round trips; then the baselines that could not run."""
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
            (UNAVAILABLE if one.name in SENDING else MISSING)
            if one.bytes_per_token is None
            else f"{one.bytes_per_token:,.0f}",
            MISSING if trips is None else f"{trips:.2f}",
        )
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    for link, name in dict.fromkeys((record.link, name) for record in records for name in record.unavailable):
        rows.append(dict(zip(COLUMNS, (link, "all", name, UNAVAILABLE, *[MISSING] * 3), strict=True)))
    return pd.DataFrame(rows, columns=COLUMNS)


def contrast_table(found: Sequence[Contrast], family: str) -> pd.DataFrame:
    """Each contrast of a family of decoding with its interval, corrected p-value and effect size."""
    own = [one for one in found if one.family == family]
    rows = [(one.place.link, str(one.place.context), *_compared(one)) for one in own]
    return pd.DataFrame(rows, columns=["Link", "Context", *CONTRAST_COLUMNS])


def workload_contrast_table(found: Sequence[Contrast], family: str) -> pd.DataFrame:
    """The same of the other workloads."""
    own = [one for one in found if one.family == family]
    rows = [(one.place.workload.replace("_", " "), one.place.link, *_compared(one)) for one in own]
    return pd.DataFrame(rows, columns=["Workload", "Link", *CONTRAST_COLUMNS])


def _compared(one: Contrast) -> tuple[str, ...]:
    return (
        one.name.replace("_", " "),
        one.base.replace("_", " "),
        with_interval(one.ratio.value, one.ratio.low, one.ratio.high, digits=2),
        p_text(one.p_corrected),
        number(one.cliffs_delta, 2, signed=True),
        p_text(one.equivalence_p),
    )


if __name__ == "__main__":
    summarize.main()
