"""A sequence played, results downloaded and many files answered in a real browser; and nothing left on the disk."""

from __future__ import annotations

import io
import json
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import expect

from affectvlm.mesh_files import scan_ply
from affectvlm.ui import engine, words
from tests.browser.conftest import ROOT, start_server
from tests.browser.test_in_browser import answer_on, go_to, open_page, pixels, wait_until_moved

pytestmark = [pytest.mark.browser, pytest.mark.slow]

MARK = b"MARK-OF-AN-UPLOADED-FACE"
CACHES = (".cache", ".config", ".local", ".streamlit", ".nv", ".triton")
"""Folders of a home where programs keep what is the same for everybody."""


@pytest.fixture(scope="module")
def takes() -> bytes:
    """A zip of four scans of a face that is surprised for a moment; every file bears the mark."""
    from affectvlm.synthesis.expressions import prototype

    model = engine.face_model()
    person = model.sample_identity(np.random.default_rng(5))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for number, strength in enumerate((0.0, 0.6, 1.0, 0.3)):
            scan = model.generate(person, prototype("surprise", strength))
            archive.writestr(f"take_{number}.ply", marked(scan_ply(scan)))
    return stream.getvalue()


def marked(ply: bytes) -> bytes:
    return ply.replace(b"comment unit mm\n", b"comment unit mm\ncomment " + MARK + b"\n", 1)


def file(name: str, data: bytes) -> dict:
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def bring_sequence(page, server, data: bytes) -> None:
    open_page(page, server)
    go_to(page, "Sequence")
    page.get_by_text("A zip of scans").wait_for()
    page.locator("input[type=file]").set_input_files(file("takes.zip", data))
    page.get_by_text("All frames together").wait_for()


def test_a_sequence_is_brought_played_and_a_frame_used(page, server, predictor, takes):
    truth = predictor.predict((takes, "takes.zip"))
    bring_sequence(page, server, takes)
    expect(page.get_by_role("heading", level=2)).to_have_text(words.headline(truth))
    page.get_by_text(words.confidence(truth), exact=False).first.wait_for()
    where, picture = page.locator("output.where"), page.locator("img.picture")
    seek = page.get_by_role("slider", name="Frame")
    seek.focus()
    page.keyboard.press("Home")  # the keyboard alone is enough
    expect(where).to_have_text("frame 0")
    first = pixels(picture)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    expect(where).to_have_text("frame 2")
    wait_until_moved(picture, first, 0.005, by=25)  # the face
    shares = [words.percent(round(float(share), 4)) for share in truth.curve.raw[2]]
    expect(page.locator(".row .value")).to_have_text(shares)
    page.get_by_role("button", name="Play", exact=True).click()
    expect(where).to_have_text("frame 3")
    page.get_by_role("button", name="Play", exact=True).wait_for()  # it stops at the end by itself
    page.get_by_role("button", name="Use this frame").click()
    page.locator(".strip-answer", has_text="frame 3 of takes.zip").wait_for()
    go_to(page, "Classify")
    answer_on(page)
    go_to(page, "Sequence")
    page.get_by_text("All frames together").wait_for()  # it is still there
    expect(where).to_have_text("frame 3")
    expect(page.get_by_test_id("stException")).to_have_count(0)


def test_everything_about_an_answer_is_downloaded(page, server, predictor, chromium, tmp_path):
    open_page(page, server)
    page.get_by_role("button", name="happy", exact=True).click()
    answer_on(page)
    page.get_by_role("button", name="Take it with you").click()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Everything (ZIP)").click()
    assert waiting.value.suggested_filename == "affectvlm-sample-posed-happy.zip"
    with zipfile.ZipFile(waiting.value.path()) as archive:
        answer = json.loads(archive.read("answer.json"))
        names = set(archive.namelist())
        archive.extract("report.html", tmp_path)
    truth = predictor.predict(engine.sample_scan("happy"))
    assert answer["probabilities"] == truth.probabilities
    assert {"views/front.png", "inputs/left.png", "mesh/face.ply", "mesh/face.glb", "model_card.json"} <= names
    page.goto((tmp_path / "report.html").as_uri())  # `page` sees to it that nothing is fetched
    expect(page.get_by_role("heading", level=1)).to_have_text(words.headline(truth))
    assert all(page.locator("img").evaluate_all("images => images.map(i => i.naturalWidth > 0)"))
    printed = page.pdf(prefer_css_page_size=True)
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") + printed.count(b"/Type /Page/") == 1


def test_many_files_fill_a_table(page, server, happy_ply):
    open_page(page, server)
    page.get_by_text("Many files", exact=True).click()
    page.get_by_text("Photos of one face belong together").wait_for()
    page.locator("input[type=file]").set_input_files([file("a.ply", happy_ply), file("b.obj", b"Dear Sir or Madam")])
    page.get_by_text("1 of 2").wait_for()
    page.get_by_text("1 could not be used").wait_for()
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Table (CSV)").click()
    lines = Path(waiting.value.path()).read_text().splitlines()
    assert lines[0].startswith("file,ok,error,emotion") and len(lines) == 3
    assert lines[1].startswith("a.ply,True") and lines[2].startswith("b.obj,False")


def test_a_visit_with_uploads_leaves_nothing_on_the_disk(
    page, checkpoint_folder, happy_ply, takes, tmp_path, monkeypatch
):
    """Home and temporary folder of the server stay empty but for caches, and no file anywhere near holds an upload."""
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    for name, place in (("HOME", home), ("TMPDIR", temporary)):
        place.mkdir()
        monkeypatch.setenv(name, str(place))
    began = time.time() - 1
    server = start_server(checkpoint_folder.parent)
    try:
        private = marked(happy_ply.replace(b"element vertex", b"comment unit mm\nelement vertex", 1))
        assert MARK in private and MARK in takes
        bring_sequence(page, server, takes)
        go_to(page, "Classify")
        page.get_by_text("Bring a face").wait_for()
        page.locator("input[type=file]").set_input_files(file("private.ply", private))
        answer_on(page)
        page.get_by_role("button", name="Take it with you").click()
        with page.expect_download() as waiting:
            page.get_by_role("button", name="Everything (ZIP)").click()
        waiting.value.path()
        page.keyboard.press("Escape")
        go_to(page, "Mesh")
        page.locator("iframe").wait_for()
        assert [place for place in files_below(home) if place.relative_to(home).parts[0] not in CACHES] == []
        assert files_below(temporary) == []
        fresh = [place for place in (*files_below(home), *files_below(ROOT)) if place.stat().st_mtime >= began]
        assert [place for place in fresh if holds(place, MARK)] == []
        assert not [place for place in fresh if "private" in place.name or "takes" in place.name]
    finally:
        server.stop()
    assert files_below(temporary) == []


def files_below(folder: Path) -> list[Path]:
    """Files of a folder; of a checkout without its environment and history."""
    left_out = {".venv", ".git", "node_modules"}
    found = []
    for place in folder.iterdir():
        if place.name in left_out or place.is_symlink():
            continue
        found += [one for one in place.rglob("*") if one.is_file()] if place.is_dir() else [place]
    return found


def holds(place: Path, content: bytes) -> bool:
    try:
        return place.stat().st_size < 2**28 and content in place.read_bytes() and place != Path(__file__).resolve()
    except OSError:  # gone again
        return False
