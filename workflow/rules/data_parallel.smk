# Study `data_parallel`: sentence pairs -> tokenizer -> tokens -> trials, proof of equality, comparison -> tables, figures.
# Needs: nothing for the generated corpus; files or a hub data set for the other sources.
# Makes: results/data_parallel/{corpus,tokenizer,tokens,trials,proofs,comparisons,figures,tables}, summary.csv,
# analysis.ipynb.
from functools import partial

from plumbline.data_parallel import settings as data_parallel_settings
from plumbline.data_parallel.ranks.room import check_planned

has_room = partial(check_planned, device=CONFIG.device, oversubscribe=CONFIG.data_parallel.oversubscribe)


rule data_parallel_corpus:
    """German-English sentence pairs, split into train, validation and test."""
    output:
        manifest="<results>/data_parallel/corpus/manifest.json",
        pairs="<results>/data_parallel/corpus/pairs.parquet",
    log:
        "<results>/data_parallel/logs/corpus/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("data_parallel.corpus"),
    shell:
        command("data_parallel.corpus", "--output {output.manifest:q}")


rule data_parallel_tokenizer:
    """One byte-level BPE for both languages, trained on the training pairs."""
    input:
        **inputs_of("data_parallel.tokenizer"),
    output:
        tokenizer="<results>/data_parallel/tokenizer/tokenizer.json",
        tokenizer_config="<results>/data_parallel/tokenizer/tokenizer_config.json",
    log:
        "<results>/data_parallel/logs/tokenizer/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("data_parallel.tokenizer"),
    shell:
        command(
            "data_parallel.tokenizer",
            "--corpus {input.corpus:q} --output {output.tokenizer:q}",
        )


rule data_parallel_tokens:
    """The pairs as token sequences."""
    input:
        **inputs_of("data_parallel.tokens"),
    output:
        meta="<results>/data_parallel/tokens/meta.json",
        sequences="<results>/data_parallel/tokens/sequences.safetensors",
        texts="<results>/data_parallel/tokens/texts.json",
    log:
        "<results>/data_parallel/logs/tokens/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("data_parallel.tokens"),
    shell:
        command(
            "data_parallel.tokens",
            "--corpus {input.corpus:q} --tokenizer {input.tokenizer:q} --output {output.meta:q}",
        )


# What starts ranks measures, or needs as many cores as there are ranks: it has the machine to itself.
rule data_parallel_train:
    """One trial: a training in one world, with one method and one kind of scaling."""
    input:
        checked_here("data_parallel.train", has_room),
        **inputs_of("data_parallel.train"),
    output:
        "<results>/data_parallel/trials/{trial}/record.json",
    log:
        "<results>/data_parallel/logs/train/{trial}.log",
    benchmark:
        "<results>/data_parallel/benchmarks/train/{trial}.tsv"
    conda:
        ENVIRONMENT
    threads: WHOLE_MACHINE
    resources:
        **WHOLE_NODE,
        checkpoint_seconds=str(CONFIG.data_parallel.operation.checkpoint_seconds),
        timeout_seconds=str(CONFIG.data_parallel.operation.timeout_seconds),
        oversubscribe=int(CONFIG.data_parallel.oversubscribe),
    params:
        spec=spec_of("data_parallel.train"),
    shell:
        "OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 "
        + command(
            "data_parallel.train",
            "--checkpoint-seconds {resources.checkpoint_seconds}"
            " --timeout-seconds {resources.timeout_seconds} --oversubscribe {resources.oversubscribe}"
            " --tokens {input.tokens:q} --tokenizer {input.tokenizer:q} --output {output:q}",
        )


rule data_parallel_equality:
    """The proof that every method and world computes what one process does."""
    input:
        checked_here("data_parallel.equality", has_room),
        **inputs_of("data_parallel.equality"),
    output:
        "<results>/data_parallel/proofs/{proof}.json",
    log:
        "<results>/data_parallel/logs/equality/{proof}.log",
    conda:
        ENVIRONMENT
    threads: WHOLE_MACHINE
    resources:
        **WHOLE_NODE,
        device=CONFIG.device,
        timeout_seconds=str(CONFIG.data_parallel.operation.timeout_seconds),
        oversubscribe=int(CONFIG.data_parallel.oversubscribe),
    params:
        spec=spec_of("data_parallel.equality"),
    shell:
        "OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 "
        + command(
            "data_parallel.equality",
            "--device {resources.device} --timeout-seconds {resources.timeout_seconds}"
            " --oversubscribe {resources.oversubscribe} --tokens {input.tokens:q} --output {output:q}",
        )


rule data_parallel_comparison:
    """How fast worlds and methods are against each other, in interleaved turns; measures, so it runs alone."""
    input:
        checked_here("data_parallel.comparison", has_room),
        **inputs_of("data_parallel.comparison"),
    output:
        "<results>/data_parallel/comparisons/{comparison}.json",
    log:
        "<results>/data_parallel/logs/comparison/{comparison}.log",
    conda:
        ENVIRONMENT
    threads: WHOLE_MACHINE
    resources:
        **WHOLE_NODE,
        timeout_seconds=str(CONFIG.data_parallel.operation.timeout_seconds),
        oversubscribe=int(CONFIG.data_parallel.oversubscribe),
    params:
        spec=spec_of("data_parallel.comparison"),
    shell:
        "OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 "
        + command(
            "data_parallel.comparison",
            "--timeout-seconds {resources.timeout_seconds} --oversubscribe {resources.oversubscribe}"
            " --tokens {input.tokens:q} --output {output:q}",
        )


rule data_parallel_summarize:
    """All records as tidy tables, and the findings in words."""
    input:
        **inputs_of("data_parallel.summarize"),
    output:
        results="<results>/data_parallel/results.json",
        summary="<results>/data_parallel/summary.csv",
        speedups="<results>/data_parallel/speedups.csv",
        analysis="<results>/data_parallel/data_parallel_analysis.md",
        tables=expand("<results>/data_parallel/tables/{table}.tex", table=data_parallel_settings.TABLES),
    log:
        "<results>/data_parallel/logs/summarize/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("data_parallel.summarize"),
    shell:
        command(
            "data_parallel.summarize",
            "--trials {input.trials:q} --equality {input.equality:q} --comparison {input.comparison:q}"
            " --output {output.results:q}",
        )


rule data_parallel_figures:
    """The study's figures."""
    input:
        **inputs_of("data_parallel.figures"),
    output:
        pdf=expand("<results>/data_parallel/figures/{figure}.pdf", figure=data_parallel_settings.FIGURES),
        png=pictures("data_parallel", data_parallel_settings.FIGURES),
    log:
        "<results>/data_parallel/logs/figures/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("data_parallel.figures"),
    shell:
        command(
            "data_parallel.figures",
            "--results {input.results:q} --output {output.pdf[0]:q}",
        )


rule data_parallel_notebook:
    """The notebook that walks through the figures, executed."""
    input:
        **inputs_of("data_parallel.notebook"),
    output:
        "<results>/data_parallel/analysis.ipynb",
    log:
        "<results>/data_parallel/logs/notebook/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("data_parallel.notebook"),
    shell:
        command(
            "data_parallel.notebook",
            "--results {input.results:q} --output {output:q}",
        )


rule data_parallel:
    """The whole study."""
    input:
        outputs_of("data_parallel"),
