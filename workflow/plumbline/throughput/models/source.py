"""Finds the base model's folder on this machine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from plumbline.core.errors import UserError
from plumbline.throughput.models.weights import CONFIG, check_is_folder, read_config
from plumbline.throughput.settings import HubModel

FILES = ("*.json", "*.safetensors", "*.model", "*.txt")
"""Files to fetch from the hub: no pickles, no weights for other libraries."""


class Source(NamedTuple):
    """A model folder."""

    folder: Path
    weights: str
    """trained | hub | path."""
    revision: str | None
    """The commit of a model from the hub."""


def trained(best: list[Path]) -> Source:
    """The best model of the study lr_sweep, given the manifest in its folder."""
    if len(best) != 1:
        raise UserError("--best: needs the manifest of the best model, since throughput.model.source is 'trained'")
    return _checked(best[0].parent, "trained", None)


def path(folder: str | None) -> Source:
    """A folder written by transformers."""
    if folder is not None and Path(folder).is_file():
        check_is_folder(Path(folder))
    if folder is None or not Path(folder).is_dir():
        raise UserError(f"throughput.model.path: {folder} is not a directory; name one that transformers saved")
    return _checked(Path(folder), "path", None)


def hub(settings: HubModel, check: Callable[[dict[str, Any]], None]) -> Source:
    """A model on the hub, fetched into huggingface's cache unless it is there, or a local folder with the same files.

    `check` is given its config.json before the weights are fetched. Raises UserError when the hub does not provide it,
    or when a revision is given for a local folder.
    """
    from huggingface_hub import hf_hub_download, snapshot_download

    from plumbline.core.errors import one_line
    from plumbline.core.run.hub import Repository

    key = "throughput.model.hub"
    repository = Repository(kind="model", id=settings.id, revision=settings.revision, key=key)
    if Path(settings.id).is_dir():
        repository.commit()  # refuses a revision
        return _checked(Path(settings.id), "hub", None)
    try:
        with repository.reached():
            check(read_config(Path(hf_hub_download(settings.id, CONFIG, revision=settings.revision)).parent))
            fetched = Path(snapshot_download(settings.id, revision=settings.revision, allow_patterns=list(FILES)))
    except ValueError as error:  # an id that the hub's client refuses
        raise UserError(f"{key}.id: {settings.id} is neither a directory here nor an id: {one_line(error)}") from None
    return _checked(fetched, "hub", fetched.name)  # the cache names a snapshot by its commit


def _checked(folder: Path, weights: str, revision: str | None) -> Source:
    read_config(folder)
    return Source(folder, weights, revision)
