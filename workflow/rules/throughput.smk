# Study `throughput`: limits of the machine, a base model and its compressions -> one trial a cell -> tables, figures.
# Needs: the study lr_sweep's best model and corpus, unless throughput.model and throughput.text name others.
# Makes: results/machine.json, results/throughput/{models,references,trials,figures,tables}, evaluation_results.jsonl.
import re

from plumbline.throughput.settings import FIGURES as THROUGHPUT_FIGURES
from plumbline.throughput.settings import TABLES as THROUGHPUT_TABLES
from plumbline.throughput.settings import user_supplied, compressed


rule throughput_limits:
    """How fast this machine copies and multiplies; measures, so it runs alone."""
    output:
        "<results>/machine.json",
    log:
        "<results>/throughput/logs/limits/all.log",
    conda:
        "../../envs/plumbline.yaml"
    threads: 1000
    params:
        spec=spec_of("throughput.limits"),
    shell:
        "python -m plumbline.throughput.limits --spec {params.spec:q}"
        " --output {output} --log {log} 2>> {log}"


rule throughput_base:
    """The model that all else is compared with, its text and its perplexity."""
    input:
        best=throughput_best_model,
        corpus=throughput_corpus,
    output:
        manifest="<results>/throughput/models/base/manifest.json",
        text="<results>/throughput/models/base/text.safetensors",
    log:
        "<results>/throughput/logs/base/all.log",
    benchmark:
        "<results>/throughput/benchmarks/base/all.tsv"
    conda:
        "../../envs/plumbline.yaml"
    resources:
        device=CONFIG.device,
    params:
        spec=spec_of("throughput.base"),
    shell:
        "python -m plumbline.throughput.base --spec {params.spec:q} --device {resources.device}"
        " --best {input.best} --corpus {input.corpus} --output {output.manifest} --log {log} 2>> {log}"


rule throughput_compress:
    """The base with its linear layers replaced by low-rank ones."""
    input:
        base="<results>/throughput/models/base/manifest.json",
        text="<results>/throughput/models/base/text.safetensors",
    output:
        "<results>/throughput/models/{variant}/manifest.json",
    log:
        "<results>/throughput/logs/compress/{variant}.log",
    benchmark:
        "<results>/throughput/benchmarks/compress/{variant}.tsv"
    wildcard_constraints:
        variant="|".join(map(re.escape, compressed(CONFIG.throughput))) or "none",
    conda:
        "../../envs/plumbline.yaml"
    resources:
        device=CONFIG.device,
    params:
        spec=spec_of("throughput.compress"),
    shell:
        "python -m plumbline.throughput.compress --spec {params.spec:q} --device {resources.device}"
        " --base {input.base} --output {output} --log {log} 2>> {log}"


rule throughput_user_variant:
    """A variant of the user's, with its perplexity."""
    input:
        base="<results>/throughput/models/base/manifest.json",
        text="<results>/throughput/models/base/text.safetensors",
    output:
        "<results>/throughput/models/{variant}/manifest.json",
    log:
        "<results>/throughput/logs/user_variant/{variant}.log",
    benchmark:
        "<results>/throughput/benchmarks/user_variant/{variant}.tsv"
    wildcard_constraints:
        variant="|".join(map(re.escape, user_supplied(CONFIG.throughput))) or "none",
    conda:
        "../../envs/plumbline.yaml"
    resources:
        device=CONFIG.device,
    params:
        spec=spec_of("throughput.user_variant"),
    shell:
        "python -m plumbline.throughput.user_variant --spec {params.spec:q} --device {resources.device}"
        " --base {input.base} --output {output} --log {log} 2>> {log}"


rule throughput_reference:
    """The tokens that every engine must generate."""
    input:
        manifest="<results>/throughput/models/{variant}/manifest.json",
        text="<results>/throughput/models/base/text.safetensors",
    output:
        "<results>/throughput/references/{variant}.safetensors",
    log:
        "<results>/throughput/logs/reference/{variant}.log",
    benchmark:
        "<results>/throughput/benchmarks/reference/{variant}.tsv"
    conda:
        "../../envs/plumbline.yaml"
    resources:
        device=CONFIG.device,
    params:
        spec=spec_of("throughput.reference"),
    shell:
        "python -m plumbline.throughput.reference --spec {params.spec:q} --device {resources.device}"
        " --manifest {input.manifest} --text {input.text} --output {output} --log {log} 2>> {log}"


