"""What the readers of published data sets have in common: finding the folder of the subjects, frame numbers with their
gaps, companions that are missing, lists of known faults.

A published layout has a fixed depth, so links to folders are followed here: large sets are often spread over disks.
"""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from affectvlm.datasets.draft import COMPANIONS, PICTURES, SCANS, Draft, scan_stem
from affectvlm.datasets.records import Index, Record, listed

ARCHIVES = (".zip", ".rar", ".7z", ".tar", ".tgz", ".gz", ".bz2", ".xz")
MESHES = tuple(extension for extension in SCANS if extension not in (".zip", ".gz"))
"""Extensions of a single scan that is no archive."""

LANDMARKS = (".bnd", ".landmark")
"""Extensions of files of 83 landmarks."""

LOOK_DOWN = 3
"""Levels below the folder named by the user where the subjects may begin."""

_LITTER = ("thumbs.db", "desktop.ini", "__macosx")


@dataclass
class Frames:
    """The numbered files of one sequence.

    Attributes:
        scans: number → relative path of the scan, rising.
        pictures: numbers that have a picture beside them.
        landmarks: number → relative path of a landmark file.
    """

    scans: dict[int, str] = field(default_factory=dict)
    pictures: set[int] = field(default_factory=set)
    landmarks: dict[int, str] = field(default_factory=dict)

    @property
    def missing(self) -> list[range]:
        """Numbers between the first and the last that have no scan. As ranges: a file called by a date is enough to
        make them millions."""
        return [range(a + 1, b) for a, b in itertools.pairwise(sorted(self.scans)) if b - a > 1]


def data_folder(path: str | Path) -> Path:
    """The path of a folder.

    Raises:
        ValueError: there is none.
    """
    path = Path(path)
    if not path.is_dir():
        what = "is a file" if path.is_file() else "does not exist"
        raise ValueError(f"{path.name or path} {what}; the folder of a data set is needed")
    return path


def entries(draft: Draft, folder: Path) -> list[Path]:
    """Files and folders in a folder, sorted by name, without files of the system.

    Raises:
        ValueError: it cannot be opened.
    """
    return [path for path, _ in _scan(draft, folder)]


def _scan(draft: Draft, folder: Path) -> list[tuple[Path, bool]]:
    """As `entries`, each with whether it is a folder. Listing tells that, so that nothing is asked of a million files
    one by one."""
    try:
        with os.scandir(folder) as found:
            listing = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"the folder {folder.name!r} cannot be opened: {error.strerror}") from None
    kept = []
    for entry in listing:
        if entry.name.startswith(".") or entry.name.lower() in _LITTER:
            draft.passed["files of the system"] += 1
        elif (is_folder := entry.is_dir()) or entry.is_file():
            kept.append((folder / entry.name, is_folder))
        else:
            draft.exclude(relative(draft, folder / entry.name), "no plain file, or a link to nothing")
    return kept


def walk(draft: Draft, folder: Path, levels: int) -> Iterator[Path]:
    """The files in a folder and `levels` levels of folders below it, sorted."""
    for entry, is_folder in _scan(draft, folder):
        if not is_folder:
            yield entry
        elif levels > 0:
            yield from walk(draft, entry, levels - 1)
        else:
            draft.exclude(relative(draft, entry) + "/", "lies too deep for this layout and was not looked into")


def subject_folders(
    draft: Draft, subject: re.Pattern[str], levels: int, start: Path | None = None, aside: Sequence[Path] = ()
) -> list[tuple[str, Path]]:
    """(name in capitals, folder) of each subject, sorted.

    They begin at `start` (by default the draft's root) or at most LOOK_DOWN levels below it. Folders count as those of
    subjects where their names match and at least one of them holds a scan exactly `levels` levels below, so that
    packages of landmarks or of other signals with the same folders are not mistaken for the scans. Folders in `aside`
    are known to be something else.

    Raises:
        ValueError: none is found, or one subject lies in two places.
    """
    start = draft.root if start is None else start
    level = [start]
    for _ in range(LOOK_DOWN + 1):
        bases = [folder for folder in level if _holds_subjects(folder, subject, levels)]
        if bases:
            break
        level = [entry for folder in level for entry in folders(folder) if not subject.fullmatch(entry.name)]
    else:
        raise ValueError(f"no folder of a subject with scans in {start.name or start}; {draft.layout}")
    for base in bases:
        if base != start:
            draft.remarks.append(f"the subjects were found in {relative(draft, base)}")
    found: dict[str, Path] = {}
    for base in bases:
        for entry in entries(draft, base):
            name = entry.name.upper()
            if entry in aside:
                continue
            if not entry.is_dir() or not subject.fullmatch(entry.name):
                _stray(draft, entry)
            elif name in found:
                first, second = relative(draft, found[name]), relative(draft, entry)
                raise ValueError(f"{name} lies in both {first} and {second}; name the folder of one data set")
            else:
                found[name] = entry
    return sorted(found.items())


