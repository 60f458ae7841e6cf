"""Choices become settings that `train.py` takes, and give back what was meant, whatever text is in them."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import affectvlm
from affectvlm.config import METHODS, PATHS, TrainConfig, load, to_dict
from affectvlm.planning import (
    CLASSES,
    PRESETS,
    SOURCES,
    Plan,
    checked_name,
    places_named,
    settings_in,
    written,
)

PROMPT_SETS = Path(affectvlm.__file__).parent / "prompt_sets"


def test_every_choice_gives_settings_that_are_accepted():
    for method, preset, data, start, mixed in itertools.product(METHODS, PRESETS, SOURCES, ("", "a/model"), (0, 1)):
        plan = Plan(
            "n", method, preset, data, "" if data == "procedural" else "/my faces", mixed=bool(mixed), start=start
        )
        config = plan.config()
        assert config.method == method and config.model.start == start and config.run.name == "n"
        own = (data,)
        assert config.data.sources == (own + ("procedural",) if mixed and data != "procedural" else own)
        assert config.data.ict_path == ("/my faces" if data == "ict" else "")
        assert config.data.makehuman_path == ("/my faces" if data == "makehuman" else "")
        assert config.data.folder == ("/my faces" if data == "folder" else "")
        assert config.data.train_faces[0] == (0 if data == "folder" else PRESETS[preset].faces)
        if start:
            assert config.data.scans_first == 0  # what random weights need, trained ones do not


def test_classes_of_ones_own_faces_bring_their_words():
    config = Plan("n", data="folder", path="/faces", layout="bp4d", classes="bp4d").config()
    assert config.prompts.file == "bp4d" and config.data.dataset == "bp4d"
    assert "prompts.file=bp4d" not in Plan("n", classes="bp4d").overrides()  # synthetic faces have the six emotions
    assert set(CLASSES) == {path.stem for path in PROMPT_SETS.iterdir()}
    for mixed, data in ((True, "folder"), (False, "ict"), (False, "makehuman")):
        with pytest.raises(ValueError, match="classes is '4dme', but generated faces show those of ekman alone"):
            Plan("n", data=data, path="/faces", mixed=mixed, classes="4dme").overrides()


def test_every_setting_that_names_a_place_is_known_as_one():
    named = {
        f"{section}.{key}" for section, values in to_dict(Plan("n").config()).items() if isinstance(values, dict)
        for key, value in values.items() if isinstance(value, str) and key.endswith(("path", "folder", "file", "cache"))
    }  # fmt: skip
    assert named and named <= set(PATHS)
    assert places_named(["data.makehuman_path=makehuman", "optim.steps=3"]) == ["data.makehuman_path=makehuman"]


def test_presets_grow():
    steps = [Plan("n", preset=preset).config().optim.steps for preset in PRESETS]
    assert steps == sorted(set(steps))


def test_only_what_differs_from_the_defaults_is_written():
    assert Plan("n", preset="long").overrides()[0] == "run.name=n"
    assert not {line.partition("=")[0] for line in Plan("n").overrides()} & {"method", "run.folder", "data.sources"}
    assert "run.folder=/elsewhere" in Plan("n", folder="/elsewhere").overrides()


def test_what_an_expert_says_counts_over_the_choices():
    plan = Plan("n", extra="optim.steps=77 optim.lr=1e-5\n\n# a remark\ndata.train_faces = [9] # few\n")
    with pytest.raises(ValueError, match="unknown setting"):
        plan.config()  # a blank before "=" belongs to the name
    plan = Plan("n", extra="optim.steps=77 optim.lr=1e-5\n\n# a remark\ndata.train_faces=[9] # few\n")
    config = plan.config()
    assert (config.optim.steps, config.optim.lr, config.data.train_faces) == (77, 1e-5, (9,))
    assert len(plan.overrides()) == len({line.partition("=")[0] for line in plan.overrides()})


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (Plan(""), "the name is ''"),
        (Plan("n", method="magic"), "method is 'magic'; one of affectvlm"),
        (Plan("n", preset="huge"), "preset is 'huge'"),
        (Plan("n", data="web"), "data is 'web'"),
        (Plan("n", data="folder", path="  "), "path of your folder or table is empty"),
        (Plan("n", data="folder", path="/faces", classes="moods"), "classes is 'moods'; one of ekman, bp4d, 4dme"),
        (Plan("n", data="ict"), "path of ICT-FaceKit is empty"),
        (Plan("n", data="makehuman"), "path of MakeHuman is empty"),
        (Plan("n", extra="optim.lrr=1"), "unknown setting optim.lrr; did you mean optim.lr"),
        (Plan("n", extra="more steps please"), "'more steps please' is not section.key=value"),
        (Plan("n", extra="optim.steps=many"), "optim.steps is 'many'; int is needed"),
        (Plan("n", extra="run.name=other"), "run.name is not a setting for here"),
        (Plan("n", extra="optim.steps=[1"), "cannot be read as section.key=value"),
        (Plan("n", extra="optim.lr=2\noptim.lr.x=1"), "optim.lr"),
        (Plan("n", extra="optim=3"), "optim is 3"),
        (Plan("n", extra="optim.steps=3"), "optim.warmup .* must be less than optim.steps"),
    ],
)
def test_wrong_choices_end_in_a_sentence(plan, said):
    with pytest.raises(ValueError, match=said):
        plan.config()


@settings(deadline=None)  # the first call imports
@given(st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=30))
def test_any_path_comes_back_as_it_was(text):
    assert load(TrainConfig, None, [written("data.folder", text)]).data.folder == text


@pytest.mark.parametrize("name", ["007", "1e3", "true", "null", "2024-01-01", "a.b-c_d"])
def test_names_that_look_like_something_else_stay_names(name):
    assert checked_name(f" {name} ") == name
    assert Plan(name).config().run.name == name


def test_settings_that_name_places_are_found():
    harmless = settings_in("optim.lr=1e-3 run.seed=2\ndata.train_faces=[12]\nmodel.arch=ViT-B-32\noptim.ema=0.9")
    assert places_named(harmless) == []
    for place in ("data.cache=x", "model.start=a", "prompts.file=x", "x.y=/etc", "x.y=..", "x.y=[a, ../b]", "x.y=~me",
                  "data={folder: x}", "model.arch=local-dir:/x", "run.folder=r"):  # fmt: skip
        assert places_named([place]) == [place]
