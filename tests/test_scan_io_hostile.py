"""Broken, lying and hostile files: every one ends in a `ScanError` that says something, or in a valid `Scan`; never in
another exception, a stall or a memory bill. The safety net of `read_scan` must not be what catches them."""

from __future__ import annotations

import gzip
import io
import json
import logging
import os
import random
import struct
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from affectvlm.scan import Scan, ScanError
from affectvlm.scan_io import EXTENSIONS, limits, read_scan
from tests import scan_files as files

SAMPLES = files.samples()
VERTICES, QUADS, UV = files.mask()
FACES = files.triangles(QUADS)
SECONDS = 2.0
"""Processor time one small file may take."""
MEGABYTES = 64
"""Memory one small lying file may take."""
LOOSE = ("quads.obj", "cloud.xyz", "ascii.ply", "plain.off", "color.off", "cloud.pts")
"""Text without an end mark: cut in its last number or between two points it is whole again."""
WORDS = [b"-1", b"99999999999999999999", b"nan", b"1e999", b"\0", b"{", b"}", b"[", b"]", b'"', b"#", b"\n", b"/", b"-"]
WORDS += [
    b"\xff\xff\xff\xff",
    b"\0\0\0\x80",
    b"4294967295",
    b"null",
    b"1.5",
    b"true",
    b"{}",
    b"[]",
    b"0",
    b"DEF a USE a",
]


@pytest.fixture(autouse=True)
def _net_stays_dry(caplog):
    """No test here may be saved by the catch-all of `read_scan`: that would be a hole in a reader."""
    caplog.set_level(logging.WARNING, "affectvlm.scan_io")
    yield
    assert not [record for record in caplog.records if "unexpected" in record.message]


def outcome(data: bytes, name: str) -> Scan | str:
    """The scan, or the message of the `ScanError`, within the time bound; anything else is an error of the test."""
    start = time.process_time()
    try:
        result = read_scan(data, name)
    except ScanError as error:
        result = str(error)
        assert result.startswith(f"{name}: ") and len(result) > len(name) + 10 and len(result) < 1000
    assert time.process_time() - start < SECONDS
    return result


def refused(data: bytes, name: str, *words: str) -> None:
    result = outcome(data, name)
    assert isinstance(result, str), f"{name} was read"
    assert all(word in result for word in words), result


@contextmanager
def little_memory(megabytes: float = MEGABYTES) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert peak < megabytes


# ---------------------------------------------------------------- damaged at random


@pytest.mark.parametrize("name", SAMPLES)
def test_cut_off_anywhere(name):
    data = SAMPLES[name]
    last = len(data.rstrip()) - 1  # a lost line break at the very end is no damage, nor is half a name after endsolid
    last = data.find(b"endsolid") + 5 if b"endsolid" in data else last
    for length in sorted({0, 1, 2, 3, 4, 11, 12, 20, *np.linspace(5, last, 40, dtype=int).tolist()}):
        result = outcome(data[:length], name)
        if name not in LOOSE or length < len(data) // 3:
            whole_points = name in ("quads.obj", "cloud.xyz") and length > 60
            assert isinstance(result, str) or whole_points, f"{length} of {len(data)} bytes were read"


@pytest.mark.parametrize("name", SAMPLES)
def test_flipped_bits(name):
    rng = random.Random(name)
    for _ in range(60):
        data = bytearray(SAMPLES[name])
        for _ in range(rng.choice([1, 1, 2, 5, 30])):
            data[rng.randrange(min(len(data), rng.choice([60, 400, len(data)])))] ^= 1 << rng.randrange(8)
        outcome(bytes(data), name)


