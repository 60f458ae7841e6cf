"""The explorer and the page about without a browser: sliders move the face, the answer follows, steps keep word."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from affectvlm import rendering
from affectvlm.predictor import VIEW_SIZE
from affectvlm.synthesis.action_units import UNITS
from affectvlm.ui import card_words, engine, explorer, explorer_state, prompt_figures
from affectvlm.zero_shot import ZeroShot
from tests import test_app as base
from tests.test_app_prompts import add_class, box, control, figures, numbers

start, app = base.start, base.app
PAGE, ABOUT = "pages/explorer.py", "pages/about.py"


@pytest.fixture
def page(app):
    return app.switch_page(PAGE).run()


@pytest.fixture(scope="module")
def asked(predictor) -> ZeroShot:
    return ZeroShot(predictor.model, predictor.card)


def probabilities(page) -> dict[str, float]:
    bars = figures(page)[0]["data"][0]
    return dict(zip((name.lower() for name in bars["y"]), numbers(bars["x"]), strict=True))


def made_pictures(page) -> int:
    return sum(str(html.proto.body).count("<img ") for html in page.get("html") if "made-face" in str(html.proto.body))


def recipe(page):
    return page.session_state["exploring"].recipe if "exploring" in page.session_state else explorer_state.START.recipe


def answered(asked, recipe) -> dict[str, float]:
    """What the library says of the recipe's face, without the page."""
    card = asked.card
    scan = recipe.scan(engine.face_model())
    buffers = rendering.render_buffers(scan, card.yaws, VIEW_SIZE, card.half_width)
    views = rendering.picture(buffers, card.image_kind)
    return asked.answer(asked.features(views), card.prompts).probabilities


def slider(page, code: str):
    return box(page, f"{code} {UNITS[code].name}", "slider")


def test_the_first_face_is_answered_without_any_upload(page, asked):
    assert not page.exception and not page.error
    assert probabilities(page) == pytest.approx(answered(asked, explorer_state.START.recipe), abs=1e-6)
    assert made_pictures(page) == 3
    assert {box.label for box in page.slider} >= {f"{unit.code} {unit.name}" for unit in UNITS.values()}
    assert all(slider(page, code).help.rstrip(".").lower() == unit.does.lower() for code, unit in UNITS.items())


def test_a_muscle_moves_the_face_and_the_answer(page, asked):
    slider(page, "AU12").set_value(0.9).run()
    assert recipe(page).units["AU12"] == 0.9 and control(page, "Pose an emotion").value is None
    assert probabilities(page) == pytest.approx(answered(asked, recipe(page)), abs=1e-6)
    assert box(page, "How strongly", "slider").disabled


def test_poses_come_at_any_strength(page, asked):
    control(page, "Pose an emotion").set_value("happy").run()
    box(page, "How strongly", "slider").set_value(0.3).run()
    wanted = explorer_state.START.recipe.posing("happy", 0.3)
    assert recipe(page) == wanted and probabilities(page) == pytest.approx(answered(asked, wanted), abs=1e-6)
    assert slider(page, "AU12").value == pytest.approx(wanted.units["AU12"])
    base.click(page, "Relax the face")
    assert recipe(page).units == {} and control(page, "Pose an emotion").value == "neutral"
    base.click(page, "Reset")
    assert recipe(page) == explorer_state.START.recipe


def test_the_person_changes_and_the_expression_stays(page):
    before = recipe(page)
    shown = before.person()
    assert box(page, "Age", "slider").value == round(shown.age) and control(page, "Sex").value == shown.sex
    other = "male" if shown.sex == "female" else "female"
    control(page, "Sex").set_value(other).run()
    box(page, "Age", "slider").set_value(70).run()
    box(page, "Build", "slider").set_value(-1.5).run()
    person = recipe(page).person()
    assert (person.sex, person.age, person.build) == (other, 70, -1.5)
    assert recipe(page).units == before.units and recipe(page).seed == before.seed
    base.click(page, "Another person")
    assert recipe(page).seed == before.seed + 1 and recipe(page).sex is None
    assert recipe(page).units == before.units


def test_used_it_is_the_current_face_of_every_page(page, predictor):
    control(page, "Pose an emotion").set_value("sad").run()
    here = probabilities(page)
    base.click(page, "Use this face")
    assert "current face on all pages now" in base.texts(page)
    face = page.session_state["face"]
    assert face.title == explorer_state.TITLE and face.kind == "scan"
    page.switch_page("pages/classify.py").run()
    name, data = face.files[0]
    base.assert_shows(page, predictor.predict((data, name)))
    assert base.shown_probabilities(page) == pytest.approx(here, abs=0.1)  # its pose was found anew
    page.switch_page(PAGE).run()
    assert control(page, "Pose an emotion").value == "sad"  # and the explorer is as it was left
    base.click(page, "Forget everything")
    assert recipe(page) == explorer_state.START.recipe


