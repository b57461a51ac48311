# Study `sweep`: a trial for each point and seed of each sweep in the config -> tables, figures.
# Needs: your own script or function, and what it reads.
# Makes: results/sweep/<sweep>/{trials,runs,figures,tables}, trials.csv, points.csv, contrasts.csv, effects.csv,
# importance.csv, curves.parquet, best.json, analysis.md.
from plumbline.sweep import settings as sweep_settings

SWEEPS = CONFIG.sweep.sweeps


wildcard_constraints:
    sweep=sweep_settings.NAME,
    point="[^/]+",
    seed=r"-?\d+",


rule sweep_run:
    """One trial: the command or function with one point's values and one seed."""
    output:
        "<results>/sweep/{sweep}/trials/{point}/seed{seed}.json",
    log:
        "<results>/sweep/logs/run/{sweep}/{point}/{seed}.log",
    benchmark:
        "<results>/sweep/benchmarks/run/{sweep}/{point}/{seed}.tsv"
    conda:
        ENVIRONMENT
    threads: lambda wildcards: SWEEPS[wildcards.sweep].resources.threads
    resources:
        folder=lambda wildcards: f"{RESULTS}/sweep/{wildcards.sweep}/runs/{wildcards.point}/seed{wildcards.seed}",
        timeout_seconds=lambda wildcards: str(SWEEPS[wildcards.sweep].timeout_seconds or 0),
        mem_mb=lambda wildcards: SWEEPS[wildcards.sweep].resources.memory_mb or 4000,
        gpu=lambda wildcards: SWEEPS[wildcards.sweep].resources.gpus,
        runtime=lambda wildcards: SWEEPS[wildcards.sweep].runtime_minutes,
    params:
        spec=spec_of("sweep.run"),
    shell:
        command(
            "sweep.run",
            "--folder {resources.folder:q} --timeout-seconds {resources.timeout_seconds} --threads {threads}"
            " --output {output:q}",
        )


rule sweep_summarize:
    """All records of one sweep as tidy tables, and the findings in words."""
    input:
        **inputs_of("sweep.summarize"),
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
        command("sweep.summarize", "--trials {input.trials:q} --output {output.results:q}")


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
