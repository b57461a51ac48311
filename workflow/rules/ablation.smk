# Study `ablation`: LoRA weights -> adapter store -> features -> trials -> tables and figures.
# Needs: nothing for the zoo; a data set or a folder of adapters for the other sources.
# Makes: results/ablation/{adapters,features,trials,tables,figures}, results.json, summary.csv, runs.csv, contrasts.csv.
from plumbline.ablation import settings as ablation_settings


wildcard_constraints:
    view="factor|product",
    layers="[^/]+",
    representation="[^/]+",
    shard=r"\d+(-of-\d+)?",


if CONFIG.ablation.source == "zoo":

    rule ablation_pretrain:
        """The diffusion model that the zoo's adapters adapt."""
        output:
            "<results>/ablation/zoo/base.safetensors",
        log:
            "<results>/ablation/logs/pretrain/all.log",
        benchmark:
            "<results>/ablation/benchmarks/pretrain/all.tsv"
        conda:
            ENVIRONMENT
        resources:
            device=CONFIG.device,
        params:
            spec=spec_of("ablation.pretrain"),
        shell:
            command("ablation.pretrain", "--device {resources.device} --output {output:q}")

    rule ablation_adapt:
        """One share of the zoo's adapters."""
        input:
            **inputs_of("ablation.adapt"),
        output:
            "<results>/ablation/zoo/shard-{shard}.safetensors",
        log:
            "<results>/ablation/logs/adapt/{shard}.log",
        benchmark:
            "<results>/ablation/benchmarks/adapt/{shard}.tsv"
        conda:
            ENVIRONMENT
        resources:
            device=CONFIG.device,
        params:
            spec=spec_of("ablation.adapt"),
        shell:
            command(
                "ablation.adapt",
                "--device {resources.device} --base {input.base:q} --output {output:q}",
            )

    rule ablation_samples:
        """Images that the zoo's base and adapters draw."""
        input:
            **inputs_of("ablation.samples"),
        output:
            png=pictures("ablation", ["zoo"]),
            pdf="<results>/ablation/figures/zoo.pdf",
        log:
            "<results>/ablation/logs/samples/all.log",
        conda:
            ENVIRONMENT
        params:
            spec=spec_of("ablation.samples"),
        shell:
            command(
                "ablation.samples",
                "--base {input.base:q} --shard {input.shard:q} --output {output.png:q}",
            )


rule ablation_collect:
    """The adapters of the chosen source, in the one form that the features read."""
    input:
        **inputs_of("ablation.collect"),
    output:
        "<results>/ablation/adapters/manifest.json",
    log:
        "<results>/ablation/logs/collect/all.log",
    benchmark:
        "<results>/ablation/benchmarks/collect/all.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("ablation.collect"),
    shell:
        command("ablation.collect", "--shards {input.shards:q} --output {output:q}")


rule ablation_split:
    """The adapters that each run trains, validates and tests on; the same for every trial."""
    input:
        **inputs_of("ablation.split"),
    output:
        "<results>/ablation/splits.safetensors",
    log:
        "<results>/ablation/logs/split/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("ablation.split"),
    shell:
        command("ablation.split", "--adapters {input.adapters:q} --output {output:q}")


rule ablation_features:
    """One representation of every adapter, over all layers; joined from its shards where there are some."""
    input:
        **inputs_of("ablation.features"),
    output:
        features="<results>/ablation/features/{view}/{representation}.safetensors",
        seconds="<results>/ablation/features/{view}/{representation}.json",
    log:
        "<results>/ablation/logs/features/{view}/{representation}.log",
    benchmark:
        "<results>/ablation/benchmarks/features/{view}/{representation}.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("ablation.features"),
    shell:
        command(
            "ablation.features",
            "--adapters {input.adapters:q} --shards {input.shards:q} --output {output.features:q}",
        )


