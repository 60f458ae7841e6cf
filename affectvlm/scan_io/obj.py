"""Wavefront OBJ with its MTL materials and textures.

Taken: `v` (also with a colour a vertex), `vt`, `f` (polygons, negative indices, every slash form), `usemtl`,
`mtllib`. Normals, groups, curves and lines are passed over.
"""

from __future__ import annotations

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.images import IMAGE_EXTENSIONS, decode_image, keep_image
from affectvlm.scan_io.limits import MAX_IMAGE_BYTES, MAX_NOTE_BYTES, MAX_TEXTURES
from affectvlm.scan_io.raw import RawScan, check_counts, fan, to_bytes
from affectvlm.scan_io.source import ScanFile
from affectvlm.scan_io.text import Lines, columns, numbers, plain_text, strip_comments, table

MAX_MATERIAL_CHANGES = 100_000
MAX_LIBRARIES = 16
MAP_OPTIONS = {"-o": 3, "-s": 3, "-t": 3, "-mm": 2}
"""Numbers that follow an option of `map_Kd`; the others take one word."""


def read(file: ScanFile) -> RawScan:
    text = strip_comments(plain_text(file.data, "the OBJ file")).replace(b"\\\r\n", b"   ").replace(b"\\\n", b"  ")
    lines = Lines(text)
    is_vertex, is_uv, is_face = (lines.begins_with(word) for word in (b"v", b"vt", b"f"))
    check_counts(int(is_vertex.sum()), int(is_face.sum()))
    check_counts(int(is_uv.sum()))
    if not is_vertex.any():
        raise ScanError("no vertices ('v x y z' lines) in the OBJ file")
    values, count = columns(lines, is_vertex, "vertex", 1)
    vertices = table(values, count, 3, "vertex")
    raw = RawScan(vertices, colors=to_bytes(table(values, count, 6, "vertex")[:, 3:]) if count.min() >= 6 else None)
    if not text.endswith((b"\n", b"\r")):
        raw.warnings.append("The OBJ file does not end with a line break; it may have been cut off.")
    if is_uv.any():
        values, count = columns(lines, is_uv, "texture coordinate", 2)
        raw.uv = table(values, count, 2, "texture coordinate")
    if is_face.any():
        _faces(lines, is_vertex, is_uv, is_face, raw)
        _textures(file, lines, is_face, raw)
    elif raw.uv is not None:
        raise ScanError("an OBJ file with texture coordinates but no faces; it seems cut off")
    return raw


def _faces(lines: Lines, is_vertex: np.ndarray, is_uv: np.ndarray, is_face: np.ndarray, raw: RawScan) -> None:
    """Triangles of all `f` lines into `raw`; `raw.face_image` gets the line number of each triangle for now."""
    corners = lines.words[is_face] - 1
    if corners.min() < 3:
        raise ScanError(f"face {int(np.argmin(corners)) + 1} has {corners.min()} corners; at least 3 are needed")
    vertex, uv = _corners(lines.text(is_face, 1), int(corners.sum()))
    line = np.repeat(np.flatnonzero(is_face), corners)
    vertex = _from_zero(vertex, np.cumsum(is_vertex)[line], len(raw.vertices), "vertex")
    triangles = fan(corners)
    raw.faces = vertex[triangles]
    raw.face_image = line[triangles[:, 0]]
    if raw.uv is not None:
        without = uv == 0
        uv = _from_zero(np.where(without, 1, uv), np.cumsum(is_uv)[line], len(raw.uv), "texture coordinate")
        raw.uv_faces = np.where(without, -1, uv)[triangles]
    elif uv.any():
        raw.warnings.append("The faces name texture coordinates, but there are none; the texture was left out.")


