"""What a visitor takes along: files, zip, report; and the table of many files."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from affectvlm import cli
from affectvlm.emotions import EKMAN
from affectvlm.mesh_files import scan_glb, scan_ply
from affectvlm.scan import Scan
from affectvlm.scan_io import read_scan
from affectvlm.tables import csv_text
from affectvlm.ui import batch, bundle, engine, inputs, results, words
from affectvlm.ui.report import curve_svg, report
from affectvlm.ui.work import Stopped
from tests import test_app as base

app, start, held = base.app, base.start, base.held  # fixtures
DAY = date(2026, 3, 1)


@pytest.fixture(scope="module")
def card(checkpoint_folder) -> dict:
    return engine.read_card(checkpoint_folder)


@pytest.fixture(scope="module")
def case(predictor, happy_ply, card) -> bundle.Case:
    prediction = predictor.predict((happy_ply, "anna.ply"), correction=(3, 0, 0))
    return bundle.Case(prediction, "anna.ply", "ab" * 32, (3, 0, 0), card, DAY)


@pytest.fixture(scope="module")
def explained(case, predictor) -> bundle.Case:
    """The same with maps."""
    import torch

    from affectvlm.gradcam import emotion_target, explain

    with torch.no_grad():
        bank = predictor.model.text_bank(predictor.card.prompts)
    target = emotion_target(bank, predictor.card.prompts.rows, "happy", predictor.card.temperature)
    return replace(case, evidence=explain(predictor.model, case.prediction.inputs, target))


def unzipped(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


# meshes as files


def test_a_mesh_comes_back_from_its_files(case):
    scan = case.prediction.scan
    ply = read_scan(scan_ply(scan), "a.ply")
    assert np.array_equal(ply.vertices, scan.vertices) and np.array_equal(ply.colors, scan.colors)
    assert np.array_equal(ply.faces, scan.faces)
    glb = read_scan(scan_glb(scan), "a.glb")
    assert np.allclose(glb.vertices, scan.vertices, atol=1e-3) and np.array_equal(glb.colors, scan.colors)


def test_a_texture_goes_into_the_glb():
    vertices = np.array([[0, 0, 0], [90, 0, 0], [0, 90, 0], [90, 90, 20]], np.float32)
    uv = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    texture = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    scan = Scan(vertices, np.array([[0, 1, 2], [1, 3, 2]]), uv=uv, texture=texture)
    found = read_scan(scan_glb(scan), "a.glb")
    assert np.array_equal(found.texture, texture) and np.allclose(found.uv, uv, atol=1e-6)
    with pytest.raises(ValueError, match="point cloud"):
        scan_glb(Scan(vertices, np.zeros((0, 3))))


# the zip


def test_the_zip_holds_everything_about_the_answer(case, card):
    files, prediction = unzipped(bundle.bundle(case)), case.prediction
    assert json.loads(files["answer.json"]) == json.loads(json.dumps(prediction.to_dict()))
    assert json.loads(files["model_card.json"]) == card
    rows = list(csv.DictReader(io.StringIO(files["probabilities.csv"].decode())))
    assert [row["view"] for row in rows] == ["all", "front", "left", "right"]
    assert {name: float(rows[0][name]) for name in EKMAN} == prediction.probabilities
    assert {name: float(rows[2][name]) for name in EKMAN} == prediction.view_probabilities["left"]
    for i, name in enumerate(prediction.view_names):
        assert np.array_equal(pixels(files[f"views/{name}.png"]), prediction.views[i])
        assert np.array_equal(pixels(files[f"inputs/{name}.png"]), prediction.inputs[i])
    assert np.array_equal(read_scan(files["mesh/face.ply"], "a.ply").vertices, prediction.scan.vertices)
    assert files["mesh/face.glb"][:4] == b"glTF"
    settings = json.loads(files["settings.json"])
    assert settings["correction_degrees"] == {"yaw": 3, "pitch": 0, "roll": 0} and settings["date"] == "2026-03-01"
    assert settings["brought"]["sha256"] == case.digest
    assert settings["model"]["weights_sha256"] == card["weights_sha256"]
    assert "<h1>" in files["report.html"].decode() and not any(name.startswith("evidence") for name in files)
    readme = files["README.txt"].decode()
    for name in files:
        assert name == "README.txt" or name in readme or f"{name.partition('/')[0]}/" in readme
    assert "evidence/" not in readme and "curve.csv" not in readme


def test_the_zip_is_the_same_for_the_same_answer(case, explained):
    for one in (case, explained):
        assert bundle.bundle(one) == bundle.bundle(one)
    names = list(unzipped(bundle.bundle(case)))
    assert names == sorted(names)
    with zipfile.ZipFile(io.BytesIO(bundle.bundle(case))) as archive:
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_maps_come_along_where_they_were_made(explained):
    files = unzipped(bundle.bundle(explained))
    maps = np.load(io.BytesIO(files["evidence/maps.npz"]), allow_pickle=False)
    assert np.array_equal(maps["maps"], explained.evidence.maps)
    assert pixels(files["evidence/front.png"]).shape == (224, 224, 3)
    painted = read_scan(files["evidence/face.ply"], "a.ply")
    assert len(painted.vertices) == len(explained.prediction.scan.vertices)
    assert files["evidence/face.glb"][:4] == b"glTF"
    assert json.loads(files["settings.json"])["evidence"]["target"] == explained.evidence.target


def test_a_photo_that_was_not_brought_is_not_in_the_zip(predictor, happy_photos, card):
    prediction = predictor.predict_photos(front=happy_photos["front"])
    files = unzipped(bundle.bundle(bundle.Case(prediction, "one photo", "cd" * 32, (0, 0, 0), card, DAY)))
    assert "views/front.png" in files and not {"views/left.png", "inputs/right.png", "mesh/face.ply"} & set(files)
    assert len(list(csv.reader(io.StringIO(files["probabilities.csv"].decode())))) == 3


@pytest.mark.slow
def test_a_sequence_brings_its_curve_and_dynamic_images(predictor, card):
    from affectvlm.ui.clips import Clip

    with Clip.sample("happy").open() as sequence:
        prediction = predictor.predict_sequence(sequence, frames=5)
    case = bundle.Case(prediction, "sample", "ef" * 32, (0, 0, 0), card, DAY)
    files = unzipped(bundle.bundle(case))
    assert np.array_equal(pixels(files["dynamic/left.png"]), prediction.dynamic_images[1])
    rows, curve = list(csv.DictReader(io.StringIO(files["curve.csv"].decode()))), prediction.curve
    assert [int(row["frame"]) for row in rows] == curve.frames.tolist()
    assert np.array_equal([[float(row[name]) for name in EKMAN] for row in rows], curve.raw)
    assert np.array_equal([[float(row[f"{name} smoothed"]) for name in EKMAN] for row in rows], curve.smoothed)
    assert rows[curve.apex]["phase"] == "apex"
    page = files["report.html"].decode()
    assert "over time" in page and curve_svg(curve) in page and page.count("<polyline") == 6
    with pytest.raises(ValueError, match="curve"):
        bundle.curve_csv(replace(prediction, curve=None))


# the report


class Page(HTMLParser):
    """Tags that were opened and not closed, what is fetched, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.said: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.links += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "path", "polyline", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


