# The whole workflow: `snakemake --cores all` makes every study; `snakemake <study>` makes one.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


include: "workflow/rules/common.smk"


for study in configuration.STUDIES:

    include: f"workflow/rules/{study}.smk"


include: "workflow/rules/report.smk"


# The longest chain comes first: its last training, of one process, is to have others beside it.
# Summaries and figures come last: measurements, which take all cores, need not wait for them, and in the end the summaries
# and figures of all studies share the cores.
CHAIN = [f"lr_sweep_{stage}" for stage in ("corpus", "tokenizer", "tokens", "train", "extend", "best")]
for each in workflow.rules:
    if each.name in (*CHAIN, "throughput_base"):
        each.priority = 2
    if each.name.endswith(("_summarize", "_front", "_figures", "_samples", "_notebook")):
        each.priority = -1


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        [getattr(rules, study).input for study in configuration.STUDIES],
        rules.report.output,
