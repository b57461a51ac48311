"""How the specs and machines of two records differ, in words."""

from collections import Counter
from collections.abc import Sequence

from plumbline.core.plan.target import differences
from plumbline.core.run.record import Record, hardware

DIGESTS = {
    "code": "code", "inputs": "what it reads", "files": "files of code", "fingerprint": "source files",
    "inputs_fingerprint": "data files",
}  # fmt: skip
"""Fields of a spec that are digests: a report says that they differ, not how."""


def spec_differences(first: Record, second: Record) -> list[str]:
    """A clause for each setting that differs, and for each digest."""
    old, new = ({key: value for key, value in each.spec.items() if key not in DIGESTS} for each in (first, second))
    return differences(old, new) + [n for key, n in DIGESTS.items() if first.spec.get(key) != second.spec.get(key)]


def machine_differences(first: Record, second: Record) -> list[str]:
    """A clause for another machine, and for each library of another version."""
    reached = first.device and second.device  # a trial may end before it has a device
    names = [hardware(record.machine, record.device if reached else None) for record in (first, second)]
    found = [f"{names[0]} → {names[1]}"] if names[0] != names[1] else []
    versions = [record.machine.get("versions") or {} for record in (first, second)]
    return found + differences(versions[0], versions[1])


def clause_counts(found: Sequence[Sequence[str]]) -> dict[str, int]:
    """Clause -> number of trials that it is said of, the most frequent first."""
    return dict(Counter(clause for clauses in found for clause in clauses).most_common())


def clause_lines(what: str, counts: dict[str, int], trials: int) -> list[str]:
    """`Settings differ in 3 of 9 trials: steps: 4 → 8`, a line for the clauses that are said of as many trials."""
    lines = []
    for count in dict.fromkeys(counts.values()):
        alike = "; ".join(clause for clause, of in counts.items() if of == count)
        lines.append(f"{what} differ in {count} of {trials} trials: {alike}")
    return lines


def listed(names: Sequence[str], most: int = 6) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