def test_the_report_stands_alone_and_says_what_matters(explained, card):
    page = Page(report(explained))
    said = " ".join(" ".join(page.said).split())
    assert page.open == []
    assert len(page.links) == 6 and all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    prediction = explained.prediction
    wanted = [words.headline(prediction), words.confidence(prediction), words.INTENDED_USE, "anna.ply", "2026-03-01"]
    wanted += [words.percent(share) for share in prediction.probabilities.values()]
    wanted += [
        f"yaw {round(prediction.pose.yaw)}°",
        "corrected by hand: yaw +3°",
        card["name"],
        "says little to says much",
    ]
    for text in wanted:
        assert text in said
    assert "size: A4" in report(explained) and "<script" not in report(explained)


def test_the_report_of_a_hostile_name_stays_text(case):
    hostile = '<script>alert(1)</script>"><img src=http://x.example/a>.ply'
    page = Page(report(replace(case, title=hostile, card={**case.card, "name": hostile, "limits": hostile})))
    assert page.open == [] and all(link.startswith("data:") for link in page.links)
    assert "<script" not in report(replace(case, title=hostile))


def test_warnings_are_in_the_report(case):
    warned = replace(case, prediction=replace(case.prediction, warnings=("the light is odd",)))
    assert "The light is odd" in report(warned)


