"""Sequences in the app without a browser: what is brought, the work beside the page, the player, the curve in words."""

from __future__ import annotations

import base64
import gc
import io
import json
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from affectvlm.curves import emotion_curve
from affectvlm.emotions import COLORS, EKMAN
from affectvlm.mesh_files import scan_ply
from affectvlm.scan import ScanError
from affectvlm.scan_io import read_scan
from affectvlm.ui import clips, engine, player, sequence_figures, sequence_state, words
from affectvlm.ui.clips import Clip
from affectvlm.ui.work import Stopped, Work
from tests import test_app as base

app, start, held = base.app, base.start, base.held  # fixtures
FRAMES = (0.0, 0.5, 1.0, 0.4)


@pytest.fixture(scope="module")
def frames() -> list[tuple[str, bytes]]:
    """Four scans of a face that is surprised for a moment, numbered in the order of time, not of the alphabet."""
    from affectvlm.synthesis.expressions import prototype

    model = engine.face_model()
    person = model.sample_identity(np.random.default_rng(5))
    scans = [model.generate(person, prototype("surprise", strength)) for strength in FRAMES]
    return [(f"take_{8 + i}.ply", scan_ply(scan)) for i, scan in enumerate(scans)]


@pytest.fixture(scope="module")
def zipped(frames) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in frames:
            archive.writestr(name, data)
    return stream.getvalue()


@pytest.fixture(scope="module")
def truth(zipped, predictor):
    return predictor.predict((zipped, "takes.zip"))


def bring(app, *files: tuple[str, bytes]):
    app.switch_page("pages/sequence.py").run()
    for name, data in files:
        app.file_uploader[0].upload(name, data)
    return app.run()


def finish(app):
    """Until the work beside the page is done."""
    work = app.session_state["clip_work"]
    if work is not None:  # else it failed at once, and that is said already
        assert work.wait(240)
        app.run()
    return app


def player_data(app) -> dict:
    (found,) = app.get("bidi_component")
    return json.loads(found.proto.json)


# the work beside the page


def test_work_tells_its_steps_and_returns_its_result():
    go = threading.Event()

    def do(desk):
        desk.tell(0.5, "half way")
        go.wait(10)
        return "done"

    work = Work("it", do)
    while work.words != "half way":
        time.sleep(0.01)
    assert work.running and work.share == 0.5 and work.result is None and not work.stopped
    go.set()
    assert work.wait(10)
    assert (work.result, work.problem, work.stopped, work.running) == ("done", None, False, False)


def test_work_is_stopped_at_its_next_step_even_where_exceptions_are_caught():
    steps = []

    def do(desk):
        for step in range(10_000):
            try:
                desk.tell(0.0, "")
            except Exception:  # noqa: BLE001  as a reader of strangers' files does
                pytest.fail("a stop was taken for a bad file")
            steps.append(step)
            time.sleep(0.005)

    work = Work("it", do)
    while not steps:
        time.sleep(0.01)
    work.stop()
    assert work.wait(10) and work.stopped and work.result is None and len(steps) < 10_000
    assert not issubclass(Stopped, Exception)


def test_work_that_nobody_holds_any_more_stops():
    ended = threading.Event()

    def do(desk):
        try:
            while True:
                desk.tell(0.0, "")
                time.sleep(0.005)
        finally:
            ended.set()

    work = Work("it", do)
    time.sleep(0.05)
    del work
    gc.collect()
    assert ended.wait(10)


def test_a_bad_file_is_said_and_a_fault_of_ours_is_raised():
    def refuse(desk):
        raise ScanError("x.ply: no vertices")

    def fail(desk):
        raise KeyError("a fault")

    bad, fault = Work("bad", refuse), Work("fault", fail)
    assert bad.wait(10) and bad.problem == "x.ply: no vertices" and not bad.stopped
    assert fault.wait(10)
    with pytest.raises(KeyError):
        _ = fault.problem


