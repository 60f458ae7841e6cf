"""Every format read back against arrays known in closed form; the quirks of real files; clean and plain `Scan`s."""

from __future__ import annotations

import base64
import gzip
import io
import itertools
import json
import time

import numpy as np
import pytest

from affectvlm.scan import Scan, ScanError
from affectvlm.scan_io import EXTENSIONS, READERS, read_scan
from affectvlm.scan_io.landmarks import BND_GROUPS, parse_lm3
from tests import scan_files as files

VERTICES, QUADS, UV = files.mask()
FACES = files.triangles(QUADS)
COLORS = (np.arange(len(VERTICES) * 3).reshape(-1, 3) * 7 % 256).astype(np.uint8)
PICTURE = files.two_colours()
PNG = files.image_bytes(PICTURE)


def same_surface(scan: Scan, vertices=VERTICES, faces=FACES, uv=None, atol=1e-3) -> bool:
    """The corners of every triangle, in order, lie where they should, with the uv they should have."""
    corners = np.allclose(scan.vertices[scan.faces], vertices[faces], atol=atol)
    return corners and (uv is None or np.allclose(scan.uv[scan.faces], uv[faces], atol=1e-5))


def texture_at(scan: Scan, vertex: int) -> np.ndarray:
    """The colour the texture shows at a vertex, by the convention of `Scan`: v from the bottom, row 0 on top."""
    height, width = scan.texture.shape[:2]
    u, v = scan.uv[vertex]
    row, col = (1 - v) * height - 0.5, u * width - 0.5
    return scan.texture[int(np.clip(np.rint(row), 0, height - 1)), int(np.clip(np.rint(col), 0, width - 1))]


def shows_red_above_blue(scan: Scan) -> bool:
    top, bottom = np.argmax(scan.vertices[:, 1]), np.argmin(scan.vertices[:, 1])
    return tuple(texture_at(scan, top)) == (250, 0, 0) and tuple(texture_at(scan, bottom)) == (0, 0, 250)


# ---------------------------------------------------------------- every format


@pytest.mark.parametrize("name", files.samples())
def test_every_format_gives_the_same_surface_from_bytes_path_and_file(name, tmp_path):
    data = files.samples()[name]
    path = tmp_path / name
    path.write_bytes(data)
    with open(path, "rb") as stream:
        scans = [read_scan(data, name), read_scan(path), read_scan(str(path)), read_scan(stream), read_scan(data)]
    for scan in scans:
        assert scan.unit == "mm"
        if scan.is_point_cloud:
            assert np.allclose(scan.vertices, VERTICES, atol=1e-3)
        else:
            order = np.lexsort(np.round(scan.vertices[scan.faces].mean(axis=1), 3).T)
            wanted = np.lexsort(np.round(VERTICES[FACES].mean(axis=1), 3).T)
            got = scan.vertices[scan.faces[order]].mean(axis=1)
            assert np.allclose(got, VERTICES[FACES[wanted]].mean(axis=1), atol=1e-3)
            assert len(scan.vertices) == len(VERTICES)
    assert all(scan.source == name for scan in scans[:4])


def test_every_extension_is_among_the_samples_or_an_alias():
    tested = {"." + name.rpartition(".")[2] for name in files.samples()}
    assert set(EXTENSIONS) - tested == {".vrml", ".gz"}
    assert set(READERS) < set(EXTENSIONS)


@pytest.mark.parametrize("name", [n for n in files.samples() if n not in ("grid.bnt", "cloud.xyz", "cloud.pts")])
def test_faces_keep_order_winding_and_uv(name):
    scan = read_scan(files.samples()[name], name)
    assert same_surface(scan, uv=UV if scan.uv is not None else None)


@pytest.mark.parametrize("extension", ["obj", "ply", "stl", "off", "glb"])
def test_reads_what_trimesh_writes(extension):
    trimesh = pytest.importorskip("trimesh")
    mesh = trimesh.Trimesh(VERTICES, FACES, process=False)
    data = mesh.export(file_type=extension)
    scan = read_scan(data.encode() if isinstance(data, str) else data, f"mesh.{extension}")
    assert same_surface(scan)


