# Study `sweep`: a trial for each point and seed of each sweep in the config -> tables, figures.
# Needs: your own script or function, and what it reads.
# Makes: results/sweep/<sweep>/{trials,runs,rounds,figures,tables}, trials.csv, points.csv, contrasts.csv, effects.csv,
# importance.csv, curves.parquet, best.json, analysis.md; of two metrics front.csv.
import re

from plumbline.sweep import settings as sweep_settings
from plumbline.sweep.decisions import Decisions

SWEEPS = CONFIG.sweep.sweeps
DECISIONS = Decisions(
    SWEEPS,
    PLAN,
    TARGETS,
    RESULTS,
    lambda name, number: checkpoints.sweep_extend.get(sweep=name, round=number).output[0],
)

# What a trial asks for, by its sweep; where all sweeps ask for the same, a plain value, which costs no call a trial.
of_sweep = lambda value: (
    values.pop()
    if len(values := {value(sweep) for sweep in SWEEPS.values()}) == 1
    else lambda wildcards: value(SWEEPS[wildcards.sweep])
)


wildcard_constraints:
    sweep=sweep_settings.NAME,
    point="[^/]+",
    seed=r"-?\d+",


rule sweep_run:
    """One trial: the command or function with one point's values and one seed."""
    input:
        **{"before": DECISIONS.earlier for sweep in SWEEPS.values() if sweep.halving},
    output:
        "<results>/sweep/{sweep}/trials/{point}/seed{seed}.json",
    log:
        "<results>/sweep/logs/run/{sweep}/{point}/{seed}.log",
    benchmark:
        "<results>/sweep/benchmarks/run/{sweep}/{point}/{seed}.tsv"
    conda:
        ENVIRONMENT
    threads: of_sweep(lambda sweep: sweep.resources.threads)
    resources:
        folder=DECISIONS.folder,
        timeout_seconds=of_sweep(lambda sweep: str(sweep.timeout_seconds or 0)),
        mem_mb=of_sweep(lambda sweep: sweep.resources.memory_mb or 4000),
        gpu=of_sweep(lambda sweep: sweep.resources.gpus),
        runtime=of_sweep(lambda sweep: sweep.runtime_minutes),
    params:
        spec=spec_of("sweep.run"),
    shell:
        command(
            "sweep.run",
            "--folder {resources.folder:q} --timeout-seconds {resources.timeout_seconds} --threads {threads}"
            " --output {output:q}",
        )


checkpoint sweep_extend:
    """Which points a search adds, or which ones halving lets go on."""
    input:
        **DECISIONS.before(inputs_of("sweep.extend")),
    output:
        "<results>/sweep/{sweep}/rounds/{round}.json",
    log:
        "<results>/sweep/logs/extend/{sweep}/{round}.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("sweep.extend"),
    shell:
        command("sweep.extend", "--trials {input.trials:q} --output {output:q}", piped=True)


rule sweep_summarize:
    """All records of one sweep as tidy tables, and the findings in words."""
    input:
        **DECISIONS.before(inputs_of("sweep.summarize")),
    output:
        results="<results>/sweep/{sweep}/results.json",
        trials_table="<results>/sweep/{sweep}/trials.csv",
        points="<results>/sweep/{sweep}/points.csv",
        contrasts="<results>/sweep/{sweep}/contrasts.csv",
        effects="<results>/sweep/{sweep}/effects.csv",
        importance="<results>/sweep/{sweep}/importance.csv",
        curves="<results>/sweep/{sweep}/curves.parquet",
        best="<results>/sweep/{sweep}/best.json",
        analysis="<results>/sweep/{sweep}/analysis.md",
        tables=expand("<results>/sweep/{{sweep}}/tables/{table}.tex", table=sweep_settings.TABLES),
    log:
        "<results>/sweep/logs/summarize/{sweep}.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("sweep.summarize"),
    shell:
        command("sweep.summarize", "--trials {input.trials:q} --output {output.results:q}", piped=True)


rule sweep_front:
    """The Pareto front of a sweep with two metrics."""
    input:
        **inputs_of("sweep.front"),
    output:
        table="<results>/sweep/{sweep}/front.csv",
        pdf=expand("<results>/sweep/{{sweep}}/figures/{figure}.pdf", figure=sweep_settings.FRONT_FIGURES),
        png=pictures("sweep", sweep_settings.FRONT_FIGURES, inside="{sweep}/"),
    log:
        "<results>/sweep/logs/front/{sweep}.log",
    wildcard_constraints:
        sweep="|".join(re.escape(name) for name, sweep in SWEEPS.items() if len(sweep.metrics) > 1) or "(?!)",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("sweep.front"),
    shell:
        command("sweep.front", "--results {input.results:q} --output {output.table:q}")


rule sweep_figures:
    """The figures of one sweep."""
    input:
        **inputs_of("sweep.figures"),
    output:
        pdf=expand("<results>/sweep/{{sweep}}/figures/{figure}.pdf", figure=sweep_settings.FIGURES),
        png=pictures("sweep", sweep_settings.FIGURES, inside="{sweep}/"),
    log:
        "<results>/sweep/logs/figures/{sweep}.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("sweep.figures"),
    shell:
        command("sweep.figures", "--results {input.results:q} --output {output.pdf[0]:q}")


rule sweep:
    """The whole study."""
    input:
        outputs_of("sweep"),
        DECISIONS.outputs(),
