"""Every page of the app without a browser: what a visitor brings, what is answered, what is said when it goes wrong."""

from __future__ import annotations

import base64
import gc
import sys
import time
import urllib.parse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest

from affectvlm.emotions import COLORS, EKMAN
from affectvlm.predictor import Predictor
from affectvlm.ui import engine, figures, guarded_stpyvista, viewers, words
from affectvlm.ui.export import ExportError, ExportWorker
from affectvlm.ui.inputs import CAMERA, PHOTOS
from affectvlm.ui.state import Face

ROOT = Path(__file__).resolve().parents[1]


class DeclaredPages(PagesManager):
    """As in a server where the entry script ran before; AppTest runs the files in `pages` bare at every second run."""

    def __init__(self, *arguments, **settings) -> None:
        super().__init__(*arguments, **settings)
        PagesManager.uses_pages_directory = False


@pytest.fixture
def start(monkeypatch):
    """Starts the app with the models of a folder."""

    def start(folder: Path) -> AppTest:
        monkeypatch.setattr("streamlit.testing.v1.app_test.PagesManager", DeclaredPages)
        monkeypatch.setattr(engine, "CHECKPOINTS", folder)
        monkeypatch.setattr(engine, "warm_up", lambda: None)
        app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=120).run()
        return click(app, "Forget everything")  # to streamlit's cache all AppTests are one session

    return start


@pytest.fixture
def app(start, checkpoint_folder) -> AppTest:
    return start(checkpoint_folder.parent)


def click(app: AppTest, label: str) -> AppTest:
    (button,) = [button for button in app.button if button.label == label]
    return button.click().run()


def texts(app: AppTest) -> str:
    elements = [*app.title, *app.header, *app.markdown, *app.caption, *app.error, *app.warning, *app.info, *app.text]
    return "\n".join(str(element.value) for element in elements)


def shown_probabilities(app: AppTest) -> dict[str, float]:
    """Read back from the bars on the page."""
    import json

    (chart,) = app.get("plotly_chart")
    (bars,) = json.loads(chart.proto.spec)["data"]
    values = bars["x"]
    if isinstance(values, dict):
        values = np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"])
    return dict(zip((name.lower() for name in bars["y"]), (float(value) for value in values), strict=True))


def assert_shows(app: AppTest, prediction) -> None:
    assert not app.exception and not app.error
    assert app.header[0].value == words.headline(prediction)
    assert words.confidence(prediction) in texts(app)
    assert shown_probabilities(app) == pytest.approx(prediction.probabilities, abs=1e-6)
    assert tuple(shown_probabilities(app)) == EKMAN
    for warning in prediction.warnings:
        assert warning.lower() in texts(app).lower()


def upload_scan(app: AppTest, name: str, data: bytes) -> AppTest:
    app.file_uploader[0].upload(name, data)
    return app.run()


def choose(app: AppTest, way: str) -> AppTest:
    (control,) = [control for control in app.get("button_group") if way in control.options]
    return control.set_value(way).run()


# what is brought


def test_the_first_page_says_what_to_do_and_what_the_answer_is_not(app):
    assert not app.exception
    assert "3D scan" in texts(app) and words.INTENDED_USE in texts(app) and words.PRIVACY in texts(app)
    assert {button.label for button in app.button} >= set(EKMAN)


def test_a_sample_is_one_click(app, predictor):
    click(app, "sad")
    assert_shows(app, predictor.predict(engine.sample_scan("sad")))
    assert "Answered in" in texts(app)


def test_an_uploaded_scan_gets_the_answer_of_the_library(app, predictor, happy_ply):
    upload_scan(app, "somebody.ply", happy_ply)
    assert_shows(app, predictor.predict((happy_ply, "somebody.ply")))


def test_three_photos_get_the_answer_of_the_library(app, predictor, happy_photos):
    choose(app, PHOTOS)
    for uploader, (role, data) in zip(app.file_uploader, happy_photos.items(), strict=True):
        uploader.upload(f"{role}.png", data)
    app.run()
    assert_shows(app, predictor.predict_photos(**happy_photos))
    assert len(app.slider) == 0  # photos have no pose to turn