@pytest.mark.parametrize("factor, unit", [(1, "mm"), (0.1, "cm"), (0.001, "m")])
def test_units_are_guessed_and_vertices_come_in_millimetres(factor, unit):
    scan = read_scan(files.obj(VERTICES * factor, QUADS), "a.obj")
    assert scan.unit == unit
    assert np.allclose(scan.vertices, VERTICES, atol=1e-2)


@pytest.mark.parametrize("factor", [1e-5, 0.01, 30])
def test_an_odd_size_stays_as_it_is_and_is_said(factor):
    scan = read_scan(files.obj(VERTICES * factor, QUADS), "a.obj")
    assert scan.unit == "unknown"
    assert np.allclose(scan.vertices, VERTICES * factor, rtol=1e-5)
    assert any("size is unknown" in warning for warning in scan.warnings)


def test_a_far_spike_does_not_change_the_unit():
    vertices = np.repeat(VERTICES, 4, axis=0) + np.tile(np.arange(4)[:, None] * 0.01, (len(VERTICES), 3))
    vertices[0] = [0, 0, -50_000]
    assert read_scan(files.xyz(vertices), "a.xyz").unit == "mm"


# ---------------------------------------------------------------- OBJ


def test_obj_corners_of_every_form_and_negative_indices():
    text = b"v 0 0 0\nv 100 0 0\nv 100 100 0\nv 0 100 0\nvt 0 0\nvt 1 0\nvt 1 1\nvn 0 0 1\n"
    forms = [
        b"f 1 2 3\n",
        b"f 1/1 2/2 3/3\n",
        b"f 1//1 2//1 3//1\n",
        b"f 1/1/1 2/2/1 3/3/1\n",
        b"f -4/-3 -3/-2 -2/-1\n",
    ]
    forms += [b"f 1/1 2//1 3\n", b"f 1/1/ 2/2/ 3/3/\n", b"\t f  1/1\t2/2   3/3 \r\n", b"f 1/1 2/2 \\\n 3/3\n"]
    for form in forms:
        scan = read_scan(text + form, "a.obj")
        assert np.allclose(scan.vertices[scan.faces[0]], [[0, 0, 0], [100, 0, 0], [100, 100, 0]]), form


def test_obj_uv_seam_doubles_only_the_seam():
    text = files.obj(VERTICES, [], UV) + b"vt 0.5 0.5\n"
    corners = [[f"{v + 1}/{v + 1}" for v in face] for face in FACES.tolist()]
    corners[0][0] = f"{FACES[0, 0] + 1}/{len(UV) + 1}"
    text += "".join("f " + " ".join(c) + "\n" for c in corners).encode()
    scan = read_scan(text, "a.obj")
    assert len(scan.vertices) == len(VERTICES) + 1
    assert same_surface(scan)
    assert np.allclose(scan.uv[scan.faces[0, 0]], 0.5)
    others = scan.uv[scan.faces].reshape(-1, 2)[1:]
    assert np.allclose(others, UV[FACES].reshape(-1, 2)[1:], atol=1e-5)


def test_obj_polygons_are_fans():
    ring = np.array([[np.cos(a), np.sin(a), 0] for a in np.linspace(0, 2 * np.pi, 6, endpoint=False)]) * 100
    scan = read_scan(files.obj(ring, [[0, 1, 2, 3, 4, 5], [0, 2, 4]]), "a.obj")
    assert scan.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5], [0, 2, 4]]


@pytest.mark.parametrize("scale", [1, 1 / 255])
def test_obj_vertex_colours_as_bytes_or_shares(scale):
    scan = read_scan(files.obj(VERTICES, QUADS, colors=COLORS * scale), "a.obj")
    assert np.array_equal(scan.colors, COLORS)


def test_obj_texture_beside_the_path_with_another_case_and_options(tmp_path):
    (tmp_path / "Skin Tone.PNG").write_bytes(PNG)
    (tmp_path / "face.mtl").write_bytes(b"newmtl skin\r\nmap_Kd -s 1 1 1 -clamp on skin tone.png\r\n")
    (tmp_path / "face.obj").write_bytes(files.obj(VERTICES, QUADS, UV, "mtllib face.mtl\nusemtl skin\n"))
    assert shows_red_above_blue(read_scan(tmp_path / "face.obj"))


@pytest.mark.parametrize("members", [("face.obj", "face.jpg"), ("face.obj", "picture.png")])
def test_obj_without_material_takes_the_picture_of_its_name_or_the_only_one_of_a_zip(members):
    data = {members[0]: files.obj(VERTICES, QUADS, UV), members[1]: PNG}
    assert shows_red_above_blue(read_scan(files.zipped(data), "a.zip"))


