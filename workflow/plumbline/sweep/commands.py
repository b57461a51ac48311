"""What the study adds to the command line: `plumbline show sweep`."""

from typing import Any


def row(record: dict[str, Any]) -> dict[str, Any]:
    """What `plumbline show` says of a trial first."""
    return {"sweep": record["sweep"], **record["parameters"], "seed": record["seed"], **record["metrics"]}
