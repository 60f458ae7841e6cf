"""4DME: clips of spontaneous micro-expressions as meshes over time, with a label sheet.

The sheet has one row a clip, with the columns sub_ID, fold_name (of the clip's folder), Emotion, Onset, Apex, Offset
and AUs. How the 4D files lie is not published and may differ by release, so a pattern says it:

    index = index_fourdme("4DME", pattern="DI4D/{subject}/{clip}/*.obj")

A clip may bear several emotions ("Repression, Negative"): the first is the record's label, the others its `also`.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from affectvlm.datasets.draft import Draft
from affectvlm.datasets.layout import (
    Frames,
    conclude,
    data_folder,
    extension_of,
    folders,
    holds_scan,
    read_frames,
    relative,
    runs,
    sequence,
    tell,
    tell_frames,
)
from affectvlm.datasets.records import Index
from affectvlm.datasets.sheet import columns, read_sheet
from affectvlm.emotions import FOURDME

COLUMNS = {
    "subject": "sub_ID",
    "clip": "fold_name",
    "emotion": "Emotion",
    "onset": "Onset",
    "apex": "Apex",
    "offset": "Offset",
    "units": "AUs",
}
"""Field → its column in the sheet of the first release."""

NEEDED = ("subject", "clip", "emotion")
WORDS = {"other": "others", "surprised": "surprise", "repressed": "repression"}
"""Other spellings of the five classes; case does not matter."""

PATTERN = "**/{subject}/{clip}/*"
FRAME = re.compile(r"(?:.*?\D)?(?P<number>\d+)")
DEEPEST = 6
LAYOUT = (
    "wanted is 4DME: a label sheet (CSV or .xlsx) with sub_ID, fold_name and Emotion, and meshes where the pattern "
    f"({PATTERN} by default) finds them"
)
_SEPARATORS = re.compile(r"[,;/+&|]|\band\b", re.IGNORECASE)
_UNIT = re.compile(r"(?:AU)?\s*(?P<unit>[LR]?\d{1,2}[LR]?)\s*(?P<mark>\(k\))?", re.IGNORECASE)


@dataclass(frozen=True)
class Clip:
    """A row of the sheet.

    Attributes:
        row: its number; subject, clip: as written; labels: of FOURDME, in the order of the cell, at least one.
        onset, apex, offset: numbers of frames, None where the sheet has none; onset and offset belong to the clip.
        units: action units, "12" or "R14"; marked: those with the mark (k), which are doubtful and not among `units`.
    """

    row: int
    subject: str
    clip: str
    labels: tuple[str, ...]
    onset: int | None = None
    apex: int | None = None
    offset: int | None = None
    units: tuple[str, ...] = ()
    marked: tuple[str, ...] = ()

    @property
    def length(self) -> int | None:
        """Frames from onset to offset, both counted."""
        return None if self.onset is None or self.offset is None else self.offset - self.onset + 1


def index_fourdme(
    path: str | Path,
    sheet: str | Path | None = None,
    pattern: str = PATTERN,
    names: Mapping[str, str] | None = None,
    trim: bool = False,
    classes: Sequence[str] = FOURDME,
    exclude: str | Path | None = None,
    source: str = "4dme",
) -> Index:
    """The clips of 4DME.

    Args:
        path: the folder of the meshes.
        sheet: the label sheet; by default the only CSV file or workbook in `path` whose name has "label" in it.
        pattern: where the meshes of a clip are, below `path`: {subject} and {clip} stand for the cells of the sheet
            (with a format if need be, {subject:0>2}), * for anything in a name, ** for any folders. Case does not
            matter; the last number in a file's name is that of the frame.
        names: field → column, where the sheet's differ from COLUMNS.
        trim: keep only the frames from onset to offset, where the files are whole recordings and not clips.
        classes: the class set; labels outside of it are counted and left out.
        exclude: a text file of known faults (subject/clip, or subject), see `layout.leave_out`.
        source: how the data set is called in records.

    Returns:
        A record a clip: id SUBJECT/CLIP, label and `also` of the sheet.

    Raises:
        ValueError: no such folder or sheet, a column or a part of the pattern that is missing, or no clip is left.
    """
    draft = Draft(data_folder(path), tuple(classes), layout=LAYOUT)
    sheet = _find_sheet(draft.root) if sheet is None else Path(sheet)
    _check_pattern(pattern)
    clips = _clips(draft, sheet, {**COLUMNS, **(names or {})})
    places = _places(draft.root)
    found: dict[str, Frames] = {}
    lengths: dict[str, str] = {}
    used: dict[Path, Frames] = {}
    for clip in clips:
        name = f"{clip.subject}/{clip.clip}"
        try:
            frames = _frames(draft, clip, pattern, places, used)
            _compare(clip, frames, trim, lengths)
        except ValueError as error:
            draft.exclude(f"row {clip.row} ({name})", str(error))
            continue
        found[name] = frames
        label, *also = clip.labels
        draft.records.append(
            sequence(frames, id=name, subject=clip.subject, label=label, also=tuple(also), source=source)
        )
    if found:
        tell_frames(draft, found)
    tell(draft, "clips have another number of frames than Offset - Onset + 1", lengths, len(found))
    _tell_labels(draft, clips)
    _tell_unnamed(draft, places, used)
    return conclude(draft, exclude)


def read_clips(sheet: str | Path, names: Mapping[str, str] | None = None) -> list[Clip]:
    """The rows of a label sheet.

    Raises:
        ValueError: the sheet cannot be read, or a row is not understood; the message names it.
    """
    draft = Draft(Path(sheet).parent, FOURDME)
    clips = _clips(draft, Path(sheet), {**COLUMNS, **(names or {})})
    if draft.excluded:
        row, why = next(iter(draft.excluded.items()))
        raise ValueError(f"{Path(sheet).name}, {row}: {why}")
    return clips


def emotions_of(cell: str) -> tuple[str, ...]:
    """The classes that a cell names, each once, in its order.

    Raises:
        ValueError: none, or a word that is no class.
    """
    labels = []
    for part in _SEPARATORS.split(cell):
        word = part.strip().casefold()
        if word and (label := WORDS.get(word, word)) not in labels:
            labels.append(label)
    if unknown := set(labels) - set(FOURDME):
        raise ValueError(f"the emotion {ascii(sorted(unknown)[0][:40])} is not known; {', '.join(FOURDME)} are")
    if not labels:
        raise ValueError("no emotion is named")
    return tuple(labels)


def units_of(cell: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(action units, those marked (k)) of a cell such as "AU4+R14, 12 (k)".

    Raises:
        ValueError: something that is no action unit.
    """
    units: tuple[list[str], list[str]] = ([], [])
    for part in re.split(r"[,;+]", cell):
        if not part.strip():
            continue
        match = _UNIT.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{ascii(part.strip()[:40])} is no action unit")
        units[match["mark"] is not None].append(match["unit"].upper())
    return tuple(units[0]), tuple(units[1])


