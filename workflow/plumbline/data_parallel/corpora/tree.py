"""The tree of a generated sentence, which both languages put into words."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from plumbline.data_parallel.corpora.lexicon import Noun, Place, Verb, Word

Tense = Literal["present", "past", "perfect", "future", "can", "want", "must", "should"]
Determiner = Literal["the", "this", "a", "my", "our", "none"]
CONNECTIVES = {
    "weil": "because",
    "obwohl": "although",
    "wenn": "if",
    "während": "while",
    "bevor": "before",
    "damit": "so that",
}
"""German -> English conjunctions of subordinate clauses."""
PRONOUNS = {"I": ("ich", "I"), "he": ("er", "he"), "she": ("sie", "she"), "we": ("wir", "we"), "they": ("sie", "they")}
"""Person -> the word in German and in English."""


@dataclass(frozen=True)
class Phrase:
    """A noun phrase; `person` is a pronoun's (`I`, `he`, `she`, `we`, `they`) and has no noun then."""

    noun: Noun | None
    determiner: Determiner = "the"
    plural: bool = False
    adjective: Word | None = None
    person: str = ""
    relative: "Clause | None" = None
    """What the noun does, as its subject: `the man who sees the dog`."""


@dataclass(frozen=True)
class Clause:
    """Who does what to whom, when and where; a relative clause has no subject of its own."""

    subject: Phrase | None
    verb: Verb
    tense: Tense
    objects: tuple[Phrase, ...] = ()
    negated: bool = False
    time: Word | None = None
    fronted: bool = False
    """Whether the time comes first."""
    manner: Word | None = None
    place: Place | None = None


@dataclass(frozen=True)
class Sentence:
    """A main clause, and a subordinate one with its connective, which may come first; or two joined by `that`."""

    main: Clause
    connective: str = ""
    subordinate: Clause | None = None
    subordinate_first: bool = False

    def clauses(self) -> Iterator[Clause]:
        """Every clause, relative ones among them."""
        for clause in filter(None, (self.main, self.subordinate)):
            yield clause
            for phrase in filter(None, (clause.subject, *clause.objects)):
                if phrase.relative:
                    yield phrase.relative


def agreement(subject: Phrase | None) -> tuple[str, bool]:
    """The person of a subject, as the pronoun that stands for it, and whether it is plural."""
    assert subject is not None
    plural = subject.plural or subject.person in ("we", "they")
    return subject.person or "he", plural


def joined(*words: str) -> str:
    """The words with spaces between them; empty ones are left out."""
    return " ".join(filter(None, words))


def finished(text: str) -> str:
    """The text as a sentence: a capital first, a full stop last."""
    return f"{text[0].upper()}{text[1:].rstrip(',')}."
