"""A generated German–English corpus: one tree a sentence, which a German and an English grammar both put into words.

German has what makes its order and its forms differ from English: the verb second in main clauses and last in
subordinate ones, inversion after a fronted adverb or clause, separable verbs, three genders, three cases, adjective
endings by determiner, weak nouns, participles and infinitives at the end, `kein` for a negated indefinite object.
A share of the pairs of verb and object occurs in no sentence but those of the split `held_out`.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from plumbline.data_parallel.corpora.interface import Pair, Source
from plumbline.data_parallel.corpora.lexicon import (
    ADJECTIVES,
    MANNERS,
    NOUNS,
    PLACES,
    TIMES,
    VERBS,
    Noun,
    Place,
    Verb,
    Word,
)
from plumbline.data_parallel.settings import CorpusSettings

Tense = Literal["present", "past", "perfect", "future", "can", "want", "must", "should"]
Determiner = Literal["the", "this", "a", "my", "our", "none"]
TENSES: tuple[Tense, ...] = ("present", "past", "perfect", "future", "can", "want", "must", "should")
SINGULAR: tuple[Determiner, ...] = ("the", "this", "a", "my", "our")
PLURAL: tuple[Determiner, ...] = ("the", "this", "none", "my", "our")
WHEN = {"present": "present", "past": "past", "perfect": "any", "future": "future"}
CONNECTIVES = {
    "weil": "because",
    "obwohl": "although",
    "wenn": "if",
    "während": "while",
    "bevor": "before",
    "damit": "so that",
}
MOST_TRIES = 200
"""Draws for one new sentence: beyond that the grammar has too few sentences of the kind."""


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


def load(settings: CorpusSettings) -> Source:
    """As many distinct sentences as the settings ask for; the same for the same seed, whatever else is asked."""
    grammar = settings.grammar
    sizes = {
        "test": grammar.test,
        "held_out": grammar.held_out,
        "validation": grammar.validation,
        "train": grammar.train,
    }
    return Source(
        described={"kind": "grammar", **grammar.model_dump()}, pairs=_pairs(sizes, settings, grammar.held_out_share)
    )


def _pairs(sizes: dict[str, int], settings: CorpusSettings, share: float) -> Iterator[Pair]:
    seen: set[str] = set()
    for split, size in sizes.items():
        draw = random.Random(f"{settings.grammar.seed}/{split}")
        for _ in range(size):
            for _ in range(MOST_TRIES * (10 if split == "held_out" else 1)):
                sentence = draw_sentence(draw)
                german = in_german(sentence)
                if german not in seen and is_held_out(sentence, share) == (split == "held_out"):
                    break
            else:
                raise ValueError(f"the grammar has too few new sentences for the split {split}")
            seen.add(german)
            yield Pair(split, german, in_english(sentence))


def is_held_out(sentence: Sentence, share: float) -> bool:
    """Whether one of its pairs of verb and object is held out; whether a pair is, only the pair decides."""
    for clause in sentence.clauses():
        for phrase in clause.objects:
            pair = f"{clause.verb.prefix}{clause.verb.infinitive} {phrase.noun.german if phrase.noun else ''}"
            number = int.from_bytes(hashlib.sha256(pair.encode()).digest()[:8], "big") / 2**64
            if phrase.noun and number < share:
                return True
    return False


def draw_sentence(draw: random.Random) -> Sentence:
    """A random tree."""
    kind = draw.random()
    main = _clause(draw, relative=kind >= 0.7)
    if kind < 0.25:
        connective = draw.choice(list(CONNECTIVES))
        other = _clause(draw, short=True)
        first = draw.random() < 0.4
        return Sentence(_unfronted(main), connective, other, first) if first else Sentence(main, connective, other)
    return Sentence(main)


def _clause(draw: random.Random, *, relative: bool = False, short: bool = False, subject: bool = True) -> Clause:
    verb, tense = draw.choice(VERBS), draw.choice(TENSES)
    objects: tuple[Phrase, ...] = ()
    if verb.frame == "give":
        objects = (_phrase(draw, "person"), _phrase(draw, draw.choice(("thing", "text"))))
    elif verb.frame != "none":
        kind = verb.frame.partition(":")[0]
        objects = (_phrase(draw, draw.choice(list(NOUNS)) if kind == "any" else kind),)
    when = TIMES["any"] + TIMES.get(WHEN.get(tense, ""), [])
    time = draw.choice(when) if draw.random() < (0.25 if short else 0.5) else None
    who = None
    if subject:
        with_relative = relative and draw.random() < 0.4
        pronoun = "" if draw.random() < 0.65 or with_relative else draw.choice(("I", "he", "she", "we", "they"))
        who = Phrase(None, person=pronoun) if pronoun else _phrase(draw, "person")
        if with_relative:
            inner = _clause(draw, short=True, subject=False)
            who = Phrase(who.noun, who.determiner, who.plural, who.adjective, relative=inner)
    return Clause(
        subject=who,
        verb=verb,
        tense=tense,
        objects=objects,
        negated=draw.random() < 0.15,
        time=time,
        fronted=subject and time is not None and not short and draw.random() < 0.5,
        manner=draw.choice(MANNERS) if not short and draw.random() < 0.15 else None,
        place=draw.choice(PLACES) if draw.random() < 0.3 else None,
    )


def _phrase(draw: random.Random, kind: str) -> Phrase:
    plural = draw.random() < 0.3
    adjective = draw.choice(ADJECTIVES) if draw.random() < 0.4 else None
    return Phrase(draw.choice(NOUNS[kind]), draw.choice(PLURAL if plural else SINGULAR), plural, adjective)


def _unfronted(clause: Clause) -> Clause:
    return Clause(**{**vars(clause), "fronted": False})


# German

Case = Literal["nom", "acc", "dat"]
_DER = {"nom": "der die das die", "acc": "den die das die", "dat": "dem der dem den"}
_ENDINGS = {  # m f n plural
    "this": {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"},
    "ein": {"nom": "- e - e", "acc": "en e - e", "dat": "em er em en"},
    "weak": {"nom": "e e e en", "acc": "en e e en", "dat": "en en en en"},
    "mixed": {"nom": "er e es en", "acc": "en e es en", "dat": "en en en en"},
    "strong": {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"},
}
_EIN_WORDS = {"a": "ein", "my": "mein", "our": "unser", "no": "kein"}
_PRONOUNS = {"I": ("ich", "I"), "he": ("er", "he"), "she": ("sie", "she"), "we": ("wir", "we"), "they": ("sie", "they")}
_MODALS = {"can": ("kann", "können"), "want": ("will", "wollen"), "must": ("muss", "müssen")}
_MODALS |= {"should": ("soll", "sollen"), "future": ("wird", "werden")}
_AUXILIARIES = {"haben": ("habe", "hat", "haben"), "sein": ("bin", "ist", "sind")}


def in_german(sentence: Sentence) -> str:
    """The sentence in German."""
    if sentence.subordinate is None:
        text = _main(sentence.main)
    elif sentence.subordinate_first:
        text = f"{sentence.connective} {_verb_last(sentence.subordinate)}, {_main(sentence.main, after_clause=True)}"
    else:
        text = f"{_main(sentence.main)}, {sentence.connective} {_verb_last(sentence.subordinate)}"
    return _finished(text.replace(",,", ","))


def _main(clause: Clause, *, after_clause: bool = False) -> str:
    """The finite verb second: after the subject, after the time that was put first, or after a clause."""
    finite, end = _verb_parts(clause, *_agreement(clause.subject))
    assert clause.subject is not None
    subject = german_phrase(clause.subject, "nom")
    middle = _middle(clause)
    if after_clause:
        return _joined(finite, subject, *middle, end)
    if clause.fronted and clause.time:
        return _joined(clause.time.german, finite, subject, *middle, end)
    return _joined(subject, finite, *middle, end)


def _verb_last(clause: Clause) -> str:
    """The finite verb last, with its prefix joined to it."""
    assert clause.subject is not None
    verb = _final_verb(clause, *_agreement(clause.subject))
    return _joined(german_phrase(clause.subject, "nom"), *_middle(clause), verb)


def _relative(clause: Clause, noun: Noun, plural: bool) -> str:
    """The clause behind a noun, which is its subject: a relative pronoun, and the finite verb last."""
    pronoun = _DER["nom"].split()[_column(noun, plural)]
    return _joined(pronoun, *_middle(clause), _final_verb(clause, "they" if plural else "he", plural))


def _final_verb(clause: Clause, person: str, plural: bool) -> str:
    finite, end = _verb_parts(clause, person, plural)
    return end + finite if clause.tense in ("present", "past") else _joined(end, finite)


def _verb_parts(clause: Clause, person: str, plural: bool) -> tuple[str, str]:
    """The finite verb, and what stands at the end of a main clause: prefix, participle or infinitive."""
    verb, first = clause.verb, person == "I"
    if clause.tense == "perfect":
        return _AUXILIARIES[verb.auxiliary][2 if plural else 0 if first else 1], verb.participle
    if clause.tense in _MODALS:
        singular, many = _MODALS[clause.tense]
        singular = "werde" if first and clause.tense == "future" else singular
        return many if plural else singular, verb.prefix + verb.infinitive
    if clause.tense == "past":
        many = verb.past + ("n" if verb.past.endswith("e") else "en")
        return many if plural else verb.past, verb.prefix
    return verb.infinitive if plural else _first_person(verb) if first else verb.present, verb.prefix


def _first_person(verb: Verb) -> str:
    """`sehe`; of verbs in -eln and -ern `streichle`, `füttere`."""
    if verb.infinitive.endswith("eln"):
        return verb.infinitive[:-3] + "le"
    return verb.infinitive[:-1] + "e" if verb.infinitive.endswith("ern") else verb.infinitive[:-2] + "e"


def _agreement(subject: Phrase | None) -> tuple[str, bool]:
    assert subject is not None
    plural = subject.plural or subject.person in ("we", "they")
    return subject.person or "he", plural


def _middle(clause: Clause) -> list[str]:
    """What stands between the parts of the verb: dative, time, accusative, `nicht`, manner, place."""
    indefinite = bool(clause.objects) and clause.objects[-1].determiner in ("a", "none") and not _is_dative(clause)
    no = clause.negated and indefinite
    cases: list[Case] = ["dat", "acc"] if len(clause.objects) == 2 else ["dat" if _is_dative(clause) else "acc"]
    words = [
        german_phrase(phrase, case, negated=no and phrase is clause.objects[-1])
        for phrase, case in zip(clause.objects, cases, strict=False)
    ]
    time = clause.time.german if clause.time and not clause.fronted else ""
    words.insert(len(words) - 1 if len(clause.objects) == 2 else 0, time)
    place = ""
    if clause.place:
        inside = f"{clause.place.preposition} {german_phrase(Phrase(clause.place.noun), 'dat')}"
        place = inside.replace("in dem ", "im ").replace("an dem ", "am ")
    return [*words, "nicht" if clause.negated and not no else "", clause.manner.german if clause.manner else "", place]


def _is_dative(clause: Clause) -> bool:
    return clause.verb.frame.endswith(":dat")


def german_phrase(phrase: Phrase, case: Case, *, negated: bool = False) -> str:
    """The phrase in German; `negated`: with `kein` in place of its indefinite article."""
    if phrase.noun is None:
        return _PRONOUNS[phrase.person][0]
    column = _column(phrase.noun, phrase.plural)
    determiner = "no" if negated else phrase.determiner
    if determiner == "the":
        article, adjective = _DER[case].split()[column], "weak"
    elif determiner == "this":
        article, adjective = f"dies{_ending('this', case, column)}", "weak"
    elif determiner == "none":
        article, adjective = "", "strong"
    else:
        article, adjective = _EIN_WORDS[determiner] + _ending("ein", case, column), "mixed"
    described = f"{phrase.adjective.german}{_ending(adjective, case, column)}" if phrase.adjective else ""
    relative = f"{_relative(phrase.relative, phrase.noun, phrase.plural)}," if phrase.relative else ""
    noun = _declined(phrase.noun, case, plural=phrase.plural)
    return _joined(article, described, noun + ("," if relative else ""), relative)


def _declined(noun: Noun, case: Case, *, plural: bool) -> str:
    if not plural:
        return noun.german if case == "nom" else noun.oblique
    dative = case == "dat" and not noun.german_plural.endswith(("n", "s"))
    return noun.german_plural + ("n" if dative else "")


def _column(noun: Noun, plural: bool) -> int:
    return 3 if plural else "mfn".index(noun.gender)


def _ending(kind: str, case: Case, column: int) -> str:
    return _ENDINGS[kind][case].split()[column].replace("-", "")


# English

_ENGLISH_MODALS = {"can": "can", "must": "must", "should": "should", "future": "will"}


def in_english(sentence: Sentence) -> str:
    """The sentence in English."""
    main = _english(sentence.main)
    if sentence.subordinate is None:
        return _finished(main)
    other = f"{CONNECTIVES[sentence.connective]} {_english(sentence.subordinate)}"
    return _finished(f"{other}, {main}" if sentence.subordinate_first else f"{main} {other}")


def _english(clause: Clause) -> str:
    assert clause.subject is not None
    person, plural = _agreement(clause.subject)
    verb = _english_verb(clause, plural or person == "I")
    time = clause.time.english if clause.time else ""
    said = _joined(english_phrase(clause.subject), verb, *_english_rest(clause), "" if clause.fronted else time)
    return f"{time} {said}" if clause.fronted else said


def _english_rest(clause: Clause) -> list[str]:
    place = f"{clause.place.english_preposition} the {clause.place.noun.english}" if clause.place else ""
    return [*map(english_phrase, clause.objects), clause.manner.english if clause.manner else "", place]


def _english_verb(clause: Clause, bare: bool) -> str:
    """bare: whether the subject takes the plain form: `I see`, `they see`, against `he sees`."""
    verb, no = clause.verb, clause.negated
    match clause.tense:
        case "present" if no:
            return f"{'do' if bare else 'does'} not {verb.english}"
        case "present":
            return verb.english if bare else verb.english_present
        case "past":
            return f"did not {verb.english}" if no else verb.english_past
        case "perfect":
            return f"{'have' if bare else 'has'}{' not' if no else ''} {verb.english_participle}"
        case "want" | "must" if no:  # `muss nicht` leaves one free
            return f"{'do' if bare else 'does'} not {'want' if clause.tense == 'want' else 'have'} to {verb.english}"
        case "want":
            return f"{'want' if bare else 'wants'} to {verb.english}"
    modal = _ENGLISH_MODALS[clause.tense] + (" not" if no else "")
    return f"{'cannot' if modal == 'can not' else modal} {verb.english}"


def english_phrase(phrase: Phrase) -> str:
    """The phrase in English."""
    if phrase.noun is None:
        return _PRONOUNS[phrase.person][1]
    noun = phrase.noun.english_plural if phrase.plural else phrase.noun.english
    adjective = phrase.adjective.english if phrase.adjective else ""
    determiner: str = "" if phrase.determiner == "none" else phrase.determiner
    if determiner == "this" and phrase.plural:
        determiner = "these"
    if determiner == "a" and (adjective or noun)[0] in "aeiou":
        determiner = "an"
    relative = ""
    if phrase.relative:
        inner = phrase.relative
        time = inner.time.english if inner.time else ""
        relative = _joined("who", _english_verb(inner, phrase.plural), *_english_rest(inner), time)
    return _joined(determiner, adjective, noun, relative)


def _joined(*words: str) -> str:
    return " ".join(filter(None, words))


def _finished(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip(',')}."
