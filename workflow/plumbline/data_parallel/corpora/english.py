"""A sentence's tree in English."""

from plumbline.data_parallel.corpora.tree import (
    CONNECTIVES,
    PRONOUNS,
    Clause,
    Phrase,
    Sentence,
    agreement,
    finished,
    joined,
)

_ENGLISH_MODALS = {"can": "can", "must": "must", "should": "should", "future": "will"}


def in_english(sentence: Sentence) -> str:
    """The sentence in English."""
    main = _english(sentence.main)
    if sentence.subordinate is None:
        return finished(main)
    other = f"{CONNECTIVES[sentence.connective]} {_english(sentence.subordinate)}"
    return finished(f"{other}, {main}" if sentence.subordinate_first else f"{main} {other}")


def _english(clause: Clause) -> str:
    assert clause.subject is not None
    person, plural = agreement(clause.subject)
    verb = _english_verb(clause, plural or person == "I")
    time = clause.time.english if clause.time else ""
    said = joined(english_phrase(clause.subject), verb, *_english_rest(clause), "" if clause.fronted else time)
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
        return PRONOUNS[phrase.person][1]
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
        relative = joined("who", _english_verb(inner, phrase.plural), *_english_rest(inner), time)
    return joined(determiner, adjective, noun, relative)