if CONFIG.ablation.shards > 1:

    use rule ablation_features as ablation_features_shard with:
        output:
            features="<results>/ablation/features/{view}/{representation}/{shard}.safetensors",
            seconds="<results>/ablation/features/{view}/{representation}/{shard}.json",
        log:
            "<results>/ablation/logs/features/{view}/{representation}/{shard}.log",
        benchmark:
            "<results>/ablation/benchmarks/features/{view}/{representation}/{shard}.tsv"


rule ablation_train:
    """One trial: each classifier, ten times, on one representation of one layer set."""
    input:
        **inputs_of("ablation.train"),
    output:
        "<results>/ablation/trials/{view}/{layers}/{representation}.json",
    log:
        "<results>/ablation/logs/train/{view}/{layers}/{representation}.log",
    benchmark:
        "<results>/ablation/benchmarks/train/{view}/{layers}/{representation}.tsv"
    conda:
        ENVIRONMENT
    resources:
        device=CONFIG.device,
    params:
        spec=spec_of("ablation.train"),
    shell:
        command(
            "ablation.train",
            "--device {resources.device} --adapters {input.adapters:q} --splits {input.splits:q}"
            " --features {input.features:q} --output {output:q}",
        )


for batch in batches_of("ablation.train", CONFIG.ablation.trials_per_job):

    rule:
        """Some of the trials, one after another, each in a process of its own."""
        name:
            batch.rule
        input:
            **PLANNED.inputs_of_batch(batch),
        output:
            batch.outputs(RESULTS),
        log:
            f"<results>/ablation/{batch.log}",
        benchmark:
            f"<results>/ablation/{batch.benchmark}"
        priority: 1  # a long job that only waits for features: not the last one, alone on the machine
        conda:
            ENVIRONMENT
        resources:
            device=CONFIG.device,
        params:
            spec=batch.spec(RESULTS),
        shell:
            batch_command("ablation.train", "--device {resources.device}")


rule ablation_learning_curve:
    """Accuracy against the number of training adapters, for some representations."""
    input:
        **inputs_of("ablation.learning_curve"),
    output:
        "<results>/ablation/learning_curve.json",
    log:
        "<results>/ablation/logs/learning_curve/all.log",
    priority: 1  # the longest job that only waits for features: not the last one, alone on the machine
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("ablation.learning_curve"),
    shell:
        command(
            "ablation.learning_curve",
            "--adapters {input.adapters:q} --splits {input.splits:q} --features {input.features:q} --output {output:q}",
        )


rule ablation_summarize:
    """All records as tidy tables."""
    input:
        **inputs_of("ablation.summarize"),
    output:
        results="<results>/ablation/results.json",
        summary="<results>/ablation/summary.csv",
        runs="<results>/ablation/runs.csv",
        contrasts="<results>/ablation/contrasts.csv",
        learning_curve="<results>/ablation/learning_curve.csv",
        findings="<results>/ablation/findings.md",
        tables=expand("<results>/ablation/tables/{table}.tex", table=ablation_settings.TABLES),
    log:
        "<results>/ablation/logs/summarize/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("ablation.summarize"),
    shell:
        command(
            "ablation.summarize",
            "--trials {input.trials:q} --learning-curve {input.learning_curve:q} --output {output.results:q}",
        )


rule ablation_figures:
    """The study's figures."""
    input:
        **inputs_of("ablation.figures"),
    output:
        pdf=expand("<results>/ablation/figures/{figure}.pdf", figure=ablation_settings.FIGURES),
        png=pictures("ablation", ablation_settings.FIGURES),
    log:
        "<results>/ablation/logs/figures/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("ablation.figures"),
    shell:
        command(
            "ablation.figures",
            "--results {input.results:q} --runs {input.runs:q} --summary {input.summary:q}"
            " --contrasts {input.contrasts:q} --learning-curve {input.learning_curve_summary:q} --output {output.pdf[0]:q}",
        )


rule ablation:
    """The whole study."""
    input:
        outputs_of("ablation"),
