"""A generated German–English corpus: one tree a sentence, which a German and an English grammar both put into words.

German has what makes its order and its forms differ from English: the verb second in main clauses and last in
subordinate ones, inversion after a fronted adverb or clause, separable verbs, three genders, three cases, adjective
endings by determiner, weak nouns, participles and infinitives at the end, `kein` for a negated indefinite object.
A share of the pairs of verb and object occurs in no sentence but those of the split `held_out`.
"""

import hashlib
import random
from collections.abc import Iterator

from plumbline.core.errors import UserError
from plumbline.data_parallel.corpora.english import in_english
from plumbline.data_parallel.corpora.german import in_german
from plumbline.data_parallel.corpora.interface import Pair, Source
from plumbline.data_parallel.corpora.lexicon import (
    ADJECTIVES,
    MANNERS,
    NOUNS,
    PLACES,
    TIMES,
    VERBS,
)
from plumbline.data_parallel.corpora.tree import CONNECTIVES, Clause, Determiner, Phrase, Sentence, Tense
from plumbline.data_parallel.settings import CorpusSettings

TENSES: tuple[Tense, ...] = ("present", "past", "perfect", "future", "can", "want", "must", "should")
SINGULAR: tuple[Determiner, ...] = ("the", "this", "a", "my", "our")
PLURAL: tuple[Determiner, ...] = ("the", "this", "none", "my", "our")
WHEN = {"present": "present", "past": "past", "perfect": "any", "future": "future"}
MOST_TRIES = 200
"""Draws for one new sentence: beyond that the grammar has too few sentences of the kind."""


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
                raise UserError(
                    f"data_parallel.corpus.grammar.{split}: the grammar has too few new sentences for {size} with"
                    f" held_out_share {share:g}; lower {split}" + (" or raise the share" if split == "held_out" else "")
                )
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
