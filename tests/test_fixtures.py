"""Files of fixtures byte by byte, with parsers written here; then each tree through its indexer and our readers."""

from __future__ import annotations

import hashlib
import itertools
import re
import struct

import numpy as np
import pytest

from affectvlm.cli import main
from affectvlm.datasets import INDEXERS, index_dataset
from affectvlm.datasets.bosphorus import complete_subjects
from affectvlm.datasets.bp4d import coding_files, read_occurrence
from affectvlm.datasets.fixtures import FIXTURES, make_fixture, writers
from affectvlm.datasets.fixtures.bu import subject_name
from affectvlm.datasets.fixtures.faces import PLACES22, Cast, places83
from affectvlm.datasets.fixtures.writers import WRL_STYLES, fans, wrl_style
from affectvlm.datasets.measures import parse_lm2, read_bnd
from affectvlm.emotions import BP4D, EKMAN
from affectvlm.scan import ScanError
from affectvlm.scan_io import READERS, read_scan
from affectvlm.scan_io.landmarks import BND_GROUPS, parse_lm3
from affectvlm.scan_io.source import open_source
from tests import scan_files

NUMBER = re.compile(r"[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?")
DETAIL = 12.0
"""Coarse meshes, so that trees are written in a second or two."""


def small_mesh():
    vertices, quads, uv = scan_files.mask()
    even = (quads[:, 0] % scan_files.COLS + quads[:, 0] // scan_files.COLS) % 2 == 0
    quads = np.where(even[:, None], quads, np.roll(quads, 1, axis=1))  # diagonals meet: eight triangles about a vertex
    faces = scan_files.triangles(quads)
    mixed = np.random.default_rng(3).permutation(len(uv))  # texture indices of their own
    place = np.argsort(mixed)
    extra = np.vstack([uv[mixed], [[1.2e-5, 0.5]]])  # and one point more than there are vertices
    return vertices + [0.0, 0.0, 1.3e-5], faces, extra, place[faces]


def lists_of(text: str) -> list[list[float]]:
    """The numbers of the four lists of a `.wrl`, each from its "[" to the next "]"."""
    body = text[text.index("coord Coordinate") :]
    return [[float(n) for n in NUMBER.findall(part.split("]")[0])] for part in body.split("[")[1:]]


def triangles_of(indices: list[float]) -> list[tuple[int, int, int]]:
    found, polygon = [], []
    for index in map(int, indices):
        if index >= 0:
            polygon.append(index)
            continue
        assert 3 <= len(polygon) <= 6
        found += [(polygon[0], a, b) for a, b in itertools.pairwise(polygon[1:])]
        polygon = []
    assert not polygon
    return found


@pytest.mark.parametrize("style", WRL_STYLES[::5] + WRL_STYLES[-1:], ids=str)
def test_every_way_to_write_a_wrl_holds_the_same_mesh(style, tmp_path):
    vertices, faces, uv, uv_faces = small_mesh()
    data = writers.wrl(vertices, faces, uv, uv_faces, "x.bmp", style)
    text = data.decode("latin-1")
    points, index, coordinates, uv_index = lists_of(text)
    assert np.allclose(np.reshape(points, (-1, 3)), vertices, atol=1e-4)
    assert np.allclose(np.reshape(coordinates, (-1, 2)), uv, atol=1e-6)
    corners = {(a, b) for a, b in zip(faces.ravel(), uv_faces.ravel(), strict=True)}
    both = list(zip(np.ravel(triangles_of(index)), np.ravel(triangles_of(uv_index)), strict=True))
    assert set(both) == corners
    assert sorted(map(sorted, triangles_of(index))) == sorted(map(sorted, faces.tolist()))
    (tmp_path / "x.wrl").write_bytes(data)
    raw = READERS[".wrl"](open_source(tmp_path / "x.wrl", None, tuple(READERS)))
    assert np.allclose(raw.vertices, vertices, atol=1e-4) and raw.faces.tolist() == [
        list(t) for t in triangles_of(index)
    ]
    assert raw.uv_faces.tolist() == [list(t) for t in triangles_of(uv_index)]


def test_every_variation_is_written_as_it_is_called():
    vertices, faces, uv, uv_faces = small_mesh()
    assert len(set(WRL_STYLES)) == len(WRL_STYLES) == 192
    assert len({wrl_style(number) for number in range(192)}) == 192
    for style in WRL_STYLES:
        text = writers.wrl(vertices, faces, uv, uv_faces, "x.bmp", style).decode()
        lines = re.split("\r\n" if style.crlf else "\n", text)
        assert ("\r" in text) == style.crlf and text.startswith("#VRML V2.0 utf8")
        first = NUMBER.findall(lines[writers.FIRST_VERTEX_LINE - 1])[-3:]
        assert np.allclose([float(n) for n in first], vertices[0], atol=1e-4)  # on line 20, the last three
        assert ("point [ " in text) == style.vertex_beside
        assert (
            bool(re.search(r"\d, -1", text)) == style.commas and bool(re.search(r"\d,\s*\]", text)) == style.last_comma
        )
        assert bool(re.search(r"\n\]", text.replace("\r", ""))) != style.bracket_beside
        assert bool(re.search(r"\de-05", text)) == style.scientific
        rows = [line.strip(" ],").replace(",", " ").split() for line in lines]
        longest = max(len(row) for row in rows if row[-1:] == ["-1"] and all(n.lstrip("-").isdigit() for n in row))
        assert longest == style.corners + 1


def test_bu4dfe_lists_begin_and_end_where_its_reader_looks_for_them():
    for number in range(20):
        style = wrl_style(number, mobile=False)
        assert not style.vertex_beside and style.commas and style.last_comma


def test_fans_of_polygons_are_the_triangles_again():
    _, faces, _, uv_faces = small_mesh()
    for corners in (3, 4, 5, 6):
        polygons, uv_polygons = fans(faces, uv_faces, corners)
        assert max(map(len, polygons)) == corners and list(map(len, polygons)) == list(map(len, uv_polygons))
        again = [(p[0], a, b) for p in polygons for a, b in itertools.pairwise(p[1:])]
        assert len(again) == len(faces)

        def turned(triangle):  # the same corner first, the same way round
            least = list(triangle).index(min(triangle))
            return (*triangle[least:], *triangle[:least])

        assert {turned(t) for t in again} == {turned(t) for t in faces.tolist()}


@pytest.mark.parametrize(("base", "blank", "crlf"), list(itertools.product((0, 1), (False, True), (False, True))))
def test_bnd_rows(base, blank, crlf):
    index, points = np.arange(83) * 3, np.random.default_rng(0).normal(size=(83, 3)) * 50
    data = writers.bnd(index, points, base, blank, crlf)
    rows = data.decode().split("\r\n" if crlf else "\n")
    assert len(rows) == 84 + blank and rows[83:] == [""] * (1 + blank)
    assert re.fullmatch(r"\d+\t\t\S+ \S+ \S+", rows[0]) and rows[0].split()[0] == str(base)
    found, where = read_bnd(data)
    assert (found == index + base).all() and np.allclose(where, points, atol=1e-6)
    with pytest.raises(ScanError, match="82 rows; 83 are needed"):
        read_bnd(data.replace(rows[0].encode(), b"", 1))


def test_bnt_bytes():
    planes = np.arange(5 * 3 * 4, dtype=float).reshape(5, 3, 4)
    planes[:3, 0, 0] = writers.NO_DATA
    data = writers.bnt(planes, "x.png")
    assert len(data) == 18 + 5 + 8 * 60 == 503
    rows, cols, no_data, length = struct.unpack_from("<HHdH", data)
    assert (rows, cols, no_data, length, data[14:19]) == (3, 4, -1.0e9, 5, b"x.png")
    assert struct.unpack_from("<I", data, 19) == (60,)
    values = struct.unpack_from("<60d", data, 23)
    assert values[:12] == tuple(planes[0].ravel()) and values[-12:] == tuple(planes[4].ravel())


@pytest.mark.parametrize("trailing", ["", " "])
def test_lm2_and_lm3_lines(trailing):
    flat = {"Nose tip": (10.5, 20.25), "Chin middle": (1.0, 2.0)}
    solid = {"Nose tip": (1.0, 2.0, 3.0), "Chin middle": (-4.0, 5.0, -6.5)}
    for data in (writers.lm2(flat, trailing), writers.lm3(solid, trailing)):
        assert data.count(b"\r\n") == data.count(b"\n") and data.startswith(b"#")
    lines = writers.lm2(flat, trailing).decode().split("\r\n")
    assert lines[lines.index("Labels:") + 1 : -1] == [
        f"Nose tip{trailing}", f"Chin middle{trailing}", "", "2D Image coordinates:", "10.5000 20.2500", "1.0000 2.0000"
    ]  # fmt: skip
    assert b"\r\n****" in writers.lm3(solid, trailing)
    assert parse_lm2(writers.lm2(flat, trailing)) == flat
    found = parse_lm3(writers.lm3(solid, trailing))
    assert {name: tuple(point) for name, point in found.items()} == solid
    for broken in (b"", b"2 Landmarks:\r\n", writers.lm2(flat)[:-20]):
        with pytest.raises(ScanError, match="no list of landmarks"):
            parse_lm2(broken)


def test_landmarks_lie_where_they_are_called():
    cast = Cast(0, 7.0)
    face = cast.face(0, {})
    points, start = {}, 0
    for group, count in BND_GROUPS:
        points[group] = face.vertices[cast.landmarks83[start : start + count]].mean(axis=0)
        start += count
    assert start == 83 == len(places83()) and len(PLACES22) == 22
    assert points["left eye"][0] > 20 and points["right eye"][0] < -20  # the subject's left is +x
    heights = [points[name][1] for name in ("left eyebrow", "left eye", "nose", "mouth")]
    assert heights == sorted(heights, reverse=True)
    assert face.vertices[cast.landmarks83[68 + 7], 1] < heights[-1] - 15  # the middle of the chin
    assert np.linalg.norm(face.vertices[cast.landmarks22["Nose tip"]]) < 8
    opened = cast.face(0, {"AU25": 1.0, "AU27": 1.0}).vertices
    lips = [cast.landmarks83[48 + 3], cast.landmarks83[48 + 9]]
    assert np.ptp(opened[lips], axis=0)[1] > 10 + np.ptp(face.vertices[lips], axis=0)[1]  # the mouth opens


def test_people_are_named_as_in_the_real_sets():
    names = [subject_name(number, 56, 44, 4) for number in range(100)]
    assert names[:4] == ["F0001", "M0001", "F0002", "M0002"] and len(set(names)) == 100
    assert {n for n in names if n[0] == "F"} == {f"F{i:04d}" for i in range(1, 57)}
    assert {n for n in names if n[0] == "M"} == {f"M{i:04d}" for i in range(1, 45)}
    with pytest.raises(ValueError, match="101 subjects; this data set has at most 100"):
        subject_name(100, 56, 44, 4)


def digest(folder) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_equal_arguments_give_equal_bytes_and_other_seeds_other_people(tmp_path):
    def made(name, seed):
        return digest(make_fixture("4dme", tmp_path / name, subjects=1, frames=1, seed=seed, detail_mm=DETAIL))

    first, again, other = made("a", 0), made("b", 0), made("c", 1)
    assert first == again and first.keys() == other.keys()
    meshes = [name for name in first if name.endswith(".obj")]
    assert meshes and all(first[name] != other[name] for name in meshes)


def test_what_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no fixture 'folder'; one of bu3dfe"):
        make_fixture("folder", tmp_path / "x")
    (tmp_path / "there.txt").write_text("x")
    with pytest.raises(ValueError, match="an empty folder is needed"):
        make_fixture("coma", tmp_path)
    for wrong in ({"subjects": 0}, {"frames": 0}, {"seed": -1}, {"detail_mm": 0.5}, {"subjects": 13}):
        with pytest.raises(ValueError, match="needed|possible|CoMA has 12"):
            make_fixture("coma", tmp_path / "x", **wrong)
    assert set(FIXTURES) == set(INDEXERS) - {"folder"}
    assert main(["make-fixture", "coma", str(tmp_path)]) == 1


def test_a_fixture_of_the_command(tmp_path, capsys):
    assert main(["make-fixture", "bosphorus", str(tmp_path / "b"), "--subjects", "1", "--whole"]) == 0
    assert re.search(r"b: 40 files, \d+\.\d MB", capsys.readouterr().out)
    index = index_dataset("bosphorus", tmp_path / "b")
    assert index.counts == dict.fromkeys((*EKMAN, "neutral"), 1) and not index.excluded
    assert complete_subjects(index) == ("bs000",)
    scan = read_scan(tmp_path / "b" / "bs000" / "bs000_E_HAPPY_0.bnt")
    assert scan.has_texture and len(scan.landmarks) == 22 and len(scan.faces) > 5000


# ---- whole trees


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Name of a data set → a fixture of two subjects with all quirks, made once."""
    made = {}

    def get(name):
        if name not in made:
            folder = tmp_path_factory.mktemp("fixtures") / name
            made[name] = make_fixture(name, folder, subjects=2, frames=5, detail_mm=DETAIL)
        return made[name]

    return get


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "records", "scans", "subjects"),
    [
        ("bu3dfe", 49, 49, ("F0001", "M0001")),
        ("bu4dfe", 11, 54, ("F001", "M001")),
        ("bosphorus", 15, 15, ("bs000", "bs001")),
        ("bp4d", 16, 79, ("F001", "M001")),
        ("bp4dplus", 16, 80, ("F001", "M001")),
        ("4dme", 12, 46, ("sub01", "sub02")),
        ("facescape", 8, 8, ("1", "2")),
        ("coma", 2, 9, ("FaceTalk_170725_00137_TA", "FaceTalk_170728_03272_TA")),
    ],
)
def test_trees_go_through_their_indexers_and_our_readers(name, records, scans, subjects, tree):
    index = index_dataset(name, tree(name))
    assert (len(index), sum(len(record.files) for record in index.records), index.subjects) == (
        records,
        scans,
        subjects,
    )
    for record in index.records[:: max(1, records // 6)]:
        scan = read_scan(index.root / record.files[-1])
        assert scan.unit == ("m" if name == "coma" else "mm") and 100 < np.ptp(scan.vertices[:, 0]) < 250
        assert scan.has_texture == (name != "coma" and (record.id, name) not in UNTEXTURED), record.id
        assert not [words for words in scan.warnings if not re.search(EXPECTED, words)], record.id


EXPECTED = "bridged gaps|belongs? to no (face|triangle)|'4_anger.jpg' did not come"
UNTEXTURED = {("M0001_FE03BL_F3D", "bu3dfe"), ("bs000_E_DISGUST_0", "bosphorus"), ("2/4_anger", "facescape")}


@pytest.mark.slow
def test_bu3dfe_files_one_by_one(tree):
    folder = tree("bu3dfe") / "F0001"
    assert len(list(folder.iterdir())) == 150 and len(list(folder.glob("*.wrl"))) == 50
    styles = set()
    for scan in sorted(folder.glob("*_F3D.wrl"))[::4]:
        text = scan.read_bytes().decode("latin-1")
        points, index, coordinates, uv_index = lists_of(text)
        vertices = np.reshape(points, (-1, 3))
        assert len(triangles_of(index)) == len(triangles_of(uv_index)) and index != uv_index
        assert len(coordinates) // 2 > len(vertices) and 0 <= min(coordinates) and max(coordinates) <= 1
        rows = [row.split() for row in scan.with_suffix(".bnd").read_text().splitlines() if row.strip()]
        named = vertices[[int(row[0]) for row in rows]]
        assert len(rows) == 83 and np.abs(named - np.array([row[1:] for row in rows], float)).max() < 1e-4
        styles.add(("\r" in text, "point [ " in text, bool(re.search(r", -1", text))))
    assert len(styles) >= 4
    raw, cut = (lists_of((folder / f"F0001_HA04WH_{kind}.wrl").read_text("latin-1"))[0] for kind in ("RAW", "F3D"))
    assert np.ptp(np.reshape(raw, (-1, 3))[:, 1]) > 1.2 * np.ptp(np.reshape(cut, (-1, 3))[:, 1])  # the whole head


@pytest.mark.slow
def test_bu4dfe_landmarks_count_from_one_and_lie_deep(tree):
    index = index_dataset("bu4dfe", tree("bu4dfe"))
    for record in index.records[::3]:
        data = (index.root / record.frame_landmarks[2]).read_text()
        rows = np.array([row.split() for row in data.splitlines() if row.strip()], float)
        points = np.reshape(lists_of((index.root / record.files[2]).read_text("latin-1"))[0], (-1, 3))
        assert np.abs(points[rows[:, 0].astype(int) - 1] - rows[:, 1:]).max() < 1e-4
        assert points[:, 2].max() < -80
    assert {file[-4:] for record in index.records for file in record.frame_landmarks} == {".bnd", "mark"}
    assert "BU_4DFE/BU_WrlViewer_V2/" in index.excluded


@pytest.mark.slow
def test_bosphorus_grids_start_at_the_bottom(tree):
    folder = tree("bosphorus") / "bs000"
    data = (folder / "bs000_N_N_0.bnt").read_bytes()
    rows, cols, no_data, length = struct.unpack_from("<HHdH", data)
    planes = np.frombuffer(data, "<f8", offset=18 + length).reshape(5, rows, cols)
    assert len(data) == 18 + length + 40 * rows * cols and data[14 : 14 + length] == b"bs000_N_N_0.png"
    seen = (planes[:3] != no_data).all(axis=0)
    partly = (planes[2] == no_data) & (planes[0] != no_data)
    y = np.where(seen, planes[1], np.nan)
    assert partly.sum() >= 3 and np.nanmean(y[: rows // 3]) < np.nanmean(y[-rows // 3 :])
    assert planes[4, 0].min() > 0.98 and planes[4, -1].max() < 0.02 and planes[3, 0, 0] < 0.02
    turned = (folder / "bs000_YR_R30_0.lm3").read_text()
    assert "22 Landmarks" not in turned and "Landmarks:" in turned


@pytest.mark.slow
def test_bp4d_numbers_and_tables(tree):
    index = index_dataset("bp4d", tree("bp4d"))
    first = {record.id[-2:]: record.files[0].rpartition("/")[2] for record in index.records if record.subject == "F001"}
    assert first["T1"] == "0001.obj" and first["T2"] == "000.obj" and first["T7"] == "1231.obj"
    assert tuple(record.label for record in index.records if record.subject == "M001") == BP4D
    tables = coding_files(tree("bp4d"))
    assert len(tables) == 16 and "coded frames have no scan" in "\n".join(index.remarks)
    codes = read_occurrence(tables["F001", 7])
    assert codes.frames.min() >= 1231 and (codes.codes[:, codes.units.index(24)] == 9).all() and codes.coded.all()
    assert 0 < len(index_dataset("bp4d", tree("bp4d"), coded_only=True).records[0].files) < 5