@pytest.mark.parametrize("name", SAMPLES)
def test_words_put_in_pieces_lost_and_doubled(name):
    rng = random.Random(name + "words")
    for _ in range(60):
        data = bytearray(SAMPLES[name])
        for _ in range(rng.choice([1, 2, 4])):
            at, word = rng.randrange(len(data)), rng.choice(WORDS)
            data[at : at + rng.choice([0, len(word)])] = word
        if rng.random() < 0.5:
            at = rng.randrange(len(data))
            piece = data[at : at + rng.randrange(1, 200)]
            data[at : at + len(piece)] = piece * rng.choice([0, 2, 5])
        outcome(bytes(data), name)


@pytest.mark.parametrize("name", SAMPLES)
def test_under_every_other_name(name):
    for extension in (*EXTENSIONS, "", ".exe", ".jpg"):
        result = outcome(SAMPLES[name], f"scan{extension}")
        assert isinstance(result, Scan) or "." in result


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_noise_blanks_and_nothing(extension):
    noise = random.Random(1).randbytes(5000)
    for data in (b"", b" \r\n\t ", b"\0" * 5000, noise, b"\xff" * 500, b"a" * 100_000, b"1 " * 10_000 + b"x"):
        refused(data, f"scan{extension}")


# ---------------------------------------------------------------- something else under a scan's name

FOREIGN = {
    "a PNG image": files.image_bytes(files.two_colours()),
    "a JPEG image": files.image_bytes(files.two_colours(), "JPEG"),
    "a BMP image": files.image_bytes(files.two_colours(), "BMP"),
    "JSON": json.dumps({"name": "face", "values": [1, 2, 3]}).encode(),
    "an HTML page": b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>",
    "a PDF document": b"%PDF-1.7\n1 0 obj\n",
    "a program": b"\x7fELF" + bytes(200),
    "a NumPy array": b"\x93NUMPY\x01\0" + bytes(100),
    "text without a mesh": b"Dear colleague,\nthe scan is attached.\nBest wishes\n",
}


@pytest.mark.parametrize("extension", [".obj", ".ply", ".stl", ".glb", ".gltf", ".off", ".wrl", ".bnt", ".xyz", ".pts"])
@pytest.mark.parametrize("what", FOREIGN)
def test_mislabelled_files_are_named_for_what_they_are(what, extension):
    result = outcome(FOREIGN[what], f"scan{extension}")
    assert isinstance(result, str)
    if what != "text without a mesh":
        assert what in result and ".ply" in result


def test_a_pickle_is_not_opened(tmp_path):
    canary = tmp_path / "canary"
    data = b"\x80\x04\x95" + f"cos\nsystem\n(S'touch {canary}'\ntR.".encode()
    for extension in EXTENSIONS:
        refused(data, f"scan{extension}")
    assert not canary.exists()


# ---------------------------------------------------------------- headers that lie


def ply_head(vertices: object = 3, faces: object = 1, order="binary_little_endian", more="") -> bytes:
    head = f"ply\nformat {order} 1.0\n{more}element vertex {vertices}\nproperty float x\nproperty float y\n"
    return (
        head + f"property float z\nelement face {faces}\nproperty list uint int vertex_indices\nend_header\n"
    ).encode()


TRIANGLE = struct.pack("<9f", 0, 0, 0, 100, 0, 0, 0, 100, 0)
HUGE = 2_900_000  # below the limit of vertices, far above what the bytes can hold


def lying_glb(**changes: object) -> bytes:
    """A GLB with one entry of its JSON changed: `accessors_0_count=...` sets accessors[0]["count"]."""
    document, buffer = files.gltf_json(VERTICES, FACES, UV)
    for path, value in changes.items():
        entry, keys = document, [int(k) if k.isdigit() else k for k in path.split("_")]
        for key in keys[:-1]:
            entry = entry[key]
        entry[keys[-1]] = value
    return files.glb_of(document, buffer)


