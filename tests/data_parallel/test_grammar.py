"""The generated corpus: both languages come from one tree, and the held-out combinations occur nowhere else."""

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from plumbline.core.errors import UserError
from plumbline.data_parallel import plan as planning
from plumbline.data_parallel.corpora import german as german_clauses
from plumbline.data_parallel.corpora import grammar
from plumbline.data_parallel.corpora.english import in_english
from plumbline.data_parallel.corpora.german import in_german
from plumbline.data_parallel.corpora.grammar import draw_sentence
from plumbline.data_parallel.corpora.lexicon import ADJECTIVES, MANNERS, NOUNS, PLACES, TIMES, VERBS
from plumbline.data_parallel.corpora.tree import Clause, Phrase, Sentence, agreement
from plumbline.data_parallel.settings import LEXICON, CorpusSettings, DataParallelSettings, GrammarCorpus

SMALL = CorpusSettings(grammar=GrammarCorpus(train=400, validation=40, test=40, held_out=40))


def noun(german: str):
    return next(noun for nouns in NOUNS.values() for noun in nouns if noun.german == german)


def verb(infinitive: str, prefix: str = ""):
    return next(verb for verb in VERBS if (verb.prefix, verb.infinitive) == (prefix, infinitive))


def time(english: str):
    return next(word for words in TIMES.values() for word in words if word.english == english)


def adjective(english: str):
    return next(word for word in ADJECTIVES if word.english == english)


MAN, STUDENT, DOOR = Phrase(noun("Mann")), Phrase(noun("Student"), "a"), Phrase(noun("Tür"))


LEAVES = Clause(None, verb("reisen", "ab"), "future")
EXAMPLES = {
    "separable verb": (
        Sentence(Clause(MAN, verb("heben", "auf"), "present", (DOOR,))),
        "Der Mann hebt die Tür auf.",
        "The man lifts the door.",
    ),
    "inversion": (
        Sentence(Clause(MAN, verb("sehen"), "present", (STUDENT,), time=time("today"), fronted=True)),
        "Heute sieht der Mann einen Studenten.",
        "Today the man sees a student.",
    ),
    "verb last": (
        Sentence(
            Clause(MAN, verb("schlafen"), "perfect"),
            "weil",
            Clause(Phrase(None, person="they"), verb("heben", "auf"), "past", (DOOR,)),
        ),
        "Der Mann hat geschlafen, weil sie die Tür aufhoben.",
        "The man has slept because they lifted the door.",
    ),
    "dative plural": (
        Sentence(Clause(MAN, verb("helfen"), "must", (Phrase(STUDENT.noun, "none", True, adjective("young")),))),
        "Der Mann muss jungen Studenten helfen.",
        "The man must help young students.",
    ),
    "kein": (
        Sentence(Clause(MAN, verb("kaufen"), "past", (Phrase(noun("Auto"), "a", False, adjective("old")),), True)),
        "Der Mann kaufte kein altes Auto.",
        "The man did not buy an old car.",
    ),
    "relative clause": (
        Sentence(
            Clause(replace(MAN, relative=Clause(None, verb("reisen", "ab"), "future")), verb("lachen"), "present")
        ),
        "Der Mann, der abreisen wird, lacht.",
        "The man who will depart laughs.",
    ),
}


@pytest.mark.parametrize(("sentence", "german", "english"), EXAMPLES.values(), ids=EXAMPLES)
def test_sentences_are_what_a_german_and_an_english_speaker_would_write(sentence, german, english):
    assert (in_german(sentence), in_english(sentence)) == (german, english)


def test_changing_a_noun_of_the_tree_changes_that_noun_alone_on_both_sides():
    """Only a realisation of one tree can do this; the two nouns have the same gender, so that nothing else changes."""
    draw, changed = random.Random(1), 0
    for _ in range(300):
        sentence = draw_sentence(draw)
        objects = sentence.main.objects
        if not objects or objects[-1].noun is None or objects[-1].noun.kind not in ("thing", "text"):
            continue
        old = objects[-1].noun
        new = next(other for other in NOUNS[old.kind] if other.gender == old.gender and other != old)
        swapped = replace(
            sentence, main=replace(sentence.main, objects=(*objects[:-1], replace(objects[-1], noun=new)))
        )
        for speak, forms in (
            (in_german, ((old.german, old.german_plural), (new.german, new.german_plural))),
            (in_english, ((old.english, old.english_plural), (new.english, new.english_plural))),
        ):
            before, after = speak(sentence), speak(swapped)
            index = int(objects[-1].plural)
            assert before != after
            gone = set(re.findall(r"\w+", before)) - set(re.findall(r"\w+", after)) - {"a", "an"}
            assert all(word.startswith(forms[0][index]) for word in gone), (before, after)
        changed += 1
    assert changed > 50