def test_no_more_than_a_few_work_at_a_time(monkeypatch):
    monkeypatch.setattr("affectvlm.ui.work._turns", threading.BoundedSemaphore(1))
    go = threading.Event()
    first, second = (Work(name, lambda desk: go.wait(20)) for name in "ab")
    until = time.monotonic() + 5
    while not any("Waiting" in work.words for work in (first, second)) and time.monotonic() < until:
        time.sleep(0.01)
    waiting = [work for work in (first, second) if "Waiting" in work.words]
    assert len(waiting) == 1
    waiting[0].stop()
    assert waiting[0].wait(5) and waiting[0].stopped
    go.set()
    assert first.wait(5) and second.wait(5)


# what is brought


def test_several_files_are_one_sequence_in_the_order_of_time(frames):
    shuffled = Clip.from_files([frames[2], frames[0], frames[3], frames[1]])
    with shuffled.open() as sequence:
        assert sequence.numbers == (8, 9, 10, 11)
        for index, (_, data) in enumerate(frames):
            assert np.array_equal(sequence.read(index).vertices, read_scan(data, "a.ply").vertices)
    assert shuffled.digest == Clip.from_files(frames).digest  # however they were picked
    assert shuffled.digest != Clip.from_files(frames[:3]).digest
    assert shuffled.title == "4 files"


def test_files_of_one_name_and_no_files_are_refused(frames):
    with pytest.raises(ValueError, match="twice"):
        Clip.from_files([frames[0], frames[0]])
    with pytest.raises(ValueError, match="no files"):
        Clip.from_files([])
    with pytest.raises(ValueError, match="unknown"):
        Clip.sample("boredom")