LIES = {
    "vertices.ply": ply_head(HUGE) + TRIANGLE,
    "billions.ply": ply_head(10**12) + TRIANGLE,
    "digits.ply": ply_head("9" * 5000) + TRIANGLE,
    "negative.ply": ply_head(-3) + TRIANGLE,
    "faces.ply": ply_head(3, HUGE) + TRIANGLE,
    "list.ply": ply_head(3, 1) + TRIANGLE + struct.pack("<I3i", 4_000_000_000, 0, 1, 2),
    "list2.ply": ply_head(3, 2) + TRIANGLE + struct.pack("<I3iI", 3, 0, 1, 2, 2**31),
    "rows.ply": ply_head(more="element junk 999999999999\nproperty uchar a\n") + TRIANGLE,
    "empty_rows.ply": ply_head(more="element junk 999999999999\n") + TRIANGLE,
    "ascii.ply": ply_head(HUGE, 1, "ascii") + b"0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
    "ascii_list.ply": ply_head(3, 1, "ascii") + b"0 0 0\n1 0 0\n0 1 0\n1e300 0 1 2\n",
    "index.ply": ply_head() + TRIANGLE + struct.pack("<I3i", 3, 0, 1, 3),
    "index2.ply": ply_head() + TRIANGLE + struct.pack("<I3i", 3, 0, 1, -1),
    "header.ply": b"ply\nformat ascii 1.0\n" + b"comment x\n" * 20_000,
    "properties.ply": b"ply\nformat ascii 1.0\nelement vertex 1\n" + b"property float x\n" * 3000 + b"end_header\n",
    "count.stl": bytes(80) + struct.pack("<I", 2**32 - 1) + bytes(100),
    "zero.stl": bytes(84),
    "header.off": f"OFF\n{HUGE} 5 0\n0 0 0\n".encode(),
    "faces.off": f"OFF\n3 {HUGE} 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n".encode(),
    "corners.off": b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n1000000000 0 1 2\n",
    "nan.off": b"OFF\nnan inf 0\n0 0 0\n",
    "index.off": b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 99999999999999999999\n",
    "grid.bnt": files.bnt(np.zeros((5, 4)), 65535, 65535, count=2**32 - 1),
    "grid2.bnt": files.bnt(np.zeros((5, 4)), 2, 2, count=20_000_000),
    "name.bnt": struct.pack("<HHdH", 3, 4, -1e9, 65535) + bytes(100),
    "odd.bnt": files.bnt(np.zeros((5, 4)), 2, 2, count=19) + bytes(8),
    "count.pts": b"3000000\n0 0 0\n1 0 0\n0 1 0\n",
    "count2.pts": b"9" * 400 + b"\n0 0 0\n1 0 0\n0 1 0\n",
    "length.glb": struct.pack("<4sIIII", b"glTF", 2, 2**32 - 1, 2**32 - 20, 0x4E4F534A) + b"{}",
    "chunk.glb": struct.pack("<4sIIII", b"glTF", 2, 40, 2**32 - 20, 0x4E4F534A) + b"{}" + bytes(18),
    "count.glb": lying_glb(accessors_0_count=HUGE),
    "count2.glb": lying_glb(accessors_1_count=10**15),
    "count3.glb": lying_glb(accessors_1_count=-1),
    "offset.glb": lying_glb(accessors_0_byteOffset=2**40),
    "view.glb": lying_glb(bufferViews_0_byteLength=2**40),
    "view2.glb": lying_glb(bufferViews_0_buffer=7),
    "stride.glb": lying_glb(bufferViews_0_byteStride=2**40),
    "buffer.glb": lying_glb(buffers_0_byteLength=2**40),
    "kind.glb": lying_glb(accessors_0_componentType=[]),
    "mesh.glb": lying_glb(nodes_0_mesh=True),
    "loop.glb": lying_glb(nodes_0_children=[0]),
    "matrix.glb": lying_glb(nodes_0_matrix=[1e308] * 16),
    "matrix2.glb": lying_glb(nodes_0_matrix=["a"] * 16),
    "scale.glb": lying_glb(nodes_0_scale=[0, 0, 0]),
    "float.glb": lying_glb(accessors_1_componentType=5126),
    "indices.glb": lying_glb(accessors_1_bufferView=0),
    "uv.glb": lying_glb(accessors_2_count=3),
    "extension.glb": lying_glb(extensionsRequired=["EXT_meshopt_compression"]),
    "version.glb": lying_glb(asset={"version": "1.0"}),
    "index.wrl": files.vrml2(VERTICES, [[0, 1, 9999]]),
    "minus.wrl": files.vrml2(VERTICES, [[0, 1, -7]]),
    "uv.wrl": files.vrml2(VERTICES, QUADS, UV, QUADS[:-1]),
    "uv2.wrl": files.vrml2(VERTICES, QUADS, UV, QUADS + len(UV)),
    "index.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n",
    "index0.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 0 1 2\n",
    "index-.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf -4 -2 -1\n",
    "index9.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 99999999999999999999\n",
    "uv.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/2\n",
    "edge.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n",
    "slashes.obj": b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1/1/1/1 2 3\n",
    "words.obj": b"v 0 0 zero\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    "flat.obj": b"v 0 0 0\nv 0 0 0\nv 0 0 0\nf 1 2 3\n",
    "nan.obj": b"v nan nan nan\n" * 30 + b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 31 32 33\n",
    "sentinel.xyz": b"-1e9 -1e9 -1e9\n" * 30 + b"0 0 0\n1 0 0\n0 1 0\n",
    "one.xyz": b"1 2 3\n",
    "same.xyz": b"1 2 3\n" * 50,
    "molecule.xyz": b"3\nwater\nO 0 0 0\nH 0 0 1\nH 0 1 0\n",
}


