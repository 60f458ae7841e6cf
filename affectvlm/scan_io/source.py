"""Where the bytes of a scan come from: a file, bytes, a gzip file or a zip, with the files that may lie beside it.

A scan names other files (materials, textures, buffers). `Siblings` answers only with plain files of the scan's own
folder (or archive), or folders below it: never a URI with a scheme, an absolute path or one with `..` in it.
"""

from __future__ import annotations

import io
import os
import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote

from affectvlm.scan import ScanError
from affectvlm.scan_io.images import IMAGE_EXTENSIONS
from affectvlm.scan_io.limits import (
    FREE_EXPANSION_BYTES,
    MAX_EXPANSION,
    MAX_FILE_BYTES,
    MAX_GZIP_MEMBERS,
    MAX_MEMBERS,
    MAX_UNPACKED_BYTES,
)

ARCHIVES = (".zip", ".gz", ".wrz", ".7z", ".rar", ".tar", ".tgz", ".bz2", ".xz")
LITTER = ("__macosx", ".ds_store", "thumbs.db", "desktop.ini")
CENTRAL_ENTRY = b"PK\x01\x02"
GZIP = b"\x1f\x8b"
PIECE_BYTES = 64 * 1024
SCHEME = re.compile(r"^[a-zA-Z][a-zA-Z0-9+.\-]+:")


@dataclass
class Siblings:
    """Files beside the scan: `names(folder)` lists a folder ("." is the scan's own), `load(relative name,
    most_bytes)` reads.

    `notes` collects what was refused, for the scan's warnings.
    """

    names: Callable[[str], list[str]] = lambda folder: []
    load: Callable[[str, int], bytes | None] = lambda name, most: None
    notes: list[str] = field(default_factory=list)

    def find(self, reference: str, most_bytes: int) -> bytes | None:
        """The file a scan refers to: by its relative name, else by its last part; case does not matter. None if
        absent.

        What leads out of the folder is not followed: of an absolute path, one with `..`, or a URI, at most the last
        part is looked for in the scan's own folder, and a note says so.
        """
        wanted = unquote(reference.strip().strip('"')).replace("\\", "/")
        parts = PurePosixPath(wanted).parts
        outside = bool(SCHEME.match(wanted)) or wanted.startswith("/") or ".." in parts
        if outside:
            self.notes.append(f"The scan refers to {reference[:80]!r}, outside its own folder; that was not opened.")
        if not parts or "\0" in wanted or len(wanted) > 1000:
            return None
        for candidate in ([] if outside else [PurePosixPath(wanted)]) + [PurePosixPath(parts[-1])]:
            folder = str(candidate.parent)
            for name in self.names(folder):
                if name.lower() == candidate.name.lower():
                    return self.load(str(PurePosixPath(folder) / name), most_bytes)
        return None

    def with_stem(self, stem: str, extensions: Iterable[str], most_bytes: int) -> tuple[str, bytes] | None:
        """(name, bytes) of the first file `stem` + one of `extensions` (lower case, in order of preference), or
        None."""
        by_name = {name.lower(): name for name in self.names(".")}
        for extension in extensions:
            name = by_name.get(stem.lower() + extension)
            if name is not None:
                data = self.load(name, most_bytes)
                if data is not None:
                    return name, data
        return None


@dataclass
class ScanFile:
    """One scan file: `name` (no folder), `data` and its `siblings`; `lone_image` names the only image of an
    archive."""

    name: str
    data: bytes
    siblings: Siblings = field(default_factory=Siblings)
    lone_image: str | None = None

    @property
    def stem(self) -> str:
        return os.path.splitext(self.name)[0]

    @property
    def extension(self) -> str:
        return os.path.splitext(self.name)[1].lower()