def test_a_sample_goes_from_neutral_to_its_emotion_and_back():
    with Clip.sample("happy").open() as sequence:
        count = len(sequence)
        first, middle, last = (sequence.read(i).vertices for i in (0, count // 2, count - 1))
    assert count >= 12 and np.array_equal(first, last)
    assert np.linalg.norm(middle - first, axis=1).max() > 3  # mm: the corners of the mouth
    neutral = Clip.sample("sad")
    assert neutral.digest != Clip.sample("happy").digest
    assert np.allclose(middle, engine.sample_scan("happy").vertices)  # the apex is the sample of the first page


@pytest.mark.slow
def test_looking_keeps_little_and_tells_how_far_it_is(zipped, predictor, truth):
    told: list[tuple[float, str]] = []
    seen = clips.look(Clip.from_files([("takes.zip", zipped)]), predictor, 32, None, lambda *step: told.append(step))
    assert seen.prediction.probabilities == truth.probabilities and seen.total == 4
    assert [frame.number for frame in seen.frames] == [8, 9, 10, 11]
    assert np.array_equal([frame.shares for frame in seen.frames], truth.curve.raw)
    shares = [share for share, _ in told]
    assert shares == sorted(shares) and shares[0] == 0 and 0.8 < shares[-1] < 1 and len(told) == 1 + 4 + 4
    assert "frame 4 of 4" in told[4][1] and "frame 4 of 4" in told[-1][1]
    for frame in seen.frames:
        assert len(frame.picture) < 20_000
        assert Image.open(io.BytesIO(frame.picture)).size == (224, 224)
    assert seen.frames[0].picture != seen.frames[2].picture


def test_a_stop_ends_the_looking(zipped, predictor):
    def tell(share, said):
        if "frame 2" in said:
            raise Stopped

    with pytest.raises(Stopped):
        clips.look(Clip.from_files([("takes.zip", zipped)]), predictor, 32, None, tell)


def test_a_frame_becomes_a_file_of_its_own(frames, happy_scan):
    clip = Clip.from_files(frames)
    name, data = clips.frame_file(clip, 2)
    assert name == "frame-10.ply"
    found, given = read_scan(data, name), read_scan(frames[2][1], "a.ply")
    assert np.array_equal(found.vertices, given.vertices) and np.array_equal(found.colors, given.colors)


# the page


@pytest.mark.slow
def test_a_zip_is_answered_played_and_told(app, held, zipped, truth):
    bring(app, ("takes.zip", zipped))
    assert held() == []  # the clip has the bytes, streamlit need not keep them too
    assert not app.exception and len(app.header) == 0 and any(button.label == "Stop" for button in app.button)
    finish(app)
    assert not app.exception and not app.error
    assert app.header[0].value == words.headline(truth)
    assert words.confidence(truth) in base.texts(app) and "4 frames" in base.texts(app)
    assert sequence_figures.phases_in_words(truth.curve) in base.texts(app)
    data = player_data(app)
    assert data["numbers"] == [8, 9, 10, 11] and data["classes"] == list(EKMAN) and data["times"] is None
    assert data["colors"] == [COLORS[name] for name in EKMAN] and data["pause_ms"] == 250
    assert np.allclose(data["shares"], truth.curve.raw, atol=1e-4)
    assert data["at"] == (truth.curve.apex if truth.curve.apex is not None else 2)
    assert Image.open(io.BytesIO(base64.b64decode(data["pictures"][0]))).size == (224, 224)
    assert len(app.get("plotly_chart")) == 2
    app.session_state["clip_frame"] = 1
    app.run()
    assert player_data(app)["at"] == 1  # where the visitor left it


@pytest.mark.slow
def test_a_frame_becomes_the_current_face_of_all_pages(app, frames, predictor):
    bring(app, *frames)
    finish(app)
    app.session_state["clip_frame"] = 2
    app.run()
    base.click(app, "Use this frame")
    assert not app.exception and app.session_state["face"].title == "frame 10 of 4 files"
    assert "current face on all pages" in base.texts(app)
    app.switch_page("pages/classify.py").run()
    base.assert_shows(app, predictor.predict(engine.source(app.session_state["face"])))
    app.switch_page("pages/sequence.py").run()  # the sequence is still there
    assert not app.exception and len(app.get("bidi_component")) == 1


def test_a_sequence_on_the_first_page_is_taken_to_its_own(app, zipped):
    app.file_uploader[0].upload("takes.zip", zipped)
    app.run()
    assert not app.exception
    assert app.title[0].value == "How does the face move?" and app.session_state["clip"].title == "takes.zip"
    assert app.session_state["face"] is None if "face" in app.session_state else True
    base.click(app, "Forget everything")


def test_work_can_be_stopped_and_started_again(app, frames, monkeypatch):
    go = threading.Event()

    def slow(clip, predictor, most, fps, tell):
        while not go.is_set():
            tell(0.3, "Finding the face: frame 2 of 4")
            time.sleep(0.01)
        raise ScanError("frame 9: no vertices")

    monkeypatch.setattr(clips, "look", slow)
    bring(app, *frames)
    first = app.session_state["clip_work"]
    base.click(app, "Stop")
    assert first.wait(20) and first.stopped
    app.run()
    assert "stopped" in app.info[0].value
    base.click(app, "Start again")
    second = app.session_state["clip_work"]
    assert second is not first and second.running
    app.switch_page("pages/classify.py").run()
    app.switch_page("pages/sequence.py").run()
    assert app.session_state["clip_work"] is second  # it went on meanwhile
    go.set()
    assert second.wait(20)
    app.run()
    assert not app.exception and "frame 9: no vertices" in app.error[0].value
    assert app.session_state["clip"] is None  # and another may be brought
    assert {f"clip_sample_{name}" for name in EKMAN} <= {button.key for button in app.button}


def test_forgetting_drops_the_sequence_and_ends_its_work(app, frames, monkeypatch):
    ended = threading.Event()

    def slow(clip, predictor, most, fps, tell):
        try:
            while True:
                tell(0.3, "…")
                time.sleep(0.01)
        finally:
            ended.set()

    monkeypatch.setattr(clips, "look", slow)
    bring(app, *frames)
    base.click(app, "Forget everything")
    gc.collect()
    assert ended.wait(20)
    assert "clip" not in app.session_state and not app.exception


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([("one.ply", b"ply")], "one.ply"),
        ([("broken.zip", b"PK\x03\x04 not really")], "broken.zip"),
        ([("a1.jpg", b"1"), ("a2.jpg", b"2")], "2 files with no scan among them"),
    ],
)
def test_a_bad_sequence_is_told(app, files, said):
    bring(app, *files)
    finish(app)
    assert not app.exception and said in app.error[0].value and len(app.header) == 0


