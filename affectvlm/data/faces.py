"""Rendered faces as trainings and scores read them: generated ones from their shards, those of files from listings.

A folder holds listings, `shard_0007.json`, of the records of up to 256 faces each; their views lie beside it, or in
files of their own (`datasets.rendered`). Pixels are read when they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from affectvlm.augmentation.views import DIRECTIONS, PICTURE
from affectvlm.data.generated import LABELS, REJECTION, UNITS
from affectvlm.emotions import EKMAN


class RenderedFaces:
    """The first `count` faces of one or several cache folders, read lazily; `photos` False leaves photo-like ones out.

    `classes` and `rejection` are the rows of the text bank: labels are numbers into both together. Faces without an
    emotion are left out where no row is for them; a face of another emotion than those is refused.

    Attributes:
        classes, rejection: as given; rows: both. labels: (n,) int64 into rows; bears: (n, len(rows)) bool, that label
        and the further ones of a sample that has several; emotional: (n,) bool, of a class; intensity: (n,) float32, 1
        where it is not known; graded: (n,) bool, where it is; photo: (n,) bool, seen as a camera sees; picture: (n,)
        int, how views stored from pictures are shown (augmentation.views.PICTURE or DIRECTIONS), 0 for scans;
        subjects, records: lists of length n.
        metadata: list of n dicts, as `PromptSet.draw` takes them: what is known of the subject, and the intensity.
        units: (n, len(UNITS)) float32 action-unit intensities in [0, 1], NaN where there is no face.
    """

    def __init__(
        self,
        folders: Sequence[str | Path],
        counts: Sequence[int] | None = None,
        photos: bool = True,
        classes: Sequence[str] = EKMAN,
        rejection: Sequence[str] = REJECTION,
    ) -> None:
        self.classes, self.rejection = tuple(classes), tuple(rejection)
        self.rows = self.classes + self.rejection
        self._shards: list[Any] = []
        self._where: list[tuple[int, int]] = []
        self.records: list[dict] = []
        for number, folder in enumerate(folders):
            left = counts[number] if counts else None
            for file in sorted(Path(folder).glob("shard_*.json")):
                if left is not None and left <= 0:
                    break
                records = json.loads(file.read_text("utf-8"))[:left]
                self._shards.append(open_shard(file, records))
                kept = [row for row, record in enumerate(records) if self._wanted(record, photos)]
                self._where += [(len(self._shards) - 1, row) for row in kept]
                self.records += [records[row] for row in kept]
                left = None if left is None else left - len(records)
        if not self.records:
            raise ValueError(f"no rendered faces in {', '.join(Path(f).name for f in folders)}; build them first")
        self.labels = np.array([self.rows.index(class_name(r)) for r in self.records], np.int64)
        self.bears = np.array([[row in self._names(r) for row in self.rows] for r in self.records])
        self.emotional = self.labels < len(self.classes)
        self.intensity = np.array([1.0 if r["intensity"] is None else r["intensity"] for r in self.records], np.float32)
        self.graded = np.array([r["intensity"] is not None for r in self.records], bool)
        self.photo = np.array([r["photo"] for r in self.records], bool)
        self.picture = np.array([picture_mode(r) for r in self.records], np.int64)
        self.subjects = [r["subject"] for r in self.records]
        self.metadata = [_metadata(r, emotional) for r, emotional in zip(self.records, self.emotional, strict=True)]
        self.units = np.array([r["units"] or [np.nan] * len(UNITS) for r in self.records], np.float32)

    def __len__(self) -> int:
        return len(self.records)

    @staticmethod
    def _names(record: dict) -> tuple[str, ...]:
        return (class_name(record), *record.get("also", ()))

    def _wanted(self, record: dict, photos: bool) -> bool:
        for name in self._names(record):
            if name not in self.rows and name not in REJECTION:
                raise ValueError(f"a face of {record['source']} is labelled {name!r}; the classes are {self.classes}")
        return class_name(record) in self.rows and (photos or not record["photo"])

    def views(self, indices: Sequence[int]) -> np.ndarray:
        """(n, 3, S, S, 7) uint8 stored views."""
        return np.stack([self._shards[shard][row] for shard, row in (self._where[i] for i in indices)])

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Index arrays in order, for scoring each face once."""
        for start in range(0, len(self), size):
            yield np.arange(start, min(start + size, len(self)))


def open_shard(listing: Path, records: Sequence[dict]) -> Any:
    """The stored views of a shard: item `row` is (3, S, S, 7) uint8. Generated faces lie in one array beside their
    listing; faces of files lie each in a file of its own, which any number of listings may name."""
    array = listing.with_suffix(".npy")
    if array.is_file():
        return np.load(array, mmap_mode="r")
    return _FaceFiles([listing.parent / record["stored"] for record in records])


class _FaceFiles:
    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files

    def __getitem__(self, row: int) -> np.ndarray:
        with np.load(self._files[row]) as content:
            return content["views"]


def class_name(record: dict) -> str:
    """Which emotion a record shows, or which row of rejection."""
    return record["class"] if "class" in record else LABELS[record["label"]]


def picture_mode(record: dict) -> int:
    """How views stored from pictures have to be shown; 0 for views of scans."""
    if not record.get("picture", False):
        return 0
    return DIRECTIONS if record.get("directions", False) else PICTURE


def _metadata(record: dict, emotional: bool) -> dict:
    known = dict(record.get("metadata") or {})
    if emotional and record["intensity"] is not None:
        known["intensity"] = float(record["intensity"])
    return known
