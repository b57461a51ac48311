# Study `throughput`: limits of the machine, a base model and its compressions, converted for the engines that need it ->
# one trial a cell -> comparisons of cells -> tables, figures.
# Needs: the study lr_sweep's best model and corpus, unless throughput.model and throughput.text name others.
# Makes: results/machine.json, results/throughput/{models,references,trials,comparisons,figures,tables}, speedups.csv,
# evaluation_results.jsonl.
import re
import shlex

from plumbline.throughput import settings as throughput_settings


rule throughput_limits:
    """How fast this machine copies and multiplies; measures, so it runs alone."""
    output:
        "<results>/machine.json",
    log:
        "<results>/throughput/logs/limits/all.log",
    conda:
        ENVIRONMENT
    threads: WHOLE_MACHINE
    resources:
        **WHOLE_NODE,
    params:
        spec=spec_of("throughput.limits"),
    shell:
        command("throughput.limits", "--output {output:q}")


rule throughput_base:
    """The model that all else is compared with, its text and its perplexity."""
    input:
        checked(lambda: CONFIG.throughput.check_trained(CONFIG.lr_sweep.model.context)),
        **inputs_of("throughput.base"),
    output:
        manifest="<results>/throughput/models/base/manifest.json",
        text="<results>/throughput/models/base/text.safetensors",
    log:
        "<results>/throughput/logs/base/all.log",
    benchmark:
        "<results>/throughput/benchmarks/base/all.tsv"
    conda:
        ENVIRONMENT
    resources:
        device=CONFIG.device,
    params:
        spec=spec_of("throughput.base"),
    shell:
        command(
            "throughput.base",
            "--device {resources.device} --best {input.best:q} --corpus {input.corpus:q}"
            f" --engines {shlex.join(CONFIG.throughput.engines_of())} --output {{output.manifest:q}}",
        )


rule throughput_compress:
    """The base with its linear layers replaced by low-rank ones."""
    input:
        **inputs_of("throughput.compress"),
    output:
        "<results>/throughput/models/{variant}/manifest.json",
    log:
        "<results>/throughput/logs/compress/{variant}.log",
    benchmark:
        "<results>/throughput/benchmarks/compress/{variant}.tsv"
    wildcard_constraints:
        variant="|".join(map(re.escape, throughput_settings.compressed(CONFIG.throughput))) or "none",
    conda:
        ENVIRONMENT
    resources:
        device=CONFIG.device,
    params:
        spec=spec_of("throughput.compress"),
    shell:
        command(
            "throughput.compress",
            "--device {resources.device} --base {input.base:q} --output {output:q}",
        )


rule throughput_user_variant:
    """A variant that the user supplies, with its perplexity."""
    input:
        **inputs_of("throughput.user_variant"),
    output:
        "<results>/throughput/models/{variant}/manifest.json",
    log:
        "<results>/throughput/logs/user_variant/{variant}.log",
    benchmark:
        "<results>/throughput/benchmarks/user_variant/{variant}.tsv"
    wildcard_constraints:
        variant="|".join(map(re.escape, throughput_settings.user_supplied(CONFIG.throughput))) or "none",
    conda:
        ENVIRONMENT
    resources:
        device=CONFIG.device,
    params:
        spec=spec_of("throughput.user_variant"),
    shell:
        command(
            "throughput.user_variant",
            "--device {resources.device} --base {input.base:q} --output {output:q}",
        )


rule throughput_convert:
    """A variant in the format of an engine that does not read safetensors."""
    input:
        **inputs_of("throughput.convert"),
    output:
        "<results>/throughput/models/{variant}+{engine}/manifest.json",
    log:
        "<results>/throughput/logs/convert/{variant}/{engine}.log",
    benchmark:
        "<results>/throughput/benchmarks/convert/{variant}/{engine}.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("throughput.convert"),
    shell:
        command("throughput.convert", "--manifest {input.manifest:q} --output {output:q}")


rule throughput_reference:
    """The tokens that every engine must generate."""
    input:
        **inputs_of("throughput.reference"),
    output:
        "<results>/throughput/references/{variant}.safetensors",
    log:
        "<results>/throughput/logs/reference/{variant}.log",
    benchmark:
        "<results>/throughput/benchmarks/reference/{variant}.tsv"
    conda:
        ENVIRONMENT
    resources:
        device=CONFIG.device,
    params:
        spec=spec_of("throughput.reference"),
    shell:
        command(
            "throughput.reference",
            "--device {resources.device} --manifest {input.manifest:q} --text {input.text:q}" " --output {output:q}",
        )


