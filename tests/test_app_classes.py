"""The app with models of other classes than the six, and with one that reads motion: pages, words, colours, bars."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from affectvlm.curves import emotion_curve
from affectvlm.emotions import ADJECTIVES, BP4D, COLORS, EKMAN, FOURDME, GREY, MEGC, OTHER_COLORS, class_colors
from affectvlm.mesh_files import scan_ply
from affectvlm.model import Card, from_config, save_checkpoint
from affectvlm.predictor import Predictor
from affectvlm.prompts import PromptSet
from affectvlm.ui import (
    card_words,
    engine,
    evidence,
    figures,
    report,
    sequence,
    sequence_figures,
    viewers,
    words,
)
from tests import test_app as base
from tests import test_app_training as training
from tests.test_app_gradcam import control as with_option
from tests.test_app_gradcam import quick
from tests.test_app_prompts import box, control, numbers
from tests.test_predictor import TINY

start = base.start
root, opened = training.root, training.opened
quick = quick  # fixtures
OWN = ("neutral", "boredom", "anger_held *back*")
"""Classes of somebody's own: one that is known, one that is not, one full of marks."""


def own_words() -> PromptSet:
    """A prompt set without rejection rows."""
    content = PromptSet.load().to_dict()
    classes = {name: {"adjective": ["blank", f"look number {place}"]} for place, name in enumerate(OWN)}
    return PromptSet.from_dict(content | {"name": "mine", "classes": classes, "rejection": {}})


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Untrained: "eight" of BP4D, "five" of 4DME, "own" without rejection rows, "motion" that reads sequences."""
    folder = tmp_path_factory.mktemp("models")
    sets = {"eight": PromptSet.load("bp4d"), "five": PromptSet.load("4dme"), "own": own_words()}
    sets["motion"] = sets["five"]
    for seed, (name, prompts) in enumerate(sets.items()):
        torch.manual_seed(seed)
        model = from_config("tiny", TINY)
        moves = {"temporal": True, "magnify": 3.0} if name == "motion" else {}
        card = Card.of(model, prompts, name, image_kind="normals", half_width=80.0, temperature=0.05, **moves)
        save_checkpoint(folder / name, model, card)
    return folder


@pytest.fixture(scope="module")
def moving_face() -> bytes:
    """Two scans of a face whose jaw drops, in a zip."""
    model = engine.face_model()
    person = model.sample_identity(np.random.default_rng(5))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, drop in (("a_1.ply", 0.0), ("a_2.ply", 1.0)):
            archive.writestr(name, scan_ply(model.generate(person, {"AU26": drop})))
    return stream.getvalue()


def answering(start, models: Path, name: str):
    """The app with that model chosen."""
    return choose_model(start(models), name)


def choose_model(app, name: str):
    app = box(app, "Model", "selectbox").set_value(name).run()
    assert not app.exception
    return app


def fine(app):
    assert not app.exception, [(error.value, error.stack_trace) for error in app.exception]
    assert not app.error, [error.value for error in app.error]
    return app


def bars(app, place: int = 0) -> dict[str, float]:
    chart = json.loads(app.get("plotly_chart")[place].proto.spec)["data"][0]
    return dict(zip(chart["y"], numbers(chart["x"]), strict=True))


def titled(probabilities: dict[str, float]) -> dict[str, float]:
    return {figures.title(name): share for name, share in probabilities.items()}


def html(app) -> str:
    return "\n".join(str(element.proto.body) for element in app.get("html"))


# models of other classes, page by page


@pytest.mark.parametrize("name", ["eight", "own"])
def test_the_first_page_answers_with_the_models_classes(start, models, name):
    app = answering(start, models, name)
    truth = Predictor.from_checkpoint(models / name, device="cpu").predict(engine.sample_scan("sad"))
    said = base.texts(app)
    assert all(words.plain(each) in said for each in truth.probabilities) and "six" not in said
    assert {button.label for button in app.button} >= set(EKMAN)  # the faces to try stay the same
    fine(base.click(app, "sad"))
    assert app.header[0].value == words.plain(words.headline(truth))
    assert words.plain(words.confidence(truth)) in base.texts(app)
    assert bars(app) == pytest.approx(titled(truth.probabilities), abs=1e-6)
    assert list(bars(app)) == list(titled(truth.probabilities))
    color = class_colors(truth.probabilities)[truth.emotion]
    assert f'class="dot" style="background:{color}"' in html(app)
    assert html(app).count('class="bar-row"') == 3 * len(truth.probabilities)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eight", "own"])
def test_prompts_mesh_explorer_and_about_take_its_classes(start, models, name):
    app = answering(start, models, name)
    classes = engine.classes(models / name)
    base.click(app, "fear")
    fine(app.switch_page("pages/prompts.py").run())
    assert list(bars(app, 1)) == [figures.title(each) for each in classes]
    assert control(app, "Sentences for").options[: len(classes)] == [each.capitalize() for each in classes]
    assert ("Beside the classes" in base.texts(app)) == (name == "eight")
    fine(app.switch_page("pages/mesh.py").run())
    with_option(app, viewers.EVIDENCE).set_value(viewers.EVIDENCE).run()
    assert with_option(fine(app), classes[1].capitalize()).options == [each.capitalize() for each in classes]
    fine(app.switch_page("pages/explorer.py").run())
    assert list(bars(app)) == [figures.title(each) for each in classes]
    target = classes[3] if name == "eight" else classes[1]
    control(app, "Make it look more …").set_value(target).run()
    assert f"“{target}”" in base.texts(fine(app))
    labels = {button.label for button in app.button}
    asked = f"Make it look more {words.more(target)}"
    assert asked in labels or f"No single small step makes it look more {words.more(target)}" in base.texts(app)
    fine(app.switch_page("pages/about.py").run())
    assert classes[1] in base.texts(app) and (card_words.NEVER_HOLDS_BACK in base.texts(app)) == (name == "own")


@pytest.mark.parametrize("name", ["eight", "own"])
def test_maps_are_made_for_its_classes(start, models, name, quick):
    app = answering(start, models, name)
    base.click(app, "happy")
    fine(app.switch_page("pages/gradcam.py").run())
    classes = engine.classes(models / name)
    assert with_option(app, classes[1].capitalize()).options == [each.capitalize() for each in classes]
    with_option(app, evidence.CONTRAST).set_value(evidence.CONTRAST).run()
    assert len(box(fine(app), "and not", "selectbox").options) == len(classes) - 1


@pytest.mark.slow
def test_choices_made_under_one_model_are_no_stumbling_block_under_another(start, models, quick):
    app = answering(start, models, "eight")
    base.click(app, "happy")
    app.switch_page("pages/gradcam.py").run()
    with_option(app, "Pain").set_value("pain").run()
    box(app, "Evidence for", "selectbox").set_value("pain").run()
    with_option(app, evidence.CONTRAST).set_value(evidence.CONTRAST).run()
    box(app, "Why", "selectbox").set_value("surprise").run()
    box(app, "and not", "selectbox").set_value("pain").run()
    choose_model(fine(app), "five")
    assert box(app, "Why", "selectbox").value == "surprise"  # which both know
    assert box(fine(app), "and not", "selectbox").value in FOURDME
    with_option(app, evidence.EMOTION).set_value(evidence.EMOTION).run()
    assert with_option(fine(app), "Repression").value in FOURDME
    app.switch_page("pages/explorer.py").run()
    control(app, "Make it look more …").set_value("repression").run()
    app.switch_page("pages/prompts.py").run()
    control(app, "Sentences for").set_value("repression").run()
    for page in ("prompts", "explorer", "mesh", "classify", "gradcam", "about"):
        for name in ("eight", "five"):
            fine(choose_model(app.switch_page(f"pages/{page}.py").run(), name))
    assert app.session_state["face"].title == "sample, posed happy"


@pytest.mark.slow
def test_many_files_are_answered_in_its_classes(start, models, happy_ply):
    app = answering(start, models, "eight")
    base.choose(app, "Many files")
    app.file_uploader[0].upload("one.ply", happy_ply)
    app.run()
    assert app.session_state["batch_work"].wait(120)
    fine(app.run())
    assert [name for name in app.dataframe[0].value.columns if name in BP4D] == list(BP4D)
    assert app.session_state["batch_table"].rows[0]["emotion"] in BP4D


@pytest.mark.slow
def test_sequences_are_answered_in_its_classes(start, models, moving_face):
    app = answering(start, models, "own").switch_page("pages/sequence.py").run()
    app.file_uploader[0].upload("takes.zip", moving_face)
    app.run()
    assert app.session_state["clip_work"].wait(120)
    fine(app.run())
    data = json.loads(app.get("bidi_component")[0].proto.json)
    assert tuple(data["classes"]) == OWN and data["colors"] == [GREY, *OTHER_COLORS[:2]]
    assert list(bars(app)) == [figures.title(each) for each in OWN]
    said = base.texts(app)
    assert "emotions come and go" in said and "All frames count the same" in said and sequence.READS_ALL not in said


@pytest.mark.slow
def test_a_training_with_other_classes_is_put_to_use(opened, root, models):
    training.write_run(root / "mine", "finished", model=models / "eight")
    training.write_run(root / "moves", "finished", model=models / "motion")
    broken = training.write_run(root / "broken", "finished", model=models / "five")
    (broken / "model" / "card.json").write_text('{"classes": "many"}')
    assert {"run mine", "run moves"} < set(engine.checkpoints()) and "run broken" not in engine.checkpoints()
    app = training.view(opened(), training.WATCH)
    for name, page in (("mine", "classify"), ("moves", "sequence")):
        box(app, "Training", "selectbox").set_value(name).run()
        training.click(app, "Use this model")
        assert "This model answers now" in training.labels(app)
        fine(app.switch_page(f"pages/{page}.py").run())
        assert box(app, "Model", "selectbox").value == f"run {name}"
        training.whole(app.switch_page("pages/training.py").run())
    box(app, "Training", "selectbox").set_value("broken").run()
    (button,) = [button for button in app.button if button.label == "Use this model"]
    assert button.disabled and "card cannot be read" in button.help


# a model that reads motion


def test_a_model_of_motion_says_on_each_page_what_it_needs_and_keeps_the_face(start, models, quick):
    app = answering(start, models, "eight")
    base.click(app, "happy")
    choose_model(app, "motion")
    for page in ("classify", "gradcam", "prompts", "explorer"):
        fine(app.switch_page(f"pages/{page}.py").run())
        assert [info.value for info in app.info] == [words.NEEDS_MOTION], page
        assert not app.header and not app.get("plotly_chart")
    assert "three photos" not in base.texts(app.switch_page("pages/classify.py").run()).replace(words.TAGLINE, "")
    fine(app.switch_page("pages/mesh.py").run())
    assert len(app.get("iframe")) == 1 and viewers.NO_EVIDENCE in base.texts(app)
    assert not any(viewers.EVIDENCE in group.options for group in app.get("button_group"))
    fine(app.switch_page("pages/about.py").run())
    assert card_words.MOVES in base.texts(app) and "3 times as strong" in base.texts(app)
    choose_model(app.switch_page("pages/classify.py").run(), "eight")
    assert fine(app).header and app.session_state["face"].title == "sample, posed happy"


@pytest.mark.slow
def test_a_model_of_motion_answers_a_sequence_and_explains_it(start, models, moving_face, quick):
    truth = Predictor.from_checkpoint(models / "motion", device="cpu").predict((moving_face, "takes.zip"))
    app = answering(start, models, "motion")
    app.file_uploader[0].upload("takes.zip", moving_face)  # on the first page too
    app.run()
    assert app.title[0].value == "How does the face move?" and "reads the motion" in base.texts(app)
    assert app.session_state["clip_work"].wait(120)
    fine(app.run())
    assert app.header[0].value == words.headline(truth) and sequence.READS_ALL in base.texts(app)
    assert bars(app) == pytest.approx(titled(truth.probabilities), abs=1e-6) and tuple(truth.probabilities) == FOURDME
    assert json.loads(app.get("bidi_component")[0].proto.json)["shares"] is None
    box(app, "Look at up to", "selectbox").set_value(16).run()  # other settings, and another look at it
    assert app.session_state["clip_work"].wait(120)
    fine(app.run())
    fine(app.switch_page("pages/gradcam.py").run())
    assert "saw the motion of all frames" in base.texts(app) and base.texts(app).count("of the evidence") == 3
    assert not any("Many faces" in one.label for one in app.expander)
    fine(app.switch_page("pages/prompts.py").run())
    assert "takes.zip" in base.texts(app)
    assert bars(app, 1) == pytest.approx(titled(truth.probabilities), abs=1e-6)
    choose_model(app, "five")  # which reads single faces: the sequence is none of its business here
    assert "no face yet" in base.texts(fine(app))
    base.click(app, "Forget everything")
    choose_model(app.switch_page("pages/gradcam.py").run(), "motion")
    assert [info.value for info in fine(app).info] == [words.NEEDS_MOTION]


def test_a_model_of_motion_is_warmed_up_with_a_sequence(models, monkeypatch, tmp_path):
    import shutil

    asked = []
    shutil.copytree(models / "motion", tmp_path / "motion")
    monkeypatch.setattr(engine, "CHECKPOINTS", tmp_path)
    monkeypatch.setattr(Predictor, "predict", lambda self, x: asked.append(x))
    monkeypatch.setattr(engine, "export_worker", lambda: type("Worker", (), {"start": lambda self: None})())
    engine._warm()
    assert isinstance(asked[0], list) and len(asked[0]) == 2


# words


@dataclass
class Said:
    """As much of an answer as a headline needs."""

    emotion: str
    certainty: str = "sure"
    rejection: dict[str, float] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Said("fear"), "This face looks afraid."),
        (Said("embarrassment"), "This face shows embarrassment."),
        (Said("negative"), "This face shows a negative emotion."),
        (Said("neutral"), "This face looks neutral."),
        (Said("boredom"), "This face shows “boredom”."),
        (Said("pain", "leaning"), "This face leans towards pain."),
        (Said("fear", "leaning"), "This face leans towards afraid."),
        (Said("others", "not sure"), "Hard to say: no emotion stands out."),
        (Said("happy", "sure", {"neutral": 0.2, "no face": 0.6}), "This does not look like a face."),
        (Said("happy", "sure", {"neutral": 0.7, "no face": 0.1}), "This face looks neutral."),
        (Said("happy", "sure", {"talking": 0.7}), "This face fits “talking”, which is none of the model's classes."),
        (Said("happy", "sure", {"talking": 0.4, "neutral": 0.4}), "This face looks happy."),
    ],
)
def test_headlines_are_sentences_whatever_the_class(answer, said):
    assert words.headline(answer) == said


def test_every_class_of_the_sets_that_come_with_it_has_words():
    for name in {*EKMAN, *BP4D, *FOURDME, *MEGC}:
        assert not any("“" in say(name) for say in (words.looks, words.called, words.more, words.expression)), name
    assert words.expression("sad") == "sad expression" and words.expression("pain") == "expression of pain"
    assert words.expression("bored") == "expression “bored”" and words.more("bored") == "like “bored”"
    assert words.more("fear") == ADJECTIVES["fear"] and words.more("pain") == "like pain"


def test_the_first_sentence_names_what_is_to_be_had():
    assert "six posed emotions" in words.introduction(EKMAN) == words.introduction(None)
    assert "5 classes of the chosen model (negative, positive, surprise" in words.introduction(FOURDME)
    assert "30 classes of the chosen model, and" in words.introduction([str(n) for n in range(30)])
    assert "sequences" in words.introduction(FOURDME, reads_motion=True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a_b *c*", r"a\_b \*c\*"), (":red[x]", r"\:red\[x\]"), ("say: no", "say: no"), ("a > 99 %", "a > 99 %")],
)
def test_names_are_shown_as_they_are(text, shown):
    assert words.plain(text) == shown


def test_the_sidebar_and_the_page_about_say_what_a_model_knows_and_takes():
    card = {"classes": list(FOURDME), "temporal": True, "magnify": 2.0, "rejection": []}
    assert words.model_card(card) == {
        "Answers with": [", ".join(FOURDME)],
        "Takes": ["sequences of 3D scans, whose motion it reads"],
    }
    assert words.model_card({"classes": 7}) == {}
    assert card_words.facts(card)["Takes"].endswith("its motion shown 2 times as strong")
    assert "Takes" not in card_words.facts(card | {"temporal": False})
    assert card_words.what_it_is({}) == card_words.IS
    assert card_words.what_it_is({"rejection": ["no face", "neutral"]}) == card_words.IS
    assert card_words.what_it_is(card)[0] == card_words.MOVES
    assert card_words.what_it_is({"rejection": []})[2] == card_words.NEVER_HOLDS_BACK
    assert "where “talking” fits better" in card_words.what_it_is({"rejection": ["neutral", "talking"]})[2]


# colours and figures


SIGHT = {
    "usual": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""What is seen of linear RGB (Machado, Oliveira & Fernandes 2009, severity 1)."""


