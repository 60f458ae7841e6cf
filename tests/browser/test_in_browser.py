"""The main job in a real browser: a scan or three photos in, the answer read off the page; the mesh turned by mouse."""

from __future__ import annotations

import io
import os
import time

import numpy as np
import pytest
from playwright.sync_api import TimeoutError, expect

from affectvlm.emotions import EKMAN
from affectvlm.ui import engine, words

pytestmark = [pytest.mark.browser, pytest.mark.slow]

FIRST_ANSWER_S, NEXT_ANSWER_S = 15.0, 1.0


def answer_on(page) -> tuple[str, str]:
    """Headline and certainty as a visitor reads them, once they are there."""
    page.get_by_text("Answered in").wait_for()
    headline = page.get_by_role("heading", level=2).inner_text()
    return headline, page.locator(".strip-answer").inner_text()


def assert_answer(page, prediction) -> None:
    headline, strip = answer_on(page)
    assert headline == words.headline(prediction)
    assert words.confidence(prediction) in strip
    for name in EKMAN:  # the bars' own words
        shown = page.locator(".js-plotly-plot").get_by_text(name.capitalize(), exact=True)
        shown.wait_for()
    for share in prediction.probabilities.values():
        page.locator(".js-plotly-plot .bartext", has_text=words.percent(share)).first.wait_for()


def open_page(page, server) -> None:
    page.goto(server.url)
    page.get_by_role("heading", level=1).wait_for()


def go_to(page, title: str) -> None:
    page.get_by_role("link", name=title, exact=True).click()


def pixels(locator) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB")).astype(int)


