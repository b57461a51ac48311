# What every rules file uses: the checked config, and what the plan says of a stage's targets.
import os
import sys
from contextlib import contextmanager
from functools import cache
from pathlib import Path

PACKAGES = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(PACKAGES))

from plumbline import config as configuration
from plumbline.core.errors import UserError
from plumbline.core.files import write_json
from plumbline.core.plan.kept_code import keep_code_of
from plumbline.core.plan.batch import batches
from plumbline.core.plan.provenance import is_current, keep_code, read_contents
from plumbline.core.plan.target import by_name, canonical, study_files
from plumbline.core.present.report.chapters import title_and_caption
from plumbline.core.run import terminal
from plumbline.core.run.begin import begin, would_begin
from plumbline.core.run.lock import check_writable
from snakemake.exceptions import MissingRuleException
from snakemake.io import report as in_report
from snakemake.settings.types import DeploymentMethod

# Jobs find this package, and the interpreter that runs Snakemake; a conda environment's own comes before it.
for variable, folders in {
    "PYTHONPATH": [str(PACKAGES), os.getcwd()],
    "PATH": [str(Path(sys.executable).parent)],
}.items():
    os.environ[variable] = os.pathsep.join([*folders, os.environ.get(variable, "")])

warn_once = cache(logger.warning)
TERMINAL = terminal.one_line_per_job(logger) if workflow.is_main_process else None

# Named only where conda, or the linter, asks for it: else Snakemake reads it for every job and keeps it with every output.
WITH_CONDA = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method or "--lint" in sys.argv
ENVIRONMENT = PACKAGES.parent / "envs" / "plumbline.yaml" if WITH_CONDA else None

# Jobs that measure have the machine to themselves: more threads than there are, which Snakemake lowers to all; on Slurm
# a node of their own with all its CPUs, without asking for a number. Other executors ignore the latter.
WHOLE_MACHINE = 1000
WHOLE_NODE = {"slurm_extra": "--exclusive", "cpus_per_task": -1}


@contextmanager
def user_errors_as_workflow_errors():
    """A UserError ends Snakemake with one line."""
    try:
        yield
    except UserError as error:
        raise terminal.RefusedError(str(error)) from None


with user_errors_as_workflow_errors():
    for path in workflow.configfiles:
        configuration.check_keys(Path(path))
    CONFIG = configuration.check(config)
    RESULTS = Path(os.path.normpath(CONFIG.results))
    check_writable(RESULTS)
    PLAN = CONFIG.plan()
    TARGETS = by_name(PLAN)
    CODE = [target.code for target in PLAN]  # code that cannot be found is named before any job starts
    keep_code_of({configuration.REPORT, *(target.root for target in PLAN)})


pathvars:
    results=str(RESULTS),


def contents_of(stage):
    """Manifests of the contents that specs of `stage` depend on, once they are there: then its jobs are planned again."""

    def manifests(wildcards):
        targets = [content.target for content in TARGETS[stage, "/".join(wildcards)].contents]
        for target in targets:
            if not is_current(target, RESULTS):
                getattr(checkpoints, f"{target.study}_{target.stage}").get()
        return [ancient(str(target.file(RESULTS))) for target in targets]  # only the spec makes a reader stale

    return manifests


def spec_of(stage):
    """The spec, as canonical JSON, of the target of `stage` that the wildcards name."""
    manifests = contents_of(stage)

    def spec(wildcards):
        target = TARGETS[stage, "/".join(wildcards)]
        if manifests(wildcards):
            read_contents([target], RESULTS)
        return target.spec

    return spec


def inputs_of(stage, added=lambda wildcards: ()):
    """Named inputs of the targets of `stage`, from the plan: what the wildcards' one reads; optional ones if `added`."""

    def files_under(name):
        def files(wildcards):
            target = TARGETS[stage, "/".join(wildcards)]
            contents = {str(file) for content in target.contents for file in content.target.files(RESULTS)}
            own = {id(need) for need in target.needs}  # 10,000 trials compared with each other would take half a minute
            wait = any(need.optional for need in target.reads.get(name, target.needs) if id(need) in own)
            found = target.inputs(RESULTS, added(wildcards) if wait else ()).get(name, [])
            return [ancient(file) if file in contents else file for file in found]

        return files

    targets = [target for (of, _), target in TARGETS.items() if of == stage]
    contents = {"contents": contents_of(stage)} if any(target.contents for target in targets) else {}
    return contents | {name: files_under(name) for target in targets for name in target.inputs(RESULTS)}


