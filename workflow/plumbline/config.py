"""The whole config: what config.yaml may say, and the plan it stands for. The one place that lists the studies."""

import importlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import yaml
from pydantic import AfterValidator, Field, create_model

from plumbline.core.errors import UserError
from plumbline.core.plan.kept_code import Root, kept_code_of
from plumbline.core.plan.target import Target, Targets, by_name, canonical, digest
from plumbline.core.present.report.chapters import ReportSpec, chapters
from plumbline.core.settings import Settings, expanded, validated

STUDIES = ("ablation", "lr_sweep", "throughput", "data_parallel", "disaggregation", "sweep")
"""The studies, upstream first: config blocks, rules, commands, status and tests all follow from this list.

`plumbline/<study>/plan.py` holds `plan(settings, seed, upstream, device, results)`; `settings` are the config's block;
`workflow/rules/<study>.smk` the rules, the study's own target among them. `plumbline/<study>/commands.py` holds `row`,
what `plumbline show` says of a trial first, and may hold `order`, by which it sorts them, `diagnose` or `compare`, to
which those commands dispatch, and `app`, a typer app of further commands.
"""

Plan = Callable[[Any, int, Targets, str, Path], list[Target]]


def plan_of(study: str) -> Plan:
    """The function that plans a study from its settings, the seed, the targets of the studies before it, the device,
    and the folder `results`, where decisions that a run has taken lie."""
    plan: Plan = importlib.import_module(f"plumbline.{study}.plan").plan
    return plan


REPORT: Root = ("plumbline.core.present.report.write",)
"""Where the code of the report begins."""


class Common(Settings):
    """Settings that all studies share; `Config` adds a block for each study."""

    results: Annotated[str, Field(min_length=1, pattern=r"^[^{}<>\n]*$"), AfterValidator(expanded)] = "results"
    """Folder that all outputs are written to."""
    seed: int = 0
    """Seed of all random draws. Changing it reruns every trial."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to compute on: `auto` uses a GPU if there is one; `cuda` without a GPU is an error."""

    def plan(self, results: Path | None = None) -> list[Target]:
        """Every target of every study, upstream first. results: the folder to read in place of the config's."""
        targets: list[Target] = []
        for study in STUDIES:
            block, folder = getattr(self, study), results or Path(self.results)
            targets += plan_of(study)(block, self.seed, by_name(targets), self.device, folder)
        return targets


def _block(study: str) -> tuple[type[Settings], Any]:
    """A study's field of the config: the settings that its plan takes, with the question that their docstring asks."""
    settings: type[Settings] = get_type_hints(plan_of(study))["settings"]
    question = (settings.__doc__ or "").partition("\n")[0].partition(": ")[2]
    return settings, Field(default=settings(), description=question[:1].upper() + question[1:])


Config: type[Common] = create_model(
    "Config",
    __base__=Common,
    __doc__="Plumbline's config. Every key has a default; unknown keys are refused.",
    **{study: _block(study) for study in STUDIES},  # type: ignore[call-overload]
)


def check(values: Mapping[str, Any]) -> Common:
    """`values` as a Config. Raises UserError naming each wrong key by its path."""
    return validated(Config, values, "config")


def report_spec(targets: list[Target]) -> ReportSpec:
    """What the report of all studies shows: of each, what its part of the plan names."""
    described = Config.model_fields
    found = [one for study in STUDIES for one in chapters(targets, study, str(described[study].description))]
    return ReportSpec(code=digest(canonical(kept_code_of(*REPORT))), chapters=found)


def load(paths: list[Path]) -> Common:
    """The config in the YAML files `paths`, each laid over the ones before it."""
    return check(read(paths))


def read(paths: Iterable[Path]) -> dict[str, Any]:
    """The values in the YAML files `paths`, each laid over the ones before it; not checked."""
    merged: dict[str, Any] = {}
    for path in paths:
        merged = deep_merge(merged, _read_yaml(path))
    return merged


def deep_merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the keys of `above` laid over it, mappings merged key by key as Snakemake's --configfile does."""
    merged = dict(below)
    for key, value in above.items():
        inner = merged.get(key)
        both = isinstance(inner, dict) and isinstance(value, Mapping)
        merged[key] = deep_merge(inner, value) if both else value  # type: ignore[arg-type]
    return merged


def check_keys(path: Path) -> None:
    """Raises UserError where a mapping in the YAML file `path` has a key twice, of which a reader takes the last."""
    with suppress(yaml.YAMLError):  # which whoever reads its values names
        _check_keys(yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader), path)


def _check_keys(node: yaml.Node | None, path: Path) -> None:
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, path)
    lines: dict[str, int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if isinstance(key, yaml.ScalarNode) and key.value != "<<":
            line = key.start_mark.line + 1
            if first := lines.get(key.value):
                raise UserError(f"{path}:{line}: {key.value!r} stands here again, after line {first}; keep one of them")
            lines[key.value] = line
        _check_keys(value, path)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        check_keys(path)
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist; run from the project's folder or name a --configfile") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must be a mapping of settings")
    return values