@pytest.mark.parametrize("name", LIES)
def test_headers_and_indices_that_lie(name):
    with little_memory():
        refused(LIES[name], name)


@pytest.mark.parametrize(
    ("text", "said"),
    [(b"\xa0", "without points"), (b"\xa0\n1 2 3\n", "1 vertices"), (b"x y z\n\xb2\n1 2 3\n", "a number is needed")],
)
def test_blanks_and_digits_that_only_unicode_knows(text, said):
    refused(text, "a.xyz", said)


def test_one_mesh_drawn_by_thousands_of_nodes():
    document, buffer = files.gltf_json(np.tile(VERTICES, (200, 1)), FACES)
    document["nodes"] = [{"mesh": 0}] * 5000
    document["scenes"] = [{"nodes": list(range(5000))}]
    refused(files.glb_of(document, buffer), "a.glb", "vertices declared")


def test_one_texture_too_many():
    document, buffer = files.gltf_json(VERTICES, FACES, UV, image=files.image_bytes(files.two_colours()))
    primitive, count = document["meshes"][0]["primitives"][0], limits.MAX_TEXTURES + 1
    document["meshes"][0]["primitives"] = [{**primitive, "material": i} for i in range(count)]
    document["materials"] = [{"pbrMetallicRoughness": {"baseColorTexture": {"index": i}}} for i in range(count)]
    document["textures"] = [{"source": 0}] * count
    refused(files.glb_of(document, buffer), "a.glb", "textures")


# ---------------------------------------------------------------- deep, wide and slow text