def test_obj_several_textures_become_one_image():
    half = len(QUADS) // 2
    upper = files.obj(VERTICES, QUADS[:half], UV, "mtllib a.mtl\nusemtl low\n")
    lower = "usemtl high\n" + "".join("f " + " ".join(f"{v + 1}/{v + 1}" for v in q) + "\n" for q in QUADS[half:])
    green, grey = np.zeros((4, 6, 3), np.uint8), np.full((10, 3, 3), 90, np.uint8)
    green[..., 1] = 200
    members = {
        "a.obj": upper + lower.encode(),
        "a.mtl": b"newmtl low\nmap_Kd g.png\nnewmtl high\nmap_Kd y.png\n",
        "g.png": files.image_bytes(green),
        "y.png": files.image_bytes(grey),
    }
    scan = read_scan(files.zipped(members), "a.zip")
    assert same_surface(scan)
    assert "2 textures were packed into one image." in scan.warnings
    for face, colour in ((0, (0, 200, 0)), (len(scan.faces) - 1, (90, 90, 90))):
        assert {tuple(texture_at(scan, v)) for v in scan.faces[face]} == {colour}


def test_obj_without_its_material_still_gives_the_surface_and_says_so():
    scan = read_scan(files.obj(VERTICES, QUADS, UV, "mtllib gone.mtl\nusemtl x\n"), "a.obj")
    assert same_surface(scan, uv=UV) and scan.texture is None
    assert any("gone.mtl" in warning for warning in scan.warnings)


# ---------------------------------------------------------------- PLY, STL, OFF


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
@pytest.mark.parametrize("polygons", [QUADS.tolist(), FACES.tolist(), [*QUADS[:9].tolist(), *FACES[18:].tolist()], []])
def test_ply_in_every_byte_order_and_shape_of_face(order, polygons):
    scan = read_scan(files.ply(VERTICES, polygons, order, COLORS, UV), "a.ply")
    assert np.array_equal(scan.colors, COLORS)
    if polygons:
        assert same_surface(scan, uv=UV)
    else:
        assert scan.is_point_cloud and np.allclose(scan.vertices, VERTICES, atol=1e-3)


def test_ply_texture_comment_and_corner_uv_as_meshlab_writes_them(tmp_path):
    head = "ply\nformat ascii 1.0\ncomment TextureFile skin tone.png\n"
    head += f"element vertex {len(VERTICES)}\nproperty float x\nproperty float y\nproperty float z\n"
    head += f"element face {len(FACES)}\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\n"
    rows = ["3 " + " ".join(map(str, f)) + " 6 " + " ".join(f"{x:.7g}" for x in UV[f].ravel()) for f in FACES]
    body = "\n".join([" ".join(f"{x:.7g}" for x in v) for v in VERTICES] + rows)
    (tmp_path / "skin tone.png").write_bytes(PNG)
    (tmp_path / "a.ply").write_text(head + "end_header\n" + body)
    scan = read_scan(tmp_path / "a.ply")
    assert same_surface(scan, uv=UV) and shows_red_above_blue(scan) and len(scan.vertices) == len(VERTICES)


def test_ply_steps_over_other_elements_and_lists_in_vertices():
    head = "ply\nformat ascii 1.0\nelement camera 1\nproperty list int float view\nelement vertex 3\n"
    head += "property list uchar int tags\nproperty float x\nproperty float y\nproperty float z\n"
    head += "element face 1\nproperty uchar flag\nproperty list uchar uint vertex_index\nend_header\n"
    body = "2 9 9\n0 0 0 0\n2 5 5 100 0 0\n1 7 0 100 0\n8 3 0 1 2\n"
    scan = read_scan((head + body).encode(), "a.ply")
    assert scan.vertices[scan.faces].tolist() == [[[0, 0, 0], [100, 0, 0], [0, 100, 0]]]


def test_stl_binary_that_begins_with_solid_and_shares_corners():
    scan = read_scan(files.stl_binary(VERTICES.astype(np.float32), FACES, b"solid but binary"), "a.stl")
    assert same_surface(scan) and len(scan.vertices) == len(VERTICES)


