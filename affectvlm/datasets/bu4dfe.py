"""BU-4DFE: 101 people, a sequence of about 100 textured meshes for each of the six emotions.

    BU_4DFE/F001/Angry/000.wrl 000.jpg 001.wrl ...       Angry, Disgust, Fear, Happy, Sad, Surprise
    BU4DFE_BND_V1.1/F001/Angry/000.bnd                   83 landmarks a frame, a package of its own (or .landmark)

Frames are listed, never counted up: some sequences have gaps, some folders are empty.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from affectvlm.datasets.draft import Draft
from affectvlm.datasets.layout import (
    LOOK_DOWN,
    Frames,
    conclude,
    data_folder,
    entries,
    folders,
    pass_over,
    read_frames,
    relative,
    sequence,
    subject_folders,
    tell,
    tell_frames,
)
from affectvlm.datasets.records import Index
from affectvlm.datasets.words import class_of
from affectvlm.emotions import EKMAN

SUBJECT = re.compile(r"[FM]\d{3}", re.IGNORECASE)
FRAME = re.compile(r"(?P<number>\d+)")
MESHES = (".wrl",)
SEXES = {"F": "female", "M": "male"}
LAYOUT = "wanted is BU-4DFE: F001/Angry/000.wrl, with a .jpg of the same number"

_PACKAGE = re.compile(r".*BND.*", re.IGNORECASE)


def index_bu4dfe(
    path: str | Path,
    landmarks: str | Path | None = None,
    classes: Sequence[str] = EKMAN,
    exclude: str | Path | None = None,
    source: str = "bu4dfe",
) -> Index:
    """The sequences of BU-4DFE.

    Args:
        path: the folder of the data set.
        landmarks: the folder of the landmark package; by default one with BND in its name is looked for in `path` and
            beside it.
        classes: the class set; sequences of other classes are counted and left out.
        exclude: a text file of known faults (F001/Angry, or F001), see `layout.leave_out`.
        source: how the data set is called in records.

    Returns:
        A record a sequence: id F001/Angry, subject F001, sex.

    Raises:
        ValueError: no such folder, no sequence in it, or an exclusion list that cannot be read.
    """
    folder = data_folder(path)
    package = data_folder(landmarks) if landmarks is not None else _package(folder)
    draft = Draft(_root(folder, package), tuple(classes), layout=LAYOUT)
    points = _landmark_files(draft, package)
    found: dict[str, Frames] = {}
    without: dict[str, str] = {}
    for subject, place in subject_folders(draft, SUBJECT, 1, folder, (package,) if package else ()):
        for entry in entries(draft, place):
            name = f"{subject}/{entry.name}"
            if not entry.is_dir():
                pass_over(draft, entry)
                continue
            try:
                label = class_of(entry.name, EKMAN)
            except ValueError as error:
                draft.exclude(f"{name}/", str(error))
                continue
            frames = read_frames(draft, entry, FRAME, MESHES)
            if not frames.scans:
                draft.exclude(f"{name}/", "the folder holds no scan")
                continue
            if any(record.subject == subject and record.label == label for record in draft.records):
                draft.exclude(f"{name}/", f"a second sequence of {subject}, {label}")
                continue
            own = points.get((subject, label), {})
            record = sequence(
                frames, own, id=name, subject=subject, label=label, metadata={"sex": SEXES[subject[0]]}, source=source
            )
            found[name] = frames
            lacking = len(set(frames.scans) - set(own) - set(frames.landmarks))
            if lacking:
                without[name] = f"no landmarks of {lacking} of {len(frames.scans)} frames"
            draft.records.append(record)
    tell_frames(draft, found)
    tell(draft, "sequences lack landmarks", without, len(found))
    return conclude(draft, exclude)


def _package(folder: Path) -> Path | None:
    """A folder of landmarks inside or beside the data set's."""
    level = [folder]
    for _ in range(LOOK_DOWN):
        level = [entry for one in level for entry in folders(one) if not SUBJECT.fullmatch(entry.name)]
        found = [entry for entry in level if _PACKAGE.fullmatch(entry.name)]
        if found:
            return found[0]
    beside = folder.absolute().parent
    return next((entry for entry in folders(beside) if re.fullmatch(r"BU.?4DFE.*BND.*", entry.name, re.I)), None)


def _root(folder: Path, package: Path | None) -> Path:
    """The folder that holds both: the paths of records must not lead out of it."""
    if package is None or package.is_relative_to(folder):
        return folder
    return Path(os.path.commonpath([folder.absolute(), package.absolute()]))


def _landmark_files(draft: Draft, package: Path | None) -> dict[tuple[str, str], dict[int, str]]:
    """(subject, label) → number of the frame → file."""
    if package is None:
        return {}
    found: dict[tuple[str, str], dict[int, str]] = {}
    inner = package if any(SUBJECT.fullmatch(entry.name) for entry in folders(package)) else None
    inner = inner or next(iter(folders(package)), package)  # unpacked into a folder of its own name
    for subject in (entry for entry in folders(inner) if SUBJECT.fullmatch(entry.name)):
        for folder in folders(subject):
            try:
                label = class_of(folder.name, EKMAN)
            except ValueError as error:
                draft.exclude(f"{relative(draft, folder)}/", str(error))
                continue
            found[subject.name.upper(), label] = read_frames(draft, folder, FRAME, MESHES).landmarks
    draft.remarks.append(f"landmarks were found in {package.name}: {sum(map(len, found.values()))} files")
    return found