# on the page


def test_everything_is_offered_under_the_answer(app):
    base.click(app, "happy")
    labels = [button.label for button in app.get("download_button")]
    assert labels[0] == "Everything (ZIP)" and len(labels) == 7
    (box,) = [box for box in app.checkbox if "evidence" in box.label]
    assert not box.value
    box.check().run()
    assert not app.exception


def test_maps_looked_at_are_offered_with_the_answer(app):
    base.click(app, "sad")
    app.switch_page("pages/gradcam.py").run()
    assert not app.exception
    app.switch_page("pages/classify.py").run()
    assert not app.exception
    (box,) = [box for box in app.checkbox if "evidence" in box.label]
    assert box.value
    base.click(app, "New face")
    base.click(app, "fear")
    (box,) = [box for box in app.checkbox if "evidence" in box.label]
    assert not box.value  # they were of another face


def test_photos_have_no_mesh_to_take(app, happy_photos):
    base.choose(app, inputs.PHOTOS)
    for uploader, data in zip(app.file_uploader, happy_photos.values(), strict=True):
        uploader.upload("photo.png", data)
    app.run()
    assert not any("Mesh" in button.label for button in app.get("download_button"))


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Anna (1).obj", "affectvlm-anna-1"),
        ("../../etc/passwd", "affectvlm-passwd"),
        ("three photos", "affectvlm-three-photos"),
        ("…", "affectvlm"),
    ],
)
def test_files_have_harmless_names(title, name):
    assert results.file_name(title) == name


# many files


def test_files_are_sorted_into_faces_by_their_names():
    names = [
        "b.ply",
        "anna_front.jpg",
        "anna_left.jpg",
        "Anna-right.PNG",
        "anna_right.png",
        "me.png",
        "front.jpg",
        "a.obj",
    ]
    found = batch.tasks([(name, name.encode()) for name in names])
    assert [(task.name, sorted(task.photos) or "scan") for task in found] == [
        ("a.obj", "scan"),
        ("anna", ["front", "left", "right"]),
        ("Anna", ["right"]),
        ("b.ply", "scan"),
        ("me", ["front"]),
        ("photos", ["front"]),
    ]
    (anna,) = [task for task in found if task.name == "anna"]
    assert anna.photos["left"] == b"anna_left.jpg" and anna.photos["right"] == b"anna_right.png"
    twice = batch.tasks([("x_front.jpg", b"1"), ("x_front.jpg", b"2")])
    assert sorted(task.photos["front"] for task in twice) == [b"1", b"2"]  # nobody is dropped


def files_for_a_table(happy_ply, happy_photos) -> list[tuple[str, bytes]]:
    photos = [(f"eve_{role}.png", data) for role, data in happy_photos.items()]
    return [("scan.ply", happy_ply), ("letter.obj", b"Dear Sir or Madam"), *photos]


