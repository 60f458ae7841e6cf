"""Prompts say what is known, nothing else, in many ways."""

import copy
import itertools
import json
import pickle
import re

import numpy as np
import pytest
import yaml

from affectvlm.emotions import EKMAN
from affectvlm.prompts import PromptSet

PROMPTS = PromptSet.load()
SUBJECT = {"sex": "female", "age_group": "older", "ethnicity": "asian", "intensity": "slight"}
ATTRIBUTE_WORDS = {
    "sex": {"woman", "female", "girl", "man", "male", "boy"},
    "age_group": {"child", "girl", "boy", "young", "middle", "older", "elderly"},
    "ethnicity": {"asian", "indian", "eastern", "black", "white", "latin", "american"},
}


def words(prompts):
    """All words of some prompts, in lower case."""
    return set(re.findall(r"[a-z]+", " ".join(prompts).lower()))


def test_the_shipped_set_is_the_six_emotions_in_their_order():
    assert PROMPTS.classes == EKMAN
    assert PROMPTS.rejection == ("neutral", "no face")
    assert PROMPTS.rows == EKMAN + ("neutral", "no face")


def test_without_metadata_no_prompt_has_a_subject_attribute():
    attributes = set().union(*ATTRIBUTE_WORDS.values())
    for row, held_out in itertools.product(PROMPTS.rows, (False, True)):
        assert not words(PROMPTS.prompts(row, held_out=held_out)) & attributes


@pytest.mark.parametrize("key", ["sex", "age_group", "ethnicity"])
def test_an_attribute_is_said_where_known_and_only_then(key):
    said = words(PROMPTS.prompts("sad", {key: SUBJECT[key]}))
    assert said & ATTRIBUTE_WORDS[key]
    for other in set(ATTRIBUTE_WORDS) - {key}:
        assert not said & (ATTRIBUTE_WORDS[other] - ATTRIBUTE_WORDS[key])


@pytest.mark.parametrize("row", EKMAN)
def test_the_number_of_prompts_grows_with_every_attribute(row):
    for size in range(1, 5):
        for keys in itertools.combinations(SUBJECT, size):
            known = {key: SUBJECT[key] for key in keys}
            count = len(PROMPTS.prompts(row, known))
            for left in keys:
                assert count > len(PROMPTS.prompts(row, {key: known[key] for key in keys if key != left}))


def test_prompts_of_one_sex_never_name_the_other():
    female, male = {"woman", "female", "girl"}, {"man", "male", "boy"}
    for age in (None, *PROMPTS.age_group):
        for sex, other in (("female", male), ("male", female)):
            prompts = PROMPTS.prompts("fear", {"sex": sex, "age_group": age, "intensity": "strong"})
            assert not words(prompts) & other


def test_a_child_is_never_called_a_grown_person():
    for sex in ("female", "male", None):
        said = words(PROMPTS.prompts("happy", {"age_group": "child", "sex": sex, "ethnicity": "black"}))
        assert not said & {"woman", "man", "person", "young", "older"}


def test_strong_words_are_not_said_of_weak_expressions():
    for row in EKMAN:
        strong = {word for kind in PROMPTS.intense[row].values() for word in kind}
        for intensity in ("slight", "moderate", 0.0, 0.49):
            prompts = PROMPTS.prompts(row, {"intensity": intensity})
            assert not any(re.search(rf"\b{re.escape(word)}\b", prompt) for word in strong for prompt in prompts)
        assert any("slightly" in prompt for prompt in PROMPTS.prompts(row, {"intensity": 0.1}))
        for intensity in (None, "strong", 1.0):
            prompts = PROMPTS.prompts(row, {"intensity": intensity})
            assert all(any(word in prompt for prompt in prompts) for word in strong)


def test_a_fraction_means_the_level_it_falls_into():
    for fraction, name in ((0.0, "slight"), (0.3, "moderate"), (0.5, "strong"), (0.75, "extreme"), (1.0, "extreme")):
        for value in (fraction, np.float32(fraction)):
            assert PROMPTS.prompts("sad", {"intensity": value}) == PROMPTS.prompts("sad", {"intensity": name})


def test_rejection_rows_have_no_intensity_and_no_face_has_no_subject():
    assert PROMPTS.prompts("neutral", {"intensity": "strong"}) == PROMPTS.prompts("neutral")
    assert PROMPTS.prompts("no face", SUBJECT) == PROMPTS.prompts("no face")


@pytest.mark.parametrize("row", PROMPTS.rows)
def test_draws_are_training_prompts_and_reach_all_of_them(row):
    rng = np.random.default_rng(0)
    metadata = {"sex": "male"}
    drawn = {PROMPTS.draw(row, metadata, rng) for _ in range(6000)}
    every = set(PROMPTS.prompts(row, metadata))
    assert drawn <= every and len(drawn) > 0.99 * len(every)
    assert not drawn & set(PROMPTS.prompts(row, metadata, held_out=True))