def test_two_photos_are_enough_for_those_who_say_so(app, predictor, happy_photos):
    choose(app, PHOTOS)
    app.file_uploader[0].upload("front.png", happy_photos["front"])
    app.file_uploader[2].upload("right.png", happy_photos["right"])
    app.run()
    assert len(app.header) == 0 and "left cheek" in texts(app)
    click(app, "Go on with these")
    assert_shows(app, predictor.predict_photos(front=happy_photos["front"], right=happy_photos["right"]))


def test_photos_without_a_face_are_told_and_answered(app, predictor):
    import io

    from PIL import Image

    photos = {}
    for role, level in (("front", 40), ("left", 120), ("right", 200)):
        stream = io.BytesIO()
        Image.new("RGB", (300, 200), (level, level, level)).save(stream, "PNG")
        photos[role] = stream.getvalue()
    choose(app, PHOTOS)
    for uploader, (role, data) in zip(app.file_uploader, photos.items(), strict=True):
        uploader.upload(f"{role}.png", data)
    app.run()
    assert_shows(app, predictor.predict_photos(**photos))
    assert "no face" in texts(app).lower()


def test_three_camera_shots_are_taken_one_after_another(app, predictor, happy_photos):
    from PIL import Image

    shots = {}
    choose(app, CAMERA)
    for role, data in happy_photos.items():
        import io

        stream = io.BytesIO()
        Image.open(io.BytesIO(data)).save(stream, "JPEG", quality=95)
        shots[role] = stream.getvalue()
        (camera,) = app.camera_input
        assert words.VIEW_TITLES[role] in camera.label
        camera.set_value(("shot.jpg", shots[role], "image/jpeg"))
        app.run()
    assert_shows(app, predictor.predict_photos(**shots))


# what goes wrong


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("empty.ply", b""),
        ("noise.stl", bytes(range(256)) * 4),
        ("cut.ply", b"ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\nend_header\n1\n"),
    ],
)
def test_a_bad_file_is_told_by_name_and_the_app_goes_on(app, predictor, name, data):
    upload_scan(app, name, data)
    assert not app.exception
    assert name in app.error[0].value
    click(app, "happy")
    assert_shows(app, predictor.predict(engine.sample_scan("happy")))


def test_a_photo_that_is_none_is_told(app, happy_photos):
    choose(app, PHOTOS)
    photos = happy_photos | {"left": b"not a picture"}
    for uploader, (role, data) in zip(app.file_uploader, photos.items(), strict=True):
        uploader.upload(f"{role}.png", data)
    app.run()
    assert not app.exception
    assert "left photo" in app.error[0].value


def test_too_large_an_upload_is_refused_here_too(app, monkeypatch):
    monkeypatch.setattr("affectvlm.ui.inputs.MAX_MB", 1)
    upload_scan(app, "huge.stl", bytes(2 << 20))
    assert "huge.stl" in app.error[0].value and "1 MB" in app.error[0].value


def test_without_a_model_the_page_says_what_to_do_and_the_mesh_still_turns(start, tmp_path):
    app = start(tmp_path)
    assert app.info[0].value == words.NO_MODEL
    click(app, "fear")
    assert not app.exception and len(app.header) == 0
    app.switch_page("pages/mesh.py").run()
    assert not app.exception and len(app.get("iframe")) == 1


@pytest.mark.parametrize("card", ["{}", "not JSON"])
def test_a_broken_model_is_told(start, tmp_path, card):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "card.json").write_text(card)
    app = start(tmp_path)
    click(app, "happy")
    assert not app.exception and "broken" in app.error[0].value


# turning, keeping, forgetting


def test_turning_the_face_asks_the_model_again(app, predictor):
    click(app, "surprise")
    app.slider[0].set_value(30).run()
    assert_shows(app, predictor.predict(engine.sample_scan("surprise"), correction=(30, 0, 0)))
    click(app, "Reset")
    assert_shows(app, predictor.predict(engine.sample_scan("surprise")))
    app.slider[1].set_value(10).run()
    click(app, "New face")
    click(app, "happy")  # a correction is of one face, not of the next
    assert_shows(app, predictor.predict(engine.sample_scan("happy")))
    assert [slider.value for slider in app.slider] == [0, 0, 0]


