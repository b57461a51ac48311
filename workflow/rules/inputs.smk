# Input functions of the rules, which Snakemake wants apart from them.
from plumbline.ablation.settings import parts_of
from plumbline.lr_sweep.settings import added_rates, trial_name
from plumbline.throughput.grid import cells, smaller
from plumbline.throughput.settings import reads_corpus, variant_names


def feature_shards(wildcards, suffix):
    """Files of the shards that a representation's features are joined from; none where it is computed in one."""
    count = CONFIG.ablation.shards
    folder = f"<results>/ablation/features/{wildcards.view}/{wildcards.representation}"
    return [
        f"{folder}/{index}-of-{count}.{suffix}"
        for index in range(count if count > 1 else 0)
    ]


def feature_files(wildcards, suffix):
    """Files of the representations that a trial reads side by side."""
    parts = parts_of(CONFIG.ablation, wildcards.representation)
    return [
        f"<results>/ablation/features/{wildcards.view}/{part}.{suffix}"
        for part in parts
    ]


def lr_sweep_trials(rounds):
    """Records of the grid, and of the rates that the first `rounds` rounds added to it."""
    rates = list(CONFIG.lr_sweep.learning_rates)
    for number in range(rounds):
        decision = checkpoints.lr_sweep_extend.get(round=number).output[0]
        added = added_rates(decision)
        if not added:
            break
        rates += added
    return [
        f"<results>/lr_sweep/trials/{trial_name(rate, seed)}/record.json"
        for rate in rates
        for seed in CONFIG.lr_sweep.seeds
    ]


def lr_sweep_all_trials(wildcards):
    return lr_sweep_trials(CONFIG.lr_sweep.rounds)


def lr_sweep_all_weights(wildcards):
    return [
        record.replace("record.json", "weights.safetensors")
        for record in lr_sweep_all_trials(wildcards)
    ]


def throughput_best_model(wildcards):
    """The manifest of the study lr_sweep's best model, where it is the one to measure."""
    if CONFIG.throughput.model.source != "trained":
        return []
    try:  # here, so that lr_sweep alone takes any context
        CONFIG.throughput.check_context(CONFIG.lr_sweep.model.context, "lr_sweep.model")
    except ValueError as error:
        raise WorkflowError(f"config: throughput.{error}")
    return "<results>/lr_sweep/best_model/manifest.json"


def throughput_corpus(wildcards):
    """The manifest of the study lr_sweep's corpus, where it is the text to score on."""
    if not reads_corpus(CONFIG.throughput):
        return []
    return "<results>/lr_sweep/corpus/manifest.json"


def throughput_smaller(wildcards):
    """The record of the next smaller batch, where one that did not fit decides."""
    if not CONFIG.throughput.timing.skip_larger_after_oom:
        return []
    grid = cells(CONFIG.throughput)
    name = f"{wildcards.variant}/{wildcards.engine}/{wildcards.cell}"
    before = smaller(next(cell for cell in grid if cell.trial == name), grid)
    return [f"<results>/throughput/trials/{before.trial}.json"] if before else []


def throughput_manifests(wildcards):
    """Manifests of every variant, the measured ones and those that are only scored."""
    return [
        f"<results>/throughput/models/{variant}/manifest.json"
        for variant in variant_names(CONFIG.throughput)
    ]
