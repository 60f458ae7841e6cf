"""Maps and the painted mesh in a real browser: read off the page, downloaded, turned, and without WebGL."""

from __future__ import annotations

import io
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from affectvlm.scan_io import read_scan
from tests.browser.test_in_browser import answer_on, go_to, open_page, pixels, wait_until_drawn, wait_until_moved

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
    shown = page.locator("img[alt*='what speaks for fear']")
    expect(shown).to_have_count(3)
    until = time.monotonic() + 60
    while max(glow(pixels(shown.nth(i))) for i in range(3)) <= 0.01:  # the pictures come after their frames
        assert time.monotonic() < until, "no map glows"
        time.sleep(0.3)
    page.get_by_text("standard deviations").wait_for()
    page.get_by_text("This map").first.wait_for()
    option(page, "Surprise").click()
    expect(page.locator("img[alt*='what speaks for surprise']")).to_have_count(3)
    option(page, "Why this, not that").click()
    expect(page.locator("img[alt*='rather than']")).to_have_count(3)
    option(page, "My own words").click()
    page.get_by_role("textbox", name="In words").fill("a person who shows the teeth")
    page.get_by_role("textbox", name="In words").press("Enter")
    expect(page.locator("img[alt*='shows the teeth']")).to_have_count(3)
    expect(page.get_by_test_id("stException")).to_have_count(0)


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
    wait_until_moved(frame, painted, 0.02)
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
    expect(inside.get_by_role("img")).to_have_count(3)
    expect(inside.get_by_role("img").first).to_have_js_property("naturalWidth", 448)


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