def test_equal_generators_draw_equal_prompts():
    draws = [[PROMPTS.draw("fear", SUBJECT, rng) for _ in range(20)] for rng in map(np.random.default_rng, (7, 7, 8))]
    assert draws[0] == draws[1] != draws[2]


def test_every_row_has_held_out_wordings_that_training_never_uses():
    for row in PROMPTS.rows:
        held_out = PROMPTS.prompts(row, SUBJECT, held_out=True)
        assert held_out and not set(held_out) & set(PROMPTS.prompts(row, SUBJECT))


def test_the_bank_has_equally_many_prompts_a_row_and_every_template():
    banks = {row: PROMPTS.bank_prompts(row) for row in PROMPTS.rows}
    assert {len(set(bank)) for bank in banks.values()} == {18}
    for row, bank in banks.items():
        assert set(bank) <= set(PROMPTS.prompts(row))
    for opening in ("a face with", "a 3D scan of a person", "the face of a person expressing"):
        assert all(any(prompt.startswith(opening) for prompt in banks[row]) for row in EKMAN)


def test_no_prompt_stands_for_two_emotions():
    for metadata in (None, SUBJECT):
        every = [prompt for row in PROMPTS.rows for held in (0, 1) for prompt in PROMPTS.prompts(row, metadata, held)]
        assert len(every) == len(set(every))


def test_articles_fit_and_no_slot_is_left():
    for row in PROMPTS.rows:
        for metadata in (None, SUBJECT, {"age_group": "child", "ethnicity": "indian", "intensity": "extreme"}):
            for prompt in PROMPTS.prompts(row, metadata) + PROMPTS.prompts(row, metadata, held_out=True):
                assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|[{}]|  ", prompt, re.IGNORECASE), prompt


def test_plain_data_json_yaml_and_pickle_give_the_set_back(tmp_path):
    plain = PROMPTS.to_dict()
    assert PromptSet.from_dict(json.loads(json.dumps(plain))) == PROMPTS
    path = tmp_path / "words.yaml"
    path.write_text(yaml.safe_dump(plain, sort_keys=False), encoding="utf-8")
    assert PromptSet.load(path) == PROMPTS
    assert pickle.loads(pickle.dumps(PROMPTS)) == PROMPTS == copy.deepcopy(PROMPTS)
    assert PromptSet.load(path).prompts("sad", SUBJECT) == PROMPTS.prompts("sad", SUBJECT)


def test_a_set_cannot_be_changed_through_its_parts():
    plain = PROMPTS.to_dict()
    prompts = PromptSet.from_dict(plain)
    plain["classes"]["happy"]["noun"].append("rain")
    assert prompts == PROMPTS
    with pytest.raises(TypeError):
        prompts.phrases["happy"]["noun"] = ("rain",)


def test_the_order_of_classes_is_part_of_the_set():
    plain = PROMPTS.to_dict()
    plain["classes"] = dict(reversed(plain["classes"].items()))
    assert PromptSet.from_dict(plain).classes == EKMAN[::-1]
    assert PromptSet.from_dict(plain) != PROMPTS


def test_a_user_can_write_a_small_set_of_other_classes():
    prompts = PromptSet.from_dict(
        {
            "classes": {"pain": {"noun": ["pain"]}, "awe": {"noun": ["awe"], "adjective": ["awed"]}},
            "templates": ["a face showing {noun}", "a {adjective} look of {subject}"],
            "people": {"any": ["patient"]},
        }
    )
    assert prompts.prompts("awe") == ("a face showing awe", "an awed look of a patient")
    assert [prompts.bank_prompts(row) for row in prompts.rows] == [("a face showing pain",), ("a face showing awe",)]
    assert prompts.rejection == () and prompts.prompts("pain", held_out=True) == ()


@pytest.mark.parametrize(
    "metadata, said",
    [
        ({"sex": "f"}, "sex is 'f'.*female, male"),
        ({"age_group": 34}, "age_group is 34.*child"),
        ({"ethnicity": "martian"}, "ethnicity"),
        ({"intensity": 3}, "intensity is 3"),
        ({"intensity": True}, "intensity is True"),
        ({"intensity": 1.5}, "intensity is 1.5"),
        ({"intensity": float("nan")}, "intensity is nan"),
        ({"intensity": "huge"}, "intensity is 'huge'"),
        ({"mood": "calm"}, "unknown metadata.*mood"),
        ({"sex": ["female"]}, "sex is"),
    ],
)
def test_wrong_metadata_is_said(metadata, said):
    for call in (PROMPTS.prompts, lambda row, data: PROMPTS.draw(row, data, np.random.default_rng(0))):
        with pytest.raises(ValueError, match=said):
            call("happy", metadata)


