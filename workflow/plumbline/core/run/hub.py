"""Reading from the Hugging Face hub: pinned to a commit, with a one-line error when it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

from plumbline.core.errors import UserError, one_line

# HTTPError is what the hub's HTTP client raises without a response; the client differs between versions.
_UNREACHABLE = (HfHubHTTPError, HTTPError, LocalEntryNotFoundError, ConnectionError)


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A data set or a model on the hub, or a local folder laid out like one."""

    kind: Literal["dataset", "model"]
    id: str
    """OWNER/NAME on the hub, or the path of a directory."""
    revision: str | None = None
    """A branch, tag or commit; None: the default branch. A directory has none."""
    key: str
    """The config key that names it, for messages: `lr_sweep.corpus.hub`, with `id` and `revision` below it."""

    def commit(self) -> str | None:
        """The commit that `revision` resolves to now, so that a record names something immutable; None for a directory.

        Raises UserError when the hub does not answer, and for a revision of a directory.
        """
        if Path(self.id).is_dir():
            if self.revision is not None:
                raise UserError(
                    f"{self.key}.revision: {self.id} is a directory, which has no revisions; remove the key"
                )
            return None
        try:
            with self.reached():
                commit: str | None = HfApi().repo_info(self.id, revision=self.revision, repo_type=self.kind).sha
        except ValueError as error:  # the client refuses the id
            raise UserError(
                f"{self.key}.id: {self.id} is neither a directory here nor an id: {one_line(error)}"
            ) from error
        if commit is None:
            raise UserError(f"{self.key}.revision: the hub reports no commit for {self.id}; set one")
        return commit

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Wraps a read from the hub: a failed or refused request becomes a UserError."""
        try:
            yield
        except _UNREACHABLE as error:
            raise UserError(
                f"{self.key}.id: {self.id} is not a directory here, and the hub did not provide it ({one_line(error)});"
                " check the id and the network, or download it elsewhere and name the directory"
            ) from error