def linear(colors) -> np.ndarray:
    """(N, 3) linear RGB of "#RRGGBB"."""
    values = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in colors]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def nearest(colors, sight) -> float:
    """The least distance of two of the colours in OKLab, as somebody sees them."""
    to_cones = [
        [0.41222147, 0.53633254, 0.05144599],
        [0.2119035, 0.6806995, 0.1073970],
        [0.0883025, 0.2817188, 0.6299787],
    ]
    to_lab = [
        [0.21045426, 0.79361779, -0.00407205],
        [1.9779985, -2.4285922, 0.4505937],
        [0.02590404, 0.78277177, -0.8086758],
    ]
    seen = np.clip(linear(colors) @ np.transpose(sight), 0, 1)
    lab = np.cbrt(seen @ np.transpose(to_cones)) @ np.transpose(to_lab)
    return min(np.linalg.norm(lab[i] - lab[j]) for i in range(len(lab)) for j in range(i))


@pytest.mark.parametrize("sight", SIGHT)
def test_all_colours_are_as_far_apart_as_those_of_the_six(sight):
    six, everything = list(COLORS.values()), [*COLORS.values(), *OTHER_COLORS]
    least = min(nearest(six, matrix) for matrix in SIGHT.values())
    assert nearest(everything, SIGHT[sight]) >= least > 0.07