def wait_until_drawn(locator, timeout: float = 60.0) -> np.ndarray:
    """A screenshot once it shows a lit face: many shades within, one even background around."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        image = pixels(locator)
        height, width = image.shape[:2]
        middle = image[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3]
        if len(np.unique(middle.reshape(-1, 3), axis=0)) > 500:
            return image
        time.sleep(0.3)
    raise AssertionError("nothing was drawn")


def wait_until_moved(locator, before: np.ndarray, share: float, by: int = 12, timeout: float = 60.0) -> None:
    """Until more than this share of the pixels differ by more than `by` from an earlier screenshot of the same size."""
    until = time.monotonic() + timeout
    while time.monotonic() < until:
        now = pixels(locator)
        if now.shape == before.shape and (np.abs(now - before).max(axis=2) > by).mean() > share:
            return
        time.sleep(0.3)
    raise AssertionError(f"the picture did not change by more than {by} of 255 in {share:.1%} of its pixels")


def test_a_scan_is_uploaded_and_answered(page, server, predictor, happy_ply):
    open_page(page, server)
    file = {"name": "scan.ply", "mimeType": "application/octet-stream", "buffer": happy_ply}
    page.locator("input[type=file]").set_input_files(file)
    assert_answer(page, predictor.predict((happy_ply, "scan.ply")))
    expect(page.get_by_text("scan.ply").first).to_be_visible()


def test_three_photos_are_uploaded_and_answered(page, server, predictor, happy_photos):
    open_page(page, server)
    page.get_by_text("Three photos", exact=True).click()
    page.locator("input[type=file]").nth(2).wait_for(state="attached")
    for i, (role, data) in enumerate(happy_photos.items()):
        file = {"name": f"{role}.png", "mimeType": "image/png", "buffer": data}
        page.locator("input[type=file]").nth(i).set_input_files(file)
        if i < 2:
            page.get_by_text("Still missing").wait_for()
    assert_answer(page, predictor.predict_photos(**happy_photos))


def test_three_camera_shots_without_a_face_are_told_and_answered(page, server):
    open_page(page, server)
    page.get_by_text("Camera", exact=True).click()
    for role in ("Front", "Left cheek", "Right cheek"):
        prompt = page.get_by_text(f"{role}:")
        prompt.wait_for()
        for _ in range(8):  # a click before the camera gives pictures takes none: click again, as a person would
            page.get_by_role("button", name="Take Photo").click()
            try:
                prompt.wait_for(state="hidden", timeout=12_000)
                break
            except TimeoutError:
                continue
    answer_on(page)
    expect(page.get_by_text("no face", exact=False).first).to_be_visible()


def test_a_bad_file_is_told_and_the_visit_goes_on(page, server):
    open_page(page, server)
    file = {"name": "letter.obj", "mimeType": "text/plain", "buffer": b"Dear Sir or Madam"}
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_test_id("stAlert").get_by_text("letter.obj").wait_for()
    page.get_by_role("button", name="happy", exact=True).click()
    answer_on(page)


def test_the_face_is_kept_from_page_to_page_and_its_mesh_turns(page, server):
    open_page(page, server)
    page.get_by_role("button", name="surprise", exact=True).click()
    answer = answer_on(page)
    go_to(page, "Mesh")
    frame = page.locator("iframe")
    frame.wait_for()
    before = wait_until_drawn(frame)
    box = frame.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 150, y, steps=8)
    page.mouse.up()
    wait_until_moved(frame, before, 0.02)
    go_to(page, "Classify")
    assert answer_on(page) == answer


@pytest.mark.parametrize("viewer", ["stpyvista", "Plotly", "Still pictures"])
def test_the_other_viewers_draw_too(page, server, viewer):
    from affectvlm.ui.guarded_stpyvista import missing

    if viewer == "stpyvista" and missing():
        pytest.skip(f"not installed: {missing()}")
    open_page(page, server)
    page.get_by_role("button", name="happy", exact=True).click()
    answer_on(page)
    go_to(page, "Mesh")
    page.locator("iframe").wait_for()
    page.get_by_test_id("stSelectbox").filter(has_text="Viewer").locator("input").click()
    page.get_by_role("option", name=viewer).click()
    drawn = {"stpyvista": "#stpyvistaframe", "Plotly": ".js-plotly-plot", "Still pictures": "[data-testid=stMain] img"}
    surface = page.locator(drawn[viewer]).first
    surface.wait_for()
    wait_until_drawn(surface)
    expect(page.get_by_text("could not show")).to_have_count(0)


def test_a_page_asked_for_first_comes_with_its_frame(fresh_server, page):
    page.goto(f"{fresh_server.url}/mesh")
    page.get_by_role("button", name="Forget everything").wait_for()
    expect(page.get_by_role("heading", level=1)).to_have_text("The face in three dimensions")


def test_the_first_answer_comes_soon_and_the_next_ones_at_once(fresh_server, page):
    open_page(page, fresh_server)
    page.get_by_role("button", name="happy", exact=True).click()
    answer_on(page)
    first = time.perf_counter() - fresh_server.started
    following = []
    for emotion in ("sad", "fear", "angry"):
        page.get_by_role("button", name="New face").click()
        page.get_by_role("button", name=emotion, exact=True).wait_for()
        started = time.perf_counter()
        page.get_by_role("button", name=emotion, exact=True).click()
        page.locator(".strip-answer", has_text=f"posed {emotion}").wait_for()
        following.append(time.perf_counter() - started)
    busy = os.getloadavg()[0] / os.cpu_count()
    print(f"\nfirst answer {first:.1f} s after the start, next ones {np.round(following, 2)} s (load {busy:.1f})")
    slack = 1.0 if busy < 1.2 else 5 * busy  # on a busy machine this says little
    assert first < FIRST_ANSWER_S * slack
    assert np.median(following) < NEXT_ANSWER_S * slack


def test_samples_are_what_they_say(page, server):
    """The pictures of the six samples are all there and all different."""
    open_page(page, server)
    pictures = page.get_by_role("img", name="a modelled face posing")
    expect(pictures).to_have_count(len(EKMAN))
    assert len({engine.sample_picture(emotion).tobytes() for emotion in EKMAN}) == len(EKMAN)