@pytest.mark.parametrize("header", ["OFF\n", "OFF ", "off\n", "# first\nOFF\n\n# then\n", ""])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_off_headers(header, newline):
    assert same_surface(read_scan(files.off(VERTICES, QUADS, None, header, newline), "a.off"))


def test_off_colours_and_colours_behind_faces():
    data = files.off(VERTICES, QUADS, COLORS, "COFF\n")
    assert np.array_equal(read_scan(data, "a.off").colors, COLORS)
    with_face_colours = files.off(VERTICES, QUADS).decode().splitlines()
    with_face_colours = [line + " 10 20 30" if line.startswith("4 ") else line for line in with_face_colours]
    assert same_surface(read_scan("\n".join(with_face_colours).encode(), "a.off"))


def test_off_all_on_one_line():
    text = files.off(VERTICES, QUADS).replace(b"# a comment\n", b"").replace(b"\n", b" ")
    assert same_surface(read_scan(text, "a.off"))


# ---------------------------------------------------------------- glTF


@pytest.mark.parametrize("write", [files.glb, files.gltf])
def test_gltf_texture_is_the_right_way_up_and_colours_are_kept(write):
    scan = read_scan(write(VERTICES, FACES, UV, COLORS, PNG), "a.glb")
    assert same_surface(scan, uv=UV) and shows_red_above_blue(scan)
    assert np.array_equal(scan.colors, COLORS)


def test_gltf_node_transforms_multiply_from_the_root():
    document, buffer = files.gltf_json(VERTICES, FACES)
    half = np.sqrt(0.5)
    document["nodes"] = [{"children": [1], "translation": [0, 10, 0]}, {"mesh": 0, "rotation": [0, 0, half, half]}]
    scan = read_scan(files.glb_of(document, buffer), "a.glb")
    turned = np.stack([-VERTICES[:, 1], VERTICES[:, 0] + 10, VERTICES[:, 2]], axis=1)
    assert same_surface(scan, turned)