def test_all_colours_stand_out_from_both_themes():
    def luminance(colors) -> np.ndarray:
        return linear(colors) @ [0.2126, 0.7152, 0.0722] + 0.05

    light, dark = luminance(["#ffffff", "#16181c"])
    for value in luminance(OTHER_COLORS):
        assert light / value >= 2 and value / dark >= 2


def test_a_class_has_one_colour_by_its_name_and_its_order():
    assert class_colors(EKMAN) == COLORS
    assert class_colors(BP4D) == {**COLORS, "embarrassment": OTHER_COLORS[0], "pain": OTHER_COLORS[1]}
    assert class_colors(EKMAN[::-1]) == COLORS  # the six by name
    assert len(set(class_colors(FOURDME).values())) == 5 and class_colors(FOURDME)["surprise"] == COLORS["surprise"]
    more = class_colors((*BP4D, "contempt"), ("neutral", "no face"))  # a class that is added changes none of the others
    assert more == class_colors(BP4D) | {"contempt": OTHER_COLORS[2], "neutral": GREY, "no face": GREY}
    assert class_colors(("neutral", "calm")) == {"neutral": GREY, "calm": OTHER_COLORS[0]}
    many = [f"class {n}" for n in range(9)]
    assert list(class_colors(many).values()) == [*OTHER_COLORS, *OTHER_COLORS[:3]]


