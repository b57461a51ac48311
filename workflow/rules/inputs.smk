# Input functions of the rules, which Snakemake wants apart from them.
from plumbline.ablation.settings import parts_of
from plumbline.lr_sweep.settings import added_rates, trial_name


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