def test_gltf_mirroring_keeps_the_outside_outside():
    scan = read_scan(files.glb(VERTICES, FACES, node={"scale": [-1, 1, 1]}), "a.glb")
    corners = scan.vertices[scan.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert (normals[:, 2] > 0).all()


def test_gltf_parts_are_merged_and_textures_packed():
    document, buffer = files.gltf_json(VERTICES, FACES, UV, image=PNG)
    primitive = document["meshes"][0]["primitives"][0]
    document["meshes"][0]["primitives"].append({**primitive, "material": 1})
    document["materials"].append({})
    document["nodes"] = [{"mesh": 0}, {"mesh": 0, "translation": [0, 0, 30]}]
    document["scenes"] = [{"nodes": [0, 1]}]
    scan = read_scan(files.glb_of(document, buffer), "a.glb")
    assert len(scan.faces) == 4 * len(FACES)
    assert shows_red_above_blue(scan.keep_vertices(np.arange(len(scan.vertices)) < len(VERTICES)))
    assert tuple(texture_at(scan, scan.faces[len(FACES), 0])) == (200, 200, 200)


def test_gltf_draco_equals_the_plain_mesh():
    draco = pytest.importorskip("DracoPy")
    packed = draco.encode(VERTICES.astype(np.float32), FACES.astype(np.uint32), quantization_bits=16)
    document, _ = files.gltf_json(VERTICES, FACES)
    document["bufferViews"] = [{"buffer": 0, "byteLength": len(packed)}]
    document["buffers"] = [{"byteLength": len(packed)}]
    document["accessors"] = [{k: v for k, v in a.items() if k != "bufferView"} for a in document["accessors"]]
    extension = {"bufferView": 0, "attributes": {"POSITION": 0}}
    document["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": extension}
    document["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    scan = read_scan(files.glb_of(document, packed), "a.glb")
    assert len(scan.faces) == len(FACES)
    nearest = np.linalg.norm(scan.vertices[:, None] - VERTICES[None], axis=2).min(axis=1)
    assert nearest.max() < 0.01


def test_gltf_with_its_files_in_a_zip():
    document, buffer = files.gltf_json(VERTICES, FACES, UV, image=PNG)
    document["buffers"][0]["uri"] = "data/scene%20one.bin"
    document["images"] = [{"uri": "textures/skin.png"}]
    members = {"scene.gltf": json.dumps(document).encode(), "data/scene one.bin": buffer, "textures/skin.png": PNG}
    assert shows_red_above_blue(read_scan(files.zipped(members), "a.zip"))


def test_gltf_sparse_strided_and_quantized_accessors():
    step = 0.01
    whole = np.rint(VERTICES / step).astype("<i2")
    padded = np.zeros(len(whole), np.dtype([("p", "<i2", 3), ("pad", "<i2")]))
    padded["p"] = whole
    padded["p"][5] = 0
    document, buffer = files.gltf_json(VERTICES, FACES)
    views, accessor = document["bufferViews"], document["accessors"][0]
    for blob in (padded.tobytes(), np.array([5], "<u2").tobytes() + b"\0\0", whole[5].tobytes() + b"\0\0"):
        views.append({"buffer": 0, "byteOffset": len(buffer), "byteLength": len(blob)})
        buffer += blob
    views[2]["byteStride"] = 8
    accessor |= {"bufferView": 2, "componentType": 5122}
    accessor["sparse"] = {"count": 1, "indices": {"bufferView": 3, "componentType": 5123}, "values": {"bufferView": 4}}
    document["buffers"][0]["byteLength"] = len(buffer)
    document["nodes"][0]["scale"] = [step] * 3
    document["extensionsRequired"] = ["KHR_mesh_quantization"]
    assert same_surface(read_scan(files.glb_of(document, buffer), "a.glb"), atol=step)


# ---------------------------------------------------------------- VRML

STYLES = [
    dict(zip(("same_first", "separator", "same_last", "last_comma", "newline"), choice, strict=True))
    for choice in itertools.product((True, False), (" ", ", "), (True, False), (True, False), ("\n", "\r\n"))
]
POLYGONS = [QUADS[0].tolist(), FACES[2].tolist(), FACES[3].tolist(), *QUADS[2:].tolist()]
EXPECTED = np.concatenate([FACES[:2], FACES[2:]])


@pytest.mark.parametrize("style", STYLES, ids=lambda s: "-".join(repr(v) for v in s.values()))
def test_vrml_spellings_all_give_the_same_arrays(style):
    uv = np.concatenate([UV, [[0.25, 0.75]]])  # another length than the vertices
    uv_polygons = [[i if i else len(UV) for i in p] for p in POLYGONS]
    scan = read_scan(files.vrml2(VERTICES, POLYGONS, uv, uv_polygons, **style), "a.wrl")
    assert same_surface(scan, faces=EXPECTED)
    wanted = np.where(EXPECTED == 0, len(UV), EXPECTED)
    assert np.allclose(scan.uv[scan.faces], uv[wanted], atol=1e-5)


@pytest.mark.parametrize("corners", [3, 4, 5, 6])
def test_vrml_polygons_of_three_to_six_corners(corners):
    ring = np.array([[np.cos(a), np.sin(a), 0] for a in 2 * np.pi * np.arange(corners) / corners]) * 100
    scan = read_scan(files.vrml2(ring, [list(range(corners))]), "a.wrl")
    assert scan.faces.tolist() == [[0, i, i + 1] for i in range(1, corners - 1)]


def test_vrml_numbers_in_scientific_notation_and_without_a_last_end_of_face():
    text = files.vrml2(VERTICES, FACES).decode().replace(" -1\n ]", "\n ]")
    tiny = text.replace("point [\n -70 ", "point [\n -7.0e+01 ").replace(" -90 ", " -9E1 ")
    assert "-7.0e+01" in tiny and "-9E1" in tiny
    assert same_surface(read_scan(tiny.encode(), "a.wrl"))


def test_vrml_picture_of_the_same_stem_wins_over_the_named_one(tmp_path):
    (tmp_path / "F0001_AN01WH_F3D.wrl").write_bytes(files.vrml2(VERTICES, QUADS, UV, url="OTHER.bmp"))
    (tmp_path / "F0001_AN01WH_F3D.bmp").write_bytes(files.image_bytes(PICTURE, "BMP"))
    (tmp_path / "other.bmp").write_bytes(files.image_bytes(np.full((4, 4, 3), 9, np.uint8), "BMP"))
    assert shows_red_above_blue(read_scan(tmp_path / "F0001_AN01WH_F3D.wrl"))


def test_vrml_names_the_texture_without_case(tmp_path):
    (tmp_path / "a.wrl").write_bytes(files.vrml2(VERTICES, QUADS, UV, url="SKIN.BMP"))
    (tmp_path / "skin.bmp").write_bytes(files.image_bytes(PICTURE, "BMP"))
    assert shows_red_above_blue(read_scan(tmp_path / "a.wrl"))


def test_vrml_without_texture_block_gives_the_surface():
    scan = read_scan(files.vrml2(VERTICES, QUADS), "a.wrl")
    assert same_surface(scan) and scan.uv is None


def test_vrml2_scene_graph_with_transforms_definitions_and_uses():
    shape = files.vrml2(VERTICES, QUADS).decode().partition("Shape")[2]
    text = '#VRML V2.0 utf8\nWorldInfo { title "a [ { b" info [ "x" ] }\nDEF Top Transform {\n translation 0 5 0\n'
    text += f" children [ Transform {{ rotation 0 0 1 1.5707963 children DEF Face Shape {shape} }} ]\n}}\n"
    text += 'Transform { scale 2 2 2 children [ USE Face ] }\nNavigationInfo { headlight TRUE type [ "EXAMINE" ] }\n'
    scan = read_scan(text.encode(), "a.wrl")
    turned = np.stack([-VERTICES[:, 1], VERTICES[:, 0] + 5, VERTICES[:, 2]], axis=1)
    both = np.concatenate([turned, 2 * VERTICES])
    assert same_surface(scan, both, np.concatenate([FACES, FACES + len(VERTICES)]))


def test_vrml1_state_reaches_the_faces_and_ends_with_its_separator():
    scan = read_scan(files.vrml1(VERTICES, QUADS, UV, translation=(1, 2, 3)), "a.wrl")
    assert same_surface(scan, VERTICES + [1, 2, 3], uv=UV)


@pytest.mark.parametrize("index", ["", "colorIndex"])
def test_vrml_colours(index):
    colors = " color Color { color " + files.vrml_list(COLORS / 255) + " }\n"
    colors += "colorIndex " + files.vrml_list([[*q, -1] for q in QUADS], form="{:d}") if index else ""
    text = files.vrml2(VERTICES, QUADS).decode().replace("IndexedFaceSet {", "IndexedFaceSet {" + colors)
    assert np.array_equal(read_scan(text.encode(), "a.wrl").colors, COLORS)


# ---------------------------------------------------------------- range scans, landmarks, points


def test_bnt_size_is_as_specified_and_invalid_points_go():
    planes = np.zeros((5, 12))
    t, s = np.meshgrid(np.arange(3.0), np.arange(4.0), indexing="ij")
    planes[0], planes[1], planes[3], planes[4] = s.ravel(), t.ravel(), s.ravel() / 4, 1 - t.ravel() / 3
    planes[:3, 3] = -1e9
    planes[2, 8] = -1e9
    data = files.bnt(planes, 3, 4)
    assert len(data) == 503
    scan = read_scan(data, "a.bnt")
    assert len(scan.vertices) == 10 and scan.unit == "mm" and len(scan.faces) == 10
    corners = scan.vertices[scan.faces]
    assert (np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])[:, 2] > 0).all()