def test_the_table_is_that_of_the_shell(app, held, happy_ply, happy_photos, checkpoint_folder, tmp_path, capsys):
    base.choose(app, inputs.MANY)
    for name, data in files_for_a_table(happy_ply, happy_photos):
        app.file_uploader[0].upload(name, data)
    app.run()
    assert held() == []  # the bytes of a finished row are not kept in the input either
    assert app.session_state["batch_work"].wait(120)
    app.run()
    assert not app.exception
    assert "Why 1 was not answered" in [one.label for one in app.expander]
    assert "- letter.obj: " in base.texts(app)  # the whole reason, which a row cuts off
    assert "**2 of 3** answered by" in base.texts(app) and "1 could not be used" in base.texts(app)
    shown = app.dataframe[0].value
    assert list(shown["file"]) == ["eve", "letter.obj", "scan.ply"]
    assert shown["answer"][1] == "not answered" and "letter.obj" in shown["remarks"][1]
    table = app.session_state["batch_table"]
    assert [row["ok"] for row in table.rows] == [True, False, True]
    assert table.pictures[0].startswith("data:image/jpeg") and table.pictures[1] == ""

    for name, data in (("scan.ply", happy_ply), ("letter.obj", b"Dear Sir or Madam")):
        (tmp_path / name).write_bytes(data)
    out = tmp_path / "out.csv"
    places = [str(tmp_path / name) for name in ("scan.ply", "letter.obj")]
    assert cli.main(["predict", *places, "--csv", str(out), "--checkpoint", str(checkpoint_folder)]) == 1
    capsys.readouterr()
    theirs = list(csv.DictReader(io.StringIO(out.read_text())))
    ours = list(csv.DictReader(io.StringIO(batch.csv_of(table))))
    assert list(ours[0]) == list(theirs[0])
    for key in {*ours[0]} - {"file", "ms"}:
        assert ours[2][key] == theirs[0][key]
    assert ours[1]["ok"] == "False" and ours[1]["error"] == theirs[1]["error"]
    assert json.loads(batch.json_of(table))[2]["probabilities"] == table.rows[2]["probabilities"]


def test_the_table_stays_from_page_to_page_and_is_cleared_on_demand(app, happy_ply):
    base.choose(app, inputs.MANY)
    app.file_uploader[0].upload("scan.ply", happy_ply)
    app.run()
    assert app.session_state["batch_work"].wait(60)
    app.switch_page("pages/about.py").run()
    app.switch_page("pages/classify.py").run()
    assert len(app.dataframe) == 1 and not app.exception
    base.click(app, "Clear the table")
    assert len(app.dataframe) == 0 and "batch_table" not in app.session_state


def test_a_table_is_stopped_between_two_files_and_keeps_its_rows(predictor):
    todo = batch.tasks([(f"{i}.obj", b"no scan") for i in range(5)])
    table = batch.Table("model", EKMAN, len(todo))

    class Desk:
        def tell(self, share, said):
            if "4 of 5" in said:
                raise Stopped

    with pytest.raises(Stopped):
        batch.answer_all(todo, predictor, table, Desk())
    assert [row["file"] for row in table.rows] == ["0.obj", "1.obj", "2.obj"] and len(table.pictures) == 3
    assert len(todo) == 2  # the bytes of the others are gone
    assert "stopped before the other 2" in batch.summary(table)


def test_too_many_files_are_refused(app, monkeypatch):
    monkeypatch.setattr(batch, "MAX_FILES", 2)
    base.choose(app, inputs.MANY)
    for i in range(3):
        app.file_uploader[0].upload(f"{i}.ply", b"ply")
    app.run()
    assert "3 files; at most 2" in app.error[0].value and "batch_work" not in app.session_state


def test_a_row_that_failed_has_every_column():
    rows = [dict.fromkeys(cli.JSON_KEYS) | {"file": "a", "ok": False, "error": 'bad, "very"', "warnings": []}]
    (row,) = csv.DictReader(io.StringIO(csv_text(rows, EKMAN)))
    assert row["error"] == 'bad, "very"' and set(EKMAN) < set(row) and row["happy"] == ""
    assert not re.search(r"None", csv_text(rows, EKMAN))
