# What every rules file uses: the checked config, the plan, and `spec_of`.
import os
import sys
from pathlib import Path

PACKAGES = Path(workflow.basedir) / "workflow"
sys.path.insert(0, str(PACKAGES))

from plumbline import config as configuration
from plumbline.core.run import lock
from plumbline.core.errors import UserError
from plumbline.core.files import write_json
from plumbline.core.plan.target import by_name
from plumbline.core.plan.provenance import (
    keep_code,
    move_stale,
    outputs_without_metadata,
)
from snakemake.exceptions import WorkflowError

# Jobs find this package, and the interpreter that runs Snakemake; a conda environment's own comes before it.
for variable, folders in {
    "PYTHONPATH": [str(PACKAGES), os.getcwd()],
    "PATH": [str(Path(sys.executable).parent)],
}.items():
    os.environ[variable] = os.pathsep.join([*folders, os.environ.get(variable, "")])

# Snakemake's options that run no job: with these nothing is locked or moved.
LOOKS_ONLY = set(
    "-n --dry-run --dryrun --lint --report --summary -S --detailed-summary -D --dag --rulegraph --filegraph --d3dag"
    " --list-rules --list -l --list-target-rules --list-changes --list-input-changes --list-params-changes"
    " --list-untracked --unlock --cleanup-metadata --archive --containerize --export-cwl".split()
)

try:
    CONFIG = configuration.check(config)
    lock.check_writable(Path(CONFIG.results))
    PLAN = CONFIG.plan()
    SPECS = {name: target.spec for name, target in by_name(PLAN).items()}
    if workflow.is_main_process:
        untraced = outputs_without_metadata(
            PLAN, Path(CONFIG.results), Path(".snakemake/metadata")
        )
        if LOOKS_ONLY & set(sys.argv):
            for output, why in untraced.items():
                logger.warning(f"{output} will be moved to .stale and rebuilt: {why}")
        else:
            lock.hold(Path(CONFIG.results))
            for line in move_stale(untraced):
                logger.warning(line)
except UserError as error:
    raise WorkflowError(str(error))


pathvars:
    results=CONFIG.results,


def spec_of(stage):
    """The spec, as canonical JSON, of the target of `stage` that a rule's wildcards name."""
    return lambda wildcards: SPECS[stage, "/".join(wildcards)]


def outputs_of(study, stage):
    """Paths of all outputs of one stage of a study."""
    return [
        str(target.file(Path(CONFIG.results)))
        for target in PLAN
        if (target.study, target.stage) == (study, stage)
    ]


wildcard_constraints:
    view="factor|product",
    layers="[^/]+",
    representation="[^/]+",
    shard=r"\d+(-of-\d+)?",
    trial="[^/]+",
    round=r"\d+",


onstart:
    try:
        write_json(
            Path(CONFIG.results) / "config.json", CONFIG.model_dump(mode="json")
        )
        keep_code(PLAN, Path(CONFIG.results))
    except UserError as error:
        raise WorkflowError(str(error))
