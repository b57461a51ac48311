# Input functions of the rules, which Snakemake wants apart from them.
from plumbline.ablation.settings import parts_of


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
