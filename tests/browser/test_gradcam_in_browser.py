"""Maps and the painted mesh in a real browser: read off the page, downloaded, turned, and without WebGL."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from affectvlm.scan_io import read_scan
from tests.browser.test_in_browser import answer_on, go_to, open_page, pixels, wait_until_drawn

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def to_maps(page, server, emotion: str) -> None:
    open_page(page, server)
    page.get_by_role("button", name=emotion, exact=True).click()
    answer_on(page)
    go_to(page, "Grad-CAM")
    page.get_by_text("of the evidence").first.wait_for()


def option(page, name: str):
    return page.get_by_test_id("stButtonGroup").get_by_text(name, exact=True)


def glow(image: np.ndarray) -> float:
    """Share of pixels that are far from grey."""
    return float((np.ptp(image, axis=2) > 60).mean())


def test_the_maps_follow_the_question(page, server):
    to_maps(page, server, "fear")
    shown = page.locator("img[alt*='what speaks for']")
    page.wait_for_function("document.querySelectorAll('img[alt*=\"what speaks for fear\"]').length == 3")
    time.sleep(1)  # the pictures themselves
    assert max(glow(pixels(shown.nth(i))) for i in range(3)) > 0.01
    page.get_by_text("standard deviations").wait_for()
    page.get_by_text("This map").first.wait_for()
    option(page, "Surprise").click()
    page.wait_for_function("document.querySelectorAll('img[alt*=\"what speaks for surprise\"]').length == 3")
    option(page, "Why this, not that").click()
    page.wait_for_function("document.querySelectorAll('img[alt*=\"rather than\"]').length == 3")
    option(page, "My own words").click()
    page.get_by_role("textbox", name="In words").fill("a person who shows the teeth")
    page.get_by_role("textbox", name="In words").press("Enter")
    page.wait_for_function("document.querySelectorAll('img[alt*=\"shows the teeth\"]').length == 3")
    assert page.get_by_test_id("stException").count() == 0


def test_maps_are_downloaded(page, server):
    to_maps(page, server, "happy")
    page.get_by_text("standard deviations").wait_for()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Maps (NPZ)").click()
    content = np.load(io.BytesIO(Path(waiting.value.path()).read_bytes()), allow_pickle=False)
    assert waiting.value.suggested_filename == "evidence-happy.npz"
    assert content["maps"].shape == (3, 224, 224) and content["maps"].max() == 1
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Pictures (PNG)").click()
    assert Image.open(waiting.value.path()).size == (3 * 224, 224)


def test_the_painted_mesh_turns_and_is_downloaded(page, server):
    open_page(page, server)
    page.get_by_role("button", name="happy", exact=True).click()
    answer_on(page)
    go_to(page, "Mesh")
    option(page, "Evidence").click()
    page.get_by_role("button", name="Mesh with evidence (PLY)").wait_for()
    frame = page.locator("iframe")
    painted = wait_until_drawn(frame)
    assert glow(painted) > 0.003
    box = frame.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 150, y, steps=8)
    page.mouse.up()
    time.sleep(1)
    assert (np.abs(wait_until_drawn(frame) - painted).max(axis=2) > 12).mean() > 0.02
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Mesh with evidence (PLY)").click()
    scan = read_scan(Path(waiting.value.path()).read_bytes(), "evidence.ply")
    assert np.ptp(scan.colors.astype(int), axis=1).max() > 60


def test_without_webgl_still_pictures_take_its_place(page, server):
    page.add_init_script(
        """const given = HTMLCanvasElement.prototype.getContext;
        HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
          return kind.includes("webgl") ? null : given.call(this, kind, ...rest);
        };
        """
    )
    open_page(page, server)
    page.get_by_role("button", name="happy", exact=True).click()
    answer_on(page)
    go_to(page, "Mesh")
    inside = page.frame_locator("iframe")
    inside.get_by_text("cannot draw in three dimensions").wait_for()
    assert inside.get_by_role("img").count() == 3
    assert inside.get_by_role("img").first.evaluate("image => image.complete && image.naturalWidth") == 448


def test_a_figure_of_our_samples_is_made(page, server):
    to_maps(page, server, "happy")
    page.get_by_text("standard deviations").wait_for()
    page.get_by_text("Many faces in one figure").click()
    page.get_by_role("button", name="Make it of our six samples").click()
    figure = page.locator("img[alt*='faces by views']")
    figure.wait_for()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Figure (PNG)").click()
    width, height = Image.open(waiting.value.path()).size
    assert width > 1000 and height > 6 * 168
