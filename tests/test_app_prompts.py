"""The page of prompts without a browser: bars and probabilities follow the sentences; saving, loading, forgetting."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest

from affectvlm.emotions import COLORS, class_colors
from affectvlm.ui import engine, prompt_figures
from affectvlm.ui.inputs import PHOTOS
from affectvlm.ui.prompt_figures import Group
from affectvlm.wording import Sentence, Wording, to_yaml
from affectvlm.zero_shot import ZeroShot
from tests import test_app as base

start, app = base.start, base.app
PAGE = "pages/prompts.py"


def on_page(app, emotion: str = "fear"):
    base.click(app, emotion)
    return app.switch_page(PAGE).run()


def figures(app) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def numbers(values) -> list[float]:
    if isinstance(values, dict):
        values = np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
    return [float(value) for value in values]


def probabilities(app) -> dict[str, float]:
    """Read back from the bars of the page."""
    bars = figures(app)[1]["data"][0]
    return dict(zip((name.lower() for name in bars["y"]), numbers(bars["x"]), strict=True))


def sentence_bars(app) -> dict[str, float]:
    """Every bar's sentence and length."""
    found = {}
    for trace in figures(app)[0]["data"]:
        if trace["type"] == "bar":
            found |= dict(zip((row[0] for row in trace["customdata"]), numbers(trace["x"]), strict=True))
    return found


def box(app, label: str, kind: str = "text_input"):
    (found,) = [one for one in getattr(app, kind) if one.label == label]
    return found


def control(app, label: str):
    (found,) = [group for group in app.get("button_group") if group.label == label]
    return found


def add_class(app, name: str):
    box(app, "Name of the class, as a noun").set_value(name).run()
    return base.click(app, "Add")


@pytest.fixture(scope="module")
def asked(predictor) -> ZeroShot:
    return ZeroShot(predictor.model, predictor.card)


@pytest.fixture(scope="module")
def own(predictor) -> Wording:
    return Wording.of(predictor.card.prompts)


def answered(asked, predictor, wording: Wording, emotion: str = "fear") -> dict[str, float]:
    face = asked.features(predictor.predict(engine.sample_scan(emotion)).inputs)
    return asked.answer(face, wording.prompt_set()).probabilities


def test_without_a_face_one_is_offered(app):
    app.switch_page(PAGE).run()
    assert "no face yet" in base.texts(app) and not app.exception
    base.click(app, "happy")
    assert not app.exception and len(figures(app)) == 2


def test_without_a_model_it_is_said(start, tmp_path):
    app = start(tmp_path).switch_page(PAGE).run()
    assert "no model" in app.info[0].value and not app.exception


def test_in_its_own_words_the_page_says_what_the_predictor_says(app, predictor):
    on_page(app)
    assert not app.exception and not app.error and not app.warning
    prediction = predictor.predict(engine.sample_scan("fear"))
    assert probabilities(app) == pytest.approx(prediction.probabilities, abs=1e-6)
    for name in prediction.view_names:
        control(app, "Look at").set_value(name).run()
        assert probabilities(app) == pytest.approx(prediction.view_probabilities[name], abs=1e-6)


def test_photos_are_compared_by_the_views_there_are(app, predictor, happy_photos):
    base.choose(app, PHOTOS)
    app.file_uploader[0].upload("front.png", happy_photos["front"])
    app.file_uploader[2].upload("right.png", happy_photos["right"])
    base.click(app.run(), "Go on with these")
    app.switch_page(PAGE).run()
    prediction = predictor.predict_photos(front=happy_photos["front"], right=happy_photos["right"])
    assert probabilities(app) == pytest.approx(prediction.probabilities, abs=1e-6)
    assert control(app, "Look at").options == ["All views", "Front", "Right cheek"]


def test_every_sentence_is_a_bar_as_long_as_its_cosine(app, predictor, asked, own):
    on_page(app)
    bars = sentence_bars(app)
    face = asked.features(predictor.predict(engine.sample_scan("fear")).inputs)
    every = [sentence.text for row in own.rows.values() for sentence in row]
    assert list(bars) == every
    wanted = asked.texts(every) @ face.fused
    assert list(bars.values()) == pytest.approx([float(cosine) for cosine in wanted], abs=1e-6)
    names = figures(app)[0]["layout"]["yaxis"]["ticktext"]
    assert [name.split("</b>")[0] for name in names] == [f"<b>{row.capitalize()}" for row in own.rows]


def test_a_sentence_is_changed_and_the_answer_moves(app, predictor, asked, own, monkeypatch):
    on_page(app)
    encoded = []
    encode = predictor.model.__class__.encode_prompts
    monkeypatch.setattr(
        predictor.model.__class__, "encode_prompts", lambda self, texts: encoded.extend(texts) or encode(self, texts)
    )
    box(app, "Sentence 1 of fear").set_value("an empty scene with a landscape").run()
    assert encoded == ["an empty scene with a landscape"]
    changed = list(own.rows["fear"])
    changed[0] = Sentence("an empty scene with a landscape")
    wanted = answered(asked, predictor, own.with_sentences("fear", changed))
    assert probabilities(app) == pytest.approx(wanted, abs=1e-5)
    assert abs(probabilities(app)["fear"] - answered(asked, predictor, own)["fear"]) > 1e-4
    assert "Asked in your words" in base.texts(app)
    base.click(app, "Back to the model's own")
    assert probabilities(app) == pytest.approx(answered(asked, predictor, own), abs=1e-6)
    assert box(app, "Sentence 1 of fear").value == own.rows["fear"][0].text