def _holds_subjects(folder: Path, subject: re.Pattern[str], levels: int) -> bool:
    return any(_has_scan(entry, levels) for entry in folders(folder) if subject.fullmatch(entry.name))


def _has_scan(folder: Path, levels: int) -> bool:
    if levels:
        return any(_has_scan(entry, levels - 1) for entry in folders(folder))
    return holds_scan(folder)


def holds_scan(folder: Path) -> bool:
    """Whether one of the files in a folder is a scan."""
    try:
        with os.scandir(folder) as found:
            return any(extension_of(entry.name) in MESHES for entry in found if not entry.name.startswith("."))
    except OSError:
        return False


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted; none where it cannot be opened."""
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry in found if entry.is_dir() and not entry.name.startswith(".")]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def _stray(draft: Draft, entry: Path) -> None:
    """What lies beside the folders of the subjects."""
    shown = relative(draft, entry)
    if entry.is_dir():
        draft.exclude(shown + "/", "no folder of a subject")
    else:
        pass_over(draft, entry)


def pass_over(draft: Draft, file: Path, why: str = "its name does not fit this data set") -> None:
    """A file that is no sample: scans and archives are named, all others counted."""
    extension = extension_of(file.name)
    if extension in ARCHIVES:
        if not _unpacked(file):
            draft.exclude(relative(draft, file), "an archive; unpack it to have what is in it")
        else:
            draft.passed["archives beside their folders"] += 1
    elif extension in MESHES:
        draft.exclude(relative(draft, file), why)
    else:
        draft.passed[kind(file.name)] += 1


def _unpacked(archive: Path) -> bool:
    return archive.with_suffix("").is_dir()


def read_frames(draft: Draft, folder: Path, name: re.Pattern[str], meshes: Sequence[str] = MESHES) -> Frames:
    """The frames in a folder.

    Args:
        name: matches a file's name without extension; its group "number" is the number of the frame.
        meshes: extensions of scans, the preferred one first.
    """
    frames, others = Frames(), []
    for entry, is_folder in _scan(draft, folder):
        extension, match = extension_of(entry.name), name.fullmatch(scan_stem(entry.name))
        if is_folder:
            draft.exclude(relative(draft, entry) + "/", "a folder among frames was not looked into")
        elif match is None:
            pass_over(draft, entry, "its name does not say the number of a frame")
        elif extension in meshes:
            others.append((meshes.index(extension), int(match["number"]), relative(draft, entry)))
        elif extension in PICTURES:
            frames.pictures.add(int(match["number"]))
        elif extension in LANDMARKS:
            frames.landmarks[int(match["number"])] = relative(draft, entry)
        elif extension in COMPANIONS:
            draft.passed["notes beside scans"] += 1
        else:
            pass_over(draft, entry)
    for _, number, file in sorted(others):
        first = frames.scans.setdefault(number, file)
        if first != file:
            draft.exclude(file, f"a second scan of frame {number}; {Path(first).name} counts")
    frames.scans = dict(sorted(frames.scans.items()))
    return frames


def sequence(frames: Frames, landmarks: Mapping[int, str] | None = None, **known: Any) -> Record:
    """The record of a sequence; `known` are its other values, `landmarks` files from elsewhere by number of frame.

    A landmark file that a reader finds by itself, beside the scan under its name, is not listed.
    """
    beside = {number: file for number, file in frames.landmarks.items() if not file.lower().endswith(".bnd")}
    own = {**beside, **(landmarks or {})}
    listed_files = tuple(own.get(number) for number in frames.scans)
    return Record(
        **known,
        files=tuple(frames.scans.values()),
        frames=tuple(frames.scans),
        frame_landmarks=listed_files if any(listed_files) else (),
    )


def tell_frames(draft: Draft, sequences: Mapping[str, Frames]) -> None:
    """Remarks on the gaps of sequences (id → frames), on first numbers and on missing pictures."""
    total = len(sequences)
    gaps = {name: frames.missing for name, frames in sequences.items() if frames.missing}
    count = {name: sum(one.stop - one.start for one in gone) for name, gone in gaps.items()}
    gaps = {name: f"{count[name]} frames are missing: {_spans(gone)}" for name, gone in gaps.items()}
    tell(draft, "sequences have gaps", gaps, total)
    bare = {name: sorted(set(frames.scans) - frames.pictures) for name, frames in sequences.items()}
    bare = {name: f"no picture for {runs(numbers)}" for name, numbers in bare.items() if numbers}
    tell(draft, "sequences lack pictures (texture) of some frames", bare, total)
    orphans = {name: sorted(frames.pictures - set(frames.scans)) for name, frames in sequences.items()}
    orphans = {name: f"pictures without a scan: {runs(numbers)}" for name, numbers in orphans.items() if numbers}
    tell(draft, "sequences have pictures without a scan", orphans, total)
    starts = Counter(min(frames.scans) for frames in sequences.values())
    if len(starts) > 1:
        shown = listed(f"{first} in {count}" for first, count in starts.most_common())
        draft.remarks.append(f"the first frame has the number {shown} of {total} sequences")


def tell(draft: Draft, what: str, found: Mapping[str, str], total: int) -> None:
    """A remark with the number of cases, then one for each, unless it is all of them."""
    if found:
        draft.remarks.append(f"{len(found)} of {total} {what}")
        if len(found) < total or total <= 2:
            draft.remarks += [f"{name}: {words}" for name, words in found.items()]


def conclude(draft: Draft, exclude: str | Path | None = None) -> Index:
    """The index: labels that are no class go with a count, then the records of a list of known faults.

    Raises:
        ValueError: nothing is left, or the list cannot be read.
    """
    lost: dict[str, int] = defaultdict(int)
    kept = []
    for record in draft.records:
        labels = [name for name in (record.label, *record.also) if name in draft.classes]
        for name in (record.label, *record.also):
            lost[name] += name not in draft.classes
        if labels:
            kept.append(replace(record, label=labels[0], also=tuple(labels[1:])))
    draft.records = kept
    draft.remarks += [
        f"{count} samples are labelled {name}, which is no class here" for name, count in lost.items() if count
    ]
    index = draft.finish()
    return index if exclude is None else leave_out(index, exclude)


def leave_out(index: Index, file: str | Path) -> Index:
    """The index without what a text file lists: a line a record's id, its file's name without extension, or a whole
    subject; "#" begins a reason or a comment. Lines that match nothing are remarked.

    Raises:
        ValueError: the file cannot be read, or it lists everything.
    """
    file = Path(file)
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the list {file.name} cannot be read ({error}); a text file of ids is needed") from None
    named: dict[str, list[str]] = defaultdict(list)
    for record in index.records:
        names = {record.id, record.subject, *([scan_stem(record.files[0])] if not record.is_sequence else [])}
        for name in names:
            named[name.casefold()].append(record.id)
    reasons, remarks = {}, []
    for number, line in enumerate(lines, 1):
        name, _, why = (part.strip() for part in line.partition("#"))
        if name and name.casefold() not in named:
            remarks.append(f"line {number} of {file.name}, {ascii(name[:60])}, matches nothing")
        for one in named.get(name.casefold(), ()):
            reasons.setdefault(one, why or f"listed in {file.name}")
    if len(reasons) == len(index):
        raise ValueError(f"{file.name} lists all {len(index)} samples; some have to be left")
    index = index.without(reasons)
    remarks.append(f"{len(reasons)} samples were left out because {file.name} lists them")
    return replace(index, remarks=(*index.remarks, *remarks))


def runs(numbers: Iterable[int]) -> str:
    """Rising numbers as text: [2, 17, 18, 19] → "2, 17-19"."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return _spans([range(part[0], part[-1] + 1) for part in parts])


def _spans(ranges: Iterable[range]) -> str:
    return listed(f"{one[0]}-{one[-1]}" if one.stop - one.start > 1 else str(one[0]) for one in ranges)


def relative(draft: Draft, path: Path) -> str:
    return path.relative_to(draft.root).as_posix()


def extension_of(name: str) -> str:
    return Path(name).suffix.lower()


def kind(name: str) -> str:
    """What a file that was passed over is called in a count."""
    return f"{extension_of(name) or 'nameless'} files".encode("utf-8", "backslashreplace").decode()