def test_bnt_texture_and_landmarks_beside_it_are_the_right_way_up(tmp_path):
    (tmp_path / "bs000_N_N_0.bnt").write_bytes(files.bnt(files.mask_planes(), files.ROWS, files.COLS))
    (tmp_path / "bs000_N_N_0.png").write_bytes(PNG)
    (tmp_path / "bs000_N_N_0.lm3").write_bytes(files.lm3({"Nose tip": (0, 0, 60), "Chin middle": (0, -80, 20)}, 22))
    scan = read_scan(tmp_path / "bs000_N_N_0.bnt")
    assert shows_red_above_blue(scan)
    assert {name: point.tolist() for name, point in scan.landmarks.items()} == {
        "Nose tip": [0, 0, 60],
        "Chin middle": [0, -80, 20],
    }


def test_bnt_drops_what_bridges_a_jump_in_depth():
    planes = files.mask_planes()
    behind = planes[0] > 40
    planes[2, behind] -= 200
    scan = read_scan(files.bnt(planes, files.ROWS, files.COLS), "a.bnt")
    assert np.ptp(scan.vertices[scan.faces][..., 2], axis=1).max() < 60
    assert any("bridged gaps" in warning for warning in scan.warnings)


def test_bnt_whose_count_does_not_fit_its_grid_is_a_point_cloud():
    scan = read_scan(files.bnt(files.mask_planes()[:, :-1], files.ROWS, files.COLS), "a.bnt")
    assert scan.is_point_cloud and len(scan.vertices) == len(VERTICES) - 1


