"""The study's findings: each claim in a sentence, with the files that show it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from plumbline.core.measure.interleave import CONTROL
from plumbline.core.present.findings import findings_text
from plumbline.core.present.formatting import number, p_text, plural, reason, with_interval
from plumbline.core.run.records import machine_note, machines
from plumbline.core.statistics.hypothesis_tests import ALPHA
from plumbline.disaggregation.analysis.contrasts import Contrast, blocks_for_wilcoxon, least_wilcoxon_p
from plumbline.disaggregation.analysis.cost import Judged
from plumbline.disaggregation.analysis.cost_tables import costs_told
from plumbline.disaggregation.analysis.decode import Cell
from plumbline.disaggregation.analysis.heat_map import Square, cells_told
from plumbline.disaggregation.analysis.workloads import gains_told, speedups
from plumbline.disaggregation.families import CONTROL_FAMILY, FAMILIES
from plumbline.disaggregation.record import MeasureRecord
from plumbline.disaggregation.settings import CAPTURE, FULL, GENERATE, LOCAL, MARGIN
from plumbline.disaggregation.workload_record import WorkloadRecord, target_name

TITLE = "How close to local is a model on a remote worker, and what do semantics save?"
COST = "How close to local is decoding on a worker?"
FEATURE = "What does each semantic feature save?"
BASELINE = "How do the baselines compare?"
GAIN = "What do two workers gain?"
OTHER = "How fast are the other workloads, and what does each feature save there?"
MODEL = "How well does the cost model predict what it has not seen?"
CAVEAT = "Caveats"
QUESTIONS = (COST, FEATURE, BASELINE, GAIN, OTHER, MODEL, CAVEAT)
GRAPH_TRIALS = "trials/block-*/*.json"
COST_FILES = ("cost_model.csv", "tables/cost_model.tex", "figures/cost_model.pdf", "calibration.json", GRAPH_TRIALS)
HEAT_FILES = ("heat_map.csv", "tables/heat_map.tex", "figures/heat_map.pdf")
DOES = {
    "no_stream": "the client asks for each token",
    "no_server_sampling": "the worker sends the last position's logits, and the client asks and chooses",
    "no_last_logits": "logits are computed at every position of the prompt",
    "no_phase": "each step runs over the whole sequence, like a prompt",
    "no_state_resident": "keys and values travel both ways in every step, and the client asks for each token",
    "no_weights_resident": "the model is uploaded for each generation",
    "remote": "the worker sends the logits of every position, and the client asks and chooses",
    "no_semantics": "logits, keys and values travel both ways in every step, and the client asks and chooses",
    "rpc": "torch's rpc; a remote process keeps the model and its state",
    "ray": "a Ray actor that keeps the model and its state",
    "ray_compiled": "such an actor, with its step compiled into a Ray graph",
    "capture_only": "the captured decode step, replayed locally",
    "full": "the full runtime",
}

CALL_DOES = {
    "no_weights_resident": "the weights travel with every call",
    "no_state_resident": "keys and values are sent back",
    "no_last_logits": "logits of every position are computed",
    "no_server_sampling": "the client chooses the token",
    "no_split": "one worker takes the whole batch",
    "no_pipeline": "one worker takes the micro-batches, one after another",
    "no_direct_hop": "what one worker computes for the other goes through the client",
    "no_branches": "one worker computes both towers",
    "no_wanted_only": "all outputs come back",
    "remote": "one worker keeps weights and state, takes the whole batch, and returns every output",
    "no_semantics": "state and what passes between parts also go through the client, one part at a time",
    "rpc": "torch's rpc; one remote process keeps the module and its state",
    "ray": "one Ray actor that keeps the module and its state",
    "ray_compiled": "such an actor, with its call compiled into a Ray graph",
    "capture_only": "the captured graph, replayed locally",
    "full": "the full runtime",
}
"""The same for the other workloads."""


@dataclass(frozen=True)
class Claim:
    """A sentence of the findings."""

    question: str
    text: str
    shown_by: tuple[str, ...]
    """Files below the study's results."""


def all_claims(
    records: Sequence[MeasureRecord],
    found: Sequence[Cell],
    compared: Sequence[Contrast],
    others: Sequence[WorkloadRecord] = (),
    called: Sequence[Contrast] = (),
    costs: Judged | None = None,
    matrix: Sequence[Square] = (),
) -> list[Claim]:
    """Every claim, question by question.

    others, called: records of workloads of captured graphs, their contrasts. costs: the cost model's. matrix: baselines
    by workloads.
    """
    return [
        *_cost(found, compared),
        *_compared(FEATURE, "features", ("features", "features"), compared, DOES, "token"),
        *(Claim(BASELINE, text, HEAT_FILES) for text in cells_told(matrix)),
        *_compared(BASELINE, "baselines", ("baselines", "latency"), compared, DOES, "token"),
        *_capture(records),
        *(
            Claim(GAIN, text, ("workloads.csv", "contrasts.csv", "figures/speedup.pdf", GRAPH_TRIALS))
            for text in gains_told(speedups(others), _tested(called))
        ),
        *_called(called),
        *(Claim(MODEL, text, COST_FILES) for text in costs_told(costs)),
        *(Claim(CAVEAT, text, shown) for text, shown in _caveats(records, compared, others)),
        *(Claim(CAVEAT, text, (GRAPH_TRIALS,)) for text in _shared(others)),
    ]