def test_bars_follow_the_classes_of_the_answer():
    shares = dict(zip(("pain", "<i>joy</i>", "fear"), (0.5, 0.3, 0.2), strict=True))
    figure = figures.probability_bars(shares, before={"pain": 0.1, "gone": 0.9})
    chart, marks = figure.data
    assert chart.y == ("Pain", "&lt;i&gt;joy&lt;/i&gt;", "Fear") and chart.x == (0.5, 0.3, 0.2)
    assert chart.marker.color == (OTHER_COLORS[0], OTHER_COLORS[1], COLORS["fear"])
    assert marks.x == (0.1,) and marks.y == ("Pain",)
    small = figures.small_bars(shares)
    assert "<i>" not in small and small.count("bar-row") == 3 and "width:30.0%" in small
    heights = [figures.probability_bars(dict.fromkeys(map(str, range(n)), 1 / n)).layout.height for n in (1, 6, 14)]
    assert heights == sorted(set(heights)) and heights[1] == 250


def test_curves_of_more_classes_than_colours_differ_in_their_dashes():
    names = [f"kind {n}" for n in range(15)]
    shares = np.full((4, 15), 1 / 15)
    curve = emotion_curve(names, names[0], np.arange(4), shares, np.ones(4))
    lines = [trace for trace in sequence_figures.curve_figure(curve).data if trace.name]
    looks = {(line.line.color, line.line.dash) for line in lines}
    assert len(looks) == 15 and lines[0].line.dash == "solid" and lines[6].line.dash != "solid"


