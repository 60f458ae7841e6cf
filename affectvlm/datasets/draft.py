"""An index in the making: what a folder or a table gives, then the checks that both need."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from affectvlm.datasets.content import Fingerprints, shared_files
from affectvlm.datasets.records import Index, Record, listed
from affectvlm.photos.decoding import FORMATS
from affectvlm.scan_io import EXTENSIONS

SCANS = EXTENSIONS
"""Extensions of scans, lower case; where one face lies there in two formats, the first counts."""

PICTURES = (".jpg", *(f".{name.lower()}" for name in FORMATS))
"""Extensions of photos and renderings, lower case."""

COMPANIONS = (".mtl", ".bin", ".lm2", ".lm3", ".bnd", ".pse", ".tif", ".tiff", ".tga")
"""Extensions of what lies beside a scan and is no sample of its own."""

LAYOUT = (
    "wanted is class/subject/files (a scan, or three pictures named front, left and right), or a labels.csv with the "
    "columns file (or front, left, right), label and subject"
)


@dataclass
class Draft:
    """What was found so far; see `Index` for the meaning."""

    root: Path
    classes: tuple[str, ...]
    records: list[Record] = field(default_factory=list)
    excluded: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    passed: Counter[str] = field(default_factory=Counter)
    """Kind of file → how many were passed over, being no samples."""
    odd: dict[str, list[int]] = field(default_factory=dict)
    """What was not understood → the rows of a table that hold it."""
    layout: str = LAYOUT
    """What is wanted, for messages."""

    def exclude(self, what: str, why: str) -> None:
        self.excluded[what.encode("utf-8", "backslashreplace").decode()] = why

    def remark(self, what: str, row: int) -> None:
        self.odd.setdefault(what, []).append(row)

    def finish(self) -> Index:
        """The index.

        Raises:
            ValueError: not one face is left.
        """
        if self.passed:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.passed.items()))
            self.remarks.append(f"passed over as no samples: {kinds}")
        self.remarks += [f"row {listed(map(str, rows))}: {what}" for what, rows in self.odd.items()]
        self._join_subjects()
        self._exclude_copies()
        self._exclude_shared()
        if not self.records:
            reasons = listed(f"{what}: {why}" for what, why in self.excluded.items())
            found = reasons or ", ".join(self.remarks) or "nothing is in there"
            raise ValueError(f"no usable face in {self.root.name or 'the folder'} ({found}); {self.layout}")
        return Index(self.root, self.classes, tuple(self.records), self.excluded, tuple(self.remarks))

    def _join_subjects(self) -> None:
        """Names that differ only in case, spaces and the way their letters are coded (systems write one "é" in two
        ways) are one person: apart, he could come into two splits."""
        spellings: dict[str, set[str]] = defaultdict(set)
        for record in self.records:
            spellings[_one_name(record.subject)].add(record.subject)
        first = {key: min(names) for key, names in spellings.items()}
        self.records = [replace(record, subject=first[_one_name(record.subject)]) for record in self.records]
        for names in spellings.values():
            if len(names) > 1:
                # names that look alike can only be told apart by their codes
                coded = any(_seen(name) != name for name in names)
                shown = [ascii(name) if coded else name for name in sorted(names)]
                self.remarks.append(f"the subjects {' and '.join(shown)} were taken for one person")

    def _exclude_copies(self) -> None:
        """The same content twice: left out where label or subject contradict each other, kept once otherwise."""
        for same in self._copies():
            first = same[0]
            agree = len({(record.label, record.subject) for record in same}) == 1
            for record in same[1:] if agree else same:
                other = first if record is not first else same[1]
                told = f"labelled {other.label}, subject {other.subject}"
                self.exclude(record.id, f"a copy of {other.id}" + ("" if agree else f", which is {told}"))
        self.records = [record for record in self.records if record.id not in self.excluded]

    def _exclude_shared(self) -> None:
        """One picture in the triples of two people: nobody knows whose it is. (Frames of sequences, up to a million
        files, are compared by `conformance.check`.)"""
        for places in shared_files(self.root, [record for record in self.records if record.is_pictures])[0]:
            for record, file in places:
                other, twin = next(place for place in places if place[0].subject != record.subject)
                self.exclude(record.id, f"{file} is a copy of {twin}, of subject {other.subject}")
        self.records = [record for record in self.records if record.id not in self.excluded]

    def _copies(self) -> list[list[Record]]:
        """Records with equal files. Only files of equal size are read, and empty ones are damaged, not equal."""
        fingerprints = Fingerprints(self.root)

        def sizes(record: Record) -> tuple[int, ...]:
            # of a sequence, three frames tell enough before anything is read
            files = record.files[:: max(1, len(record.files) // 2)] if record.is_sequence else record.files
            found = tuple((self.root / file).stat().st_size for file in files)
            return (len(record.files), *found, *(() if all(found) else (record.id,)))

        def content(record: Record) -> str:
            try:
                return fingerprints.of_files(record)
            except OSError:
                return record.id  # rendering will say that it cannot be read

        return [same for alike in _grouped(self.records, sizes) for same in _grouped(alike, content)]


def scan_stem(name: str) -> str:
    """File name without folder and extension; of "face.obj.gz" too it is "face"."""
    stem = PurePosixPath(name).name
    if stem.lower().endswith(".gz"):
        stem = stem[:-3]
    return PurePosixPath(stem).stem


def _one_name(subject: str) -> str:
    return " ".join(_seen(_seen(subject).casefold()).split())


def _seen(name: str) -> str:
    """A name in one coding of its letters, without signs that nobody sees."""
    return "".join(sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) != "Cf")


def _grouped(records: Sequence[Record], key: Callable[[Record], object]) -> list[list[Record]]:
    """Records with equal keys together, where there is more than one; in the order of ids."""
    groups: dict[object, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda record: record.id):
        groups[key(record)].append(record)
    return [group for group in groups.values() if len(group) > 1]
