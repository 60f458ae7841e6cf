"""Sentences edited one by one become the prompt set that says them; new words are found; strangers' files refused."""

from __future__ import annotations

import re

import pytest
import yaml

from affectvlm.prompts import PromptSet
from affectvlm.wording import (
    MAX_FILE_BYTES,
    MAX_LETTERS,
    MAX_ROWS,
    MAX_SENTENCES,
    Sentence,
    Wording,
    from_yaml,
    new_words,
    to_yaml,
    training_words,
)

PROMPTS = PromptSet.load()
OWN = Wording.of(PROMPTS)
KNOWN = training_words(PROMPTS)


def banks(prompts: PromptSet) -> dict[str, tuple[str, ...]]:
    return {row: prompts.bank_prompts(row) for row in prompts.rows}


def test_untouched_it_is_the_set_itself():
    assert OWN.prompt_set() is PROMPTS
    assert {row: OWN.used(row) for row in OWN.rows} == banks(PROMPTS)


def test_the_set_says_what_was_left_and_nothing_else():
    sentences = [
        Sentence("a grin"),
        Sentence(" a  big   smile "),
        Sentence("a grin"),
        Sentence(""),
        Sentence("joy", False),
    ]
    wording = OWN.with_sentences("happy", sentences)
    assert wording.rows["happy"] == (Sentence("a grin"), Sentence("a big smile"), Sentence("joy", False))
    assert banks(wording.prompt_set()) == {**banks(PROMPTS), "happy": ("a grin", "a big smile")}
    assert OWN == Wording.of(PROMPTS)  # the old one is as it was


def test_a_row_without_sentences_in_use_is_no_row():
    wording = OWN
    for row in ("fear", "no face"):
        wording = wording.with_sentences(row, [Sentence(text, False) for text in wording.used(row)])
    prompts = wording.prompt_set()
    assert prompts.classes == tuple(name for name in PROMPTS.classes if name != "fear")
    assert prompts.rejection == ("neutral",)
    assert "fear" in wording.rows  # it can be switched on again


def test_one_class_has_to_stay():
    wording = OWN
    for row in PROMPTS.classes:
        wording = wording.with_sentences(row, [])
    with pytest.raises(ValueError, match="every class is switched off"):
        wording.prompt_set()


def test_a_class_is_added_with_sentences_of_its_name_and_leaves_the_others_alone():
    wording = OWN.with_class("  Quiet  Contempt ")
    prompts = wording.prompt_set()
    assert prompts.classes == (*PROMPTS.classes, "quiet contempt")
    assert prompts.rejection == PROMPTS.rejection
    assert wording.used("quiet contempt")[:2] == ("quiet contempt", "a face showing quiet contempt")
    assert {row: bank for row, bank in banks(prompts).items() if row != "quiet contempt"} == banks(PROMPTS)
    assert list(wording.rows) == list(prompts.rows)
    assert wording.without_class("quiet contempt") == OWN


@pytest.mark.parametrize("name", ["", "  ", "happy", "HAPPY", "no face", "x" * 41])
def test_a_class_needs_a_name_of_its_own(name):
    with pytest.raises(ValueError):
        OWN.with_class(name)


def test_there_is_an_end_to_rows_and_sentences():
    wording = OWN
    for place in range(MAX_ROWS - len(OWN.rows)):
        wording = wording.with_class(f"mood {place}")
    with pytest.raises(ValueError, match=f"at most {MAX_ROWS}"):
        wording.with_class("one more")
    with pytest.raises(ValueError, match=f"at most {MAX_SENTENCES}"):
        OWN.with_sentences("happy", [Sentence(f"smile {place}") for place in range(MAX_SENTENCES + 1)])
    with pytest.raises(ValueError, match=f"at most {MAX_LETTERS}"):
        OWN.with_sentences("happy", [Sentence("x" * (MAX_LETTERS + 1))])