def test_the_reports_curve_keeps_its_words_apart_and_inside():
    import re

    names = [*BP4D, "a very long name of a class"]
    shares = np.full((4, 9), 1 / 9)
    drawn = report.curve_svg(emotion_curve(names, "pain", np.arange(4), shares, np.ones(4)))
    places = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]+)</text>', drawn)
    at = {name: (float(x), float(y)) for x, y, name in places if name in names}
    heights = sorted(y for _, y in at.values())
    assert set(at) == set(names) and min(np.diff(heights)) >= 12 - 1e-6 and 0 < heights[0] <= heights[-1] < 190
    assert all(x + report.LETTER * len(name) <= 680 for name, (x, _) in at.items())
    crowd = [str(n) for n in range(40)]
    drawn = report.curve_svg(emotion_curve(crowd, "0", np.arange(4), np.full((4, 40), 1 / 40), np.ones(4)))
    assert min(float(y) for _, y, _ in re.findall(r'<text x="([\d.]+)" y="(-?[\d.]+)"[^>]*>([^<]+)', drawn)) >= 0


def test_the_phases_of_other_classes_are_said_in_words():
    def said(name: str) -> str:
        strength = np.array([0.0, 0.1, 0.9, 0.9, 0.9, 0.1, 0.0])
        shares = np.stack([strength, 1 - strength], axis=1)
        return sequence_figures.phases_in_words(
            emotion_curve((name, "rest"), name, np.arange(7), shares, np.ones(7), sigma=0)
        )

    assert said("pain").startswith("The expression of pain begins at frame 2")
    assert said("bored").startswith("The expression “bored” begins")


def test_of_a_single_class_nothing_stands_out():
    curve = emotion_curve(("only",), "only", np.arange(3), np.ones((3, 1)), np.ones(3))
    assert curve.apex is None and np.isfinite(curve.smoothed).all()
