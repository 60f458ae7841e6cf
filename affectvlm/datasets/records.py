"""`Record`, one labelled face (or one over time) in files, and `Index`, all of a data set with what was odd about it.

Paths in records are relative to the index's root, with forward slashes: an index tells nothing of the machine it was
made on, and a data set may be moved.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

METADATA = ("sex", "age_group", "ethnicity")
"""What a record may say of its subject; values are names of `prompts.PromptSet` ("female", "older", ...)."""

SHOWN, SUMMARY_LINES = 5, 20
"""Most names in one line of a summary, and most lines of one kind; the index holds all of them."""

_SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Record:
    """One face.

    Attributes:
        id: unique in its index and stable: the relative path of the first file, or a data set's own name of the sample.
        subject: the person; two records with one subject never come into different splits.
        label: a name of the class set.
        files: relative paths: one scan file; or three pictures in the order front, left, right ("left" shows the
            subject's left cheek); or, where `frames` says so, the scans of a sequence in the order of time.
        intensity: of the expression, 0 to 1, or None where it is not known.
        metadata: any of METADATA → name; nothing for what is not known. Read-only.
        landmarks: relative path of a `.lm3` or `.bnd` file of this scan where it does not lie beside it under the
            scan's name (there the reader finds it), else None.
        source: name of the data set: letters, digits, ".", "_", "-".
        frames: of a sequence, the number of each file, rising; numbers may be missing, they say nothing of the time.
            None for a single face.
        frame_landmarks: of a sequence, a landmark file (or None) for each of `files`; empty where there are none.
        also: further labels where a sample bears several (4DME); `label` is the first.

    Raises:
        ValueError: a value outside of that, or a path that is absolute or leads out of the root.
    """

    id: str
    subject: str
    label: str
    files: tuple[str, ...]
    intensity: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    landmarks: str | None = None
    source: str = "folder"
    frames: tuple[int, ...] | None = None
    frame_landmarks: tuple[str | None, ...] = ()
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("id", "subject", "label", "source"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"the {name} of a record is {value!r}; a text is needed")
        if not _SOURCE.fullmatch(self.source):
            raise ValueError(f"source is {self.source!r}; letters, digits, '.', '_' and '-' are possible")
        if not isinstance(self.files, list | tuple) or not self.files:
            raise ValueError(f"{self.id}: files are {self.files!r}; relative paths are needed")
        if self.frames is None and len(self.files) not in (1, 3):
            raise ValueError(f"{self.id}: files are {self.files!r}; one scan, or front, left and right are needed")
        object.__setattr__(self, "files", tuple(safe_path(file) for file in self.files))
        if len(set(self.files)) < len(self.files):
            what = "frames" if self.is_sequence else "views; front, left and right are needed"
            raise ValueError(f"{self.id}: one file stands for two {what}")
        self._check_frames()
        object.__setattr__(self, "also", _labels(self.also, self.label, self.id))
        if self.landmarks is not None:
            object.__setattr__(self, "landmarks", safe_path(self.landmarks))
        object.__setattr__(self, "intensity", _intensity(self.intensity, self.id))
        object.__setattr__(self, "metadata", MappingProxyType(_metadata(self.metadata, self.id)))

    def _check_frames(self) -> None:
        if self.frames is not None:
            frames = tuple(int(number) for number in self.frames)
            if len(frames) != len(self.files) or any(b <= a for a, b in itertools.pairwise(frames)):
                raise ValueError(
                    f"{self.id}: {len(self.files)} files have the frame numbers {listed(map(str, frames))}; "
                    "one for each, rising, are needed"
                )
            object.__setattr__(self, "frames", frames)
        paths = tuple(None if path is None else safe_path(path) for path in self.frame_landmarks)
        if paths and (self.frames is None or len(paths) != len(self.files)):
            found = f"{len(paths)} landmark files for {len(self.files)} files"
            raise ValueError(f"{self.id}: {found}; one for each frame of a sequence is needed")
        object.__setattr__(self, "frame_landmarks", paths)

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        # read-only mappings do not pickle by themselves; rendering processes need it
        return Record.from_dict, (self.to_dict(),)

    @property
    def is_pictures(self) -> bool:
        """Three pictures instead of a scan."""
        return self.frames is None and len(self.files) == 3

    @property
    def is_sequence(self) -> bool:
        """Scans in time instead of a single one."""
        return self.frames is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; `from_dict` gives an equal record back."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in vars(self).items()}
        return {**plain, "metadata": dict(self.metadata)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Record:
        """The record in plain values.

        Raises:
            ValueError: unknown or missing keys, or values that a record refuses.
        """
        known = [part.name for part in fields(cls)]
        missing, unknown = set(known[:4]) - set(values), set(values) - set(known)
        if missing or unknown:
            raise ValueError(f"a record needs {sorted(missing)} and does not know {sorted(map(str, unknown))}")
        return cls(**values)


@dataclass(frozen=True)
class Index:
    """The faces of a data set, sorted by id.

    Attributes:
        root: the folder that the records' paths start from.
        classes: names of the class set.
        records: the faces.
        excluded: file, folder or row of a table → why it was left out.
        remarks: what else there is to know: values that were not understood, files that were passed over.

    Raises:
        ValueError: two records with one id, or a label that is no class.
    """

    root: Path
    classes: tuple[str, ...]
    records: tuple[Record, ...]
    excluded: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "records", tuple(sorted(self.records, key=lambda record: record.id)))
        object.__setattr__(self, "excluded", dict(self.excluded))
        twice = [name for name, count in Counter(record.id for record in self.records).items() if count > 1]
        if twice:
            raise ValueError(f"two records have the id {twice[0]!r}; ids are unique")
        if wrong := {name for record in self.records for name in (record.label, *record.also)} - set(self.classes):
            raise ValueError(f"label {sorted(wrong)[0]!r} is no class; the classes are {', '.join(self.classes)}")

    def __len__(self) -> int:
        return len(self.records)

    @property
    def subjects(self) -> tuple[str, ...]:
        """Sorted, each once."""
        return tuple(sorted({record.subject for record in self.records}))

    @property
    def counts(self) -> dict[str, int]:
        """Class → number of faces, 0 for a class without any; in the order of the class set."""
        counts = Counter(record.label for record in self.records)
        return {name: counts[name] for name in self.classes}

    @property
    def gaps(self) -> tuple[str, ...]:
        """What is missing, in words: classes without a face, subjects without some class, intensities."""
        counts = self.counts
        words = [f"no face is labelled {name}" for name, count in counts.items() if not count]
        labels_of: dict[str, set[str]] = {subject: set() for subject in self.subjects}
        for record in self.records:
            labels_of[record.subject].add(record.label)
        lacks = {
            subject: [name for name, count in counts.items() if count and name not in own]
            for subject, own in labels_of.items()
        }
        named = [f"{subject} ({', '.join(names)})" for subject, names in lacks.items() if names]
        if named:
            words.append(f"{len(named)} of {len(lacks)} subjects lack a class: {listed(named)}")
        known = sum(record.intensity is not None for record in self.records)
        if self.records and known < len(self):
            words.append(f"the intensity is known for {known} of {len(self)} faces")
        return tuple(words)

    @property
    def notes(self) -> tuple[str, ...]:
        """Everything there is to know beside the records: gaps, remarks, and what was left out and why."""
        return (*self.gaps, *self.remarks, *(f"{what}: {why}" for what, why in self.excluded.items()))

    def select(self, subjects: Iterable[str]) -> Index:
        """The faces of some subjects. What was excluded stays with the whole index.

        Raises:
            ValueError: a subject that is not in the index.
        """
        wanted = set(subjects)
        if unknown := wanted - set(self.subjects):
            raise ValueError(f"no subject {sorted(unknown)[0]!r} in the index; there are {listed(self.subjects)}")
        kept = tuple(record for record in self.records if record.subject in wanted)
        return Index(self.root, self.classes, kept)

    def without(self, reasons: Mapping[str, str]) -> Index:
        """The index with some records taken out: id → why. A data set's known faults go here, and they are reported.

        Raises:
            ValueError: an id that is not in the index.
        """
        if unknown := set(reasons) - {record.id for record in self.records}:
            raise ValueError(f"no record {sorted(unknown)[0]!r} in the index")
        kept = tuple(record for record in self.records if record.id not in reasons)
        return replace(self, records=kept, excluded={**self.excluded, **reasons})

    def summary(self) -> str:
        """Some lines of text: how many faces of what, and the notes, long lists cut short with their number."""
        pictures = sum(record.is_pictures for record in self.records)
        sequences = sum(record.is_sequence for record in self.records)
        frames = sum(len(record.files) for record in self.records if record.is_sequence)
        lines = [
            f"{len(self)} faces of {len(self.subjects)} subjects: "
            f"{len(self) - pictures - sequences} scans, {pictures} triples of pictures"
            + (f", {sequences} sequences with {frames} frames" if sequences else ""),
            "  " + ", ".join(f"{name} {count}" for name, count in self.counts.items()),
            *self.gaps,
            *_shortened(self.remarks),
        ]
        if self.excluded:
            lines.append(f"{len(self.excluded)} left out:")
            lines += _shortened(f"  {what}: {why}" for what, why in self.excluded.items())
        return "\n".join(lines)


def safe_path(text: str) -> str:
    """A relative path that stays in its folder, as it is.

    Raises:
        ValueError: absolute, with "..", a drive or a backslash in it, empty, or not valid as text.
    """
    if not isinstance(text, str) or not text.strip() or "\0" in text:
        raise ValueError(f"the path is {text!r}; a relative path is needed")
    shown = ascii(text[:80])
    if text.startswith("/") or _DRIVE.match(text):
        raise ValueError(f"the path {shown} is absolute; one relative to the data set's folder is needed")
    if ".." in text.split("/"):
        raise ValueError(f"the path {shown} leads out of the data set's folder")
    if "\\" in text:
        raise ValueError(f"the path {shown} holds a backslash; forward slashes are needed")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError(f"the path {shown} is no valid UTF-8") from None
    return text


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _shortened(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    more = len(lines) - SUMMARY_LINES
    return [*lines[:SUMMARY_LINES], f"  and {more} more"] if more > 0 else lines


def _intensity(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1 or math.isnan(value):
        raise ValueError(f"{name}: the intensity is {value!r}; a number from 0 to 1 or None is needed")
    return float(value)


def _labels(values: Any, first: str, name: str) -> tuple[str, ...]:
    labels = tuple(values)
    if not all(isinstance(label, str) and label.strip() for label in labels) or len({first, *labels}) <= len(labels):
        raise ValueError(f"{name}: further labels are {values!r}; names, none twice, are needed")
    return labels


def _metadata(values: Any, name: str) -> dict[str, str]:
    if not isinstance(values, Mapping) or not set(values) <= set(METADATA):
        raise ValueError(f"{name}: the metadata are {values!r}; {', '.join(METADATA)} are known")
    if not all(isinstance(value, str) and value for value in values.values()):
        raise ValueError(f"{name}: the metadata are {dict(values)!r}; names are needed, and no key for what is unknown")
    return {key: values[key] for key in METADATA if key in values}
