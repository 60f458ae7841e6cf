"""The page of maps and the evidence on the mesh without a browser: what is asked, what is shown, what is kept."""

from __future__ import annotations

import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from affectvlm import gradcam
from affectvlm.emotions import EKMAN
from affectvlm.gradcam import Contributions, Level
from affectvlm.gradcam.trust import FRACTIONS
from affectvlm.ui import engine, evidence, evidence_figures, evidence_words, explaining, stills, viewers, work
from affectvlm.ui.display import display_mesh
from affectvlm.ui.inputs import PHOTOS
from affectvlm.ui.words import unbroken
from tests import test_app as base

start, app = base.start, base.app
PAGE = "pages/gradcam.py"


@pytest.fixture
def quick(monkeypatch):
    """Trust without its many looks at the face: the page's words and curves are what is tested here."""
    chance = {"random_gain": -1.0, "random_spread": 0.5, "sigmas": 8.0, "gain": 3.0, "deletion": 0.0, "insertion": 3.0}
    curves = {"deletion_curve": (1.0, 0.5, 0.0, -1.0, -2.0), "random_deletion_curve": (2.0, 1.9, 1.8, 1.0, 0.0)}
    ends = {"start": 2.0, "end": -3.0, "insertion_curve": (3.0,) * 5, "random_insertion_curve": (0.0,) * 5}
    made = gradcam.Trust(word="points at what counts", **chance, **curves, **ends)
    monkeypatch.setattr(gradcam, "trust", lambda *_: made)
    return made


def on_page(app, emotion: str = "fear"):
    base.click(app, emotion)
    return app.switch_page(PAGE).run()


def control(app, option: str):
    (found,) = [group for group in app.get("button_group") if option in group.options]
    return found


def test_without_a_face_one_is_offered(app, quick):
    app.switch_page(PAGE).run()
    assert "no face yet" in base.texts(app) and not app.exception
    base.click(app, "happy")
    assert not app.exception and "of the evidence" in base.texts(app)


def test_the_page_explains_the_answer_first(app, predictor, quick):
    on_page(app, "fear")
    assert not app.exception and not app.error
    prediction = predictor.predict(engine.sample_scan("fear"))
    assert control(app, "Fear").value == prediction.emotion
    target = gradcam.emotion_target(
        predictor._bank, predictor.card.prompts.rows, prediction.emotion, predictor.card.temperature
    )
    found = gradcam.explain(predictor.model, prediction.inputs, target)
    for share in found.shares:
        assert f"{round(100 * share)} % of the evidence" in base.texts(app)
    said = base.texts(app)
    assert evidence_words.TRUST_TITLES[quick.word] in said and "8.0 standard deviations" in said
    assert unbroken("takes fear from 88 % to 50 %; as much elsewhere on the face, to 86 %") in said


def test_another_emotion_gives_another_map_and_is_kept_between_pages(app, quick):
    on_page(app, "happy")
    first = base.texts(app)
    control(app, "Sad").set_value("sad").run()
    second = base.texts(app)
    assert not app.exception and first != second and "The model gives sad" in second
    app.switch_page("pages/classify.py").run()
    app.switch_page(PAGE).run()
    assert base.texts(app) == second
    app.switch_page("pages/mesh.py").run()
    control(app, viewers.EVIDENCE).set_value(viewers.EVIDENCE).run()
    assert control(app, "Sad").value == "sad"  # one question for both pages


def test_why_this_and_not_that(app, predictor, quick):
    on_page(app, "surprise")
    control(app, evidence.CONTRAST).set_value(evidence.CONTRAST).run()
    why, why_not = (next(box for box in app.selectbox if box.label == label) for label in ("Why", "and not"))
    prediction = predictor.predict(engine.sample_scan("surprise"))
    ranked = sorted(EKMAN, key=prediction.probabilities.get, reverse=True)
    assert (why.value, why_not.value) == tuple(ranked[:2])
    assert f"The model gives {ranked[0]} over {ranked[1]}" in base.texts(app)
    why.set_value("fear").run()
    why_not = next(box for box in app.selectbox if box.label == "and not")
    assert not app.exception and "fear" not in why_not.options


def test_own_words_are_explained_and_none_are_asked_for(app, quick):
    on_page(app, "happy")
    control(app, evidence.WORDS).set_value(evidence.WORDS).run()
    assert explaining.EXAMPLE in base.texts(app) and "Similarity of this face" in base.texts(app)
    app.text_input[0].set_value("a <b>broad</b> smile").run()
    assert not app.exception and "smile" in base.texts(app)
    app.text_input[0].set_value("   ").run()
    assert not app.exception and "few words" in app.info[0].value


