"""Prompts and explorer in a real browser: sentences typed, saved and loaded; muscles moved; the made face used."""

from __future__ import annotations

import io
import re
import time

import numpy as np
import pytest
import yaml
from PIL import Image
from playwright.sync_api import expect

from affectvlm.prompts import PromptSet
from affectvlm.ui import engine, words
from affectvlm.wording import Sentence, Wording
from affectvlm.zero_shot import ZeroShot
from tests.browser.test_in_browser import answer_on, go_to, open_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def asked(predictor) -> ZeroShot:
    return ZeroShot(predictor.model, predictor.card)


def with_face(page, server, emotion: str, title: str) -> None:
    open_page(page, server)
    page.get_by_role("button", name=emotion, exact=True).click()
    answer_on(page)
    go_to(page, title)


def on_prompts(page, server, emotion: str = "fear") -> None:
    with_face(page, server, emotion, "Prompts")
    page.get_by_role("heading", name="Change the sentences").wait_for()
    page.locator(".js-plotly-plot .bartext").first.wait_for()


def wait_for_shares(page, probabilities: dict[str, float]) -> None:
    """Until the bars of the page say these, in this order."""
    wanted = [words.percent(share) for share in probabilities.values()]
    said: list[str] = []
    until = time.monotonic() + 60
    while time.monotonic() < until:
        said = page.locator(".st-key-prompt_probabilities .bartext").all_text_contents()
        if said == wanted:
            return
        time.sleep(0.2)
    raise AssertionError(f"the page says {said}, not {wanted}")


def picture(page, alt: str) -> np.ndarray:
    """(224, 224, 3) int: the picture as it is shown, at one size however the page was laid out at that moment."""
    found = page.get_by_role("img", name=alt)
    found.wait_for()
    shown = Image.open(io.BytesIO(found.screenshot())).convert("RGB")
    return np.asarray(shown.resize((224, 224))).astype(int)


def slide(page, label: str, key: str, times: int) -> None:
    """By keyboard, as somebody without a mouse would."""
    thumb = page.get_by_role("slider", name=label)
    for _ in range(times):
        thumb.press(key)


def test_a_sentence_is_typed_and_the_answer_moves_at_once(page, server, predictor, asked):
    on_prompts(page, server)
    prediction = predictor.predict(engine.sample_scan("fear"))
    wait_for_shares(page, prediction.probabilities)
    own = Wording.of(predictor.card.prompts)
    wording = own.with_sentences("fear", [Sentence("a plain surface"), *own.rows["fear"][1:]])
    features = asked.features(prediction.inputs)
    line = page.get_by_role("textbox", name="Sentence 1 of fear")
    line.fill("a plain surface")
    line.press("Enter")
    page.get_by_text("Asked in your words").wait_for()
    wait_for_shares(page, asked.answer(features, wording.prompt_set()).probabilities)
    page.get_by_role("button", name="Back to the model's own").click()
    page.get_by_text("Asked in your words").wait_for(state="hidden")
    wait_for_shares(page, prediction.probabilities)


def test_every_sentence_can_be_read_by_pointing_at_its_bar(page, server, predictor):
    on_prompts(page, server)
    chart = page.locator(".js-plotly-plot").first
    sentences = sum(len(predictor.card.prompts.bank_prompts(row)) for row in predictor.card.prompts.rows)
    expect(chart.locator(".bars .point")).to_have_count(sentences)
    box = chart.locator(".bars").nth(3).locator(".point").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = chart.locator(".hoverlayer")
    hover.get_by_text(
        re.compile("fear|scared|fright|afraid|terr|dread|panic|alarm|apprehens|brows|lids")
    ).first.wait_for()


