# The whole workflow: `snakemake --cores all` makes every study; `snakemake <study>` makes one.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/ablation.smk"
include: "workflow/rules/lr_sweep.smk"
include: "workflow/rules/throughput.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        rules.ablation.input,
        rules.lr_sweep.input,
        rules.throughput.input,