def test_every_method_can_be_chosen(app, predictor, quick):
    on_page(app, "disgust")
    assert set(gradcam.methods_for(predictor.model)) <= set(evidence_words.METHODS)
    seen = set()
    for method in gradcam.methods_for(predictor.model)[:6]:  # the last is slow
        next(box for box in app.selectbox if box.label.startswith("How the maps")).set_value(method).run()
        assert not app.exception and not app.error
        seen.add(base.texts(app))
    assert len(seen) > 3


def test_photos_are_explained_too(app, happy_photos, quick):
    base.choose(app, PHOTOS)
    app.file_uploader[0].upload("front.png", happy_photos["front"])
    app.file_uploader[1].upload("left.png", happy_photos["left"])
    app.run()
    base.click(app, "Go on with these")
    app.switch_page(PAGE).run()
    assert not app.exception and not app.error
    assert "no photo" in base.texts(app) and base.texts(app).count("of the evidence") == 2


def test_forgetting_drops_the_maps(app, quick):
    on_page(app, "happy")
    calls = []
    original = gradcam.explain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradcam, "explain", lambda *a, **k: calls.append(1) or original(*a, **k))
        app.run()
        assert not calls  # kept
        base.click(app, "Forget everything")
        app.switch_page("pages/classify.py").run()
        on_page(app, "happy")
        assert calls and not app.exception


def test_without_a_model_the_page_says_so(start, tmp_path):
    from affectvlm.ui import words

    app = start(tmp_path)
    app.switch_page(PAGE).run()
    assert not app.exception and app.info[0].value == words.NO_MODEL


def test_a_figure_of_many_faces(app, happy_ply, quick):
    on_page(app, "happy")
    uploader = next(one for one in app.file_uploader if "scans" in one.label)
    uploader.upload("one.ply", happy_ply)
    uploader.upload("broken.ply", b"no scan")
    app.run()
    base.click(app, "Make the figure")
    assert not app.exception and "broken.ply" in app.warning[0].value
    picture, problems = app.session_state["evidence_grid"]
    width, height = Image.open(io.BytesIO(picture)).size
    assert width > 1000 and height < 400 and len(problems) == 1


# the mesh


def test_the_evidence_is_painted_on_the_mesh(app):
    base.click(app, "angry")
    app.switch_page("pages/mesh.py").run()
    plain = app.get("iframe")[0].proto.srcdoc
    control(app, viewers.EVIDENCE).set_value(viewers.EVIDENCE).run()
    assert not app.exception and not app.warning
    angry = app.get("iframe")[0].proto.srcdoc
    control(app, "Sad").set_value("sad").run()
    sad = app.get("iframe")[0].proto.srcdoc
    assert len({plain, angry, sad}) == 3
    assert {button.label for button in app.get("download_button")} == {
        "Mesh with evidence (PLY)",
        "Mesh with evidence (GLB)",
    }
    control(app, viewers.EVIDENCE).set_value(viewers.RELIEF).run()
    assert not app.exception and not app.get("download_button")


@pytest.mark.parametrize("viewer", [viewers.PLOTLY, viewers.STILL])
def test_the_other_viewers_show_it_too(app, viewer):
    base.click(app, "happy")
    app.switch_page("pages/mesh.py").run()
    next(box for box in app.selectbox if box.label == "Viewer").set_value(viewer).run()
    control(app, viewers.EVIDENCE).set_value(viewers.EVIDENCE).run()
    assert not app.exception and not app.warning
    if viewer == viewers.PLOTLY:
        (mesh,) = json.loads(app.get("plotly_chart")[0].proto.spec)["data"]
        assert "vertexcolor" in mesh


def test_without_a_model_there_is_no_evidence_to_show(start, tmp_path):
    app = start(tmp_path)
    base.click(app, "fear")
    app.switch_page("pages/mesh.py").run()
    assert not any(viewers.EVIDENCE in group.options for group in app.get("button_group"))


def test_painting_replaces_the_meshs_own_look(happy_scan):
    mesh = display_mesh(happy_scan)
    colors = np.full((len(mesh.vertices), 3), 9, np.uint8)
    painted = mesh.painted(colors)
    assert painted.arrays(True)["colors"] is colors and painted.vertices is mesh.vertices
    assert painted.texture is None and painted.uv is None


def test_still_pictures_wait_in_the_page(happy_scan):
    mesh = display_mesh(happy_scan)
    page = stills.with_stills("<html><body>viewer</body></html>", mesh, True, "#123456")
    assert page.count("data:image/jpeg;base64,") == 3 and page.endswith("</body></html>")
    assert "https://" not in page and "http://" not in page
    assert page == stills.with_stills("<html><body>viewer</body></html>", mesh, True, "#123456")
    plain = stills.with_stills("<html><body>viewer</body></html>", mesh, False, "#123456")
    assert plain != page


