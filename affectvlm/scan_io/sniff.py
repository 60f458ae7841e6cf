"""What a file is by its content, whatever its name says."""

from __future__ import annotations

import re
import struct

FOREIGN = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"8BPS", "a Photoshop image"),
    (b"%PDF", "a PDF document"),
    (b"Kaydara FBX Binary", "an FBX scene"),
    (b"BLENDER", "a Blender file"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\0", "a program"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"SQLite format 3", "a data base"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"BZh9", "a bzip2 archive"),
    (b"\xfd7zXZ\0", "an xz archive"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive"),
    (b"OggS", "an Ogg recording"),
    (b"ID3", "an MP3 recording"),
    (b"fLaC", "a FLAC recording"),
    (b"\x1aE\xdf\xa3", "a Matroska video"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
    (b"# .PCD", "a PCD point cloud"),
    (b"{\\rtf", "an RTF document"),
    (b"DRACO", "a bare Draco mesh"),
    (b"\x80\x04\x95", "a Python pickle"),
    (b"\x80\x05\x95", "a Python pickle"),
)
NUMBER = rb"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
OBJ_LINE = re.compile(rb"^[ \t]*v[ \t]+" + NUMBER + rb"[ \t]+" + NUMBER + rb"[ \t]+" + NUMBER, re.MULTILINE)
POINT_LINE = re.compile(rb"^[ \t]*" + NUMBER + rb"(?:[ \t,;]+" + NUMBER + rb"){2,11}[ \t,;]*\r?$", re.MULTILINE)
UNKNOWN_BINARY, UNKNOWN_TEXT = "unknown binary data", "text without a mesh"
HEAD = 64 * 1024
"""Bytes looked at."""


def looks_like(data: bytes) -> tuple[str | None, str]:
    """(extension of the scan format or None, what it is in words).

    The extension is given only where the content leaves no doubt; then the file is read as that.
    """
    head = data[:HEAD].removeprefix(b"\xef\xbb\xbf")
    for magic, words in FOREIGN:
        if head.startswith(magic):
            return None, words
    for found in (_riff(head), _scan_magic(data, head), _document(head), _by_lines(data, head)):
        if found is not None:
            return found
    if b"\0" in head:
        return None, UNKNOWN_BINARY
    return None, UNKNOWN_TEXT


def _riff(head: bytes) -> tuple[None, str] | None:
    if head[:4] == b"RIFF":
        return None, {b"WEBP": "a WebP image", b"WAVE": "a WAV recording"}.get(head[8:12], "a RIFF file")
    if head[4:8] == b"ftyp":
        return None, "an MP4 or HEIC file"
    if head[:2] == b"BM" and len(head) > 18 and head[14:18] in (b"\x28\0\0\0", b"\x6c\0\0\0", b"\x7c\0\0\0"):
        return None, "a BMP image"
    if head[257:262] == b"ustar":
        return None, "a tar archive"
    return None


def _scan_magic(data: bytes, head: bytes) -> tuple[str, str] | None:
    if head.startswith(b"glTF"):
        return ".glb", "a binary glTF (GLB)"
    if re.match(rb"ply[ \t]*[\r\n]", head):
        return ".ply", "a PLY mesh"
    if head.startswith(b"#VRML"):
        return ".wrl", "a VRML scene"
    if re.match(rb"(ST)?C?N?4?n?(OFF|off)\b", head):
        return ".off", "an OFF mesh"
    if len(data) >= 84 and len(data) == 84 + 50 * struct.unpack_from("<I", data, 80)[0]:
        return ".stl", "a binary STL mesh"
    if re.match(rb"\s*solid\b", head) and re.search(rb"\bfacet\s+normal\b", head):
        return ".stl", "an ASCII STL mesh"
    if len(data) >= 18:
        length = struct.unpack_from("<H", data, 12)[0]
        if len(data) >= 18 + length:
            count = struct.unpack_from("<I", data, 14 + length)[0]
            if count and len(data) == 18 + length + 8 * count:
                return ".bnt", "a Bosphorus range scan"
    return None


def _document(head: bytes) -> tuple[str | None, str] | None:
    start = head.lstrip()[:2000].lower()
    if start.startswith(b"<"):
        for mark, words in (
            (b"<html", "an HTML page"),
            (b"<!doctype html", "an HTML page"),
            (b"<collada", "a COLLADA scene"),
            (b"<x3d", "an X3D scene"),
            (b"<svg", "an SVG drawing"),
        ):
            if mark in start:
                return None, words
        return None, "an XML document"
    if start.startswith((b"{", b"[")):
        if re.search(rb'"asset"\s*:', head) or re.search(rb'"(accessors|bufferViews|meshes)"\s*:', head):
            return ".gltf", "a glTF scene"
        return None, "JSON"
    return None


def _by_lines(data: bytes, head: bytes) -> tuple[str, str] | None:
    """Formats without a magic word, told by their first lines."""
    if b"\0" in head:
        return None
    lines = head[: head.rfind(b"\n") + 1] or head
    if OBJ_LINE.search(lines) or (len(data) > HEAD and OBJ_LINE.search(data[: 8 * HEAD])):
        return ".obj", "an OBJ mesh"
    if b"IndexedFaceSet" in data[: 4 * HEAD]:
        return ".wrl", "a VRML scene without its first line"
    body = [line for line in lines.splitlines()[:200] if line.strip() and not line.lstrip().startswith((b"#", b"//"))]
    if len(body) >= 4 and sum(bool(POINT_LINE.match(line)) for line in body[2:]) >= 0.9 * len(body[2:]):
        return ".xyz", "a list of points"
    return None
