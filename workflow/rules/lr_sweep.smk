# Study `lr_sweep`: text -> tokenizer -> tokens -> one trial a rate and seed -> best model, tables, figures, diagnosis.
# Needs: nothing for the default corpus; text files or a hub data set for the other sources.
# Makes: results/lr_sweep/{corpus,tokenizer,tokens,trials,best_model,figures,tables}, summary.csv, diagnosis.json.
from plumbline.lr_sweep import settings as lr_sweep_settings
from plumbline.lr_sweep.plan import added_trials


wildcard_constraints:
    trial="[^/]+",
    round=r"\d+",


# Trials that the rounds before this one, or all rounds, have added to the grid; in the end the longer training too.
LR_SWEEP_ADDED = lambda wildcards: added_trials(
    CONFIG.lr_sweep,
    int(wildcards.get("round", CONFIG.lr_sweep.rounds)),
    lambda number: checkpoints.lr_sweep_extend.get(round=number).output[0],
)


# A checkpoint, as lr_sweep_best is, so that targets that read its content are compared with it once it is there.
checkpoint lr_sweep_corpus:
    """Documents of the chosen source, split into training and validation."""
    output:
        manifest="<results>/lr_sweep/corpus/manifest.json",
        documents="<results>/lr_sweep/corpus/documents.parquet",
    log:
        "<results>/lr_sweep/logs/corpus/all.log",
    benchmark:
        "<results>/lr_sweep/benchmarks/corpus/all.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("lr_sweep.corpus"),
    shell:
        command("lr_sweep.corpus", "--output {output.manifest:q}")


rule lr_sweep_tokenizer:
    """A byte-level BPE trained on the training documents."""
    input:
        **inputs_of("lr_sweep.tokenizer"),
    output:
        tokenizer="<results>/lr_sweep/tokenizer/tokenizer.json",
        tokenizer_config="<results>/lr_sweep/tokenizer/tokenizer_config.json",
    log:
        "<results>/lr_sweep/logs/tokenizer/all.log",
    benchmark:
        "<results>/lr_sweep/benchmarks/tokenizer/all.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("lr_sweep.tokenizer"),
    shell:
        command(
            "lr_sweep.tokenizer",
            "--corpus {input.corpus:q} --output {output.tokenizer:q}",
        )


rule lr_sweep_tokens:
    """The corpus as token files to be memory-mapped."""
    input:
        **inputs_of("lr_sweep.tokens"),
    output:
        meta="<results>/lr_sweep/tokens/meta.json",
        training="<results>/lr_sweep/tokens/train.bin",
        validation="<results>/lr_sweep/tokens/validation.bin",
    log:
        "<results>/lr_sweep/logs/tokens/all.log",
    benchmark:
        "<results>/lr_sweep/benchmarks/tokens/all.tsv"
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("lr_sweep.tokens"),
    shell:
        command(
            "lr_sweep.tokens",
            "--corpus {input.corpus:q} --tokenizer {input.tokenizer:q} --output {output.meta:q}",
        )


rule lr_sweep_baselines:
    """Losses of n-gram tables on the windows that the trials are scored on."""
    input:
        **inputs_of("lr_sweep.baselines"),
    output:
        "<results>/lr_sweep/baselines.json",
    log:
        "<results>/lr_sweep/logs/baselines/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("lr_sweep.baselines"),
    shell:
        command(
            "lr_sweep.baselines",
            "--tokens {input.tokens:q} --output {output:q}",
        )


