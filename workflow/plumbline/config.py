"""The whole config: what config.yaml may say, and the plan it stands for."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from plumbline.ablation.plan import plan as plan_ablation
from plumbline.ablation.settings import AblationSettings
from plumbline.core.errors import UserError
from plumbline.core.plan.target import Target, Targets, by_name
from plumbline.core.settings import Settings, validated
from plumbline.lr_sweep.plan import plan as plan_lr_sweep
from plumbline.lr_sweep.settings import LrSweepSettings
from plumbline.throughput.plan import plan as plan_throughput
from plumbline.throughput.settings import ThroughputSettings

Plan = Callable[[Any, int, Targets, str], list[Target]]
STUDIES: dict[str, Plan] = {"ablation": plan_ablation, "lr_sweep": plan_lr_sweep, "throughput": plan_throughput}
"""Study -> function from its settings, the seed, the targets of the studies before it and the device to its plan."""


class Config(Settings):
    """Plumbline's config. Every key has a default; unknown keys are refused."""

    results: Annotated[str, Field(min_length=1)] = "results"
    """Folder that everything is written to."""
    seed: int = 0
    """Of everything that is drawn: another one makes every trial anew."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes a GPU where there is one; `cuda` without one is an error."""
    ablation: AblationSettings = AblationSettings()
    """What do a LoRA's weights say about what it was trained on?"""
    lr_sweep: LrSweepSettings = LrSweepSettings()
    """Which learning rate, where is the edge, and is this run as fast as it should be?"""
    throughput: ThroughputSettings = ThroughputSettings()
    """How fast does a model generate, in how much memory, and what does compressing it buy?"""

    def plan(self) -> list[Target]:
        """Every target of every study, upstream first."""
        targets: list[Target] = []
        for study, plan in STUDIES.items():
            targets += plan(getattr(self, study), self.seed, by_name(targets), self.device)
        return targets


def check(values: Mapping[str, Any]) -> Config:
    """`values` as a Config. Raises UserError naming each wrong key by its path."""
    return validated(Config, values, "config")


def load(paths: list[Path]) -> Config:
    """The config in the YAML files `paths`, each laid over the ones before it."""
    merged: dict[str, Any] = {}
    for path in paths:
        merged = deep_merge(merged, _read_yaml(path))
    return check(merged)


def deep_merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the keys of `above` laid over it, mappings merged key by key as Snakemake's --configfile does."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        both = isinstance(inner, dict) and isinstance(value, Mapping)
        merged[key] = deep_merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist; run from the project's folder or name a --configfile") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no settings")
    return values
