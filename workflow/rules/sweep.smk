# Study `sweep`: a trial for each point and seed of each sweep in the config -> tables, figures.
# Needs: your own script or function, and what it reads.
# Makes: results/sweep/<sweep>/{trials,runs,rounds,figures,tables}, trials.csv, points.csv, contrasts.csv, effects.csv,
# importance.csv, curves.parquet, best.json, analysis.md.
from itertools import count

from plumbline.sweep import settings as sweep_settings
from plumbline.sweep.plan import decided, folder_of, sweep_plan

SWEEPS = CONFIG.sweep.sweeps
DECIDING = [name for name, sweep in SWEEPS.items() if ("sweep.extend", f"{name}/0") in TARGETS]
DECISIONS = {
    str(target.file(RESULTS)): target.file(RESULTS).stat().st_mtime_ns
    for target in PLAN
    if (target.study, target.stage) == ("sweep", "extend") and target.file(RESULTS).exists()
}
"""Decisions that the plan follows, and when each was written."""


def follow_decisions(name, before=None):
    """Plans the sweep `name` as its decisions say, those from number `before` on left out; waits for them in turn."""
    for number in count():
        if str(number) == before or ("sweep.extend", f"{name}/{number}") not in TARGETS:
            return
        file = checkpoints.sweep_extend.get(sweep=name, round=number).output[0]
        if DECISIONS.get(file) != (written := os.stat(file).st_mtime_ns):
            DECISIONS[file] = written
            follow(name, number)


def follow(name, number):
    """Plans the sweep `name` again, now that its decision `number` is there."""
    with user_errors_as_workflow_errors():
        found = sweep_plan(name, SWEEPS[name], RESULTS)
        target = by_name(found)["sweep.extend", f"{name}/{number}"]
        if decided(target, RESULTS) is None:
            raise UserError(
                f"{target.file(RESULTS)}: was decided with other settings, code or trials; remove rerun-triggers from"
                " your profile or command line and run snakemake again, or delete it"
            )
    own = lambda target: target.study == "sweep" and target.name.split("/")[0] == name
    for target in filter(own, PLAN):
        if target.stage == "extend":
            del TARGETS["sweep.extend", target.name]
    PLAN[:] = [*(target for target in PLAN if not own(target)), *found]
    TARGETS.update(by_name(found))


def after_decisions(inputs):
    """Input functions of the sweep that the wildcards name, which wait for its decisions; of a decision, earlier ones."""

    def following(files):
        def found(wildcards):
            follow_decisions(wildcards.sweep, wildcards.get("round"))
            return files(wildcards)

        return found

    return {name: following(files) for name, files in inputs.items()}


def decided_outputs(name):
    """The files of a sweep once its decisions are taken."""

    def files(wildcards):
        follow_decisions(name)
        return study_files([target for target in PLAN if target.name.split("/")[0] == name], "sweep", RESULTS)

    return files


def earlier_budget(wildcards):
    """The trial's record with a smaller budget, in whose folder it goes on."""
    target = TARGETS["sweep.run", "/".join(wildcards)]
    return target.inputs(RESULTS).get("before", [])


wildcard_constraints:
    sweep=sweep_settings.NAME,
    point="[^/]+",
    seed=r"-?\d+",


def of_sweep(value):
    """What a trial asks for, by its sweep; where all sweeps ask for the same, a plain value, which costs no call a trial."""
    values = {value(sweep) for sweep in SWEEPS.values()}
    return values.pop() if len(values) == 1 else lambda wildcards: value(SWEEPS[wildcards.sweep])


rule sweep_run:
    """One trial: the command or function with one point's values and one seed."""
    input:
        **{"before": earlier_budget for sweep in SWEEPS.values() if sweep.halving},
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
        folder=lambda wildcards: str(folder_of(TARGETS["sweep.run", "/".join(wildcards)], RESULTS)),
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
        **after_decisions(inputs_of("sweep.extend")),
    output:
        "<results>/sweep/{sweep}/rounds/{round}.json",
    log:
        "<results>/sweep/logs/extend/{sweep}/{round}.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("sweep.extend"),
    shell:
        command("sweep.extend", "--trials {input.trials:q} --output {output:q}")


rule sweep_summarize:
    """All records of one sweep as tidy tables, and the findings in words."""
    input:
        **after_decisions(inputs_of("sweep.summarize")),
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
        [decided_outputs(name) for name in DECIDING],
