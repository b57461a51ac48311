"""What happens between Snakemake's parsing of the workflow and its first job.

Imported by the workflow alone; no stage knows Snakemake.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from snakemake.exceptions import MissingRuleException
from snakemake.logging import logger
from snakemake.resources import Resources

from plumbline.core.errors import UserError
from plumbline.core.plan.batch import Batch, keeping
from plumbline.core.plan.provenance import is_current
from plumbline.core.plan.target import Target
from plumbline.core.run import terminal
from plumbline.core.run.begin import begin, would_begin

METADATA = Path(".snakemake/metadata")
warn_once = cache(logger.warning)


def prepare(
    workflow: Any,
    plan: Sequence[Target],
    results: Path,
    lines: terminal.Lines | None,
    names: Sequence[str],
    batches: Mapping[str, Sequence[Batch]],
) -> None:
    """Has the workflow prepare its results, and refuse what cannot run, before it executes anything.

    While it parses, Snakemake tells no one whether it is going to run jobs; it calls `execute` when it is, and only
    then (not for --lint, --dag, --summary, --report, --unlock, ...), before it looks at any file.
    names: its targets. batches: those of each stage whose targets may share jobs; may still grow.
    """
    execute = workflow.execute
    _compare_by_target(workflow, plan, results, batches)

    def execute_prepared(executor_plugin: Any, *args: Any, **kwargs: Any) -> Any:
        every = [batch for found in batches.values() for batch in found]
        _force_batches(workflow, every)
        modes = executor_plugin.common_settings
        if workflow.is_main_process:
            _begin(workflow, executor_plugin, plan, results, lines)
        runs = workflow.is_main_process and not modes.dryrun_exec and not modes.touch_exec
        kept = [target for batch in every for target in batch.targets if runs]
        try:
            with terminal.refusing(), keeping(kept, results, _forced(workflow, every, results)):
                return execute(executor_plugin, *args, **kwargs)
        except MissingRuleException as error:
            files = [str(file) for target in plan for file in target.files(results)]
            raise terminal.unknown_target(workflow.dag_settings.targets, names, files) or error from None

    workflow.execute = execute_prepared


def _begin(
    workflow: Any, executor_plugin: Any, plan: Sequence[Target], results: Path, lines: terminal.Lines | None
) -> None:
    terminal.check_executor(executor_plugin.name, workflow.resource_settings.cores)
    modes, run = executor_plugin.common_settings, (plan, results, METADATA)
    with terminal.refusing():
        for line in would_begin(*run) if modes.dryrun_exec else begin(*run, touch=modes.touch_exec):
            logger.warning(line)
    if modes.dryrun_exec and lines:
        lines.shorten(executor_plugin.executor)
    if modes.local_exec:
        # A limit for submissions to a cluster. Here it would have the scheduler go over all jobs that are left once
        # a second for each job that has started, which takes longer than the jobs themselves where they are short.
        workflow.scheduling_settings.max_jobs_per_timespan = None


def stand_in(workflow: Any, batches: Sequence[Batch]) -> None:
    """Has the rules of `batches` replace the one that makes a target alone, with all that --set-resources and
    --set-threads say of it; what they say of a batch's own rule comes first."""
    if batches:
        workflow.ruleorder(*(batch.rule for batch in batches), batches[0].rule_for_one)
    settings = workflow.resource_settings
    resources, threads = settings._parsed_overwrite_resources, settings._parsed_overwrite_threads
    for batch in batches:
        if given := resources.get(batch.rule_for_one):
            resources[batch.rule] = Resources({**given, **resources.get(batch.rule, {})})
        if batch.rule_for_one in threads:
            threads.setdefault(batch.rule, threads[batch.rule_for_one])


def _compare_by_target(
    workflow: Any, plan: Sequence[Target], results: Path, batches: Mapping[str, Sequence[Batch]]
) -> None:
    """Has Snakemake leave alone what is current, but was made by a job of other targets than today's.

    It compares the code, inputs and parameters of whole jobs, so that all trials would run again where more or fewer
    of them come to share one.
    """
    prepare_dag = workflow._prepare_dag

    def prepare_dag_by_target(*args: Any, **kwargs: Any) -> None:
        prepare_dag(*args, **kwargs)
        targets = {
            name: target
            for target in plan
            if f"{target.study}.{target.stage}" in batches
            for name in target.file_names(results)
        }
        specs = {name: target.spec for name, target in targets.items()}
        for batch in (batch for found in batches.values() for batch in found):
            specs |= dict.fromkeys(batch.outputs(results), batch.spec(results))
        recorded = workflow.persistence
        params = recorded.params

        @cache
        def changed_jobs(output: Any) -> bool:
            name = str(output)
            return name in targets and params(output) != [repr(specs[name])] and is_current(targets[name], results)

        def unless_changed(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
            """None, which Snakemake compares with nothing, for an output that changed jobs."""
            return lambda output: None if changed_jobs(output) else read(output)

        recorded.code, recorded.input = unless_changed(recorded.code), unless_changed(recorded.input)
        recorded.params = unless_changed(params)

    workflow._prepare_dag = prepare_dag_by_target


def _force_batches(workflow: Any, batches: Sequence[Batch]) -> None:
    """Forces batches where their stage is: --forcerun ablation_train."""
    forced = set(workflow.dag_settings.forcerun)
    forced |= {batch.rule for batch in batches if batch.rule_for_one in forced}
    workflow.dag_settings.forcerun = frozenset(forced)


def _forced(workflow: Any, batches: Sequence[Batch], results: Path) -> Callable[[Target], bool]:
    """Whether a target of `batches` is asked for whether it is current or not, by its rule or by its file."""
    asked = workflow.dag_settings
    names = {*asked.forcerun, *(asked.targets if asked.forcetargets else ())}
    files = set(map(os.path.abspath, names))
    by_rule = {id(target) for batch in batches if asked.forceall or batch.rule in names for target in batch.targets}
    return lambda target: (
        id(target) in by_rule or not files.isdisjoint(map(os.path.abspath, target.file_names(results)))
    )


def refuse_here(workflow: Any, target: Target, results: Path, check: Callable[..., object]) -> None:
    """Refuses `target` where `check` refuses its settings on the machine that runs it.

    Only where that is this machine, and only a target that is not done. A dry run, which may be for a cluster, warns.
    """
    if not workflow.local_exec or is_current(target, results):
        return
    try:
        check(target.settings)
    except UserError as error:
        if not workflow.dryrun:
            raise terminal.RefusedError(str(error)) from None
        warn_once(f"a run on this machine would be refused: {error}")
