"""A training in a real browser: started from the page, watched through a reload to its end, its model put to use."""

from __future__ import annotations

import time

import numpy as np
import pytest
import trimesh
from playwright.sync_api import expect

from affectvlm.runs import last_words, status
from affectvlm.starting import end_now, request_stop, running
from affectvlm.ui import engine
from tests.browser.conftest import start_server

pytestmark = [pytest.mark.browser, pytest.mark.slow]

TINY = (
    "optim.steps=6 optim.batch=4 optim.warmup=1 optim.precision=fp32 optim.threads=1 run.every=1 run.validate=3 "
    "data.workers=1 data.cache={cache}"
)


@pytest.fixture
def own_faces(tmp_path):
    """Two emotions of three people, as scans in folders."""
    for emotion in ("happy", "sad"):
        scan = engine.sample_scan(emotion)
        for number, person in enumerate(("ann", "ben", "cem")):
            folder = tmp_path / "own faces" / emotion / person
            folder.mkdir(parents=True)
            vertices = scan.vertices * np.float32(1 + 0.02 * number)
            trimesh.Trimesh(vertices, scan.faces, vertex_colors=scan.colors, process=False).export(folder / "face.ply")
    return tmp_path / "own faces"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Folder of the runs that the server keeps; none is left running."""
    monkeypatch.setenv("AFFECTVLM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield tmp_path / "runs"
    for folder in running(tmp_path / "runs"):
        request_stop(folder)
        end_now(folder)


@pytest.fixture
def trained_at(root, checkpoint_folder):
    server = start_server(checkpoint_folder.parent)
    yield server
    server.stop()


def test_a_training_is_started_watched_and_its_model_used(page, trained_at, root, own_faces, tmp_path):
    page.goto(f"{trained_at.url}/training")
    page.get_by_text("My own faces", exact=True).click()
    place = page.get_by_role("textbox", name="Folder or CSV file")
    place.fill(str(own_faces))
    place.blur()
    page.get_by_text("Settings for experts").click()
    field = page.get_by_role("textbox", name="One section.key=value a line")
    field.fill(TINY.format(cache=tmp_path / "cache"))
    field.blur()
    page.get_by_text("optim.steps=6").last.wait_for()  # in the command
    page.get_by_role("button", name="Check the data").click()
    page.get_by_text("6 faces of 3 people").wait_for()
    page.get_by_text("No face shows angry, disgust, fear and surprise").wait_for()
    page.get_by_role("button", name="Start training").click()

    page.get_by_text("Getting ready").or_(page.get_by_text("Training.", exact=True)).first.wait_for()
    folder = root / "affectvlm-001"
    assert status(folder).state == "running"
    page.goto("about:blank")  # the tab is closed, and opened again
    page.goto(f"{trained_at.url}/training")
    ended = page.get_by_text("Finished.").or_(page.get_by_text("Failed.")).or_(page.get_by_text("Ended without a word"))
    ended.first.wait_for(timeout=240_000)  # without a click: the page follows by itself
    assert status(folder).state == "finished", last_words(folder, 20)
    page.locator(".js-plotly-plot").nth(2).wait_for()  # losses, validation, confusion

    page.get_by_role("button", name="Use this model").click()
    page.get_by_role("button", name="This model answers now").wait_for()
    page.get_by_role("link", name="Classify", exact=True).click()
    page.get_by_role("button", name="happy", exact=True).click()
    page.get_by_text("Answered in").wait_for()
    sidebar = page.locator("[data-testid=stSidebar]")
    expect(sidebar.get_by_role("combobox", name="Model")).to_have_value("run affectvlm-001")

    page.get_by_role("link", name="Training", exact=True).click()
    page.get_by_text("Finished.").wait_for()
    with page.expect_download() as download:
        page.locator(".st-key-training_download button").first.click()
    assert download.value.suggested_filename == "affectvlm-001.zip"
    time.sleep(0.5)  # what the page would log in consequence, it logs now