def test_unknown_rows_are_said():
    with pytest.raises(ValueError, match="'bored'"):
        OWN.with_sentences("bored", [])
    with pytest.raises(ValueError, match="'neutral'"):
        OWN.without_class("neutral")


# words


def test_every_word_of_every_training_prompt_is_known():
    metadata = [None]
    for key in ("sex", "age_group", "ethnicity", "intensity"):
        names = [name for name in getattr(PROMPTS, "people" if key == "sex" else key) if name != "any"]
        metadata += [{key: name} for name in names]
    metadata += [{"sex": sex, "age_group": "child"} for sex in ("female", "male")]
    said = {text for row in PROMPTS.rows for record in metadata for text in PROMPTS.prompts(row, record)}
    assert {word for text in said for word in new_words(text, KNOWN)} == set()
    assert {word for text in said for word in re.findall(r"[a-z]+|\d", text.lower())} == KNOWN


def test_words_of_held_out_templates_are_new():
    assert new_words("close-up of this", KNOWN) == ("close", "this")


def test_new_words_come_once_in_order_as_written():
    assert new_words("Smirking in the Zoo, smirking: a person's 3D face in 4D", KNOWN) == ("Smirking", "Zoo", "'s", "4")
    assert new_words("taken aback, TAKEN-ABACK!", KNOWN) == ()
    assert new_words("größer 笑", KNOWN) == ("größer", "笑")


# files


@pytest.mark.parametrize("wording", [OWN, OWN.with_class("contempt").with_sentences("sad", [Sentence("tears: “no”")])])
def test_a_saved_set_comes_back_as_it_was(wording, tmp_path):
    text = to_yaml(wording.prompt_set())
    assert from_yaml(text.encode()) == wording.prompt_set()
    assert Wording.of(from_yaml(text.encode())).prompt_set().to_dict() == wording.prompt_set().to_dict()
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    assert banks(PromptSet.load(path)) == banks(wording.prompt_set())  # as training and shell load it


def test_the_shipped_file_can_be_loaded_too():
    from affectvlm.prompts import _BUNDLED

    assert from_yaml((_BUNDLED / "ekman.yaml").read_bytes()) == PROMPTS


MANY = {**PROMPTS.to_dict(), "templates": [f"face {place} {{noun}}" for place in range(200)] + list(PROMPTS.templates)}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "mapping"),
        (b"\xff\xfe\x00", "UTF-8"),
        (b"a: [", r"not YAML in line \d"),
        (b"!!python/object/apply:os.system ['true']", "not YAML"),
        (b"classes: {}", "templates"),
        (b"a: &a [x, x]\nb: *a", "anchors"),
        (b"[" * 5000, "nested"),
        (b" " * (MAX_FILE_BYTES + 1), f"{MAX_FILE_BYTES:,}"),
        (yaml.safe_dump({**PROMPTS.to_dict(), "bank": {"bored": ["a yawn"]}}).encode(), "bored"),
        (yaml.safe_dump({**PROMPTS.to_dict(), "bank": {"happy": []}}).encode(), "happy"),
        (yaml.safe_dump({**PROMPTS.to_dict(), "bank": {"happy": ["x" * 500]}}).encode(), "500 letters"),
        (yaml.safe_dump({**PROMPTS.to_dict(), "templates": MANY["templates"][:150]}).encode(), "no template|at most"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_used_is_refused_in_words(data, said):
    with pytest.raises(ValueError, match=said) as caught:
        from_yaml(data, "mine.yaml")
    assert "mine.yaml" in str(caught.value) and len(str(caught.value)) < 400


# the bank in a prompt set


def test_rows_of_a_bank_do_not_shorten_the_others():
    prompts = PromptSet.from_dict({**PROMPTS.to_dict(), "bank": {"happy": ["a grin"]}})
    assert banks(prompts) == {**banks(PROMPTS), "happy": ("a grin",)}
    assert prompts.prompts("happy") == PROMPTS.prompts("happy")  # what training draws from is as it was
    assert prompts.plain().bank == {} and "bank" not in PROMPTS.to_dict()
