"""Models of other classes in a real browser: one answers, and stays chosen when the page changes by itself."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import expect

from affectvlm.emotions import BP4D, FOURDME
from affectvlm.mesh_files import scan_ply
from affectvlm.model import Card, from_config, save_checkpoint
from affectvlm.predictor import Predictor
from affectvlm.prompts import PromptSet
from affectvlm.ui import engine, figures, sequence, words
from tests.browser.conftest import start_server
from tests.test_predictor import TINY

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NARROW = {"width": 400, "height": 900}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """Untrained models: "eight" of BP4D's classes, and "motion" of 4DME's that reads sequences."""
    folder = tmp_path_factory.mktemp("models")
    for name, prompts, temporal in (("eight", "bp4d", False), ("motion", "4dme", True)):
        torch.manual_seed(0)
        model = from_config("tiny", TINY)
        card = Card.of(model, PromptSet.load(prompts), name, image_kind="normals", temporal=temporal)
        save_checkpoint(folder / name, model, card)
    return folder


@pytest.fixture(scope="module")
def server(models):
    server = start_server(models)
    yield server
    server.stop()


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


def bars_from_the_top(page) -> list[str]:
    """The words beside the bars as one reads them."""
    ticks = page.locator(".js-plotly-plot .ytick text").all()
    return [tick.text_content().strip() for tick in sorted(ticks, key=lambda tick: tick.bounding_box()["y"])]


def test_eight_classes_are_shown_and_fit_a_narrow_window(page, server, models):
    truth = Predictor.from_checkpoint(models / "eight", device="cpu").predict(engine.sample_scan("sad"))
    page.goto(server.url)
    page.get_by_role("button", name="sad", exact=True).click()
    page.get_by_role("heading", name=words.headline(truth)).wait_for()
    page.locator(".js-plotly-plot .bartext").first.wait_for()
    assert bars_from_the_top(page) == [figures.title(name) for name in BP4D]
    page.set_viewport_size(NARROW)
    expect(page.locator(".bar-name").first).to_be_visible()
    for box in [row.bounding_box() for row in page.locator(".bar-name, .bar-track").all()]:
        assert box["width"] > 20 and 0 <= box["x"] and box["x"] + box["width"] <= NARROW["width"]


def test_a_model_of_motion_stays_chosen_when_a_sequence_leads_to_its_page(page, server, models, moving_face):
    truth = Predictor.from_checkpoint(models / "motion", device="cpu").predict((moving_face, "takes.zip"))
    page.goto(server.url)
    page.get_by_label("Model").first.click()
    page.get_by_role("option", name="motion").click()
    page.get_by_text(words.NEEDS_MOTION).wait_for()
    page.get_by_text("Bring a face", exact=True).click()
    page.locator("input[type=file]").first.set_input_files(
        {"name": "takes.zip", "mimeType": "application/zip", "buffer": moving_face}
    )
    page.get_by_text("All frames together").wait_for()
    expect(page.get_by_role("heading", level=2).first).to_have_text(words.headline(truth))
    page.get_by_text(sequence.READS_ALL).wait_for()
    page.locator(".js-plotly-plot .bartext").first.wait_for()
    assert bars_from_the_top(page) == [figures.title(name) for name in FOURDME]
    page.get_by_role("link", name="Prompts", exact=True).click()
    page.get_by_text("Every sentence, by class").wait_for()
    page.get_by_text("the motion of all frames of takes.zip").wait_for()