def open_source(
    source: str | Path | bytes | BinaryIO | ScanFile, name: str | None, extensions: Iterable[str]
) -> ScanFile:
    """The scan file behind a path, bytes or a binary file; archives are opened in memory. One that is open is checked.

    Raises ScanError where there is no such file, it is too large, or the archive is unsafe or holds no single scan.
    """
    if isinstance(source, (str, Path)):
        file = _open_path(Path(source))
    elif isinstance(source, ScanFile):
        file = source
    elif isinstance(source, (bytes, bytearray, memoryview)):
        file = ScanFile("", bytes(source))
    elif hasattr(source, "read"):
        data = source.read(MAX_FILE_BYTES + 1)
        if not isinstance(data, bytes):
            raise ScanError("the file is open as text; it has to be open for bytes")
        own_name = getattr(source, "name", None)
        file = ScanFile(os.path.basename(own_name) if isinstance(own_name, str) else "", data)
    else:
        raise ScanError(f"got a {type(source).__name__}; a path, bytes or a binary file is needed")
    if name is not None:
        file.name = PurePosixPath(name.replace("\\", "/")).name
    if len(file.data) > MAX_FILE_BYTES:
        raise ScanError(f"more than {MAX_FILE_BYTES:,} bytes; at most so many are accepted")
    if not file.data:
        raise ScanError("the file is empty")
    if file.data[:2] == GZIP:
        file = _ungzip(file)
    if file.data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        file = _unzip(file, tuple(extensions))
    return file


def _open_path(path: Path) -> ScanFile:
    data = _read_plain_file(path, MAX_FILE_BYTES)
    folder = path.parent

    def names(inside: str) -> list[str]:
        try:
            with os.scandir(folder / inside) as entries:
                return [entry.name for entry in entries if entry.is_file()]
        except OSError:
            return []

    def load(name: str, most: int) -> bytes | None:
        return _read_plain_file(folder / name, most)

    return ScanFile(path.name, data, Siblings(names, load))


