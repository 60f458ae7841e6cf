"""Scans in the order of time: the frames in a folder or a zip, opened one at a time.

The frames are the scans of one format in one folder; other files there are their materials and textures. Names are
ordered by the numbers in them, so that 9 comes before 10.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from affectvlm.scan import ScanError
from affectvlm.scan_io.images import IMAGE_EXTENSIONS
from affectvlm.scan_io.limits import (
    FREE_EXPANSION_BYTES,
    MAX_EXPANSION,
    MAX_FILE_BYTES,
    MAX_SERIES_BYTES,
    MAX_SERIES_FRAMES,
    MAX_SERIES_MEMBERS,
)
from affectvlm.scan_io.source import (
    ARCHIVES,
    CENTRAL_ENTRY,
    ScanFile,
    Siblings,
    checked_member,
    is_litter,
    read_member,
)

PACKED = {".gz": "", ".wrz": ".wrl"}
"""Ending of a frame that is packed by itself → what its name ends in without."""
SHOWN = 5
DIGITS = re.compile(r"(\d{1,18})")


@dataclass(frozen=True)
class Series:
    """names: of the frames, in order, without folder; numbers: of each, rising; remarks: gaps, files passed over;
    open: index → what `read_scan` takes; close: lets go of the archive."""

    names: tuple[str, ...]
    numbers: tuple[int, ...]
    remarks: tuple[str, ...]
    open: Callable[[int], Path | ScanFile]
    close: Callable[[], None] = lambda: None


def open_folder(folder: Path, extensions: Iterable[str]) -> Series:
    """The frames in a folder, not in folders below it.

    Raises:
        ScanError: no folder, no scans in it, or too many.
    """
    try:
        with os.scandir(folder) as entries:
            files, folders = [], []
            for entry in itertools.islice(entries, MAX_SERIES_MEMBERS + 1):
                (files if entry.is_file() else folders).append(entry.name)
    except OSError as error:
        raise ScanError(f"the folder cannot be opened: {error.strerror}") from None
    _few_enough(len(files) + len(folders))
    names, remarks = _one_format([name for name in files if not is_litter(name)], tuple(extensions))
    if not names:
        inside = f"; it has the folders {_listed(sorted(folders))}, of which one is needed" if folders else ""
        raise ScanError(f"the folder holds no scan{inside}")
    names, numbers, gaps = in_order(names)
    return Series(names, numbers, (*remarks, *gaps), lambda index: folder / names[index])


def open_zip(source: Path | bytes, extensions: Iterable[str]) -> Series:
    """The frames in a zip, unpacked one at a time and in memory alone; close it after use.

    Raises:
        ScanError: a damaged or unsafe zip, one that unpacks to too much, or no scans of one folder in it.
    """
    archive, members = _open_archive(source)
    try:
        return _frames_of(archive, members, tuple(extensions))
    except BaseException:
        archive.close()
        raise


def scans_in_zip(source: Path | bytes, extensions: Iterable[str]) -> int:
    """How many scans a zip holds; 0 where it is no zip that can be opened."""
    try:
        archive, members = _open_archive(source)
    except ScanError:
        return 0
    archive.close()
    return sum(_format(name) in tuple(extensions) for name in members)


def in_order(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...], tuple[str, ...]]:
    """Names of frames in the order of the numbers in them → (names, numbers, remarks on gaps).

    Where names are alike but for their numbers, the last of these that is not the same everywhere numbers the frames;
    else they are counted from 1.

    Raises:
        ScanError: two files have one number ("7.ply", "007.ply").
    """
    parts = {name: DIGITS.split(name[: len(name) - len(_ending(name))]) for name in names}
    alike = len({tuple(part[::2]) for part in parts.values()}) == 1

    def key(name: str) -> tuple:
        # text and number by turns, so that only like is compared with like; the name itself settles the rest
        mixed = [int(part) if place % 2 else part.lower() for place, part in enumerate(parts[name])]
        return (mixed, name)

    ordered = tuple(sorted(names, key=key))
    rows = [[int(part) for part in parts[name][1::2]] for name in ordered]
    counted = tuple(range(1, len(ordered) + 1))
    if not alike or not rows[0]:
        return ordered, counted, ()
    if len(rows) == 1:
        return ordered, (rows[0][-1],), ()
    for (a, first), (b, second) in itertools.pairwise(zip(ordered, rows, strict=True)):
        if first == second:
            raise ScanError(f"{a!r} and {b!r} are both frame {first[-1]}; one of them is needed")
    columns = [column for column in zip(*rows, strict=True) if len(set(column)) > 1]
    numbers = columns[-1]
    if any(b <= a for a, b in itertools.pairwise(numbers)):
        return ordered, counted, ()
    return ordered, numbers, _gaps(numbers)


def _gaps(numbers: Sequence[int]) -> tuple[str, ...]:
    steps = [b - a for a, b in itertools.pairwise(numbers)]
    step = Counter(steps).most_common(1)[0][0]
    missing = [(a + step, b - step) for a, b in itertools.pairwise(numbers) if b - a > step]
    if not missing:
        return ()
    spans = [f"{low}" if low >= high else f"{low} to {high}" for low, high in missing]
    count = sum(max((high - low) // step + 1, 1) for low, high in missing)
    return (f"{count} of the frames {numbers[0]} to {numbers[-1]} are missing: {_listed(spans)}",)


def _open_archive(source: Path | bytes) -> tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]:
    """The archive and its members without litter, checked."""
    try:
        size = len(source) if isinstance(source, bytes) else source.stat().st_size
        archive = zipfile.ZipFile(io.BytesIO(_countable(source)) if isinstance(source, bytes) else source)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError, UnicodeError) as error:
        if isinstance(error, ScanError):
            raise
        raise ScanError(f"a damaged zip ({(getattr(error, 'strerror', None) or str(error))[:80]})") from None
    try:
        _few_enough(len(archive.infolist()))
        members = [checked_member(info) for info in archive.infolist() if not info.is_dir()]
        unpacked = sum(info.file_size for info in members)
        if unpacked > MAX_SERIES_BYTES or (unpacked > FREE_EXPANSION_BYTES and unpacked > MAX_EXPANSION * size):
            raise ScanError(
                f"a zip of {size:,} bytes that unpacks to {unpacked:,}; at most {MAX_SERIES_BYTES:,} and "
                f"{MAX_EXPANSION} times its size are accepted"
            )
    except ScanError:
        archive.close()
        raise
    return archive, {info.filename: info for info in members if not is_litter(info.filename)}


def _countable(data: bytes) -> bytes:
    """An upload that is small enough, in bytes and in entries, before zipfile makes an object of every entry."""
    if len(data) > MAX_FILE_BYTES:
        raise ScanError(f"more than {MAX_FILE_BYTES:,} bytes; at most so many are accepted")
    _few_enough(data.count(CENTRAL_ENTRY))
    return data


def _frames_of(archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], extensions: tuple[str, ...]) -> Series:
    nested = [name for name in members if name.lower().endswith(ARCHIVES) and _format(name) not in extensions]
    if nested:
        raise ScanError(f"the zip holds another archive ({nested[0][:80]!r}); scans and their files are needed")
    scans = [name for name in members if _format(name) in extensions]
    folders = sorted({str(PurePosixPath(name).parent) for name in scans})
    if len(folders) != 1:
        named = _listed(name[:60] for name in folders)
        found = f"scans in {len(folders)} folders ({named})" if folders else "no scan"
        raise ScanError(f"the zip holds {found}; the frames of one sequence in one folder are needed")
    folder = folders[0]
    # What lies outside of the folder is found by its bare name, where no file of the folder has that.
    ordered = sorted(members, key=lambda name: PurePosixPath(name).is_relative_to(folder))
    inside = {_relative(name, folder): members[name] for name in ordered}
    listing: dict[str, list[str]] = {}
    for path in map(PurePosixPath, inside):
        listing.setdefault(str(path.parent), []).append(path.name)
    names, remarks = _one_format([PurePosixPath(name).name for name in scans], extensions)
    names, numbers, gaps = in_order(names)

    def load(name: str, most: int) -> bytes | None:
        return read_member(archive, inside[name], most)

    images = [name for name in inside if name.lower().endswith(IMAGE_EXTENSIONS)]

    def open_frame(index: int) -> ScanFile:
        data = read_member(archive, inside[names[index]], MAX_FILE_BYTES)
        if data[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            raise ScanError(f"{names[index][:80]} is an archive inside an archive; a scan is needed")
        return ScanFile(
            names[index],
            data,
            Siblings(lambda below: listing.get(below, []), load),
            images[0] if len(images) == 1 else None,
        )

    return Series(names, numbers, (*remarks, *gaps), open_frame, archive.close)


def _one_format(names: list[str], extensions: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """The scans of the commonest format (of equals, the first of `extensions`), and what was passed over."""
    formats = Counter(_format(name) for name in names if _format(name) in extensions)
    if not formats:
        return [], []
    best = max(formats, key=lambda extension: (formats[extension], -extensions.index(extension)))
    if formats[best] > MAX_SERIES_FRAMES:
        raise ScanError(f"{formats[best]:,} frames; at most {MAX_SERIES_FRAMES:,} are accepted")
    others = [f"{count} {extension}" for extension, count in formats.items() if extension != best]
    remarks = [f"Beside {formats[best]} {best} files, {_listed(others)} were passed over."] if others else []
    return [name for name in names if _format(name) == best], remarks


def _format(name: str) -> str:
    """The extension that says the format, lower case: ".ply" of "a.ply.gz"."""
    stem, extension = os.path.splitext(name.lower())
    if extension in PACKED:
        return PACKED[extension] or os.path.splitext(stem)[1]
    return extension


def _ending(name: str) -> str:
    """All of the extension: ".ply.gz"."""
    stem, extension = os.path.splitext(name)
    return os.path.splitext(stem)[1] + extension if extension.lower() == ".gz" else extension


def _relative(name: str, folder: str) -> str:
    path = PurePosixPath(name)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


def _few_enough(count: int) -> None:
    if count > MAX_SERIES_MEMBERS:
        raise ScanError(f"more than {MAX_SERIES_MEMBERS:,} files; at most so many are accepted")


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