@pytest.mark.parametrize(
    "name, head, filling",
    [
        ("a.gltf", b'{"asset":{"version":"2.0"},"x":', b"["),
        ("a.gltf", b'{"asset":{"version":"2.0"},"x":', b'{"a":'),
        ("a.gltf", b'{"asset":{"version":"2.0"},"x":', b"1"),
        ("a.gltf", b'{"asset":{"version":"2.0"},"x":[', b"0,"),
        ("a.wrl", b"#VRML V2.0 utf8\n", b"Group { children [ "),
        ("a.wrl", b"#VRML V2.0 utf8\n", b"["),
        ("a.wrl", b"#VRML V2.0 utf8\n", b"a {"),
        ("a.wrl", b"#VRML V2.0 utf8\n", b'"" '),
        ("a.wrl", b'#VRML V2.0 utf8\n"', b'\\"'),
        ("a.wrl", b'#VRML V2.0 utf8\n"', b"a"),
        ("a.wrl", b"#VRML V2.0 utf8\n", b"#\n"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf ", b"/"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf ", b"1//"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nvt 0 0\nf 1/1 2/1 3/1\n", b"usemtl a\n"),
        ("a.ply", b"ply\n", b"\r"),
        ("a.stl", b"solid a\n", b"facet normal "),
        ("a.off", b"OFF ", b"1 "),
        ("a.xyz", b"", b"1 "),
        ("a.xyz", b"1 1 1\n", b","),
    ],
)
def test_a_megabyte_of_one_thing_is_refused_quickly(name, head, filling):
    refused(head + filling * (2**20 // len(filling)), name)


def test_shared_nodes_do_not_multiply_without_end():
    """The "billion laughs" of scene graphs: each level uses the one below ten times."""
    text = "#VRML V2.0 utf8\nDEF L0 " + files.vrml2(VERTICES, QUADS).decode().partition("\nShape")[2].join(
        ["Shape", ""]
    )
    for level in range(1, 10):
        text += f"DEF L{level} Group {{ children [ {f'USE L{level - 1} ' * 10}] }}\n"
    refused(text.encode(), "a.wrl", "accepted")


# ---------------------------------------------------------------- archives


def test_archive_bombs_are_refused_before_they_unpack():
    zeros = bytes(60 * 2**20)
    bomb = files.zipped({"a.obj": zeros})
    with little_memory():
        refused(bomb, "a.zip", "unpacks to")
    with little_memory(100):
        refused(gzip.compress(zeros, 9), "a.obj.gz", "unpacks to")


def test_a_gzip_file_of_a_million_members_is_refused_quickly():
    refused(gzip.compress(b"") * 1_000_000, "a.obj.gz", "10,000 members")
    refused(gzip.compress(bytes(2**23)) * 40, "a.obj.gz", "unpacks to")


def test_a_gzip_file_is_damaged_in_its_second_member():
    packed = gzip.compress(files.obj(VERTICES, QUADS))
    refused(packed + packed[:-9], "a.obj.gz", "ends early")
    refused(packed + packed[:30] + b"damage" + packed[36:], "a.obj.gz", "damaged gzip")


def test_a_zip_that_lies_about_the_size_of_a_member():
    data = bytearray(files.zipped({"a.obj": b"v 1 1 1\n" * 1_000_000}))
    central = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, central + 24, 100)
    struct.pack_into("<I", data, 22, 100)
    with little_memory():
        refused(bytes(data), "a.zip", "damaged zip")


def test_too_many_members():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for i in range(limits.MAX_MEMBERS + 1):
            archive.writestr(f"{i}.txt", b"")
    refused(out.getvalue(), "a.zip", "entries")


OBJ = files.obj(VERTICES, QUADS, UV, "mtllib a.mtl\n")


@pytest.mark.parametrize(
    "name", ["../a.obj", "/etc/a.obj", "x/../../a.obj", "..\\a.obj", "C:\\a.obj", "\\\\server\\a.obj"]
)
def test_unsafe_paths_in_a_zip(name):
    info = zipfile.ZipInfo("placeholder")
    info.filename = name
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(info, OBJ)
    refused(out.getvalue(), "a.zip", "unsafe path")


def test_links_nested_archives_passwords_and_no_scan_in_a_zip():
    link = zipfile.ZipInfo("a.obj")
    link.external_attr = 0o120777 << 16
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(link, b"/etc/passwd")
    refused(out.getvalue(), "a.zip", "symbolic link")
    refused(files.zipped({"a.obj": OBJ, "b.zip": files.zipped({})}), "a.zip", "another archive")
    refused(files.zipped({"a.obj": OBJ, "b.ply": SAMPLES["ascii.ply"]}), "a.zip", "2 scans", "a.obj", "b.ply")
    refused(files.zipped({"readme.txt": b"hello"}), "a.zip", "0 scans", "readme.txt")
    refused(files.zipped({}), "a.zip", "0 scans")
    refused(gzip.compress(files.zipped({"a.obj": OBJ})), "a.zip.gz", "archive inside an archive")
    refused(gzip.compress(gzip.compress(OBJ)), "a.obj.gz", "archive inside an archive")
    locked = bytearray(files.zipped({"a.obj": OBJ}))
    locked[6] |= 1
    locked[locked.rindex(b"PK\x01\x02") + 8] |= 1
    refused(bytes(locked), "a.zip", "encrypted")


def test_litter_of_file_managers_in_a_zip_is_passed_over():
    members = {"a.obj": OBJ, "__MACOSX/._a.obj": b"x", ".DS_Store": b"x", "Thumbs.db": b"x"}
    assert isinstance(outcome(files.zipped(members), "a.zip"), Scan)


# ---------------------------------------------------------------- references out of the folder


@pytest.fixture
def outside(tmp_path):
    """A folder for the scan, and secrets beside and above it that no scan may reach."""
    picture = files.image_bytes(files.two_colours())
    (tmp_path / "secret.png").write_bytes(picture)
    (tmp_path / "secret.mtl").write_bytes(b"newmtl skin\nmap_Kd secret.png\n")
    document, buffer = files.gltf_json(VERTICES, FACES)
    (tmp_path / "secret.bin").write_bytes(buffer)
    (tmp_path / "scan").mkdir()
    return tmp_path / "scan"


def references(outside, name: str) -> list[str]:
    target = outside.parent / name
    return [f"../{name}", str(target), target.as_uri(), f"..\\{name}", f"x/../../{name}", f"http://localhost/{name}"]


def test_obj_reaches_for_no_file_outside(outside):
    for reference in references(outside, "secret.mtl"):
        (outside / "a.obj").write_bytes(files.obj(VERTICES, QUADS, UV, f"mtllib {reference}\nusemtl skin\n"))
        scan = read_scan(outside / "a.obj")
        assert scan.texture is None and any("not opened" in warning for warning in scan.warnings)
    for reference in references(outside, "secret.png"):
        (outside / "a.mtl").write_text(f"newmtl skin\nmap_Kd {reference}\n")
        (outside / "a.obj").write_bytes(files.obj(VERTICES, QUADS, UV, "mtllib a.mtl\nusemtl skin\n"))
        scan = read_scan(outside / "a.obj")
        assert scan.texture is None and any("not opened" in warning for warning in scan.warnings)


def test_vrml_and_ply_reach_for_no_picture_outside(outside):
    for reference in references(outside, "secret.png"):
        escaped = reference.replace("\\", "/")
        (outside / "a.wrl").write_bytes(files.vrml2(VERTICES, QUADS, UV, url=escaped))
        (outside / "a.ply").write_bytes(files.ply(VERTICES, QUADS, uv=UV, comment=f"comment TextureFile {reference}\n"))
        for name in ("a.wrl", "a.ply"):
            scan = read_scan(outside / name)
            assert scan.texture is None and any("not opened" in warning for warning in scan.warnings)


def test_gltf_reaches_for_no_buffer_outside(outside):
    document, _ = files.gltf_json(VERTICES, FACES)
    for reference in references(outside, "secret.bin"):
        document["buffers"][0]["uri"] = reference
        (outside / "a.gltf").write_text(json.dumps(document))
        with pytest.raises(ScanError, match="another file"):
            read_scan(outside / "a.gltf")


def test_bytes_reach_for_no_file_at_all(outside, monkeypatch):
    monkeypatch.chdir(outside.parent)
    head = "mtllib secret.mtl\nusemtl skin\n"
    assert read_scan(files.obj(VERTICES, QUADS, UV, head), "a.obj").texture is None


def test_messages_hold_nothing_that_a_terminal_would_obey(tmp_path):
    file = tmp_path / "\x1b[2J\nface.obj"
    file.write_bytes(b"hello")
    for given in ((file,), (b"hello", file.name)):
        with pytest.raises(ScanError) as caught:
            read_scan(*given)
        assert str(caught.value).isprintable() and "face.obj" in str(caught.value)


def test_folders_devices_pipes_and_odd_names(tmp_path):
    os.mkfifo(tmp_path / "pipe.obj")
    (tmp_path / "folder.obj").mkdir()
    for source in (tmp_path / "pipe.obj", tmp_path / "folder.obj", "/dev/zero", tmp_path / "gone.obj", "a\0b.obj", ""):
        with pytest.raises(ScanError):
            read_scan(source)
    for source in (None, 3, io.StringIO("v 0 0 0"), object()):
        with pytest.raises(ScanError):
            read_scan(source, "a.obj")


# ---------------------------------------------------------------- pictures


def png_claiming(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    body = zlib.compress(bytes(1000))
    data = struct.pack(">I", len(body)) + b"IDAT" + body + struct.pack(">I", zlib.crc32(b"IDAT" + body))
    return b"\x89PNG\r\n\x1a\n" + chunk + data


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(30_000, 30_000), (10_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_picture_bombs_are_refused_before_they_unpack(size):
    with little_memory():
        refused(files.glb(VERTICES, FACES, UV, image=png_claiming(*size)), "a.glb", "texture", "accepted")


def test_damaged_pictures_are_left_out():
    picture = files.image_bytes(files.two_colours(64, 64), "JPEG")
    rng = random.Random(2)
    for broken in (b"", b"no picture", picture[:100], bytes(b ^ (rng.random() < 0.05) * 255 for b in picture)):
        scan = read_scan(files.zipped({"a.obj": OBJ, "a.mtl": b"newmtl x\nmap_Kd a.jpg\n", "a.jpg": broken}), "a.zip")
        assert scan.texture is None or scan.texture.shape == (64, 64, 3)
        assert scan.texture is not None or any("could not be decoded" in warning for warning in scan.warnings)


# ---------------------------------------------------------------- Draco


def draco_glb(change) -> bytes:
    """A GLB with a Draco mesh whose bytes went through `change`."""
    draco = pytest.importorskip("DracoPy")
    packed = change(bytearray(draco.encode(VERTICES.astype(np.float32), FACES.astype(np.uint32))))
    document, _ = files.gltf_json(VERTICES, FACES)
    document["bufferViews"] = [{"buffer": 0, "byteLength": len(packed)}]
    document["buffers"] = [{"byteLength": len(packed)}]
    extension = {"bufferView": 0, "attributes": {"POSITION": 0}}
    document["meshes"][0]["primitives"][0]["extensions"] = {"KHR_draco_mesh_compression": extension}
    return files.glb_of(document, bytes(packed))


def test_draco_header_that_lies():
    def more_faces(packed: bytearray) -> bytearray:
        packed[12:13] = b"\xff\xff\xff\xff\x0f"
        return packed

    with little_memory():
        refused(draco_glb(more_faces), "a.glb", "declared")
        refused(draco_glb(lambda packed: packed[:20]), "a.glb", "Draco")
        refused(draco_glb(lambda packed: packed[:9] + b"\0\x80" + packed[11:]), "a.glb", "metadata")


def test_draco_damaged_at_random():
    rng = random.Random(5)

    def damage(packed: bytearray) -> bytearray:
        packed[rng.randrange(11, len(packed))] ^= 1 << rng.randrange(8)
        return packed

    for _ in range(4):
        outcome(draco_glb(damage), "a.glb")