def test_a_class_is_added_saved_and_loaded_by_another_visitor(page, server, tmp_path):
    on_prompts(page, server)
    page.get_by_role("button", name="Add a class").click()
    name = page.get_by_role("textbox", name="Name of the class")
    name.fill("contempt")
    name.press("Enter")
    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_text("New to this model: “contempt”").wait_for()
    page.keyboard.press("Escape")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save the sentences").click()
    path = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(path)
    prompts = PromptSet.load(path)
    assert prompts.classes[-1] == "contempt" and "a face showing contempt" in prompts.bank_prompts("contempt")
    assert list(yaml.safe_load(path.read_text(encoding="utf-8")))[:2] == ["name", "classes"]

    on_prompts(page, server)  # a new visit: its own words again
    expect(page.get_by_role("radio", name="Contempt", exact=True)).to_have_count(0)
    page.locator("input[type=file]").set_input_files(path)
    page.get_by_role("radio", name="Contempt", exact=True).wait_for()
    bad = {"name": "letter.yaml", "mimeType": "text/plain", "buffer": b"Dear Sir or Madam"}
    page.locator("input[type=file]").set_input_files(bad)
    page.get_by_test_id("stAlert").get_by_text("letter.yaml").wait_for()


def test_muscles_move_the_face_and_the_answer(page, server):
    open_page(page, server)
    go_to(page, "Explorer")
    before = picture(page, "the made face from the front")
    page.get_by_role("radio", name="Happy", exact=True).click()
    page.get_by_role("heading", name="This face looks happy.").wait_for()
    until = time.monotonic() + 60
    while (np.abs(picture(page, "the made face from the front") - before).max(axis=2) > 12).mean() <= 0.01:
        assert time.monotonic() < until, "the picture does not smile"
        time.sleep(0.3)
    page.get_by_role("tab", name="Mouth").click()
    page.get_by_role("radio", name="Neutral", exact=True).click()
    page.get_by_role("heading", name="This face looks happy.").wait_for(state="hidden")
    slide(page, "AU12 lip corner puller", "End", 1)
    page.get_by_role("heading", name="This face looks happy.").wait_for()
    slide(page, "AU12 lip corner puller", "Home", 1)
    page.get_by_role("heading", name="This face looks happy.").wait_for(state="hidden")
    expect(page.get_by_role("radio", name="Neutral", exact=True)).to_have_attribute("aria-checked", "false")


def test_it_can_be_made_to_look_more_afraid_and_used(page, server):
    open_page(page, server)
    go_to(page, "Explorer")
    page.get_by_role("radio", name="Neutral", exact=True).click()
    page.get_by_role("radio", name="afraid", exact=True).click()
    for _ in range(4):
        page.get_by_text("The best small step:").wait_for()
        said = page.get_by_text("The best small step:").inner_text()
        page.get_by_role("button", name="Make it look more afraid").click()
        page.get_by_text(said, exact=True).wait_for(state="hidden")
    page.get_by_role("heading", name=re.compile("afraid")).wait_for()
    page.get_by_role("button", name="Use this face").click()
    page.get_by_text("It is the current face on all pages now.").wait_for()
    page.locator(".strip-answer", has_text="fear").wait_for()
    go_to(page, "Mesh")
    page.locator("iframe").wait_for()
    go_to(page, "Explorer")
    page.get_by_text("The best small step:").wait_for()  # as it was left


def test_a_moved_slider_is_answered_soon(page, server):
    open_page(page, server)
    go_to(page, "Explorer")
    page.get_by_role("radio", name="Neutral", exact=True).click()
    page.get_by_role("heading", name="This face looks neutral.").wait_for()
    took = []
    for name, headline in (("Happy", "happy"), ("Neutral", "neutral"), ("Happy", "happy"), ("Neutral", "neutral")):
        started = time.perf_counter()
        page.get_by_role("radio", name=name, exact=True).click()
        page.get_by_role("heading", name=f"This face looks {headline}.").wait_for()
        took.append(time.perf_counter() - started)
    print(f"\nexplorer answers in {np.round(took, 2)} s")
    assert np.median(took) < 20.0  # far more than a free machine needs; the figure above is what counts


def test_about_reads_well_and_links_nowhere(page, server):
    open_page(page, server)
    go_to(page, "About")
    page.get_by_role("heading", name="What it is not").wait_for()
    page.get_by_text("not for people who did not agree").wait_for()
    page.get_by_text("Faces are biometric data").wait_for()
    links = page.locator("[data-testid=stMain] a[href^=http]").evaluate_all("all => all.map(one => one.href)")
    assert links == []
