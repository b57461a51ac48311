# Study `lr_sweep`: text -> tokenizer -> tokens -> one trial a rate and seed -> best model, tables, figures, diagnosis.
# Needs: nothing for the default corpus; text files or a hub data set for the other sources.
# Makes: results/lr_sweep/{corpus,tokenizer,tokens,trials,best_model,figures,tables}, summary.csv, diagnosis.json.
from plumbline.lr_sweep.settings import BEST_MODEL
from plumbline.lr_sweep.settings import FIGURES as LR_SWEEP_FIGURES
from plumbline.lr_sweep.settings import TABLES as LR_SWEEP_TABLES


rule lr_sweep_corpus:
    """Documents of the chosen source, split into training and validation."""
    output:
        manifest="<results>/lr_sweep/corpus/manifest.json",
        documents="<results>/lr_sweep/corpus/documents.parquet",
    log:
        "<results>/lr_sweep/logs/corpus/all.log",
    benchmark:
        "<results>/lr_sweep/benchmarks/corpus/all.tsv"
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("lr_sweep.corpus"),
    shell:
        "python -m plumbline.lr_sweep.corpus --spec {params.spec:q} --output {output.manifest}"
        " --log {log} 2>> {log}"


rule lr_sweep_tokenizer:
    """A byte-level BPE trained on the training documents."""
    input:
        corpus="<results>/lr_sweep/corpus/manifest.json",
        documents="<results>/lr_sweep/corpus/documents.parquet",
    output:
        tokenizer="<results>/lr_sweep/tokenizer/tokenizer.json",
        settings="<results>/lr_sweep/tokenizer/tokenizer_config.json",
    log:
        "<results>/lr_sweep/logs/tokenizer/all.log",
    benchmark:
        "<results>/lr_sweep/benchmarks/tokenizer/all.tsv"
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("lr_sweep.tokenizer"),
    shell:
        "python -m plumbline.lr_sweep.tokenizer --spec {params.spec:q} --corpus {input.corpus}"
        " --output {output.tokenizer} --log {log} 2>> {log}"


rule lr_sweep_tokens:
    """The corpus as token files to be memory-mapped."""
    input:
        corpus="<results>/lr_sweep/corpus/manifest.json",
        documents="<results>/lr_sweep/corpus/documents.parquet",
        tokenizer="<results>/lr_sweep/tokenizer/tokenizer.json",
    output:
        meta="<results>/lr_sweep/tokens/meta.json",
        files=expand(
            "<results>/lr_sweep/tokens/{side}.bin", side=["train", "validation"]
        ),
    log:
        "<results>/lr_sweep/logs/tokens/all.log",
    benchmark:
        "<results>/lr_sweep/benchmarks/tokens/all.tsv"
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("lr_sweep.tokens"),
    shell:
        "python -m plumbline.lr_sweep.tokens --spec {params.spec:q} --corpus {input.corpus}"
        " --tokenizer {input.tokenizer} --output {output.meta} --log {log} 2>> {log}"


rule lr_sweep_train:
    """One trial: the model trained at one learning rate from one seed."""
    input:
        tokens="<results>/lr_sweep/tokens/meta.json",
        files=rules.lr_sweep_tokens.output.files,
    output:
        record="<results>/lr_sweep/trials/{trial}/record.json",
        metrics="<results>/lr_sweep/trials/{trial}/metrics.csv",
        weights="<results>/lr_sweep/trials/{trial}/weights.safetensors",
    log:
        "<results>/lr_sweep/logs/train/{trial}.log",
    benchmark:
        "<results>/lr_sweep/benchmarks/train/{trial}.tsv"
    conda:
        "../../envs/plumbline.yaml"
    resources:
        device=CONFIG.device,
        checkpoint_seconds=str(CONFIG.lr_sweep.operation.checkpoint_seconds),
        checkpoint_steps=CONFIG.lr_sweep.operation.checkpoint_steps or 0,
        log_steps=CONFIG.lr_sweep.operation.log_steps,
    params:
        spec=spec_of("lr_sweep.train"),
    shell:
        "python -m plumbline.lr_sweep.train --spec {params.spec:q} --device {resources.device}"
        " --checkpoint-seconds {resources.checkpoint_seconds} --checkpoint-steps {resources.checkpoint_steps}"
        " --log-steps {resources.log_steps}"
        " --tokens {input.tokens} --output {output.record} --log {log} 2>> {log}"


