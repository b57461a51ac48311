"""What was left out of the adapters, or assumed of them, in sentences for the findings."""

from collections.abc import Iterator, Mapping
from typing import Any

from plumbline.core.present.formatting import plural

NAMED = 6
"""So many classes are named in a sentence."""


def source_notes(source: Mapping[str, Any], rows: int) -> Iterator[str]:
    """Caveats from what the source wrote to the manifest, of `rows` adapters."""
    if lost := source.get("classes_lost"):
        named = ", ".join(lost[:NAMED]) + (f" and {len(lost) - NAMED} more" if len(lost) > NAMED else "")
        what = "class" if len(lost) == 1 else f"{len(lost)} classes,"
        yield (
            f"Missing: {what} {named}. None of the adapters there could be read, and chance is that of the classes that"
            " are left; adapters/manifest.json says why."
        )
    if skipped := int(source.get("skipped", 0)):
        yield f"Skipped: {plural(skipped, 'adapter')} that could not be read; adapters/manifest.json lists them."
    unknown, assumed = int(source.get("adapters_without_alpha", 0)), source.get("assume_alpha")
    if unknown:
        who = f"{unknown} of {rows} adapters state no α"
        what = "α = r" if assumed in (None, "rank") else f"α = {assumed:g}"
        yield f"{who}, so ΔW is that of {what}: right up to a factor, if all were trained with the same α and r."
    if computed := source.get("computed"):
        yield f"B and A are computed ({', '.join(computed)}), not stored, so there is no factor view."
    texts = int(source.get("text_encoder_keys_left_out", source.get("text_encoder_columns_left_out", 0)))
    if texts:
        yield f"Layers of text encoders are left out ({plural(texts, 'tensor')})."
    if unlisted := int(source.get("files_not_listed", 0)):
        yield f"The folder holds {plural(unlisted, 'file')} that the CSV does not list."