def _read_plain_file(path: Path, most: int) -> bytes:
    """Bytes of a regular file; ScanError for a folder, a device, a pipe, or more than `most` bytes."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | getattr(os, "O_BINARY", 0)), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ScanError(f"{path.name} is a folder or a device; a file is needed")
            if status.st_size > most:
                raise ScanError(f"{path.name} has {status.st_size:,} bytes; at most {most:,} are accepted")
            return file.read(status.st_size)  # not `most`: room for so much would be asked for
    except (OSError, ValueError) as error:
        if isinstance(error, ScanError):
            raise
        reason = getattr(error, "strerror", None) or "not a file name"
        raise ScanError(f"{path.name[:100]!r} cannot be opened: {reason}") from None


def _ungzip(file: ScanFile) -> ScanFile:
    """The content of a gzip file under the name without `.gz` (`.wrz` becomes `.wrl`)."""
    most = min(MAX_UNPACKED_BYTES, max(FREE_EXPANSION_BYTES, MAX_EXPANSION * len(file.data)), MAX_FILE_BYTES)
    data = b"".join(_gzip_members(file.data, most))
    if data[:2] == GZIP or data[:4] == b"PK\x03\x04":
        raise ScanError("an archive inside an archive; a gzip file has to hold the scan itself")
    if not data:
        raise ScanError("the gzip file is empty inside")
    if file.name.lower().endswith(".gz"):
        name = file.name[:-3]
    else:
        name = re.sub(r"\.wrz$", ".wrl", file.name, flags=re.IGNORECASE)
    return ScanFile(name, data, file.siblings)


def _gzip_members(packed: bytes, most: int) -> Iterator[bytes]:
    """What is in a gzip file, in pieces. `cat` and block-wise packers write several members; they make one content."""
    position, left, members = 0, most, 0
    while packed[position : position + 2] == GZIP:  # what else follows a member is padding
        members += 1
        if members > MAX_GZIP_MEMBERS:
            raise ScanError(f"a gzip file of more than {MAX_GZIP_MEMBERS:,} members; at most so many are accepted")
        unpacker = zlib.decompressobj(wbits=31)
        while not unpacker.eof:
            piece = packed[position : position + PIECE_BYTES]
            if not piece:
                raise ScanError("a gzip file that ends early; a whole one is needed")
            try:
                data = unpacker.decompress(piece, left + 1)
            except zlib.error:
                raise ScanError("a damaged gzip file") from None
            left -= len(data)
            if left < 0:
                raise ScanError(f"a gzip file that unpacks to more than {most:,} bytes; at most so many are accepted")
            position += len(piece) - len(unpacker.unused_data)
            yield data


def _unzip(file: ScanFile, extensions: tuple[str, ...]) -> ScanFile:
    """The one scan inside a zip, with the other members as its siblings."""
    if file.data.count(CENTRAL_ENTRY) > MAX_MEMBERS:  # before zipfile makes an object of every entry
        raise ScanError(f"a zip of more than {MAX_MEMBERS} entries; at most so many are accepted")
    try:
        archive = zipfile.ZipFile(io.BytesIO(file.data))
        members = [checked_member(info) for info in archive.infolist() if not info.is_dir()]
    except ScanError:
        raise
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, UnicodeError) as error:
        raise ScanError(f"a damaged zip ({str(error)[:80]})") from None
    unpacked = sum(info.file_size for info in members)
    if unpacked > MAX_UNPACKED_BYTES or (unpacked > FREE_EXPANSION_BYTES and unpacked > MAX_EXPANSION * len(file.data)):
        raise ScanError(
            f"a zip of {len(file.data):,} bytes that unpacks to {unpacked:,}; at most {MAX_UNPACKED_BYTES:,} and "
            f"{MAX_EXPANSION} times its size are accepted"
        )
    infos = {info.filename: info for info in members if not is_litter(info.filename)}
    nested = [name for name in infos if name.lower().endswith(ARCHIVES)]
    if nested:
        raise ScanError(f"the zip holds another archive ({nested[0][:80]!r}); a scan and its files are needed")
    scans = [name for name in infos if os.path.splitext(name)[1].lower() in extensions]
    if len(scans) != 1:
        shown = (
            ", ".join(name[:60] for name in scans[:5]) or ", ".join(name[:60] for name in list(infos)[:5]) or "nothing"
        )
        raise ScanError(
            f"the zip holds {len(scans)} scans ({shown}); exactly one is needed, with its material and textures"
        )
    folder = PurePosixPath(scans[0]).parent

    def relative(name: str) -> str:
        path = PurePosixPath(name)
        return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name

    by_name = {relative(name): name for name in infos}

    def names(inside: str) -> list[str]:
        return [PurePosixPath(name).name for name in by_name if str(PurePosixPath(name).parent) == inside]

    def load(name: str, most: int) -> bytes | None:
        return read_member(archive, infos[by_name[name]], most)

    images = [name for name in by_name if name.lower().endswith(IMAGE_EXTENSIONS)]
    return ScanFile(
        PurePosixPath(scans[0]).name,
        read_member(archive, infos[scans[0]], MAX_FILE_BYTES),
        Siblings(names, load),
        images[0] if len(images) == 1 else None,
    )


def checked_member(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """A member whose name and kind are safe; ScanError otherwise. (No member is ever written to disk.)"""
    name = info.filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or SCHEME.match(name) or ".." in parts or re.match(r"^[a-zA-Z]:", name):
        raise ScanError(f"the zip holds an unsafe path ({name[:80]!r}); plain relative names are accepted")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise ScanError(f"the zip holds a symbolic link ({name[:80]!r}); plain files are accepted")
    if info.flag_bits & 0x1:
        raise ScanError(f"the zip is encrypted ({name[:80]!r}); one without a password is needed")
    return info


def is_litter(name: str) -> bool:
    parts = name.lower().split("/")
    return any(part in LITTER for part in parts) or parts[-1].startswith("._")


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, most: int) -> bytes:
    if info.file_size > most:
        raise ScanError(f"{info.filename[:80]} unpacks to {info.file_size:,} bytes; at most {most:,} are accepted")
    try:
        with archive.open(info) as member:
            data = member.read(most + 1)
    except Exception as error:  # noqa: BLE001  the decompressors behind zipfile raise a dozen kinds on damaged data
        raise ScanError(f"a damaged zip ({info.filename[:80]}: {str(error)[:80]})") from None
    if len(data) > most or len(data) != info.file_size:
        raise ScanError(f"a damaged zip ({info.filename[:80]} is not as long as declared)")
    return data