rule throughput_measure:
    """One trial: one variant, engine, batch, prompt and length, in a process of its own; measures, so it runs alone."""
    input:
        **inputs_of("throughput.measure"),
    output:
        "<results>/throughput/trials/{variant}/{engine}/{cell}.json",
    log:
        "<results>/throughput/logs/measure/{variant}/{engine}/{cell}.log",
    benchmark:
        "<results>/throughput/benchmarks/measure/{variant}/{engine}/{cell}.tsv"
    conda:
        ENVIRONMENT
    threads: WHOLE_MACHINE
    resources:
        **WHOLE_NODE,
    params:
        spec=spec_of("throughput.measure"),
    shell:
        command(
            "throughput.measure",
            "--manifest {input.manifest:q} --reference {input.reference:q} --text {input.text:q}"
            " --limits {input.limits:q} --smaller {input.smaller:q} --output {output:q}",
        )


rule throughput_comparison:
    """Candidates that take turns in one process, which is what says faster or slower; measures, so it runs alone."""
    input:
        **inputs_of("throughput.comparison"),
    output:
        "<results>/throughput/comparisons/{question}/{of}/{cell}.json",
    log:
        "<results>/throughput/logs/comparison/{question}/{of}/{cell}.log",
    benchmark:
        "<results>/throughput/benchmarks/comparison/{question}/{of}/{cell}.tsv"
    conda:
        ENVIRONMENT
    threads: WHOLE_MACHINE
    resources:
        **WHOLE_NODE,
    params:
        spec=spec_of("throughput.comparison"),
    shell:
        command(
            "throughput.comparison",
            "--manifests {input.manifests:q} --references {input.references:q} --text {input.text:q}"
            " --trials {input.trials:q} --output {output:q}",
        )


rule throughput_max_batch:
    """The largest batch that fits into memory; measures, so it runs alone."""
    input:
        **inputs_of("throughput.max_batch"),
    output:
        "<results>/throughput/max_batch/{variant}/{engine}/{length}.json",
    log:
        "<results>/throughput/logs/max_batch/{variant}/{engine}/{length}.log",
    conda:
        ENVIRONMENT
    threads: WHOLE_MACHINE
    resources:
        **WHOLE_NODE,
    params:
        spec=spec_of("throughput.max_batch"),
    shell:
        command(
            "throughput.max_batch",
            "--manifest {input.manifest:q} --text {input.text:q} --output {output:q}",
        )


rule throughput_summarize:
    """All records as tidy tables and lines of JSON, and the analysis in words."""
    input:
        **inputs_of("throughput.summarize"),
    output:
        results="<results>/throughput/results.json",
        evaluation="<results>/throughput/evaluation_results.jsonl",
        summary="<results>/throughput/summary.csv",
        statistics="<results>/throughput/summary_statistics.csv",
        speedups="<results>/throughput/speedups.csv",
        analysis="<results>/throughput/throughput_analysis.md",
        tables=expand("<results>/throughput/tables/{table}.tex", table=throughput_settings.TABLES),
    log:
        "<results>/throughput/logs/summarize/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("throughput.summarize"),
    shell:
        command(
            "throughput.summarize",
            "--manifests {input.manifests:q} --trials {input.trials:q} --comparisons {input.comparisons:q}"
            " --max-batch {input.max_batch:q}"
            " --output {output.results:q}",
        )


rule throughput_figures:
    """The study's figures."""
    input:
        **inputs_of("throughput.figures"),
    output:
        pdf=expand(
            "<results>/throughput/figures/{figure}.pdf",
            figure=throughput_settings.FIGURES,
        ),
        png=pictures("throughput", throughput_settings.FIGURES),
    log:
        "<results>/throughput/logs/figures/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("throughput.figures"),
    shell:
        command(
            "throughput.figures",
            "--results {input.results:q} --output {output.pdf[0]:q}",
        )


rule throughput:
    """The whole study."""
    input:
        outputs_of("throughput"),
