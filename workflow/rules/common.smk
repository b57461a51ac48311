# What every rules file uses: the checked config, and what the plan says of a stage's targets.
import os
import sys
from functools import cache
from pathlib import Path

PACKAGES = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(PACKAGES))

from plumbline import config as configuration
from plumbline.core.files import write_json
from plumbline.core.plan.kept_code import keep_code_of
from plumbline.core.plan.provenance import keep_code
from plumbline.core.plan.rules import Rules
from plumbline.core.plan.target import by_name, canonical
from plumbline.core.present.report.chapters import title_and_caption
from plumbline.core.run import execution, terminal
from plumbline.core.run.lock import check_writable
from snakemake.io import report as in_report
from snakemake.settings.types import DeploymentMethod

# Jobs find this package, and the interpreter that runs Snakemake; a conda environment's own comes before it.
for variable, folders in {
    "PYTHONPATH": [str(PACKAGES), os.getcwd()],
    "PATH": [str(Path(sys.executable).parent)],
}.items():
    os.environ[variable] = os.pathsep.join([*folders, os.environ.get(variable, "")])

TERMINAL = terminal.one_line_per_job(logger) if workflow.is_main_process else None

# Named only where conda, or the linter, asks for it: else Snakemake reads it for every job and keeps it with every output.
WITH_CONDA = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method or "--lint" in sys.argv
ENVIRONMENT = PACKAGES.parent / "envs" / "plumbline.yaml" if WITH_CONDA else None

# Jobs that measure have the machine to themselves: more threads than there are, which Snakemake lowers to all; on Slurm
# a node of their own with all its CPUs, without asking for a number. Other executors ignore the latter.
WHOLE_MACHINE = 1000
WHOLE_NODE = {"slurm_extra": "--exclusive", "cpus_per_task": -1}


with terminal.refusing():
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


PLANNED = Rules(PLAN, TARGETS, RESULTS, checkpoints, lambda: workflow.dag_settings.forcerun)
BATCHES = {}
spec_of, inputs_of, outputs_of = PLANNED.spec_of, PLANNED.inputs_of, PLANNED.outputs_of


def checked(check):
    """An input function without inputs: refuses a config that only the jobs of one stage cannot do with."""
    return terminal.refusing()(lambda wildcards: check() or [])


def checked_here(stage, check):
    """An input function without inputs: refuses targets whose settings `check` refuses on the machine that runs them."""
    planned = lambda wildcards: TARGETS[stage, "/".join(wildcards)]
    return lambda wildcards: execution.refuse_here(workflow, planned(wildcards), RESULTS, check) or []


def command(stage, options, piped=False):
    """The shell line of a stage, with its `options` and those that all stages take.

    `piped`: the spec names so many trials that it may be longer than an argument can be.
    """
    given, spec = ("printf %s {params.spec:q} | ", "-") if piped else ("", "{params.spec:q}")
    return f"{given}python -m plumbline.{stage} --spec {spec} {options} --log {{log:q}} 2>> {{log:q}}"


def batches_of(stage, per_job):
    """The targets of `stage` in batches of `per_job`, whose rules make them in place of the rule for a single one."""
    BATCHES[stage] = PLANNED.batches_of(stage, per_job)
    execution.stand_in(workflow, BATCHES[stage])
    return BATCHES[stage]


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


execution.prepare(workflow, PLAN, RESULTS, TERMINAL, ["all", *configuration.STUDIES, "report"], BATCHES)


onerror:
    if TERMINAL:
        logger.error(TERMINAL.summary())


onstart:
    with terminal.refusing():
        write_json(RESULTS / "config.json", CONFIG.model_dump(mode="json"))
        keep_code(PLAN, RESULTS)