def test_an_unknown_row_is_said():
    for call in (PROMPTS.prompts, PROMPTS.bank_prompts):
        with pytest.raises(ValueError, match="'bored'.*happy"):
            call("bored")


def changed(path, value):
    """The shipped set as plain data with one entry replaced, or removed by None."""
    plain = PROMPTS.to_dict()
    place = plain
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return plain


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        "words",
        {1: 2},
        {},
        changed(["classes"], {}),
        changed(["classes"], ["happy"]),
        changed(["classes", "neutral"], {"noun": ["calm"]}),
        changed(["classes", "happy"], {}),
        changed(["classes", "happy"], {"thing": []}),
        changed(["classes", "happy"], {"colour": ["red"]}),
        changed(["classes", "happy", "noun"], "joy"),
        changed(["classes", "happy", "noun"], [1]),
        changed(["classes", "happy", "noun"], [" "]),
        changed(["classes", "happy", "intense"], ["wow"]),
        changed(["templates"], None),
        changed(["templates"], []),
        changed(["templates"], "a {noun}"),
        changed(["templates", 0], "a face"),
        changed(["templates", 0], "{noun} and {action}"),
        changed(["templates", 0], "a {emotion}"),
        changed(["templates", 0], "a {noun.__class__}"),
        changed(["templates", 0], "a {noun!r}"),
        changed(["templates", 0], "a {noun"),
        changed(["templates", 0], "a {}"),
        changed(["templates"], ["a {thing}"]),
        changed(["held_out_templates", 0], "a {adjective} face"),
        changed(["people"], None),
        changed(["people"], ["person"]),
        changed(["people", "any"], None),
        changed(["people", "any"], []),
        changed(["age_group"], ["old"]),
        changed(["age_group", "older"], {"words": ["old"]}),
        changed(["ethnicity"], "all"),
        changed(["ethnicity", "asian"], []),
        changed(["intensity", "slight"], {"noun": "a bit"}),
        changed(["intensity", "slight"], {"verb": "{}"}),
        changed(["bank_size"], 0),
        changed(["bank_size"], "many"),
        changed(["bank_size"], True),
        changed(["name"], 7),
        changed(["templates"], [f"{place} {{noun}}" for place in range(201)]),
        {**PROMPTS.to_dict(), "colour": "red"},
    ],
    ids=lambda content: "",
)
def test_what_is_not_a_prompt_set_is_refused(content):
    with pytest.raises(ValueError):
        PromptSet.from_dict(content)


@pytest.mark.parametrize("content", [b"a: [", b"\xff\xfe\x00", b"", b"!!python/object:os.system {}", b"- 1"])
def test_files_that_are_not_a_prompt_set_are_refused(tmp_path, content):
    path = tmp_path / "words.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        PromptSet.load(path)


def test_a_missing_file_is_said_by_name():
    with pytest.raises(ValueError, match="nowhere.yaml"):
        PromptSet.load("nowhere.yaml")


def test_plain_words_are_one_sentence_a_row_and_round_trip():
    full = PromptSet.load()
    plain = full.plain()
    assert plain.rows == full.rows
    for row in plain.rows:
        assert len(plain.prompts(row)) == 1 and plain.prompts(row) == plain.bank_prompts(row)
        assert set(plain.prompts(row)) <= set(full.prompts(row))
        assert plain.prompts(row, held_out=True)
    assert PromptSet.from_dict(plain.to_dict()) == plain


def test_bundled_sets_have_the_classes_of_their_data_sets():
    bp4d, micro = PromptSet.load("bp4d"), PromptSet.load("4dme")
    assert bp4d.classes == ("happy", "sad", "surprise", "embarrassment", "fear", "pain", "angry", "disgust")
    assert micro.classes == ("negative", "positive", "surprise", "repression", "others")
    for prompts in (bp4d, micro):
        assert prompts.rejection == PROMPTS.rejection and prompts.templates == PROMPTS.templates
        assert prompts.phrases["surprise"] == PROMPTS.phrases["surprise"]
        banks = [set(prompts.bank_prompts(row)) for row in prompts.rows]
        assert sum(map(len, banks)) == len(set.union(*banks))  # no prompt speaks for two classes


def test_a_base_gives_what_a_file_leaves_out(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("base: ekman\nname: mine\nclasses: {happy: , bored: {adjective: [bored]}}\n")
    mine = PromptSet.load(path)
    assert mine.classes == ("happy", "bored") and mine.phrases["happy"] == PROMPTS.phrases["happy"]
    assert any("bored" in prompt for prompt in mine.bank_prompts("bored"))
    wrong = {"base: nobody": "nobody", "base: ../x": "base is", "base: ekman\nclasses: {glum: }": "glum"}
    for text, word in wrong.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=word):
            PromptSet.load(path)
