"""The words of the generated corpus, read from lexicon.txt, which says what a line holds."""

from dataclasses import dataclass
from typing import Literal

from plumbline.data_parallel.settings import LEXICON

Gender = Literal["m", "f", "n"]


@dataclass(frozen=True)
class Noun:
    """A noun; `oblique` is the singular outside the nominative, which differs for weak masculines (den Studenten)."""

    german: str
    gender: Gender
    german_plural: str
    english: str
    english_plural: str
    kind: str
    oblique: str


@dataclass(frozen=True)
class Verb:
    """A verb. A separable one has its `prefix` apart: `auf` + `machen`; the participle is whole: `aufgemacht`."""

    prefix: str
    infinitive: str
    present: str
    """Third person singular."""
    past: str
    participle: str
    auxiliary: Literal["haben", "sein"]
    frame: str
    """`none`, or the kind of its object with its case: `food:acc`, `person:dat`; `give` takes a person and a thing."""
    english: str
    english_present: str
    english_past: str
    english_participle: str


@dataclass(frozen=True)
class Word:
    """An adjective (its stem before endings in German) or an adverb."""

    german: str
    english: str


@dataclass(frozen=True)
class Place:
    """A place with the preposition that goes with it, in the dative."""

    preposition: str
    english_preposition: str
    noun: Noun


def _spaced(text: str) -> str:
    return text.replace(":", " ")


def _noun(line: str, kind: str) -> Noun:
    german, gender, plural, english, *more = line.split()
    nominative, _, oblique = german.partition("/")
    assert gender in ("m", "f", "n")
    return Noun(nominative, gender, plural, english, more[0] if more else f"{english}s", kind, oblique or nominative)  # type: ignore[arg-type]


def _verb(line: str) -> Verb:
    german, present, past, participle, auxiliary, frame, english, *forms = line.split()
    prefix, _, infinitive = german.rpartition("|")
    stem = english.removesuffix("e")
    regular = (f"{english}s", f"{stem}ed", f"{stem}ed")
    third, english_past, english_participle = (
        _spaced(rule if form == "." else form) for form, rule in zip(forms, regular, strict=True)
    )
    assert auxiliary in ("haben", "sein")
    return Verb(
        prefix=prefix,
        infinitive=infinitive,
        present=present,
        past=past,
        participle=participle,
        auxiliary=auxiliary,  # type: ignore[arg-type]
        frame=frame,
        english=_spaced(english),
        english_present=third,
        english_past=english_past,
        english_participle=english_participle,
    )


def _word(line: str) -> Word:
    german, english = line.split()
    return Word(_spaced(german), _spaced(english))


def _place(line: str) -> Place:
    preposition, english, noun = line.split(maxsplit=2)
    return Place(preposition, english, _noun(noun, "place"))


def _sections() -> dict[str, list[str]]:
    """Heading -> its lines, both in their order: sentences are drawn by it."""
    found: dict[str, list[str]] = {}
    for line in LEXICON.read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            lines = found.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return found


def _headed(name: str) -> dict[str, list[str]]:
    """Lines under the headings `[name …]`, by the heading's second word."""
    return {heading.split()[1]: lines for heading, lines in _SECTIONS.items() if heading.startswith(f"{name} ")}


_SECTIONS = _sections()
NOUNS = {kind: [_noun(line, kind) for line in lines] for kind, lines in _headed("noun").items()}
PLACES = [_place(line) for line in _SECTIONS["place"]]
VERBS = [_verb(line) for line in _SECTIONS["verb"]]
ADJECTIVES = [_word(line) for line in _SECTIONS["adjective"]]
MANNERS = [_word(line) for line in _SECTIONS["manner"]]
TIMES = {when: [_word(line) for line in lines] for when, lines in _headed("time").items()}