def test_lm3_with_fewer_points_than_announced_is_read_by_label():
    names = {f"Point {i}": (i, 2.0 * i, -i) for i in range(19)}
    points = parse_lm3(files.lm3(names, 22))
    assert {name: tuple(point) for name, point in points.items()} == names


@pytest.mark.parametrize("blank_row", [True, False])
def test_bnd_beside_a_wrl(tmp_path, blank_row):
    points = np.random.default_rng(0).normal(size=(83, 3)) * 50
    (tmp_path / "a.wrl").write_bytes(files.vrml2(VERTICES, QUADS))
    (tmp_path / "a.bnd").write_bytes(files.bnd(points, blank_row))
    landmarks = read_scan(tmp_path / "a.wrl").landmarks
    assert len(landmarks) == sum(count for _, count in BND_GROUPS) == 83
    assert np.allclose(landmarks["mouth 0"], points[48], atol=1e-4) and np.allclose(landmarks["chin 14"], points[82])


def test_damaged_landmarks_do_not_stop_the_scan(tmp_path):
    (tmp_path / "a.wrl").write_bytes(files.vrml2(VERTICES, QUADS))
    (tmp_path / "a.bnd").write_bytes(files.bnd(np.zeros((82, 3))))
    scan = read_scan(tmp_path / "a.wrl")
    assert not scan.landmarks and any("82 rows; 83 are needed" in warning for warning in scan.warnings)


NORMALS = np.tile([0.6, 0.0, 0.8], (len(VERTICES), 1))


@pytest.mark.parametrize("separator", [" ", ",", ", ", ";", "\t"])
@pytest.mark.parametrize(
    "extra, colored",
    [([], False), ([COLORS], True), ([NORMALS], False), ([NORMALS, COLORS], True), ([COLORS, NORMALS], True)],
    ids=["xyz", "rgb", "normal", "normal-rgb", "rgb-normal"],
)
def test_point_columns(separator, extra, colored):
    rows = np.hstack([VERTICES, *extra])
    for name, head in (("a.xyz", ""), ("a.xyz", "# x y z\n"), ("a.xyz", "X Y Z\n"), ("a.pts", f"{len(rows)}\n")):
        scan = read_scan(files.xyz(rows, separator, head), name)
        assert scan.is_point_cloud and np.allclose(scan.vertices, VERTICES, atol=1e-3)
        assert (scan.colors is not None) == colored
        assert not colored or np.array_equal(scan.colors, COLORS)


# ---------------------------------------------------------------- repairs and names


def test_a_few_bad_coordinates_are_dropped_with_their_faces():
    vertices = VERTICES.copy()
    vertices[3] = [np.nan, 0, 0]
    scan = read_scan(files.ply(vertices, FACES, "binary_little_endian"), "a.ply")
    left = FACES[(FACES != 3).all(axis=1)]
    assert same_surface(scan, vertices, left)
    assert any("no usable coordinates" in warning for warning in scan.warnings)


def test_flat_double_and_lone_things_are_dropped_and_said():
    vertices = np.concatenate([VERTICES, [[1, 2, 3]]])
    polygons = [*FACES.tolist(), FACES[0].tolist(), FACES[1][[1, 2, 0]].tolist(), [0, 0, 1]]
    scan = read_scan(files.ply(vertices, polygons), "a.ply")
    assert same_surface(scan) and len(scan.vertices) == len(VERTICES)
    for words in (
        "1 of 99 triangles has no area and was left out",
        "2 of 99 triangles are there twice and were left out",
        "1 of 64 vertices belongs to no triangle",
    ):
        assert any(warning.startswith(words) for warning in scan.warnings), words


@pytest.mark.parametrize(
    "true, false", [("a.ply", "a.obj"), ("a.obj", "a.stl"), ("a.glb", "a.ply"), ("a.wrl", "a.obj")]
)
def test_a_scan_under_another_scan_name_is_read_and_said(true, false):
    data = {
        "a.ply": files.ply(VERTICES, FACES),
        "a.obj": files.obj(VERTICES, FACES),
        "a.glb": files.glb(VERTICES, FACES),
        "a.wrl": files.vrml2(VERTICES, FACES),
    }
    scan = read_scan(data[true], false)
    assert same_surface(scan) and scan.warnings[0].startswith(f"The file is named .{false[-3:]} but is ")