def findings(claims: Sequence[Claim]) -> str:
    """The claims as Markdown, under their questions."""
    told = {one: [claim.text for claim in claims if claim.question == one] for one in QUESTIONS}
    return findings_text(TITLE, {one: texts for one, texts in told.items() if texts or one not in (GAIN, OTHER, MODEL)})


def claims_text(claims: Sequence[Claim]) -> str:
    """A Markdown table: each claim, and the files that show it."""
    rows = ""
    for claim in claims:
        text = claim.text.replace("|", r"\|")
        rows += f"| {text} | {', '.join(f'`{path}`' for path in claim.shown_by)} |\n"
    head = "Paths start at this file's folder; `*` stands for every block. `snakemake --cores all disaggregation`"
    return f"# Claims, and what shows them\n\n{head} rebuilds all of it.\n\n| claim | shown by |\n| --- | --- |\n{rows}"


def _cost(found: Sequence[Cell], compared: Sequence[Contrast]) -> Iterator[Claim]:
    tested = {(one.place.link, one.place.context, one.name): one for one in compared if one.base == LOCAL}
    for one in found:
        ratio = with_interval(one.against_local.value, one.against_local.low, one.against_local.high, digits=2)
        where, test = f"{one.link}, context {one.context}", tested.get((one.link, one.context, one.name))
        shown = ("tables/decode.tex", "summary.csv", "contrasts.csv", _trials([one.link]))
        if one.name == CONTROL and test is not None:
            yield Claim(
                COST,
                f"{where}: local against itself (A/A) takes {ratio} times as long, {_p(test.p_corrected)}:"
                f" {'a difference where there is none' if test.is_significant else 'no significant difference'}.",
                shown,
            )
        elif one.name == GENERATE:
            text = f"{where}: transformers' generate takes {ratio} times as long as the worker's loop run locally"
            yield Claim(
                COST,
                f"{text} ({one.against_local_verdict}).",
                ("tables/decode.tex", "summary.csv", _trials([one.link])),
            )
        elif one.name == FULL and test is not None:
            yield Claim(
                COST,
                f"{where}: the full runtime takes {ratio} times as long as local ({one.against_local_verdict}), and"
                f" sends {one.bytes_per_token:,.0f} bytes per token, the prompt included.{_nearness(test)}",
                shown,
            )


def _compared(
    question: str,
    family: str,
    shown: tuple[str, str],
    compared: Sequence[Contrast],
    does: Mapping[str, str],
    unit: str,
) -> Iterator[Claim]:
    """A claim for each pair of variants, with all places. shown: the table and the figure."""
    own = [one for one in compared if one.family == family and (one.name, one.base) != (FULL, LOCAL)]
    table, figure = (f"tables/{shown[0]}.tex", f"figures/{shown[1]}.pdf")
    for name, base in dict.fromkeys((one.name, one.base) for one in own):
        same = [one for one in own if (one.name, one.base) == (name, base)]
        times = "; ".join(
            f"{one.place}: {_ratio(one)} ({_p(one.p_corrected)}, Cliff's δ {number(one.cliffs_delta, 2, signed=True)})"
            for one in same
        )
        said = f" ({does[name]})" if name in does else ""
        text = f"`{name}`{said} takes this many times as long per {unit} as `{base}`: {times}."
        trials = _trials(dict.fromkeys(one.place.link for one in same)) if unit == "token" else GRAPH_TRIALS
        yield Claim(question, text, (table, figure, "contrasts.csv", trials))


def _nearness(one: Contrast) -> str:
    """Whether it is shown to be as fast as local; nothing where it is shown to differ."""
    if one.is_significant and not one.is_equivalent:
        return ""
    shows = "is shown to be" if one.is_equivalent else "is not shown to be"
    return f" It {shows} within {MARGIN:.0%} of local (TOST, {_p(one.equivalence_p)})."