def test_a_single_scan_is_told_what_a_sequence_is(app, frames):
    bring(app, frames[0])
    finish(app)
    assert "a single scan" in app.error[0].value and "zip" in app.error[0].value


def test_too_much_is_refused(app, monkeypatch):
    monkeypatch.setattr("affectvlm.ui.sequence.MAX_MB", 1)
    bring(app, ("a.ply", bytes(700_000)), ("b.ply", bytes(700_000)))
    assert "at most 1 MB together" in app.error[0].value


def test_without_a_model_the_page_says_what_to_do(start, tmp_path):
    app = start(tmp_path)
    app.switch_page("pages/sequence.py").run()
    base.click(app, "happy")
    assert not app.exception and app.info[0].value == words.NO_MODEL


# figure and words


def curve_of(strength: list[float], times=None):
    rest = (1 - np.array(strength)) / 5
    shares = np.stack([rest] * 6, axis=1)
    shares[:, EKMAN.index("happy")] = strength
    ones = np.ones(len(strength))
    return emotion_curve(EKMAN, "happy", np.arange(len(strength)) + 1, shares, ones, times, sigma=0)


def test_the_phases_are_said_in_words():
    there_and_back = curve_of([0.17, 0.2, 0.6, 0.9, 0.9, 0.9, 0.6, 0.2, 0.17], np.arange(9) / 10)
    said = sequence_figures.phases_in_words(there_and_back)
    assert "happy expression begins at frame 3 (0.20 s), is strongest at frame 5 (0.40 s)" in said
    assert "fades after frame 7 (0.60 s)" in said
    held = sequence_figures.phases_in_words(curve_of([0.9] * 6))
    assert "is there from the start" in held and "stays to the end" in held and "s)" not in held
    assert "No expression" in sequence_figures.phases_in_words(curve_of([1 / 6] * 6))


def test_the_figure_has_thin_and_thick_lines_in_the_emotions_colours_and_marks_the_phases():
    curve = curve_of([0.17, 0.2, 0.6, 0.9, 0.9, 0.9, 0.6, 0.2, 0.17])
    figure = sequence_figures.curve_figure(curve, at=1)
    named = {trace.name: trace for trace in figure.data if trace.name}
    assert tuple(named) == EKMAN  # words beside the colours, in the order of everywhere
    for k, name in enumerate(EKMAN):
        thin = next(t for t in figure.data if t.legendgroup == name and not t.name)
        assert thin.line.color == named[name].line.color == COLORS[name]
        assert thin.line.width < 2 <= named[name].line.width
        assert np.array_equal(thin.y, curve.raw[:, k]) and np.array_equal(named[name].y, curve.smoothed[:, k])
    marked = {note.text: note.x for note in figure.layout.annotations}
    assert marked == {name: curve.frames[getattr(curve, name)] for name in ("onset", "apex", "offset")}
    assert len(figure.layout.shapes) == 4 and figure.layout.shapes[-1].x0 == curve.frames[1]
    assert len(sequence_figures.curve_figure(curve_of([1 / 6] * 6)).layout.annotations) == 0


def test_a_film_plays_at_its_own_pace_within_reason():
    assert player.pause_ms(None) == 250 == player.pause_ms([0.0])
    assert player.pause_ms(np.arange(10) / 10) == 100
    assert player.pause_ms(np.arange(10) / 1000) == player.QUICKEST_MS
    assert player.pause_ms(np.arange(10) * 3.0) == player.SLOWEST_MS


def test_samples_are_answered_once_for_all_visitors(monkeypatch, checkpoint_folder):
    asked = []
    monkeypatch.setattr(sequence_state, "_samples", {})
    monkeypatch.setattr(clips, "look", lambda *arguments: asked.append(arguments[0]) or object())
    sample, own = Clip.sample("fear"), Clip.from_files([("a.zip", b"1")])
    for clip in (sample, sample, own, own):
        work = Work(clip.digest, sequence_state._look(clip.digest, clip, checkpoint_folder, 32, None))
        assert work.wait(60) and work.problem is None
    assert asked == [sample, own, own]  # what a visitor brought is nobody else's
