"""A sentence's tree in German."""

from typing import Literal

from plumbline.data_parallel.corpora.lexicon import Noun, Verb
from plumbline.data_parallel.corpora.tree import PRONOUNS, Clause, Phrase, Sentence, agreement, finished, joined

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
    return finished(text.replace(",,", ","))


def _main(clause: Clause, *, after_clause: bool = False) -> str:
    """The finite verb second: after the subject, after the time that was put first, or after a clause."""
    finite, end = _verb_parts(clause, *agreement(clause.subject))
    assert clause.subject is not None
    subject = german_phrase(clause.subject, "nom")
    middle = _middle(clause)
    if after_clause:
        return joined(finite, subject, *middle, end)
    if clause.fronted and clause.time:
        return joined(clause.time.german, finite, subject, *middle, end)
    return joined(subject, finite, *middle, end)


def _verb_last(clause: Clause) -> str:
    """The finite verb last, with its prefix joined to it."""
    assert clause.subject is not None
    verb = _final_verb(clause, *agreement(clause.subject))
    return joined(german_phrase(clause.subject, "nom"), *_middle(clause), verb)


def _relative(clause: Clause, noun: Noun, plural: bool) -> str:
    """The clause behind a noun, which is its subject: a relative pronoun, and the finite verb last."""
    pronoun = _DER["nom"].split()[_column(noun, plural)]
    return joined(pronoun, *_middle(clause), _final_verb(clause, "they" if plural else "he", plural))


def _final_verb(clause: Clause, person: str, plural: bool) -> str:
    finite, end = _verb_parts(clause, person, plural)
    return end + finite if clause.tense in ("present", "past") else joined(end, finite)


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
        return PRONOUNS[phrase.person][0]
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
    return joined(article, described, noun + ("," if relative else ""), relative)


def _declined(noun: Noun, case: Case, *, plural: bool) -> str:
    if not plural:
        return noun.german if case == "nom" else noun.oblique
    dative = case == "dat" and not noun.german_plural.endswith(("n", "s"))
    return noun.german_plural + ("n" if dative else "")


def _column(noun: Noun, plural: bool) -> int:
    return 3 if plural else "mfn".index(noun.gender)


def _ending(kind: str, case: Case, column: int) -> str:
    return _ENDINGS[kind][case].split()[column].replace("-", "")