def _called(called: Sequence[Contrast]) -> Iterator[Claim]:
    """What the contrasts of the other workloads show: A/A, `full` against local, and each pair of variants."""
    shown = ("contrasts.csv", "workloads.csv", GRAPH_TRIALS)
    for one in called:
        if one.family == CONTROL_FAMILY:
            finds = "a difference where there is none" if one.is_significant else "no significant difference"
            text = f"{one.place}: local against itself (A/A) takes {_ratio(one)} times as long"
            yield Claim(OTHER, f"{text}, {_p(one.p_corrected)}: {finds}.", shown)
        elif (one.name, one.base) == (FULL, LOCAL):
            text = f"{one.place}: full on two workers takes {_ratio(one)} times as long as local"
            test = f"{text} ({_p(one.p_corrected)}).{_nearness(one)}"
            yield Claim(OTHER, test, ("tables/workload_baselines.tex", *shown))
    for family in FAMILIES:
        yield from _compared(OTHER, family, (f"workload_{family}", "workloads"), called, CALL_DOES, "call")


def _capture(records: Sequence[MeasureRecord]) -> Iterator[Claim]:
    seconds = [record.capture_seconds for record in records if record.capture_seconds is not None]
    if seconds:
        count = next(record.captured_operations for record in records if record.capture_seconds is not None)
        text = (
            f"`{CAPTURE}`: capturing the decode step ({count} operations) takes {min(seconds):.2f} to"
            f" {max(seconds):.2f} s, once per block; the turns replay the captured graph."
        )
        yield Claim(BASELINE, text, (_trials(dict.fromkeys(record.link for record in records)),))


def _shared(others: Sequence[WorkloadRecord]) -> Iterator[str]:
    for record in others:
        if not record.ok:
            yield f"{record.trial}: {reason(record.outcome, record.message)}."
    if others:
        yield (
            "In the other workloads, local runs one thread, and so does each worker. Client and workers share the"
            " machine: with fewer than three cores, the client takes time from the workers while it sends. Both workers"
            " are on the far side of the link, and nothing limits what they send to each other; those bytes are not"
            " counted here."
        )


def _caveats(
    records: Sequence[MeasureRecord], compared: Sequence[Contrast], others: Sequence[WorkloadRecord]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for record in records:
        if not record.ok:
            yield f"{record.trial}: {reason(record.outcome, record.message)}.", (f"trials/{record.trial}.json",)
    gone: dict[str, list[str]] = {}
    for record in records:
        for name, why in record.unavailable.items():
            gone.setdefault(f"{name}, {record.link}: unavailable ({why}).", []).append(f"trials/{record.trial}.json")
    for other in others:
        for name, why in other.unavailable.items():
            path = f"trials/{target_name(other.block)}/{other.workload}-{other.link}.json"
            gone.setdefault(f"{name}, {other.link}: unavailable ({why}).", []).append(path)
    yield from ((text, tuple(paths)) for text, paths in gone.items())
    everywhere = _trials(dict.fromkeys(record.link for record in records))
    if compared:
        blocks = min(one.blocks for one in compared)
        text = (
            f"Intervals and tests cover the spread over {plural(blocks, 'block')} of fresh processes and their rounds."
            " The p-values of differences are Holm-corrected over all rows of a table; TOST's are not."
            f" Two times are called within {MARGIN:.0%} of each other only if both TOST and the interval show it."
            " Cliff's δ compares blocks without pairing them, so it can differ in sign from a ratio."
        )
        if least_wilcoxon_p(blocks) >= ALPHA:
            text += (
                f" With so few blocks, the signed-rank test cannot go below p = {least_wilcoxon_p(blocks):.3g},"
                f" whatever the data: {ALPHA:g} takes {blocks_for_wilcoxon()} blocks. The p-values here come from"
                " t-tests of the blocks' log ratios, which assume that these are normal."
            )
        yield text, ("contrasts.csv",)
    text = (
        "Verdicts on speed (faster, slower, no difference, inconclusive) use intervals widened by what local"
        " against itself (A/A) shows, and are not corrected for multiple comparisons."
    )
    yield text, ("summary.csv", "workloads.csv")
    yield "Worker, client and baselines share one machine, so its cores and memory bandwidth are shared.", (everywhere,)
    for parameters in sorted({record.parameters for record in records if record.parameters}):
        text = f"The model that decodes has {parameters:,} parameters; other sizes were not measured."
        yield text, (everywhere,)
    if note := machine_note(machines(records)):
        yield note, (everywhere,)


def _tested(called: Sequence[Contrast]) -> dict[tuple[str, str, str], str]:
    """Workload, link and variant -> its corrected p-value against `full`."""
    own = [one for one in called if one.base == FULL]
    return {(one.place.workload, one.place.link, one.name): _p(one.p_corrected) for one in own}


def _p(value: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    text = p_text(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _ratio(one: Contrast) -> str:
    return with_interval(one.ratio.value, one.ratio.low, one.ratio.high, digits=2)


def _trials(links: Iterable[str]) -> str:
    """The records of all blocks on these links."""
    names = list(links)
    return f"trials/llm_decode-{names[0] if len(names) == 1 else '*'}-*.json"