def _clips(draft: Draft, sheet: Path, names: Mapping[str, str]) -> list[Clip]:
    """The rows that are understood; the others are excluded."""
    if unknown := set(names) - set(COLUMNS):
        raise ValueError(f"no field {sorted(unknown)[0]!r}; the fields are {', '.join(COLUMNS)}")
    header, rows = read_sheet(sheet)
    places = columns(header, {field: names[field] for field in NEEDED}, sheet.name)
    for field in set(COLUMNS) - set(NEEDED):
        try:
            places |= columns(header, {field: names[field]}, sheet.name)
        except ValueError as error:
            draft.remarks.append(str(error))
    clips: dict[tuple[str, str], Clip] = {}
    for number, cells in rows:
        said = {field: cells[place] for field, place in places.items()}
        try:
            clip = _clip(number, said)
            first = clips.setdefault((clip.subject.casefold(), clip.clip.casefold()), clip)
            if first is not clip:
                raise ValueError(f"the clip of row {first.row} again; each is needed once")
        except ValueError as error:
            draft.exclude(f"row {number}", str(error))
    return list(clips.values())


def _clip(number: int, said: Mapping[str, str]) -> Clip:
    for field in ("subject", "clip"):
        if not said[field] or re.search(r"[/\\\0*?]|^\.+$", said[field]):
            raise ValueError(f"the {field} is {ascii(said[field][:40])}; the name of a folder is needed")
    frames = {field: _number(said.get(field, ""), field) for field in ("onset", "apex", "offset")}
    units, marked = units_of(said.get("units", ""))
    clip = Clip(number, said["subject"], said["clip"], emotions_of(said["emotion"]), **frames, units=units,
                marked=marked)  # fmt: skip
    if clip.length is not None and clip.length < 1:
        raise ValueError(f"the offset {clip.offset} lies before the onset {clip.onset}")
    return clip


def _number(text: str, field: str) -> int | None:
    if not text or text.casefold() in ("na", "nan", "none", "-"):
        return None
    if not re.fullmatch(r"\d{1,9}(\.0+)?", text):
        raise ValueError(f"{field} is {ascii(text[:40])}; the number of a frame is needed")
    return int(text.partition(".")[0])


def _find_sheet(folder: Path) -> Path:
    kinds = (".csv", ".xlsx", ".xlsm")
    places = (folder, *folders(folder))
    found = [file for place in places for file in sorted(place.iterdir()) if extension_of(file.name) in kinds]
    found = [file for file in found if "label" in file.name.lower() and not file.name.startswith((".", "~"))]
    csvs = [file for file in found if extension_of(file.name) == ".csv"]
    if len(csvs) == 1 and {file.stem for file in found} == {csvs[0].stem}:
        return csvs[0]  # the same sheet, exported
    if len(found) != 1:
        shown = ", ".join(file.name for file in found) or "no file with 'label' in its name"
        raise ValueError(f"{shown} in {folder.name}; name the label sheet (sheet=...)")
    return found[0]


