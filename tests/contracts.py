"""The import contract's kind, for import-linter: it takes the studies from the one list there is."""

from typing import Any

from importlinter.contracts.layers import LayersContract

from plumbline.config import STUDIES


class StudyLayersContract(LayersContract):
    """`layers` in which STUDIES stands for all studies side by side: none of them may import another."""

    def __init__(self, name: str, session_options: dict[str, Any], contract_options: dict[str, Any]) -> None:
        layers = [" | ".join(STUDIES) if layer == "STUDIES" else layer for layer in contract_options["layers"]]
        super().__init__(name, session_options, contract_options | {"layers": layers})
