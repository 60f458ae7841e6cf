"""BP4D-Spontaneous and BP4D+: people who did tasks that were meant to elicit an emotion, as textured meshes over time.

    Sequences(2D+3D)/F001/T1/0001.obj 0001.jpg ...      three or four digits, which differ by sequence
    2D+3D/F001/T1/0000.obj ...                          BP4D+: four digits, from 0
    AUCoding/AU_OCC/F001_T1.csv                         action units: a row a frame, 9 = not coded

The tasks of the two sets are not the same: task 8 is disgust in BP4D and pain in BP4D+. Labels are what a task was to
elicit, not what was seen to be shown.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from affectvlm.datasets.draft import Draft
from affectvlm.datasets.layout import (
    Frames,
    conclude,
    data_folder,
    entries,
    folders,
    pass_over,
    read_frames,
    sequence,
    subject_folders,
    tell,
    tell_frames,
)
from affectvlm.datasets.records import Index, listed
from affectvlm.emotions import BP4D
from affectvlm.protocols import BP4D_PLUS_TASKS, BP4D_TASKS

TASKS = {"bp4d": BP4D_TASKS, "bp4dplus": BP4D_PLUS_TASKS}
"""Data set → number of the task → what it was to elicit. Of BP4D+ only task 8 is confirmed by its public readers; check
the others against the documents that came with your copy."""

PEOPLE = {"bp4d": {"F": 23, "M": 18}, "bp4dplus": {"F": 82, "M": 58}}
"""Highest number of a subject, by sex."""

NOT_CODED = 9
SUBJECT = re.compile(r"[FM]\d{3}", re.IGNORECASE)
TASK = re.compile(r"T(?P<number>\d{1,2})", re.IGNORECASE)
FRAME = re.compile(r"(?P<number>\d{1,6})")
FEATURES = re.compile(r"[23]DFeatures|FacialLandmarks|BND", re.IGNORECASE)
"""Folders of landmarks."""

MESHES = (".obj", ".ply", ".wrl")
SEXES = {"F": "female", "M": "male"}
LAYOUT = "wanted is F001/T1/0001.obj, with a .jpg of the same number"


@dataclass(frozen=True)
class Occurrence:
    """Which action units were seen in which frames.

    Attributes:
        units: numbers of the action units.
        frames: (n,) int64 numbers of frames, the key that joins them to scans.
        codes: (n, len(units)) int8: 0 absent, 1 present, 9 not coded.
    """

    units: tuple[int, ...]
    frames: np.ndarray
    codes: np.ndarray

    @property
    def coded(self) -> np.ndarray:
        """(n,) bool: at least one unit was coded."""
        return (self.codes != NOT_CODED).any(axis=1)


def index_bp4d(
    path: str | Path,
    classes: Sequence[str] = BP4D,
    coded_only: bool = False,
    exclude: str | Path | None = None,
    source: str = "bp4d",
) -> Index:
    """The sequences of BP4D-Spontaneous: 41 people, eight tasks.

    Args:
        path: the folder of the data set, or the one of its sequences.
        classes: the class set; sequences of other classes are counted and left out.
        coded_only: keep only the frames that AUCoding/AU_OCC codes, which are the most expressive ones.
        exclude: a text file of known faults (F001/T1, or F001), see `layout.leave_out`.
        source: how the data set is called in records.

    Returns:
        A record a sequence: id F001/T1, subject F001, sex.

    Raises:
        ValueError: no such folder, no sequence in it, tasks or people that BP4D does not have (BP4D+ has them), or an
            exclusion list that cannot be read.
    """
    return _index("bp4d", path, classes, coded_only, exclude, source)


def index_bp4dplus(
    path: str | Path,
    classes: Sequence[str] = BP4D,
    coded_only: bool = False,
    exclude: str | Path | None = None,
    source: str = "bp4dplus",
) -> Index:
    """The sequences of BP4D+: 140 people, ten tasks; as `index_bp4d`.

    Two of its tasks, startle and skepticism, are no classes of BP4D and are left out with a count unless `classes`
    names them.
    """
    return _index("bp4dplus", path, classes, coded_only, exclude, source)


def task_of(dataset: str, label: str) -> int:
    """The number of the task that was to elicit `label`: 8 for disgust in "bp4d", 10 in "bp4dplus".

    Raises:
        ValueError: no such data set or label.
    """
    tasks = _tasks(dataset)
    for number, name in tasks.items():
        if name == label:
            return number
    raise ValueError(f"no task of {dataset} elicits {label!r}; they elicit {', '.join(tasks.values())}")


def label_of(dataset: str, task: int, expected: str | None = None) -> str:
    """What a task was to elicit.

    Raises:
        ValueError: no such data set or task, or a label other than `expected`: whoever asks for task 8 of BP4D+ as
            disgust has the table of BP4D in mind.
    """
    tasks = _tasks(dataset)
    if task not in tasks:
        raise ValueError(f"{dataset} has no task {task}; it has 1 to {len(tasks)}")
    if expected is not None and tasks[task] != expected:
        raise ValueError(f"task {task} of {dataset} elicits {tasks[task]}; {expected} is its task "
                         f"{task_of(dataset, expected)}")  # fmt: skip
    return tasks[task]


def read_occurrence(file: str | Path) -> Occurrence:
    """The table AU_OCC of a sequence: the numbers of action units in its first row, of frames in its first column.

    Raises:
        ValueError: it cannot be read, or a cell is none of 0, 1 and 9.
    """
    file = Path(file)
    try:
        with file.open(newline="", encoding="latin-1") as stream:
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream) if any(map(str.strip, row))]
        units = tuple(int(cell) for cell in rows[0][1:])
        table = np.array([[int(cell) for cell in row] for row in rows[1:]], np.int64).reshape(-1, 1 + len(units))
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise ValueError(f"{file.name} cannot be read as action units of frames: {error}") from None
    if not units:
        raise ValueError(f"{file.name} cannot be read as action units of frames: its first row names none")
    if not np.isin(table[:, 1:], (0, 1, NOT_CODED)).all():
        raise ValueError(f"{file.name} holds other codes than 0, 1 and {NOT_CODED}")
    return Occurrence(units, table[:, 0], table[:, 1:].astype(np.int8))


def coding_files(folder: Path) -> dict[tuple[str, int], Path]:
    """(subject, task) → its table of action units, in a folder AU_OCC at most three levels below `folder`."""
    name = re.compile(r"([FM]\d{3})_T(\d{1,2})\.csv", re.IGNORECASE)
    for pattern in ("AU_OCC", "*/AU_OCC", "*/*/AU_OCC"):
        for place in sorted(folder.glob(pattern)):
            files = [(name.fullmatch(file.name), file) for file in sorted(place.iterdir())]
            return {(match[1].upper(), int(match[2])): file for match, file in files if match}
    return {}


def _tasks(dataset: str) -> dict[int, str]:
    if dataset not in TASKS:
        raise ValueError(f"data set {dataset!r} has no table of tasks; {' and '.join(TASKS)} have")
    return TASKS[dataset]


def _index(dataset: str, path: str | Path, classes: Sequence[str], coded_only: bool, exclude, source: str) -> Index:
    draft = Draft(data_folder(path), tuple(classes), layout=LAYOUT)
    tables = coding_files(draft.root)
    if coded_only and not tables:
        raise ValueError(f"there is no AUCoding/AU_OCC in {draft.root.name}; coded_only needs it")
    found: dict[str, Frames] = {}
    coding: dict[str, str] = {}
    for subject, place in subject_folders(draft, SUBJECT, 1):
        _check_person(dataset, subject)
        for entry in entries(draft, place):
            match = TASK.fullmatch(entry.name)
            if not entry.is_dir() or match is None:
                _pass(draft, entry, f"{subject}/{entry.name}")
                continue
            task = int(match["number"])
            name = f"{subject}/T{task}"
            label = _label(dataset, task, name)
            frames = read_frames(draft, entry, FRAME, MESHES)
            if not frames.scans:
                draft.exclude(f"{name}/", "the folder holds no scan")
                continue
            if name in found:
                draft.exclude(f"{subject}/{entry.name}/", f"a second folder of {name}")
                continue
            coding |= _coding(draft, name, frames, tables.get((subject, task)), coded_only)
            if not frames.scans:
                draft.exclude(f"{name}/", "no frame of it is coded")
                continue
            found[name] = frames
            draft.records.append(
                sequence(
                    frames, id=name, subject=subject, label=label, metadata={"sex": SEXES[subject[0]]}, source=source
                )
            )
    if found:
        tell_frames(draft, found)
        _tell_landmarks(draft)
        tell(draft, "sequences differ from their tables of action units", coding, len(found))
        if tables:
            draft.remarks.append(f"action units are coded for {len(set(tables))} sequences")
        if dataset == "bp4dplus" and not any(name.endswith(("/T9", "/T10")) for name in found):
            draft.remarks.append("no subject has a task 9 or 10: if this is BP4D, not BP4D+, these labels are wrong")
    return conclude(draft, exclude)


def _label(dataset: str, task: int, name: str) -> str:
    try:
        return label_of(dataset, task)
    except ValueError as error:
        hint = "; this looks like BP4D+, whose tasks have other meanings: use bp4dplus" if dataset == "bp4d" else ""
        raise ValueError(f"{name}: {error}{hint}") from None


def _check_person(dataset: str, subject: str) -> None:
    highest = PEOPLE[dataset][subject[0]]
    if not 1 <= int(subject[1:]) <= highest:
        hint = "; this looks like BP4D+, whose tasks have other meanings: use bp4dplus" if dataset == "bp4d" else ""
        raise ValueError(f"{dataset} has no subject {subject}; {subject[0]}001 to {subject[0]}{highest:03d} are{hint}")


def _pass(draft: Draft, entry: Path, name: str) -> None:
    if entry.is_dir():
        draft.exclude(f"{name}/", "no folder of a task (T1, T2, ...)")
    else:
        pass_over(draft, entry)


def _tell_landmarks(draft: Draft) -> None:
    """Landmarks come in folders beside the scans, by numbers of which it is not known from where they count."""
    level = folders(draft.root)
    found = [entry for folder in (level, *map(folders, level)) for entry in folder if FEATURES.fullmatch(entry.name)]
    if found:
        draft.remarks.append(f"{listed(entry.name for entry in found)}: landmarks that are not read; poses are found "
                             "without them")  # fmt: skip


def _coding(draft: Draft, name: str, frames: Frames, table: Path | None, coded_only: bool) -> dict[str, str]:
    """What the table of action units says against the frames; with `coded_only` the others are taken out."""
    if table is None:
        if coded_only:
            frames.scans = {}
        return {}
    try:
        occurrence = read_occurrence(table)
    except ValueError as error:
        draft.exclude(table.relative_to(draft.root).as_posix(), str(error))
        return {}
    coded = set(occurrence.frames[occurrence.coded].tolist())
    absent = sorted(coded - set(frames.scans))
    if coded_only:
        frames.scans = {number: file for number, file in frames.scans.items() if number in coded}
        frames.pictures &= coded
    return {name: f"{len(absent)} of {len(coded)} coded frames have no scan"} if absent else {}
