"""The plan of the `disaggregation` study: which targets there are, and what decides each."""

from functools import partial
from pathlib import Path

from plumbline.core.measure.interleave import MIN_ROUNDS
from plumbline.core.plan.target import Target, Targets, figures_target
from plumbline.disaggregation.settings import FIGURES, TABLES, DisaggregationSettings
from plumbline.disaggregation.workload_record import target_name

_target = partial(Target, "disaggregation")
DECODING = {"model", "contexts", "tokens", "baselines", "seconds", "precision", "spin_seconds", "stream_seconds"}
"""Settings that decide a trial of `llm_decode`."""
SUMMARIES = [f"{name}.csv" for name in ("summary", "contrasts", "heat_map", "workloads", "cost_model")]
LEAST_ROUNDS = 5
"""Of a block of graphs, however many blocks there are."""


def plan(
    settings: DisaggregationSettings, seed: int, upstream: Targets, device: str, results: Path = Path("results")
) -> list[Target]:
    """Every target of the study, upstream first: a trial for each link and block, and one for a block of graphs."""
    common = settings.model_dump(mode="json", include=DECODING)
    rounds, trials = -(-MIN_ROUNDS // settings.blocks), []  # all blocks run, so together they have MIN_ROUNDS
    for link in settings.links:
        for block in range(settings.blocks):
            name = f"llm_decode-{link}-{block}"
            values = {**common, "link": link, "block": block, "min_rounds": rounds, "seed": seed, "device": device}
            trials.append(_target("measure", name, f"trials/{name}.json", values, is_trial=True))
    capture, blocks = _graphs(settings, seed, device)
    summary = _target(
        "summarize",
        "",
        "results.json",
        settings.model_dump(mode="json", include={"contrasts", "workload_contrasts"}),
        reads={"trials": trials, **({"workloads": blocks} if blocks else {})},
        merges=[*trials, *blocks],
        beside={
            "summary": [*SUMMARIES, "calibration.json"],
            "analysis": ["disaggregation_analysis.md", "claims.md"],
            "tables": [f"tables/{table}.tex" for table in TABLES],
        },
    )
    return [*trials, *capture, *blocks, summary, figures_target("disaggregation", FIGURES, summary)]


def _graphs(settings: DisaggregationSettings, seed: int, device: str) -> tuple[list[Target], list[Target]]:
    """The workloads of captured graphs: capturing them, and their blocks, each of which writes a record a link."""
    if not (pairs := settings.workload_pairs):
        return [], []
    common = {"shapes": settings.shapes.model_dump(mode="json"), "seed": seed}
    capture = _target(
        "capture", "", "graphs.json", {**common, "workloads": list(dict.fromkeys(name for name, _ in pairs))}
    )
    more = {
        "pairs": [list(pair) for pair in pairs],
        "min_rounds": max(LEAST_ROUNDS, -(-MIN_ROUNDS // settings.blocks)),
        "device": device,
        "baselines": settings.baselines,
    }
    more |= {
        "seconds": settings.workload_seconds,
        "precision": settings.precision,
        "spin_seconds": settings.spin_seconds,
    }
    blocks = []
    for block in range(settings.blocks):
        name = target_name(block)
        first, *others = [f"trials/{name}/{one}-{link}.json" for one, link in pairs]
        values = {**common, **more, "block": block}
        beside = {"others": others} if others else {}
        reads = {"graphs": [capture]}
        blocks.append(_target("measure_graphs", name, first, values, reads=reads, beside=beside, is_trial=True))
    return [capture], blocks