# words and figures


def level(score: float) -> Level:
    return Level(score, 1 / (1 + np.exp(-score)))


def test_the_table_tells_what_each_part_gives():
    without = {"mouth": level(-2.0), "brows": level(1.0), "rest": level(2.0), "eyes": level(3.0)}
    html = evidence_figures.parts_table(level(2.0), [without, {}], evidence_words.REGIONS, True)
    assert html.count("part-row") - html.count(".part-row") == 4 and html.count('class="parts"') == 1
    assert "width:100%" in html and "width:25%" in html and html.count("width:0%") == 2
    assert "88 % → 12 %" in html and html.count("▲") == 1 and "88 % → 95 % ▲" in html
    parts = Contributions(level(2.0), {}, without, {})
    assert evidence_words.most(parts) == "Without the mouth the answer would lose most."
    nothing = Contributions(level(2.0), {}, {"mouth": level(2.5)}, {})
    assert evidence_words.most(nothing) is None


@pytest.mark.parametrize(
    ("value", "said"), [(0.5, "50 %"), (0.991, "99.1 %"), (0.9999, "> 99 %"), (0.004, "0.4 %"), (1e-5, "< 1 %")]
)
def test_shares_near_their_ends_keep_a_decimal(value, said):
    assert evidence_words.level(value, True) == said
    assert evidence_words.level(-value, False).startswith("−")


@pytest.mark.parametrize(("value", "said"), [(0.0, "as it should be"), (0.5, "partly"), (0.95, "nearly the same")])
def test_the_check_with_shuffled_weights_is_told_in_words(value, said):
    assert said in evidence_words.likeness(value)


def verdict(deletion, chance, insertion=1.0, word="points at what counts", is_share=True) -> str:
    """The sentence for curves that start at 2 logits."""
    import torch

    numbers = dict.fromkeys(("gain", "random_gain", "random_spread", "sigmas", "deletion", "insertion", "end"), 0.0)
    curves = {"deletion_curve": deletion, "random_deletion_curve": chance, "insertion_curve": (insertion,) * 5}
    made = gradcam.Trust(word=word, start=2.0, random_insertion_curve=(0.0,) * 5, **numbers, **curves)
    target = gradcam.Target("fear", torch.ones(4), torch.ones(int(is_share), 4))
    return evidence_words.tested(made, target, FRACTIONS)


def test_the_sentence_of_the_test_bears_out_the_verdict_above_it():
    """What is told is a place on the curves where bright and random places differ, if there is one."""
    usual = verdict((1.0, 0.5, 0.0, -1.0, -2.0), (2.0, 1.9, 1.8, 1.0, 0.0))
    assert usual == (
        "Smoothing the brightest 12 % of the pictures takes fear from 88 % to 50 %; as much elsewhere on the face, "
        "to 86 %."
    )
    late = verdict((2.5, 2.4, 2.2, 1.0, -1.0), (2.0, 2.0, 2.0, 2.0, 1.5), is_share=False)
    assert late.startswith("Smoothing the brightest 48 % of the pictures takes 3.0 logits from it;")
    alone = verdict((2.5,) * 5, (2.0,) * 5, is_share=False)
    assert alone.endswith("takes nothing from it, but shown alone they bring back more of it than other places do.")
    assert verdict((2.5,) * 5, (2.0,) * 5, -1.0, is_share=False).endswith("takes nothing from it.")
    assert "no place counts for much" in verdict((1.999,) * 5, (2.0,) * 5)
    chance = verdict((2.1, 2.1, 2.1, 2.0, 1.0), (2.0,) * 5, word="no better than chance")
    assert "brightest 12 %" in chance  # nothing to bear out: the usual place


def test_files_are_named_by_what_they_show():
    assert explaining._file_name("fear rather than surprise") == "evidence-fear-rather-than-surprise"
    assert explaining._file_name("“../../a b”") == "evidence-a-b"


def test_pages_that_work_at_the_same_moment_take_turns(monkeypatch):
    monkeypatch.setattr(work, "_short_turns", threading.BoundedSemaphore(2))
    inside, most, lock = 0, 0, threading.Lock()

    def page(number: int) -> int:
        nonlocal inside, most
        with work.in_turn():
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with lock:
                inside -= 1
        return number

    with ThreadPoolExecutor(8) as visitors:
        assert list(visitors.map(page, range(16))) == list(range(16))
    assert most == 2
    with pytest.raises(ValueError, match="a bad file"), work.in_turn():
        raise ValueError("a bad file")
    assert page(1) == 1  # an error gives the turn back