def test_byte_order_marks_and_sixteen_bit_text():
    text = files.obj(VERTICES, QUADS).decode()
    for data in (b"\xef\xbb\xbf" + text.encode(), text.encode("utf-16")):
        assert same_surface(read_scan(data, "a.obj"))


@pytest.mark.parametrize("separator", [";", "\t", " ; "])
def test_decimal_commas_in_a_point_list(separator):
    rows = np.round(VERTICES, 2) + 0.001
    text = files.xyz(rows).decode().replace(" ", separator)
    for head in ("", f"x{separator}y{separator}z\n", "// made on 1.2.2020\n"):
        assert np.allclose(read_scan((head + text.replace(".", ",")).encode(), "a.xyz").vertices, rows, atol=1e-4)
    whole = "".join(f"{x:.0f},{separator}{y:.0f},{separator}{z:.0f}\n" for x, y, z in VERTICES)  # no decimals at all
    assert np.allclose(read_scan(whole.encode(), "a.xyz").vertices, np.round(VERTICES))


def test_gltf_may_require_what_only_changes_looks():
    document, buffer = files.gltf_json(VERTICES, FACES)
    document["extensionsRequired"] = ["KHR_lights_punctual", "KHR_materials_transmission", "KHR_materials_unlit"]
    assert same_surface(read_scan(files.glb_of(document, buffer), "a.glb"))


def test_members_of_a_gzip_file_belong_together():
    whole = files.obj(VERTICES, QUADS)
    blocks = b"".join(gzip.compress(whole[at : at + 100]) for at in range(0, len(whole), 100))
    for packed in (blocks, gzip.compress(b"") + gzip.compress(whole), gzip.compress(whole) + bytes(512)):
        assert same_surface(read_scan(packed, "mask.obj.gz"))


def test_gzip_of_any_format():
    for name in ("a.obj.gz", "a.obj"):
        assert same_surface(read_scan(gzip.compress(files.obj(VERTICES, QUADS)), name))


def test_file_objects_and_data_uris():
    assert same_surface(read_scan(io.BytesIO(files.obj(VERTICES, QUADS)), "a.obj"))
    document, buffer = files.gltf_json(VERTICES, FACES, UV)
    document["images"] = [{"uri": "data:image/png;base64," + base64.b64encode(PNG).decode()}]
    document["textures"], document["materials"] = (
        [{"source": 0}],
        [{"pbrMetallicRoughness": {"baseColorTexture": {"index": 0}}}],
    )
    document["meshes"][0]["primitives"][0]["material"] = 0
    assert shows_red_above_blue(read_scan(files.glb_of(document, buffer), "a.glb"))


def test_the_scan_names_its_file_and_not_its_folder(tmp_path):
    (tmp_path / "a.obj").write_bytes(files.obj(VERTICES, QUADS))
    assert read_scan(tmp_path / "a.obj").source == "a.obj"
    with pytest.raises(ScanError) as error:
        read_scan(tmp_path / "gone.obj")
    assert str(tmp_path) not in str(error.value) and "gone.obj" in str(error.value)


def test_a_face_scan_of_35000_vertices_is_read_in_under_a_second():
    rows, cols = 200, 175
    t, s = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, cols), indexing="ij")
    vertices = np.stack([70 * s, 90 * t, 60 - 30 * (s**2 + t**2)], -1).reshape(-1, 3)
    at = np.arange(rows * cols).reshape(rows, cols)
    quads = np.stack([at[:-1, :-1], at[:-1, 1:], at[1:, 1:], at[1:, :-1]], -1).reshape(-1, 4)
    faces, uv = files.triangles(quads), np.stack([s, t], -1).reshape(-1, 2) / 2 + 0.5
    for name, data in (("a.wrl", files.vrml2(vertices, faces, uv)), ("a.obj", files.obj(vertices, faces, uv))):
        start = time.process_time()
        scan = read_scan(data, name)
        assert time.process_time() - start < 1.0, name
        assert len(scan.vertices) == len(vertices)