def test_the_finite_verb_ends_every_subordinate_clause():
    draw, checked = random.Random(2), 0
    for _ in range(400):
        sentence = draw_sentence(draw)
        if sentence.subordinate is None:
            continue
        clause = sentence.subordinate
        german, after = in_german(sentence), f", {sentence.connective} "
        part = german.split(", ")[0] if sentence.subordinate_first else german.rstrip(".").rsplit(after)[-1]
        finite, end = german_clauses._verb_parts(clause, *agreement(clause.subject))
        assert part.split()[-1] == (end + finite if clause.tense in ("present", "past") else finite)
        checked += 1
    assert checked > 50


def combinations(sentence: Sentence) -> set[tuple[str, str]]:
    return {
        (clause.verb.prefix + clause.verb.infinitive, phrase.noun.german)
        for clause in sentence.clauses()
        for phrase in clause.objects
        if phrase.noun
    }


def test_combinations_of_the_held_out_split_occur_in_no_other(monkeypatch):
    """The trees are recorded as they are spoken, and compared by what they combine."""
    trees: dict[str, Sentence] = {}

    def recorded(sentence):
        trees[spoken(sentence)] = sentence
        return spoken(sentence)

    spoken = grammar.in_german
    monkeypatch.setattr(grammar, "in_german", recorded)
    pairs = list(grammar.load(SMALL).pairs)
    found = {
        name: [combinations(trees[pair.source]) for pair in pairs if pair.split == name]
        for name in ("train", "test", "validation", "held_out")
    }
    seen = set().union(*found["train"], *found["test"], *found["validation"])
    assert all(each - seen for each in found["held_out"])


def test_the_corpus_is_the_same_for_the_same_seed_and_no_sentence_occurs_twice():
    first, again = list(grammar.load(SMALL).pairs), list(grammar.load(SMALL).pairs)
    assert first == again
    assert len({pair.source for pair in first}) == len(first) == 520
    other = SMALL.model_copy(update={"grammar": SMALL.grammar.model_copy(update={"seed": 1})})
    assert list(grammar.load(other).pairs) != first


def test_more_training_sentences_leave_the_test_splits_as_they_are():
    larger = SMALL.model_copy(update={"grammar": SMALL.grammar.model_copy(update={"train": 500})})
    few, many = (
        [pair for pair in grammar.load(settings).pairs if pair.split != "train"] for settings in (SMALL, larger)
    )
    assert few == many


def test_a_grammar_that_has_too_few_sentences_says_so(monkeypatch):
    monkeypatch.setattr(grammar, "draw_sentence", lambda draw: Sentence(Clause(MAN, verb("schlafen"), "present")))
    with pytest.raises(UserError, match=r"grammar\.test: the grammar has too few new sentences .*; lower test"):
        list(grammar.load(SMALL).pairs)


def test_a_share_that_holds_out_no_pair_of_verb_and_object_is_named():
    tiny = CorpusSettings(grammar=GrammarCorpus(train=1, validation=1, test=1, held_out=1, held_out_share=1e-9))
    with pytest.raises(UserError, match=r"grammar\.held_out: .*held_out_share 1e-09; .*raise the share"):
        list(grammar.load(tiny).pairs)


def test_a_changed_word_makes_the_corpus_stale(tmp_path, monkeypatch):
    def spec() -> str:
        return next(target.spec for target in planning.plan(DataParallelSettings(), 0, {}, "cpu"))

    changed = tmp_path / LEXICON.name
    changed.write_text(LEXICON.read_text().replace("Hund m", "Dackel m"))
    before = spec()
    monkeypatch.setattr(planning, "LEXICON", changed)
    assert spec() != before


def test_the_page_states_the_size_of_the_lexicon():
    page = (Path(grammar.__file__).parents[1] / "README.md").read_text()
    separable = sum(bool(verb.prefix) for verb in VERBS)
    nouns, times = sum(map(len, NOUNS.values())), sum(map(len, TIMES.values()))
    for sentence in (
        f"{nouns} nouns of five kinds",
        f"{len(PLACES)} places",
        f"{len(VERBS)} verbs ({separable} of them separable)",
        f"{len(ADJECTIVES)} adjectives",
        f"{len(MANNERS)} adverbs of manner and {times} of time",
    ):
        assert sentence in " ".join(page.split())
