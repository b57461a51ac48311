# Study `disaggregation`: blocks of interleaved turns, local and on a worker -> tables, figures.
# Needs: nothing; links of a limited rate need root, ip and tc, and are recorded as unavailable elsewhere.
# Makes: results/disaggregation/{trials,figures,tables}, summary.csv, contrasts.csv, heat_map.csv, workloads.csv,
# cost_model.csv, calibration.json, disaggregation_analysis.md, claims.md; graphs.json where workloads are named.
from plumbline.disaggregation import settings as disaggregation_settings


rule disaggregation_measure:
    """One block on one link: a fresh worker and client; measures, so it runs alone."""
    output:
        "<results>/disaggregation/trials/{trial,[^/]+}.json",
    log:
        "<results>/disaggregation/logs/measure/{trial}.log",
    benchmark:
        "<results>/disaggregation/benchmarks/measure/{trial}.tsv"
    conda:
        ENVIRONMENT
    threads: WHOLE_MACHINE
    resources:
        **WHOLE_NODE,
    params:
        spec=spec_of("disaggregation.measure"),
    shell:
        "OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 "
        + command(
            "disaggregation.measure",
            "--output {output:q}",
        )


for batch in batches_of("disaggregation.measure", CONFIG.disaggregation.blocks_per_job):

    rule:
        """Some of the blocks, one after another, each in processes forked for it alone; measures, so it runs alone."""
        name:
            batch.rule
        output:
            batch.outputs(RESULTS),
        log:
            f"<results>/disaggregation/{batch.log}",
        benchmark:
            f"<results>/disaggregation/{batch.benchmark}"
        conda:
            ENVIRONMENT
        threads: WHOLE_MACHINE
        resources:
            **WHOLE_NODE,
        params:
            spec=batch.spec(RESULTS),
        shell:
            f"export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1; {batch_command('disaggregation.measure')}"


DISAGGREGATION_BLOCK = [
    f"<results>/disaggregation/trials/{{block}}/{workload}-{link}.json"
    for workload, link in CONFIG.disaggregation.workload_pairs
]

if DISAGGREGATION_BLOCK:

    rule disaggregation_capture:
        """The graphs of the other workloads, captured once."""
        output:
            "<results>/disaggregation/graphs.json",
        log:
            "<results>/disaggregation/logs/capture/all.log",
        benchmark:
            "<results>/disaggregation/benchmarks/capture/all.tsv"
        conda:
            ENVIRONMENT
        params:
            spec=spec_of("disaggregation.capture"),
        shell:
            command("disaggregation.capture", "--output {output:q}")

    rule disaggregation_measure_graphs:
        """One block of the other workloads, on every link: fresh workers and clients; measures, so it runs alone."""
        input:
            **inputs_of("disaggregation.measure_graphs"),
        output:
            first=DISAGGREGATION_BLOCK[0],
            others=DISAGGREGATION_BLOCK[1:],
        log:
            "<results>/disaggregation/logs/measure_graphs/{block}.log",
        benchmark:
            "<results>/disaggregation/benchmarks/measure_graphs/{block}.tsv"
        conda:
            ENVIRONMENT
        threads: WHOLE_MACHINE
        resources:
            **WHOLE_NODE,
        params:
            spec=spec_of("disaggregation.measure_graphs"),
        shell:
            "OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 "
            + command(
                "disaggregation.measure_graphs",
                "--graphs {input.graphs:q} --output {output.first:q}",
            )


for batch in batches_of("disaggregation.measure_graphs", CONFIG.disaggregation.blocks_per_job):

    rule:
        """Some of the blocks of the other workloads, one after another; measures, so it runs alone."""
        name:
            batch.rule
        input:
            **PLANNED.inputs_of_batch(batch),
        output:
            batch.outputs(RESULTS),
        log:
            f"<results>/disaggregation/{batch.log}",
        benchmark:
            f"<results>/disaggregation/{batch.benchmark}"
        conda:
            ENVIRONMENT
        threads: WHOLE_MACHINE
        resources:
            **WHOLE_NODE,
        params:
            spec=batch.spec(RESULTS),
        shell:
            f"export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1; {batch_command('disaggregation.measure_graphs')}"


DISAGGREGATION_RECORDS = " ".join(
    f"{{input.{name}:q}}" for name in ("workloads", "others") if name in inputs_of("disaggregation.summarize")
)


rule disaggregation_summarize:
    """All blocks as one table, and the findings in words."""
    input:
        **inputs_of("disaggregation.summarize"),
    output:
        results="<results>/disaggregation/results.json",
        summary="<results>/disaggregation/summary.csv",
        contrasts="<results>/disaggregation/contrasts.csv",
        heat_map="<results>/disaggregation/heat_map.csv",
        workloads="<results>/disaggregation/workloads.csv",
        costs="<results>/disaggregation/cost_model.csv",
        calibration="<results>/disaggregation/calibration.json",
        analysis="<results>/disaggregation/disaggregation_analysis.md",
        claims="<results>/disaggregation/claims.md",
        tables=expand("<results>/disaggregation/tables/{table}.tex", table=disaggregation_settings.TABLES),
    log:
        "<results>/disaggregation/logs/summarize/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("disaggregation.summarize"),
    shell:
        command(
            "disaggregation.summarize",
            f"--trials {{input.trials:q}} --workloads {DISAGGREGATION_RECORDS} --output {{output.results:q}}",
        )


rule disaggregation_figures:
    """The study's figures."""
    input:
        **inputs_of("disaggregation.figures"),
    output:
        pdf=expand("<results>/disaggregation/figures/{figure}.pdf", figure=disaggregation_settings.FIGURES),
        png=pictures("disaggregation", disaggregation_settings.FIGURES),
    log:
        "<results>/disaggregation/logs/figures/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("disaggregation.figures"),
    shell:
        command(
            "disaggregation.figures",
            "--results {input.results:q} --output {output.pdf[0]:q}",
        )


rule disaggregation:
    """The whole study."""
    input:
        outputs_of("disaggregation"),
