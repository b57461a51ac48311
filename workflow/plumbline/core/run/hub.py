"""What is read from the Hugging Face hub: the commit it is read at, and one line for what goes wrong."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

from plumbline.core.errors import UserError

# HTTPError is what the hub's HTTP client raises without an answer; which client that is differs between versions.
_UNREACHABLE = (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, ConnectionError)


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A data set or a model on the hub, or a local folder laid out like one."""

    kind: Literal["dataset", "model"]
    id: str
    """OWNER/NAME on the hub, or the path of a folder."""
    revision: str | None = None
    """A branch, tag or commit; None: the default branch. A folder has none."""
    key: str
    """The settings that name it, for messages: `lr_sweep.corpus.hub`, with `id` and `revision` below it."""

    def commit(self) -> str | None:
        """The commit that `revision` stands for now, so that a record names what cannot change; None for a folder.

        Raises UserError when the hub does not give it, and for a revision of a folder.
        """
        if Path(self.id).is_dir():
            if self.revision is not None:
                raise UserError(f"{self.key}.revision: {self.id} is a folder, which has none; remove the key")
            return None
        try:
            with self.reached():
                commit: str | None = HfApi().repo_info(self.id, revision=self.revision, repo_type=self.kind).sha
        except ValueError as error:  # an id that the hub's client refuses
            raise UserError(f"{self.key}.id: {self.id} is neither a directory here nor an id: {line(error)}") from error
        if commit is None:
            raise UserError(f"{self.key}.revision: the hub names no commit of {self.id}; give one")
        return commit

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Around what reads from the hub: where that does not answer or refuses, a UserError says so."""
        try:
            yield
        except _UNREACHABLE as error:
            raise UserError(
                f"{self.key}.id: {self.id} is not a directory here, and the hub does not give it ({line(error)});"
                " check the id and the network, or download it elsewhere and name the directory"
            ) from error


def line(error: BaseException) -> str:
    """The error's message on one line, or its class where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