def outputs_of(study, added=lambda wildcards: ()):
    """Every trial, table and figure of a study, so that one that is deleted is rebuilt; optional trials if `added`."""
    files = study_files(PLAN, study, RESULTS)
    known = set(files)
    more = lambda wildcards: study_files(PLAN, study, RESULTS, added(wildcards))
    return [files, lambda wildcards: [file for file in more(wildcards) if file not in known]]


def checked(check):
    """An input function without inputs: refuses a config that only the jobs of one stage cannot do with."""
    return user_errors_as_workflow_errors()(lambda wildcards: check() or [])


def checked_here(stage, check):
    """An input function without inputs: refuses targets whose settings `check` refuses on the machine that runs them.

    Only where that is this machine, and only targets that are not done. A dry run, which may be for a cluster, warns.
    """

    def checked_settings(wildcards):
        target = TARGETS[stage, "/".join(wildcards)]
        if workflow.local_exec and not is_current(target, RESULTS):
            try:
                check(target.settings)
            except UserError as error:
                if not workflow.dryrun:
                    raise terminal.RefusedError(str(error)) from None
                warn_once(f"a run on this machine would be refused: {error}")
        return []

    return checked_settings


def command(stage, options, piped=False):
    """The shell line of a stage, with its `options` and those that all stages take.

    `piped`: the spec names so many trials that it may be longer than an argument can be.
    """
    given, spec = ("printf %s {params.spec:q} | ", "-") if piped else ("", "{params.spec:q}")
    return f"{given}python -m plumbline.{stage} --spec {spec} {options} --log {{log:q}} 2>> {{log:q}}"


def batches_of(stage, per_job):
    """The targets of `stage` in batches of `per_job`, whose rules make them in place of the rule for a single one."""
    found = batches([target for (of, _), target in TARGETS.items() if of == stage], per_job)
    if found:
        workflow.ruleorder(*(batch.rule for batch in found), stage.replace(".", "_"))
    return found


def batch_outputs(batch):
    """The files that a batch makes. Those that are there stay when its job begins, which makes only what is not current."""
    return list(map(update, batch.outputs(RESULTS)))


def batch_command(stage, options=""):
    """The shell line that makes a batch of targets of `stage`, each with `options`."""
    return f"printf %s {{params.spec:q}} | python -m plumbline.core.run.batch plumbline.{stage} {options} 2>> {{log:q}}"


def pictures(study, figures, inside=""):
    """The PNG files of `figures`, each with its caption in Snakemake's report; `inside` a folder of the study."""
    captions = {figure: PACKAGES / "report" / f"{study}-{figure}.rst" for figure in figures}
    return [
        in_report(
            f"<results>/{study}/{inside}figures/{figure}.png",
            caption=str(caption),
            category=study,
            subcategory=inside.rstrip("/") or None,
            labels={"figure": title_and_caption(caption.read_text(encoding="utf-8"), figure)[0]},
        )
        for figure, caption in captions.items()
    ]


# While it parses, Snakemake tells no one whether it is going to run jobs; it calls `execute` when it is, and only then
# (not for --lint, --dag, --summary, --report, --unlock, ...), before it looks at any file.
def execute_prepared(executor_plugin, *args, execute=workflow.execute, **kwargs):
    forced = workflow.dag_settings.forcerun
    for rule in workflow.rules:
        if workflow.dag_settings.forceall or rule.name in forced:
            for file in rule.output:
                file.flags.pop("update", None)  # nothing stays
    if workflow.is_main_process:
        terminal.check_executor(executor_plugin.name, workflow.resource_settings.cores)
        modes, run = executor_plugin.common_settings, (PLAN, RESULTS, Path(".snakemake/metadata"))
        with user_errors_as_workflow_errors():
            for line in would_begin(*run) if modes.dryrun_exec else begin(*run, touch=modes.touch_exec):
                logger.warning(line)
        if modes.dryrun_exec and TERMINAL:
            TERMINAL.shorten(executor_plugin.executor)
        if modes.local_exec:
            # A limit for submissions to a cluster. Here it would have the scheduler go over all jobs that are left once
            # a second for each job that has started, which takes longer than the jobs themselves where they are short.
            workflow.scheduling_settings.max_jobs_per_timespan = None
    try:
        return execute(executor_plugin, *args, **kwargs)
    except MissingRuleException as error:
        files = [str(file) for target in PLAN for file in target.files(RESULTS)]
        raise terminal.unknown_target(
            workflow.dag_settings.targets, ["all", *configuration.STUDIES, "report"], files
        ) or error


workflow.execute = execute_prepared


onerror:
    if TERMINAL:
        logger.error(TERMINAL.summary())


onstart:
    with user_errors_as_workflow_errors():
        write_json(RESULTS / "config.json", CONFIG.model_dump(mode="json"))
        keep_code(PLAN, RESULTS)