def _corners(text: bytes, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Corner words a, a/b, a//c and a/b/c → vertex and texture index of each (as written; 0 where there is none)."""
    text = text.replace(b"//", b"/0/")
    for blank in (b" ", b"\t", b"\r", b"\n"):
        text = text.replace(b"/" + blank, b"/0" + blank)
    codes = np.frombuffer(text, np.uint8)
    blank = codes <= 32
    opens = np.flatnonzero(~blank & np.concatenate([[True], blank[:-1]]))
    slashes = np.flatnonzero(codes == ord("/"))
    parts = 1 + np.diff(np.searchsorted(slashes, np.append(opens, len(codes))))
    values = numbers(text.replace(b"/", b" "), "a face", np.int64)
    if len(opens) != count or len(values) != parts.sum() or parts.max() > 3:
        raise ScanError("a face is not written as corners v, v/vt, v//vn or v/vt/vn")
    start = np.cumsum(parts) - parts
    second = np.minimum(start + 1, len(values) - 1)
    return values[start], np.where(parts >= 2, values[second], 0)


def _from_zero(index: np.ndarray, defined: np.ndarray, count: int, what: str) -> np.ndarray:
    """Indices counted from 0: positive ones count from 1, negative ones back from the `defined` ones so far."""
    zero_based = np.where(index > 0, index - 1, defined + index)
    bad = (index == 0) | (zero_based < 0) | (zero_based >= count)
    if bad.any():
        raise ScanError(f"a face names {what} {index[bad][0]}, but there are {count}")
    return zero_based


def _textures(file: ScanFile, lines: Lines, is_face: np.ndarray, raw: RawScan) -> None:
    """Turns `raw.face_image` from line numbers into indices of `raw.images`."""
    face_line, raw.face_image = raw.face_image, None
    if raw.uv_faces is None:
        return
    keyword = ~is_face & (lines.codes[lines.first] == ord("u")) & (lines.codes[lines.first + 1] == ord("s"))
    changes = np.flatnonzero(keyword)
    if len(changes) > MAX_MATERIAL_CHANGES:
        raise ScanError(f"{len(changes)} changes of material; at most {MAX_MATERIAL_CHANGES} are accepted")
    names = [lines.line(i).partition(" ")[2].strip() for i in changes]
    maps = _materials(file, lines, raw)
    used = set(np.searchsorted(changes, np.unique(face_line)).tolist()) if len(changes) else set()
    index: dict[str, int] = {}
    image_of_change = [-1]
    for position, name in enumerate(names, 1):
        reference = maps.get(name) if position in used else None
        if reference is not None and reference not in index:
            if len(index) >= MAX_TEXTURES:
                raise ScanError(f"more than {MAX_TEXTURES} textures; at most so many are accepted")
            index[reference] = _load(file, reference, raw)
        image_of_change.append(-1 if reference is None else index[reference])
    if raw.images:
        raw.face_image = np.array(image_of_change)[np.searchsorted(changes, face_line)]
        return
    only = next(iter(maps.values()), None) if not names else None
    if only is not None and _load(file, only, raw) >= 0:
        return
    beside = file.siblings.with_stem(file.stem, IMAGE_EXTENSIONS, MAX_IMAGE_BYTES)
    if beside is None and file.lone_image is not None:
        data = file.siblings.load(file.lone_image, MAX_IMAGE_BYTES)
        beside = None if data is None else (file.lone_image, data)
    if beside is not None:
        image = decode_image(beside[1], beside[0], raw.warnings)
        raw.images = [] if image is None else [image]


def _load(file: ScanFile, reference: str, raw: RawScan) -> int:
    """Index of a texture in `raw.images`, -1 and a warning where it is missing or cannot be decoded."""
    data = file.siblings.find(reference, MAX_IMAGE_BYTES)
    if data is None:
        raw.warnings.append(f"The texture {reference[:80]!r} did not come with the scan.")
        return -1
    return keep_image(raw.images, decode_image(data, reference[:80], raw.warnings))


def _materials(file: ScanFile, lines: Lines, raw: RawScan) -> dict[str, str]:
    """Material name → texture file, of every library the OBJ names, else of an MTL of the same name."""
    is_library = (lines.codes[lines.first] == ord("m")) & (lines.codes[lines.first + 1] == ord("t"))
    references = [lines.line(i).partition(" ")[2].strip() for i in np.flatnonzero(is_library)[:MAX_LIBRARIES]]
    texts = [file.siblings.find(reference, MAX_NOTE_BYTES) for reference in references]
    texts = [text for text in texts if text is not None]
    if not texts:
        beside = file.siblings.with_stem(file.stem, (".mtl",), MAX_NOTE_BYTES)
        texts = [] if beside is None else [beside[1]]
    if references and not texts:
        raw.warnings.append(f"The material file {references[0][:80]!r} did not come with the scan.")
    maps: dict[str, str] = {}
    for text in texts:
        maps.update(parse_mtl(text))
    return maps


def parse_mtl(text: bytes) -> dict[str, str]:
    """Material name → file of its colour texture (`map_Kd`, else `map_Ka`); materials without one are not listed."""
    maps: dict[str, str] = {}
    material = ""
    for line in text.decode("utf-8", "replace").splitlines():
        keyword, _, rest = line.strip().replace("\t", " ").partition(" ")
        keyword = keyword.lower()
        if keyword == "newmtl":
            material = rest.strip()
        elif keyword == "map_kd" or (keyword == "map_ka" and material not in maps):
            name = _without_options(rest.split(" "))
            if name:
                maps[material] = name
    return maps


def _without_options(words: list[str]) -> str:
    """The file name of a texture line, which may hold blanks, behind its options."""
    words = [word for word in words if word]
    while words and words[0].startswith("-") and len(words) > 1:
        option, words = words[0].lower(), words[1:]
        if option in MAP_OPTIONS:
            taken = 0
            while taken < MAP_OPTIONS[option] and len(words) > 1 and _is_number(words[0]):
                words, taken = words[1:], taken + 1
        else:
            words = words[1:]
    return " ".join(words)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


READERS = {".obj": read}