rule throughput_measure:
    """One trial: one variant, engine, batch, prompt and length, in a process of its own; measures, so it runs alone."""
    input:
        manifest="<results>/throughput/models/{variant}/manifest.json",
        reference="<results>/throughput/references/{variant}.safetensors",
        text="<results>/throughput/models/base/text.safetensors",
        limits="<results>/machine.json",
        smaller=throughput_smaller,
    output:
        "<results>/throughput/trials/{variant}/{engine}/{cell}.json",
    log:
        "<results>/throughput/logs/measure/{variant}/{engine}/{cell}.log",
    benchmark:
        "<results>/throughput/benchmarks/measure/{variant}/{engine}/{cell}.tsv"
    conda:
        "../../envs/plumbline.yaml"
    threads: 1000
    params:
        spec=spec_of("throughput.measure"),
    shell:
        "python -m plumbline.throughput.measure --spec {params.spec:q}"
        " --manifest {input.manifest} --reference {input.reference} --text {input.text} --limits {input.limits}"
        " --smaller {input.smaller} --output {output} --log {log} 2>> {log}"


rule throughput_max_batch:
    """The largest batch that fits into memory; measures, so it runs alone."""
    input:
        manifest="<results>/throughput/models/{variant}/manifest.json",
        text="<results>/throughput/models/base/text.safetensors",
    output:
        "<results>/throughput/max_batch/{variant}/{engine}/{length}.json",
    log:
        "<results>/throughput/logs/max_batch/{variant}/{engine}/{length}.log",
    conda:
        "../../envs/plumbline.yaml"
    threads: 1000
    params:
        spec=spec_of("throughput.max_batch"),
    shell:
        "python -m plumbline.throughput.max_batch --spec {params.spec:q}"
        " --manifest {input.manifest} --text {input.text} --output {output} --log {log} 2>> {log}"


rule throughput_summarize:
    """All records as tidy tables and lines of JSON, and the analysis in words."""
    input:
        manifests=throughput_manifests,
        trials=outputs_of("throughput", "measure"),
        max_batch=outputs_of("throughput", "max_batch"),
    output:
        results="<results>/throughput/results.json",
        evaluation="<results>/throughput/evaluation_results.jsonl",
        summary="<results>/throughput/summary.csv",
        statistics="<results>/throughput/summary_statistics.csv",
        analysis="<results>/throughput/throughput_analysis.md",
        tables=expand(
            "<results>/throughput/tables/{table}.tex", table=THROUGHPUT_TABLES
        ),
    log:
        "<results>/throughput/logs/summarize/all.log",
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("throughput.summarize"),
    shell:
        "python -m plumbline.throughput.summarize --spec {params.spec:q} --manifests {input.manifests}"
        " --trials {input.trials} --max-batch {input.max_batch} --output $(dirname {output.results})"
        " --log {log} 2>> {log}"


rule throughput_figures:
    """The study's figures."""
    input:
        results="<results>/throughput/results.json",
    output:
        pdf=expand(
            "<results>/throughput/figures/{figure}.pdf", figure=THROUGHPUT_FIGURES
        ),
        png=[
            report(
                f"<results>/throughput/figures/{figure}.png",
                caption=f"../report/throughput-{figure}.rst",
                category="throughput",
                labels={"figure": figure},
            )
            for figure in THROUGHPUT_FIGURES
        ],
    log:
        "<results>/throughput/logs/figures/all.log",
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("throughput.figures"),
    shell:
        "python -m plumbline.throughput.figures --spec {params.spec:q} --results {input.results}"
        " --output $(dirname {output.pdf[0]}) --log {log} 2>> {log}"


rule throughput:
    """The whole study. Names every trial, table and figure: one that is deleted is rebuilt."""
    input:
        outputs_of("throughput", "measure"),
        rules.throughput_summarize.output,
        rules.throughput_figures.output,
