"""A candidate of a comparison, before it is loaded. Light to import."""

from dataclasses import dataclass
from pathlib import Path

from plumbline.throughput.grid import Cell
from plumbline.throughput.measurement.settings import EngineConfig
from plumbline.throughput.models.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What to load, and the tokens that it must generate."""

    name: str
    cell: Cell
    config: EngineConfig
    manifest: Manifest
    reference: Path