checkpoint lr_sweep_extend:
    """Whether rates are to be added to the grid, and which."""
    input:
        trials=lambda wildcards: lr_sweep_trials(int(wildcards.round)),
    output:
        "<results>/lr_sweep/rounds/{round}.json",
    log:
        "<results>/lr_sweep/logs/extend/{round}.log",
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("lr_sweep.extend"),
    shell:
        "python -m plumbline.lr_sweep.extend --spec {params.spec:q} --trials {input.trials}"
        " --output {output} --log {log} 2>> {log}"


rule lr_sweep_best:
    """The best trial's model as a transformers folder."""
    input:
        trials=lr_sweep_all_trials,
        weights=lr_sweep_all_weights,
        tokenizer="<results>/lr_sweep/tokenizer/tokenizer.json",
        settings="<results>/lr_sweep/tokenizer/tokenizer_config.json",
    output:
        manifest="<results>/lr_sweep/best_model/manifest.json",
        model=expand("<results>/lr_sweep/best_model/{file}", file=BEST_MODEL),
    log:
        "<results>/lr_sweep/logs/best/all.log",
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("lr_sweep.best"),
    shell:
        "python -m plumbline.lr_sweep.best --spec {params.spec:q} --trials {input.trials}"
        " --tokenizer {input.tokenizer} --output {output.manifest} --log {log} 2>> {log}"


rule lr_sweep_summarize:
    """All records as tidy tables, and the analysis in words."""
    input:
        trials=lr_sweep_all_trials,
    output:
        results="<results>/lr_sweep/results.json",
        summary="<results>/lr_sweep/summary.csv",
        rates="<results>/lr_sweep/rates.csv",
        analysis="<results>/lr_sweep/lr_sweep_analysis.md",
        tables=expand("<results>/lr_sweep/tables/{table}.tex", table=LR_SWEEP_TABLES),
    log:
        "<results>/lr_sweep/logs/summarize/all.log",
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("lr_sweep.summarize"),
    shell:
        "python -m plumbline.lr_sweep.summarize --spec {params.spec:q} --trials {input.trials}"
        " --output $(dirname {output.results}) --log {log} 2>> {log}"


rule lr_sweep_figures:
    """The study's figures."""
    input:
        results="<results>/lr_sweep/results.json",
    output:
        pdf=expand("<results>/lr_sweep/figures/{figure}.pdf", figure=LR_SWEEP_FIGURES),
        png=[
            report(
                f"<results>/lr_sweep/figures/{figure}.png",
                caption=f"../report/lr_sweep-{figure}.rst",
                category="lr_sweep",
                labels={"figure": figure},
            )
            for figure in LR_SWEEP_FIGURES
        ],
    log:
        "<results>/lr_sweep/logs/figures/all.log",
    conda:
        "../../envs/plumbline.yaml"
    params:
        spec=spec_of("lr_sweep.figures"),
    shell:
        "python -m plumbline.lr_sweep.figures --spec {params.spec:q} --results {input.results}"
        " --output $(dirname {output.pdf[0]}) --log {log} 2>> {log}"


rule lr_sweep_diagnose:
    """Why the trials were as fast as they were; measures, so it runs alone."""
    input:
        trials=lr_sweep_all_trials,
    output:
        "<results>/lr_sweep/diagnosis.json",
    log:
        "<results>/lr_sweep/logs/diagnose/all.log",
    conda:
        "../../envs/plumbline.yaml"
    threads: 1000
    params:
        spec=spec_of("lr_sweep.diagnose"),
    shell:
        "OMP_NUM_THREADS=1 python -m plumbline.lr_sweep.diagnose --spec {params.spec:q} --trials {input.trials}"
        " --output {output} --log {log} 2>> {log}"


rule lr_sweep:
    """The whole study. Names every trial, table and figure: one that is deleted is rebuilt."""
    input:
        lr_sweep_all_trials,
        rules.lr_sweep_best.output,
        rules.lr_sweep_summarize.output,
        rules.lr_sweep_figures.output,
        rules.lr_sweep_diagnose.output,
