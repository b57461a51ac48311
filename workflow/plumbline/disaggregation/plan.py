"""The plan of the `disaggregation` study: which targets there are, and what decides each."""

from functools import partial
from pathlib import Path

from plumbline.core.measure.interleave import MIN_ROUNDS
from plumbline.core.plan.target import Target, Targets, figures_target
from plumbline.disaggregation.settings import FIGURES, TABLES, DisaggregationSettings

_target = partial(Target, "disaggregation")


def plan(
    settings: DisaggregationSettings, seed: int, upstream: Targets, device: str, results: Path = Path("results")
) -> list[Target]:
    """Every target of the study, upstream first: a trial for each link and block."""
    common = settings.model_dump(mode="json", exclude={"links", "blocks"})
    rounds, trials = -(-MIN_ROUNDS // settings.blocks), []  # all blocks run, so together they have MIN_ROUNDS
    for link in settings.links:
        for block in range(settings.blocks):
            name = f"llm_decode-{link}-{block}"
            values = {**common, "link": link, "block": block, "min_rounds": rounds, "seed": seed, "device": device}
            trials.append(_target("measure", name, f"trials/{name}.json", values, is_trial=True))
    summary = _target(
        "summarize",
        "",
        "results.json",
        {},
        reads={"trials": trials},
        merges=trials,
        beside={
            "summary": ["summary.csv", "contrasts.csv"],
            "analysis": ["disaggregation_analysis.md", "claims.md"],
            "tables": [f"tables/{table}.tex" for table in TABLES],
        },
    )
    return [*trials, summary, figures_target("disaggregation", FIGURES, summary)]