rule lr_sweep_train:
    """One trial: the model trained at one learning rate from one seed; or the longer training at the best rate."""
    input:
        **inputs_of("lr_sweep.train"),
    output:
        record="<results>/lr_sweep/trials/{trial}/record.json",
        metrics="<results>/lr_sweep/trials/{trial}/metrics.csv",
        weights="<results>/lr_sweep/trials/{trial}/weights.safetensors",
    log:
        "<results>/lr_sweep/logs/train/{trial}.log",
    benchmark:
        "<results>/lr_sweep/benchmarks/train/{trial}.tsv"
    conda:
        ENVIRONMENT
    resources:
        device=CONFIG.device,
        checkpoint_seconds=str(CONFIG.lr_sweep.operation.checkpoint_seconds),
        checkpoint_steps=CONFIG.lr_sweep.operation.checkpoint_steps or 0,
        log_steps=CONFIG.lr_sweep.operation.log_steps,
    params:
        spec=spec_of("lr_sweep.train"),
    shell:
        command(
            "lr_sweep.train",
            "--device {resources.device} --checkpoint-seconds {resources.checkpoint_seconds}"
            " --checkpoint-steps {resources.checkpoint_steps} --log-steps {resources.log_steps}"
            " --tokens {input.tokens:q} --output {output.record:q}",
        )


checkpoint lr_sweep_extend:
    """Whether rates are to be added to the grid, and which."""
    input:
        **inputs_of("lr_sweep.extend", LR_SWEEP_ADDED),
    output:
        "<results>/lr_sweep/rounds/{round}.json",
    log:
        "<results>/lr_sweep/logs/extend/{round}.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("lr_sweep.extend"),
    shell:
        command("lr_sweep.extend", "--trials {input.trials:q} --output {output:q}")


checkpoint lr_sweep_best:
    """The model of the longer training as a transformers folder."""
    input:
        **inputs_of("lr_sweep.best", LR_SWEEP_ADDED),
    output:
        manifest="<results>/lr_sweep/best_model/manifest.json",
        model=expand("<results>/lr_sweep/best_model/{file}", file=lr_sweep_settings.BEST_MODEL),
    log:
        "<results>/lr_sweep/logs/best/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("lr_sweep.best"),
    shell:
        command(
            "lr_sweep.best",
            "--trials {input.trials:q} --tokenizer {input.tokenizer:q} --output {output.manifest:q}",
        )


rule lr_sweep_summarize:
    """All records as tidy tables, and the analysis in words."""
    input:
        **inputs_of("lr_sweep.summarize", LR_SWEEP_ADDED),
    output:
        results="<results>/lr_sweep/results.json",
        summary="<results>/lr_sweep/summary.csv",
        rates="<results>/lr_sweep/rates.csv",
        baselines="<results>/lr_sweep/baselines.csv",
        analysis="<results>/lr_sweep/lr_sweep_analysis.md",
        tables=expand("<results>/lr_sweep/tables/{table}.tex", table=lr_sweep_settings.TABLES),
    log:
        "<results>/lr_sweep/logs/summarize/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("lr_sweep.summarize"),
    shell:
        command(
            "lr_sweep.summarize",
            "--trials {input.trials:q} --baselines {input.baselines:q} --output {output.results:q}",
        )


rule lr_sweep_figures:
    """The study's figures."""
    input:
        **inputs_of("lr_sweep.figures"),
    output:
        pdf=expand("<results>/lr_sweep/figures/{figure}.pdf", figure=lr_sweep_settings.FIGURES),
        png=pictures("lr_sweep", lr_sweep_settings.FIGURES),
    log:
        "<results>/lr_sweep/logs/figures/all.log",
    conda:
        ENVIRONMENT
    params:
        spec=spec_of("lr_sweep.figures"),
    shell:
        command(
            "lr_sweep.figures",
            "--results {input.results:q} --output {output.pdf[0]:q}",
        )


rule lr_sweep_diagnose:
    """Why the trials were as fast as they were; measures, so it runs alone."""
    input:
        **inputs_of("lr_sweep.diagnose", LR_SWEEP_ADDED),
    output:
        "<results>/lr_sweep/diagnosis.json",
    log:
        "<results>/lr_sweep/logs/diagnose/all.log",
    conda:
        ENVIRONMENT
    threads: WHOLE_MACHINE
    resources:
        **WHOLE_NODE,
    params:
        spec=spec_of("lr_sweep.diagnose"),
    shell:
        "OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 "
        + command(
            "lr_sweep.diagnose",
            "--trials {input.trials:q} --output {output:q}",
        )


rule lr_sweep:
    """The whole study."""
    input:
        outputs_of("lr_sweep", LR_SWEEP_ADDED),