def _check_pattern(pattern: str) -> None:
    """ValueError unless the pattern is relative, stays inside, and has both names and nothing else in it."""
    try:
        parts = list(string.Formatter().parse(pattern))
        fields = [name for _, name, _, _ in parts if name is not None]
        pattern.format(subject="s", clip="c")
    except (ValueError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"the pattern {pattern!r} cannot be used ({error}); {PATTERN} is one") from None
    if sorted(set(fields)) != ["clip", "subject"] or pattern.startswith("/") or ".." in pattern.split("/"):
        raise ValueError(f"the pattern is {pattern!r}; a relative one with {{subject}} and {{clip}} is needed")
    if "/" not in pattern:
        raise ValueError(f"the pattern is {pattern!r}; a folder and a name of files are needed ({PATTERN})")


def _places(root: Path) -> dict[str, Path]:
    """Relative path → folder, of all folders below the root down to DEEPEST levels that hold a mesh."""
    found: dict[str, Path] = {}
    level = [root]
    for _ in range(DEEPEST + 1):
        for folder in level:
            if holds_scan(folder):
                found["" if folder == root else folder.relative_to(root).as_posix()] = folder
        level = [entry for folder in level for entry in folders(folder)]
    return found


def _frames(draft: Draft, clip: Clip, pattern: str, places: Mapping[str, Path], read: dict[Path, Frames]) -> Frames:
    """The frames of a clip; `read` keeps what was read of each folder.

    Raises:
        ValueError: no mesh matches, or those of several folders do.
    """
    said = pattern.format(subject=clip.subject, clip=clip.clip)
    folder_form, _, file_form = said.rpartition("/")
    in_folder, is_file = _expression(folder_form), _expression(file_form)
    hits = {}
    for folder in (folder for name, folder in places.items() if in_folder.fullmatch(name)):
        if folder not in read:
            read[folder] = read_frames(draft, folder, FRAME)
        every = read[folder]
        scans = {number: file for number, file in every.scans.items() if is_file.fullmatch(Path(file).name)}
        if scans:
            hits[folder] = Frames(scans, set(every.pictures), dict(every.landmarks))
    if len(hits) != 1:
        shown = " and ".join(relative(draft, folder) for folder in hits) or "no mesh"
        raise ValueError(f"{shown} matches {said}; the meshes of one folder are needed")
    return next(iter(hits.values()))


def _expression(glob: str) -> re.Pattern[str]:
    """A pattern of paths as a regular expression: * stays in a name, ** spans folders."""
    text = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", glob):
        text += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part) or re.escape(part)
    return re.compile(text, re.IGNORECASE)


def _compare(clip: Clip, frames: Frames, trim: bool, lengths: dict[str, str]) -> None:
    """Cuts to onset and offset if asked to, and notes a length other than that of the sheet."""
    if trim:
        if clip.length is None:
            raise ValueError("the sheet gives no onset or offset to trim to")
        inside = range(clip.onset, clip.offset + 1)
        frames.scans = {number: file for number, file in frames.scans.items() if number in inside}
        frames.pictures &= set(inside)
        if not frames.scans:
            raise ValueError(f"no frame has a number from {clip.onset} to {clip.offset}")
    if clip.length is not None and len(frames.scans) != clip.length:
        lengths[f"{clip.subject}/{clip.clip}"] = f"{len(frames.scans)} frames, {clip.length} by the sheet"


def _tell_labels(draft: Draft, clips: Sequence[Clip]) -> None:
    mixed = Counter(" + ".join(clip.labels) for clip in clips if len(clip.labels) > 1)
    if mixed:
        shown = ", ".join(f"{count} {name}" for name, count in sorted(mixed.items()))
        draft.remarks.append(f"{sum(mixed.values())} of {len(clips)} clips bear several labels ({shown})")
    marked = sum(bool(clip.marked) for clip in clips)
    if marked:
        draft.remarks.append(f"{marked} clips have action units marked (k), which are left aside")
    odd = [clip for clip in clips if None not in (clip.onset, clip.apex, clip.offset)]
    outside = [str(clip.row) for clip in odd if not clip.onset <= clip.apex <= clip.offset]
    if outside:
        draft.remarks.append(f"row {runs(map(int, outside))}: the apex does not lie between onset and offset")


def _tell_unnamed(draft: Draft, places: Mapping[str, Path], used: Mapping[Path, Frames]) -> None:
    for name, folder in places.items():
        if folder not in used:
            draft.exclude(f"{name or folder.name}/", "holds meshes, but no row of the sheet belongs to it")
