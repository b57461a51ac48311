"""The options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option("--configfile", metavar="FILE", help="YAML merged over config.yaml; may be repeated."),
]
Results = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Results folder to read instead of the config's.")]
