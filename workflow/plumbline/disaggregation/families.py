"""Settings of the comparisons that are named beforehand, in families that are corrected together. Imports no torch."""

from typing import Self

from pydantic import Field, model_validator

from plumbline.core.settings import Settings

FAMILIES = ("features", "baselines")
CONTROL_FAMILY = "control"
"""A/A is a family of its own, and no setting: it must show nothing."""

Family = dict[str, list[str]]
"""What is compared with -> the variants that are compared with it."""


class Families(Settings):
    """Comparisons of variants, each tested over blocks and corrected (Holm) together with the others of its family."""

    features: Family = Field(default_factory=dict)
    """What each thing that the runtime knows saves: the variants without it, by the variant they are compared with."""
    baselines: Family = Field(default_factory=dict)
    """What else is compared: the variants, by the variant they are compared with."""

    @model_validator(mode="after")
    def _different_pairs(self) -> Self:
        for family in FAMILIES:
            pairs = self.pairs(family)
            for name, base in pairs:
                if name == base:
                    raise ValueError(f"{family}.{base}: {name} is compared with itself")
                if pairs.count((name, base)) > 1:
                    raise ValueError(f"{family}.{base}: {name} is named twice")
        return self

    def pairs(self, family: str) -> list[tuple[str, str]]:
        """Variant and what it is compared with, in order."""
        found: Family = getattr(self, family)
        return [(name, base) for base, names in found.items() for name in names]

    def check(self, variants: set[str]) -> None:
        """Raises ValueError for a variant that there is not."""
        for family in FAMILIES:
            for pair in self.pairs(family):
                if unknown := sorted(set(pair) - variants):
                    known = ", ".join(sorted(variants))
                    raise ValueError(f"{family}: no variant is called {unknown[0]}; there are {known}")
