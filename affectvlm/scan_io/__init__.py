"""Scans in: `read_scan` turns a file of any accepted format into a `Scan`; whatever is wrong ends in a `ScanError`.

    scan = read_scan("face.obj")                       # materials and textures are looked for beside the file
    scan = read_scan(upload_bytes, name="face.zip")    # or come along in a zip

One small module a format, each with `read(file) -> RawScan`; `raw.finish` does what all have in common; `limits`
holds every bound. The parsers are our own NumPy code: general mesh libraries allocate what a header declares, merge
or drop texture seams, follow references and raise whatever comes. Decoding of pixels is Pillow's, of Draco meshes
DracoPy's.

Formats: OBJ with MTL and texture, PLY (ASCII and binary), STL (ASCII and binary), glTF and GLB (Draco too), OFF, VRML
1 and 2 (also gzipped), Bosphorus BNT, point clouds XYZ and PTS; any of them as .gz, or with its files as .zip.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from affectvlm.scan import Scan, ScanError
from affectvlm.scan_io import bnt, gltf, landmarks, obj, off, ply, points, stl, vrml
from affectvlm.scan_io.gltf_animation import Animation, is_animated
from affectvlm.scan_io.raw import RawScan, finish
from affectvlm.scan_io.sniff import UNKNOWN_BINARY, UNKNOWN_TEXT, looks_like
from affectvlm.scan_io.source import ScanFile, open_source

log = logging.getLogger(__name__)

READERS: dict[str, Callable[[ScanFile], RawScan]] = {
    **obj.READERS,
    **ply.READERS,
    **stl.READERS,
    **gltf.READERS,
    **off.READERS,
    **vrml.READERS,
    **bnt.READERS,
    **points.READERS,
}
"""Extension (lower case, with dot) → reader."""

EXTENSIONS = (*READERS, ".wrz", ".zip", ".gz")
"""What a user may upload."""

MAX_MESSAGE = 500

SAME_FORMAT = {".vrml": ".wrl", ".gltf": ".glb", ".pts": ".xyz"}


def read_scan(source: str | Path | bytes | BinaryIO | ScanFile, name: str | None = None) -> Scan:
    """Read one scan.

    Args:
        source: a path, the bytes of a file, or a binary file. Materials, textures and landmarks are looked for beside a
            path; with bytes they can only come in the same zip. Or a `ScanFile`, opened by us (frames of a sequence).
        name: the file's name where `source` does not tell it. Its extension says the format; without one the content
            does.

    Returns:
        The scan in millimetres as far as its unit could be told (`unit`, "unknown" otherwise), axes as in the file,
        polygons as triangles, one uv a vertex, `warnings` in plain words on what was repaired.

    Raises:
        ScanError: whatever is wrong with the file: missing, empty, cut off, damaged, too large, unsafe, no scan.
    """
    with _guarded(shown := _shown(source, name)):
        return _read(open_source(source, name, tuple(READERS)), shown)


def open_animation(source: str | Path | bytes | BinaryIO, name: str | None = None) -> Animation:
    """The animation of a glTF or GLB file, given as to `read_scan`; `scan_at` reads it.

    Raises:
        ScanError: as `read_scan`, or a file without animation.
    """
    with _guarded(_shown(source, name)):
        file = open_source(source, name, tuple(READERS))
        if looks_like(file.data)[0] not in gltf.READERS:
            raise ScanError("not a glTF; only glTF and GLB files hold an animation")
        return Animation(file)


def holds_animation(source: str | Path | bytes | BinaryIO, name: str | None = None) -> bool:
    """Whether a file, given as to `read_scan`, is a glTF with an animation.

    Raises:
        ScanError: the file cannot be opened, or is a damaged glTF.
    """
    with _guarded(_shown(source, name)):
        file = open_source(source, name, tuple(READERS))
        return looks_like(file.data)[0] in gltf.READERS and is_animated(file)


def scan_at(animation: Animation, seconds: float, unit: str | None = None) -> Scan:
    """An animated scene at one moment, as `read_scan` gives a scan; `unit` "mm", "cm" or "m" where it is known.

    Raises:
        ScanError: nothing usable is left of the shape.
    """
    shown = f"{_shown(None, animation.name)} at {seconds:.2f} s"
    with _guarded(shown):
        raw = animation.raw(seconds)
        raw.unit = unit
        return finish(raw, shown)


def _shown(source: object, name: str | None) -> str:
    """The name of a file for messages, never with its folder; whatever is in it, a terminal may print it."""
    shown = name or (source if isinstance(source, str) else getattr(source, "name", ""))
    return _plain(Path(str(shown)[-300:]).name.replace("\0", "")) or "the scan"


@contextmanager
def _guarded(shown: str) -> Iterator[None]:
    """Whatever goes wrong with a file ends in a ScanError that names it."""
    try:
        with np.errstate(all="ignore"):  # damaged numbers overflow on the way; `finish` judges what came out
            yield
    except ScanError as error:
        raise ScanError(f"{shown}: {_plain(str(error))}") from None
    except MemoryError:
        raise ScanError(f"{shown}: more memory needed than there is; a smaller scan is needed") from None
    except Exception as error:  # noqa: BLE001  the last net: a stranger's file must never end in anything else
        log.warning("unexpected %s while reading a scan", type(error).__name__, exc_info=True)
        raise ScanError(f"{shown}: damaged in a way we did not foresee ({type(error).__name__})") from error


def _read(file: ScanFile, shown: str) -> Scan:
    found, words = looks_like(file.data)
    extension = file.extension
    reader = READERS.get(extension)
    note = []
    if found == ".xyz" and reader is not None:
        found, words = None, UNKNOWN_TEXT  # rows of numbers are told by exclusion: no reason to overrule a name
    if reader is None or (found or extension) != extension:
        same = SAME_FORMAT.get(extension, extension) == SAME_FORMAT.get(found or "", found)
        if found is None:
            raise ScanError(f"{_named(extension)} looks like {words}; accepted are {accepted()}")
        if not same and extension:
            note.append(f"The file is named {extension} but is {words}; it was read as that.")
        reader = READERS[extension if same and reader else found]
    elif found is None and words not in (UNKNOWN_BINARY, UNKNOWN_TEXT):
        raise ScanError(f"{_named(extension)} looks like {words}; accepted are {accepted()}")
    raw = reader(file)
    if not len(raw.faces) and reader is not points.read:
        raw.warnings.append("There are no faces; the vertices were read as a point cloud.")
    landmarks.attach(file, raw)
    raw.warnings = note + raw.warnings + list(dict.fromkeys(file.siblings.notes))
    return finish(raw, shown)


def _plain(message: str) -> str:
    """A message fit to be shown, whatever piece of the file it quotes: printable and of bounded length."""
    text = "".join(c if c.isprintable() else "?" for c in message[:MAX_MESSAGE])
    return text + ("..." if len(message) > MAX_MESSAGE else "")


def _named(extension: str) -> str:
    return f"a {extension[:12]} file that" if extension else "a file that"


def accepted() -> str:
    """The accepted extensions as one phrase."""
    return ", ".join(EXTENSIONS)