def test_the_face_is_there_on_every_page_and_forgotten_on_demand(app):
    click(app, "happy")
    app.switch_page("pages/mesh.py").run()
    assert not app.exception and len(app.get("iframe")) == 1
    app.switch_page("pages/classify.py").run()
    assert len(app.header) == 1
    click(app, "Forget everything")
    assert len(app.header) == 0 and "face" not in app.session_state
    app.switch_page("pages/mesh.py").run()
    assert len(app.get("iframe")) == 0 and "no face yet" in texts(app)


def test_what_one_visitor_brings_no_other_sees(app, start, checkpoint_folder, happy_ply):
    upload_scan(app, "private.ply", happy_ply)
    other = start(checkpoint_folder.parent)
    assert "private.ply" not in texts(other) and len(other.header) == 0


@pytest.fixture
def held(monkeypatch):
    """What streamlit itself holds of uploaded files, as a function."""
    managers = []

    class Watched(MemoryUploadedFileManager):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            managers.append(self)

    monkeypatch.setattr("streamlit.testing.v1.local_script_runner.MemoryUploadedFileManager", Watched)

    def held() -> list[bytes]:
        return [record.data for files in managers[-1].file_storage.values() for record in files.values()]

    return held


@pytest.mark.parametrize("button", ["Forget everything", "New face"])
def test_uploaded_bytes_go_with_the_face(app, held, happy_ply, button):
    upload_scan(app, "private.ply", happy_ply)
    assert held() == [happy_ply]
    click(app, button)
    assert held() == []
    upload_scan(app, "private.ply", happy_ply)  # the next one is taken as the first was
    assert held() == [happy_ply] and len(app.header) == 1 and not app.exception


def test_a_face_is_known_by_its_content():
    same = Face.from_scan("a.ply", b"1"), Face.from_scan("a.ply", b"1")
    others = Face.from_scan("b.ply", b"1"), Face.from_scan("a.ply", b"2"), Face.from_photos({"front": b"1"})
    swapped = Face.from_photos({"front": b"1", "left": b"2"}), Face.from_photos({"front": b"2", "left": b"1"})
    assert same[0].digest == same[1].digest
    assert len({face.digest for face in (same[0], *others, *swapped)}) == 6


# the mesh page


def test_photos_have_no_mesh_and_a_sample_is_offered(app, happy_photos):
    choose(app, PHOTOS)
    for uploader, data in zip(app.file_uploader, happy_photos.values(), strict=True):
        uploader.upload("photo.png", data)
    app.run().switch_page("pages/mesh.py").run()
    assert "photos" in texts(app) and len(app.get("iframe")) == 0
    click(app, "angry")
    assert len(app.get("iframe")) == 1


def test_a_mesh_is_kept_by_its_session_alone(app):
    """Python's own cache of split addresses held the last 128 meshes, whoever had brought them."""
    click(app, "happy")
    app.switch_page("pages/mesh.py").run()
    assert len(app.get("iframe")) == 1
    gc.collect()
    held = [
        one for one in gc.get_objects() if isinstance(one, urllib.parse.SplitResult) and sum(map(len, one)) > 10_000
    ]
    assert held == []


def test_a_failing_export_falls_back_to_plotly_and_says_so(app, monkeypatch):
    broken = ExportWorker((sys.executable, "-c", "raise SystemExit(1)"))
    monkeypatch.setattr(engine, "export_worker", lambda: broken)
    click(app, "happy")
    app.switch_page("pages/mesh.py").run()
    assert not app.exception
    assert "could not show" in app.warning[0].value
    assert len(app.get("iframe")) == 0 and len(app.get("plotly_chart")) == 1


@pytest.mark.parametrize("viewer", [viewers.PLOTLY, viewers.STILL])
def test_every_viewer_can_be_chosen(app, viewer):
    click(app, "happy")
    app.switch_page("pages/mesh.py").run()
    (choice,) = [box for box in app.selectbox if box.label == "Viewer"]
    choice.set_value(viewer).run()
    assert not app.exception and not app.warning and len(app.get("iframe")) == 0