def test_it_says_what_the_model_listens_to_and_the_best_step_keeps_its_word(page, asked, predictor):
    control(page, "Make it look more …").set_value("fear").run()
    assert not page.exception
    rows = {name.split(" ")[0] for name in figures(page)[2]["data"][0]["y"]}
    assert len(rows) == explorer.SHOWN_EFFECTS and rows <= set(UNITS)
    (button,) = [button for button in page.button if button.label == "Make it look more afraid"]
    (said,) = [text.value for text in page.markdown if "best small step" in text.value]
    before, row = recipe(page), predictor.card.classes.index("fear")
    button.click().run()
    after = recipe(page)
    (moved,) = [code for code in UNITS if after.units.get(code, 0) != before.units.get(code, 0)]
    assert f"{moved} {UNITS[moved].name}" in said and f"to {after.units.get(moved, 0):.2f}" in said
    bank = asked.bank(predictor.card.prompts)
    card = predictor.card

    def log(one) -> float:
        views = rendering.render_views(one.scan(engine.face_model()), card.image_kind, card.image_size, card.yaws)
        return float(asked.log_probabilities(asked.fused_features(views[None]), bank, 6)[0, row])

    assert log(after) > log(before)
    assert len(page.session_state["surroundings"]) == 2
    page.switch_page("pages/classify.py").run().switch_page(PAGE).run()
    assert control(page, "Make it look more …").value == "fear" and recipe(page) == after


def test_the_words_of_the_prompts_page_count_here(app):
    base.click(app, "fear")
    app.switch_page("pages/prompts.py").run()
    add_class(app, "contempt")
    app.switch_page(PAGE).run()
    assert "contempt" in probabilities(app) and "your sentences" in base.texts(app)
    assert "contempt" in control(app, "Make it look more …").options


def test_without_a_model_there_is_a_face_to_turn_and_no_answer(start, tmp_path):
    page = start(tmp_path).switch_page(PAGE).run()
    assert not page.exception and "no model" in page.info[0].value
    assert made_pictures(page) == 3 and not page.get("plotly_chart")
    slider(page, "AU26").set_value(1.0).run()
    assert recipe(page).units["AU26"] == 1.0 and not page.exception


def test_the_table_of_effects_is_sorted_and_says_both_ways():
    from affectvlm.steering import Step

    changes = {Step(f"AU{n}", 0.2, True): n / 10 for n in (1, 2, 4)} | {Step("AU4", 0.0, False): -2.0}
    assert explorer._rows(changes) == [
        ("AU4 brow lowerer", 0.4, -2.0),
        ("AU2 outer brow raiser", 0.2, None),
        ("AU1 inner brow raiser", 0.1, None),
    ]
    figure = prompt_figures.effect_bars(explorer._rows(changes), "#CC79A7")
    assert [bar.name for bar in figure.data] == ["more of it", "less of it"]
    assert figure.data[0].text == ("+0.40", "+0.20", "+0.10") and figure.data[1].text == ("−2.00", "", "")


# the page about


def test_about_says_what_the_answer_is_not_and_how_good_the_model_is(app, checkpoint_folder):
    app.switch_page(ABOUT).run()
    assert not app.exception and not app.error
    said = base.texts(app)
    for line in (*card_words.IS, *card_words.IS_NOT):
        assert line in said
    card = engine.read_card(checkpoint_folder)
    assert card["limits"] in said and card["name"] in "".join(heading.value for heading in app.subheader)
    assert card_words.headline(card) in said
    assert "http" not in said


def test_about_without_a_model_and_with_a_broken_card(start, tmp_path):
    page = start(tmp_path).switch_page(ABOUT).run()
    assert not page.exception and "no model" in page.info[0].value
    for place, text in enumerate(
        (
            "not JSON",
            "[]",
            '{"name": 3, "metrics": {"a": 1}, "training_data": [], "classes": 7, "view_names": 5, "image_kind": []}',
        )
    ):
        folder = tmp_path / f"models{place}" / "odd"
        folder.mkdir(parents=True)
        (folder / "card.json").write_text(text)
        page = start(folder.parent).switch_page(ABOUT).run()
        assert not page.exception


def test_a_card_in_words():
    test = {
        "emotions": {"n": 744, "accuracy": 0.858, "uar": 0.849, "ece": 0.063},
        "by_class": {"happy": 0.94, "fear": 0.68},
        "by_intensity": {"slight (under 0.5)": 0.77},
        "neutral": {"n": 172, "confident emotion (0.75 and over)": 0.03},
    }
    card = {
        "classes": ["happy", "fear"],
        "metrics": {"three views": test, "seconds": 12, "other": {"emotions": {"accuracy": "high"}}},
        "training_data": {"faces": {"train": {"faces": 28672, "subjects": 5055, "sources": ["ict", "mine"]}}},
    }
    (scores,) = card_words.scores(card)
    assert (scores.count, scores.accuracy, scores.neutral_fooled, scores.other_fooled) == (744, 0.858, 0.03, None)
    assert scores.by_class == {"happy": 0.94, "fear": 0.68}
    assert (
        card_words.trained_on(card) == "28,672 faces of 5,055 people: faces of the open head model ICT-FaceKit and mine"
    )
    assert "86 % of 744 test faces" in card_words.headline(card) and "50 %" in card_words.headline(card)
    assert card_words.headline({}) == "" and card_words.facts({}) == {}


def test_pictures_are_faces(checkpoint_folder):
    seen = explorer.draw(explorer_state.START.recipe, checkpoint_folder)
    for src, size in zip(seen.pictures, (448, 224, 224), strict=True):
        head, data = src.split(",")
        assert head == "data:image/jpeg;base64"
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
        assert picture.shape == (size, size, 3) and len(np.unique(picture.reshape(-1, 3), axis=0)) > 500
