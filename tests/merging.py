"""What a stage that merges records is given as its spec, when all records are those of the plan."""

from collections.abc import Iterable, Mapping
from typing import Any

from plumbline.core.plan.target import canonical, digest
from plumbline.core.run.record import Record


def merge_fields(records: Iterable[Record | Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a MergeSpec that expects each of `records` as it is."""
    values = [record.to_json() if isinstance(record, Record) else record for record in records]
    expected = {record["trial"]: digest(canonical(record.get("spec"))) for record in values if "trial" in record}
    return {"code": "", "inputs": "", "records": expected}