def test_sentences_are_switched_off_removed_and_added(app, predictor, asked, own):
    on_page(app, "happy")
    box(app, "Use sentence 2 of happy", "checkbox").uncheck().run()
    box(app, "Sentence 3 of happy").set_value("").run()
    box(app, "Another sentence for happy").set_value("a face with raised cheeks").run()
    sentences = list(own.rows["happy"])
    sentences[1] = Sentence(sentences[1].text, False)
    del sentences[2]
    sentences.append(Sentence("a face with raised cheeks"))
    wording = own.with_sentences("happy", sentences)
    assert app.session_state["wordings"].popitem()[1] == wording
    assert probabilities(app) == pytest.approx(answered(asked, predictor, wording, "happy"), abs=1e-5)


def test_a_class_is_added_marked_as_new_and_taken_away(app, predictor, asked, own):
    on_page(app)
    add_class(app, "Contempt")
    assert not app.exception and list(probabilities(app)) == [*predictor.card.classes, "contempt"]
    assert probabilities(app) == pytest.approx(answered(asked, predictor, own.with_class("contempt")), abs=1e-5)
    assert "New to this model: “contempt”" in app.warning[0].value
    assert box(app, "Sentence 1 of contempt").value == "contempt"
    box(app, "Sentence 1 of contempt").set_value("a face with a raised brow").run()
    assert "contempt" in app.warning[0].value and "raised" not in app.warning[0].value
    base.click(app, "Remove contempt")
    assert probabilities(app) == pytest.approx(answered(asked, predictor, own), abs=1e-6)
    assert not app.warning


def test_a_name_that_is_taken_is_told(app, predictor):
    on_page(app)
    add_class(app, "Happy")
    assert "already" in app.error[0].value and list(probabilities(app)) == list(predictor.card.classes)


def test_a_row_can_be_switched_off_but_not_all(app, own):
    on_page(app)
    two = own
    for row in ("happy", "angry", "disgust", "sad"):
        two = two.without_class(row)
    app.file_uploader[0].upload("two.yaml", to_yaml(two.prompt_set()).encode())
    app.run()
    base.click(app, "Switch fear off")
    assert probabilities(app) == {"surprise": pytest.approx(1.0)}
    control(app, "Sentences for").set_value("surprise").run()
    base.click(app, "Switch surprise off")
    assert "every class is switched off" in app.error[0].value.lower() and "surprise" in probabilities(app)
    control(app, "Sentences for").set_value("fear").run()
    base.click(app, "Switch fear on")
    assert list(probabilities(app)) == ["fear", "surprise"] and not app.error


def test_what_is_typed_is_shown_as_it_is(app):
    on_page(app)
    box(app, "Sentence 1 of fear").set_value('<a href="x">**fear**</a>').run()
    assert not app.exception
    assert "&lt;a href=&quot;x&quot;&gt;**fear**&lt;/a&gt;" in sentence_bars(app)


def test_a_saved_set_is_loaded_and_a_bad_file_is_told(app, predictor, asked, own):
    on_page(app)
    wording = own.with_class("contempt").with_sentences("sad", [Sentence("a sad face"), Sentence("tears")])
    app.file_uploader[0].upload("mine.yaml", to_yaml(wording.prompt_set()).encode())
    app.run()
    assert not app.error
    assert probabilities(app) == pytest.approx(answered(asked, predictor, wording), abs=1e-5)
    app.file_uploader[0].upload("letter.yaml", b"Dear Sir or Madam")
    app.run()
    assert not app.exception and "letter.yaml" in app.error[0].value
    assert "contempt" in probabilities(app)  # as before


def test_the_sentences_are_kept_from_page_to_page_and_forgotten_on_demand(app, predictor):
    on_page(app)
    add_class(app, "contempt")
    app.switch_page("pages/classify.py").run()
    assert base.shown_probabilities(app) == pytest.approx(
        predictor.predict(engine.sample_scan("fear")).probabilities, abs=1e-6
    )
    app.switch_page(PAGE).run()
    assert "contempt" in probabilities(app)
    base.click(app, "Forget everything")
    assert "wordings" not in app.session_state and "text_features" not in app.session_state


# figures


def test_groups_say_mean_and_spread_of_what_counts():
    group = Group("fear", "#000000", ("a", "b", "c"), np.array([0.2, 0.4, 0.9]), np.array([True, True, False]))
    assert group.summary() == "0.300 ± 0.100"
    off = Group("fear", "#000000", ("a",), np.array([0.2]), np.array([False]))
    assert off.summary() == "off"
    figure = prompt_figures.sentence_bars([group, off, Group("sad", "#111111", (), np.zeros(0), np.zeros(0, bool))])
    bars = [trace for trace in figure.data if trace.type == "bar"]
    lines = [trace for trace in figure.data if trace.type == "scatter"]
    assert [tuple(bar.x) for bar in bars] == [(0.2, 0.4, 0.9), (0.2,)]
    assert len(lines) == 1 and lines[0].x[0] == pytest.approx(0.3)
    assert bars[0].marker.opacity[2] < bars[0].marker.opacity[0]


def test_colours_are_the_emotions_own_and_never_doubled_among_few():
    paint = class_colors(("contempt", "fear", "pain"), ("neutral",))
    assert paint["fear"] == COLORS["fear"] and len(set(paint.values())) == 4


@pytest.mark.parametrize(("value", "said"), [(0.1234, "0.12"), (-0.5, "−0.50"), (-0.001, "0.00"), (0.0, "0.00")])
def test_numbers_have_true_minus_signs(value, said):
    assert prompt_figures.signed(value, 2) == said
