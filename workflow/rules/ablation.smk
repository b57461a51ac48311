# Study `ablation`: LoRA weights -> adapter store -> features -> trials -> tables and figures.
# Needs: nothing for the zoo; a data set or a folder of adapters for the other sources.
# Makes: results/ablation/{adapters,features,trials,tables,figures}, results.json, summary.csv, runs.csv, contrasts.csv.
from plumbline.ablation.settings import FIGURES, TABLES

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
            "../../envs/plumbline.yaml"
        resources:
            device=CONFIG.device,
        params:
            spec=spec_of("ablation.pretrain"),
        shell:
            "python -m plumbline.ablation.pretrain --spec {params.spec:q} --device {resources.device}"
            " --output {output} --log {log} 2>> {log}"

    rule ablation_adapt:
        """One share of the zoo's adapters."""
        input:
            base="<results>/ablation/zoo/base.safetensors",
        output:
            "<results>/ablation/zoo/shard-{shard}.safetensors",
        log:
            "<results>/ablation/logs/adapt/{shard}.log",
        benchmark:
            "<results>/ablation/benchmarks/adapt/{shard}.tsv"
        conda:
            "../../envs/plumbline.yaml"
        resources:
            device=CONFIG.device,
        params:
            spec=spec_of("ablation.adapt"),
        shell:
            "python -m plumbline.ablation.adapt --spec {params.spec:q} --device {resources.device}"
            " --base {input.base} --output {output} --log {log} 2>> {log}"

    rule ablation_samples:
        """What the zoo's base and adapters draw."""
        input:
            base="<results>/ablation/zoo/base.safetensors",
            shard="<results>/ablation/zoo/shard-0.safetensors",
        output:
            pdf="<results>/ablation/figures/zoo.pdf",
            png=report(
                "<results>/ablation/figures/zoo.png",
                caption="../report/ablation-zoo.rst",
                category="ablation",
                labels={"figure": "zoo"},
            ),
        log:
            "<results>/ablation/logs/samples/all.log",
        conda:
            "../../envs/plumbline.yaml"
        params:
            spec=spec_of("ablation.samples"),
        shell:
            "python -m plumbline.ablation.samples --spec {params.spec:q} --base {input.base}"
            " --shard {input.shard} --output {output.png} --log {log} 2>> {log}"


rule ablation_collect:
    """The adapters of the chosen source, in the one form that the features read."""
    input:
        shards=outputs_of("ablation", "adapt"),
    output:
        "<results>/ablation/adapters/manifest.json",
    log:
        "<results>/ablation/logs/collect/all.log",
    benchmark:
        "<results>/ablation/benchmarks/collect/all.tsv"
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("ablation.collect"),
    shell:
        "python -m plumbline.ablation.collect --spec {params.spec:q} --shards {input.shards}"
        " --output {output} --log {log} 2>> {log}"


if CONFIG.ablation.shards > 1:

    rule ablation_features_shard:
        """One representation of every adapter, over a share of the layers."""
        input:
            adapters="<results>/ablation/adapters/manifest.json",
        output:
            features="<results>/ablation/features/{view}/{representation}/{shard}.safetensors",
            seconds="<results>/ablation/features/{view}/{representation}/{shard}.json",
        log:
            "<results>/ablation/logs/features/{view}/{representation}/{shard}.log",
        benchmark:
            "<results>/ablation/benchmarks/features/{view}/{representation}/{shard}.tsv"
        conda:
            "../../envs/plumbline.yaml"
        params:
            spec=spec_of("ablation.features"),
        shell:
            "python -m plumbline.ablation.features --spec {params.spec:q} --adapters {input.adapters}"
            " --output {output.features} --log {log} 2>> {log}"


rule ablation_features:
    """One representation of every adapter, over all layers; joined from its shards where there are some."""
    input:
        adapters="<results>/ablation/adapters/manifest.json",
        shards=lambda wildcards: feature_shards(wildcards, "safetensors"),
        seconds=lambda wildcards: feature_shards(wildcards, "json"),
    output:
        features="<results>/ablation/features/{view}/{representation}.safetensors",
        seconds="<results>/ablation/features/{view}/{representation}.json",
    log:
        "<results>/ablation/logs/features/{view}/{representation}.log",
    benchmark:
        "<results>/ablation/benchmarks/features/{view}/{representation}.tsv"
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("ablation.features"),
    shell:
        "python -m plumbline.ablation.features --spec {params.spec:q} --adapters {input.adapters}"
        " --shards {input.shards} --output {output.features} --log {log} 2>> {log}"


rule ablation_train:
    """One trial: the classifier, ten times, on one representation of one layer set."""
    input:
        adapters="<results>/ablation/adapters/manifest.json",
        features=lambda wildcards: feature_files(wildcards, "safetensors"),
        seconds=lambda wildcards: feature_files(wildcards, "json"),
    output:
        "<results>/ablation/trials/{view}/{layers}/{representation}.json",
    log:
        "<results>/ablation/logs/train/{view}/{layers}/{representation}.log",
    benchmark:
        "<results>/ablation/benchmarks/train/{view}/{layers}/{representation}.tsv"
    conda:
        "../../envs/plumbline.yaml"
    resources:
        device=CONFIG.device,
    params:
        spec=spec_of("ablation.train"),
    shell:
        "python -m plumbline.ablation.train --spec {params.spec:q} --device {resources.device}"
        " --adapters {input.adapters} --features {input.features}"
        " --output {output} --log {log} 2>> {log}"


rule ablation_summarize:
    """All records as tidy tables."""
    input:
        trials=outputs_of("ablation", "train"),
    output:
        results="<results>/ablation/results.json",
        summary="<results>/ablation/summary.csv",
        runs="<results>/ablation/runs.csv",
        contrasts="<results>/ablation/contrasts.csv",
        findings="<results>/ablation/findings.md",
        tables=expand("<results>/ablation/tables/{table}.tex", table=TABLES),
    log:
        "<results>/ablation/logs/summarize/all.log",
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("ablation.summarize"),
    shell:
        "python -m plumbline.ablation.summarize --spec {params.spec:q} --trials {input.trials}"
        " --output $(dirname {output.results}) --log {log} 2>> {log}"


rule ablation_figures:
    """The study's figures."""
    input:
        results="<results>/ablation/results.json",
        runs="<results>/ablation/runs.csv",
        summary="<results>/ablation/summary.csv",
        contrasts="<results>/ablation/contrasts.csv",
    output:
        pdf=expand("<results>/ablation/figures/{figure}.pdf", figure=FIGURES),
        png=[
            report(
                f"<results>/ablation/figures/{figure}.png",
                caption=f"../report/ablation-{figure}.rst",
                category="ablation",
                labels={"figure": figure},
            )
            for figure in FIGURES
        ],
    log:
        "<results>/ablation/logs/figures/all.log",
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("ablation.figures"),
    shell:
        "python -m plumbline.ablation.figures --spec {params.spec:q} --results {input.results} --runs {input.runs}"
        " --summary {input.summary} --contrasts {input.contrasts}"
        " --output $(dirname {output.pdf[0]}) --log {log} 2>> {log}"


rule ablation:
    """The whole study. Names every trial, table and figure: one that is deleted is rebuilt."""
    input:
        outputs_of("ablation", "train"),
        rules.ablation_samples.output if CONFIG.ablation.source == "zoo" else [],
        rules.ablation_summarize.output,
        rules.ablation_figures.output,
