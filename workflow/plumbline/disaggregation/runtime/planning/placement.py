"""Where a program runs: here, on one worker, or spread over several, as the calibrated cost model finds fastest."""

from typing import Any

from plumbline.disaggregation.runtime.planning.cost_model import CostModel
from plumbline.disaggregation.runtime.planning.demands import demands
from plumbline.disaggregation.runtime.planning.schedule import Captured, Plan, Policy, here, schedule

SPREADS = ("split", "pipeline", "branches")


def placed(program: Captured, policy: Policy, costs: CostModel, link: str, **spread: Any) -> Plan:
    """The plan of a call: where `policy.cost_placement` is on, the fastest by the model; else what `schedule` gives.

    link: one that the model was calibrated for; UserError for any other. spread: what `schedule` takes besides, such as
    `micro_batches`.
    """
    everywhere = schedule(program, policy, **spread)
    if not policy.cost_placement:
        return everywhere
    alone = policy
    for name in SPREADS:
        alone = alone.without(name)
    plans = {"here": here(program), "worker": schedule(program, alone, **spread), "spread": everywhere}
    told = demands(plans)
    return min(plans.items(), key=lambda one: costs.seconds(told.plans[one[0]], told.work, link))[1]