@pytest.mark.slow
def test_stpyvista_draws_where_it_is_installed(app):
    if guarded_stpyvista.missing():
        pytest.skip(f"not installed: {guarded_stpyvista.missing()}")
    click(app, "happy")
    app.switch_page("pages/mesh.py").run()
    (choice,) = [box for box in app.selectbox if box.label == "Viewer"]
    choice.set_value(viewers.STPYVISTA).run()
    assert not app.exception and not app.warning
    assert app.get("bidi_component")[0].proto.component_name == "stpyvista.simple"


def test_a_hanging_stpyvista_is_given_up_and_not_asked_again(monkeypatch):
    monkeypatch.setattr(guarded_stpyvista, "_draw", lambda *_: time.sleep(20))
    monkeypatch.setattr(guarded_stpyvista, "missing", lambda: ())
    monkeypatch.setattr(guarded_stpyvista, "_gave_up", type(guarded_stpyvista._gave_up)())
    for limit, why in ((1.0, "within 1 s"), (0.1, "earlier")):
        started = time.perf_counter()
        with pytest.raises(ExportError, match=why):
            guarded_stpyvista.show(None, False, "black", "white", 600, timeout=1.0)
        assert time.perf_counter() - started < limit + 9.0  # far from the 20 s of what hangs


def test_stpyvista_without_what_it_needs_is_not_called(monkeypatch):
    monkeypatch.setattr(guarded_stpyvista, "NEEDED", ("stpyvista", "no_such_package"))
    with pytest.raises(ExportError, match="no_such_package"):
        guarded_stpyvista.show(None, False, "black", "white", 600)


# words and figures


def test_doubts_are_told_apart_from_what_was_put_right():
    doubts, repairs = words.parted(["the pose is doubtful", "2 pin holes were closed", "1 crumb was dropped"])
    assert doubts == ["The pose is doubtful"]
    assert repairs == ["2 pin holes were closed", "1 crumb was dropped"]


def test_repairs_of_a_scan_are_small_print(app, monkeypatch):
    whole = Predictor.predict
    warnings = ("3 spikes were flattened", "no clear face was found: check the pose")
    monkeypatch.setattr(
        Predictor, "predict", lambda *given, **named: replace(whole(*given, **named), warnings=warnings)
    )
    click(app, "happy")
    assert [warning.value for warning in app.warning] == ["No clear face was found: check the pose"]
    assert "Put right in the file: 3 spikes were flattened." in [caption.value for caption in app.caption]


def test_times_are_told_in_a_unit_that_can_be_read():
    assert words.cost({"read": 12.3, "model": 4268.0, "total": 4280.3}) == "Answered in 4.3 s (read 12 ms, model 4.3 s)"
    assert words.cost({"model": 999.0}) == "Answered in 999 ms (model 999 ms)"


def test_a_percent_sign_stays_with_its_number():
    assert words.unbroken("from 99 % to < 1 %.") == "from 99\N{NO-BREAK SPACE}% to < 1\N{NO-BREAK SPACE}%."


def test_the_card_says_what_it_knows_and_nothing_else(checkpoint_folder):
    said = words.model_card(engine.read_card(checkpoint_folder))
    assert all(line and "{" not in line for lines in said.values() for line in lines)
    assert "Made on" in said and words.model_card({}) == {}
    tested = {"metrics": {"three views": {"emotions": {"accuracy": 0.861}}}}
    assert words.model_card(tested) == {"Right on people it has never seen": ["three views: 86 %"]}


def test_bars_keep_order_and_colours():
    figure = figures.probability_bars({name: (1 + i) / 21 for i, name in enumerate(EKMAN)})
    assert [name.lower() for name in figure.data[0].y] == list(EKMAN)
    assert list(figure.data[0].marker.color) == [COLORS[name] for name in EKMAN]
    html = figures.small_bars(dict.fromkeys(EKMAN, 1 / 6))
    assert [html.index(COLORS[name]) for name in EKMAN] == sorted(html.index(COLORS[name]) for name in EKMAN)


@pytest.mark.parametrize(
    ("share", "said"), [(0.0, "0 %"), (0.001, "< 1 %"), (0.126, "13 %"), (0.999, "> 99 %"), (1.0, "100 %")]
)
def test_percentages_never_overstate(share, said):
    assert words.percent(share) == said
