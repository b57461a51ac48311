"""The manifest of an adapter store."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field

from plumbline.core.errors import UserError
from plumbline.core.files import read_json, write_json
from plumbline.core.settings import Settings, validated


class Module(Settings):
    """A layer that carries an adapter: ΔW = α/r · up · down is (out_features, in_features)."""

    model_config = ConfigDict(validate_by_name=True)
    name: str
    rank: int
    in_features: int = Field(validation_alias="in", serialization_alias="in")
    out_features: int = Field(validation_alias="out", serialization_alias="out")


class Block(Settings):
    """One factor of all adapters. file: relative to the store; shape: (rows, rank, in) or (rows, out, rank)."""

    name: str
    file: str
    shape: tuple[int, int, int]
    sha256: str


class SkippedAdapter(Settings):
    """An adapter that could not be read."""

    adapter: str
    reason: str


class Manifest(Settings):
    """What `manifest.json` holds."""

    schema_version: Literal[1] = Field(default=1, validation_alias="schema", serialization_alias="schema")
    rows: int
    classes: list[str]
    source: dict[str, Any]
    """What the source says about itself: its kind, its options, what it counted."""
    modules: list[Module]
    blocks: list[Block]
    scales_sha256: str
    rows_sha256: str
    skipped: list[SkippedAdapter]

    @classmethod
    def read(cls, path: Path) -> Self:
        """The manifest at `path`. Raises UserError when it is not valid."""
        try:
            return validated(cls, read_json(path), str(path))
        except UserError as error:
            raise UserError(f"{error}; delete {path.parent} to have it rebuilt") from None

    def write(self, path: Path) -> None:
        """Writes the manifest to `path`."""
        write_json(path, self.model_dump(mode="json", by_alias=True))
