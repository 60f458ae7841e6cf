"""A table of labels: one row a face.

Columns, in any order; case, spaces, underscores and hyphens of their names do not matter (HEADERS has all names):

    file                  a scan, or instead of it
    front, left, right    three pictures; "left" shows the subject's left cheek
    label                 a class, see `words`
    subject               the person; rows of one person must all have the same name
    intensity             0 to 1; a column that goes beyond (levels 1 to 4, say) is left aside with a remark
    sex, ethnicity        names of the prompt set, or usual words for them
    age, age_group        years, or a name of the prompt set; the group counts where both are filled in

Paths start from the table's folder. Commas, semicolons, tabs or bars between cells; UTF-8, UTF-16 with a mark, else
Latin-1. Rows are counted as spreadsheets do: the header is row 1.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from affectvlm.datasets.draft import PICTURES, SCANS, Draft
from affectvlm.datasets.records import Record, listed, safe_path
from affectvlm.datasets.words import class_of, metadata_of, plain, says_nothing
from affectvlm.rendering import VIEW_NAMES

HEADERS = {
    "file": ("file", "filename", "filepath", "path", "scan", "scanfile", "mesh"),
    "front": ("front", "frontfile", "frontview", "frontal"),
    "left": ("left", "leftfile", "leftview"),
    "right": ("right", "rightfile", "rightview"),
    "label": ("label", "class", "emotion", "expression"),
    "subject": ("subject", "subjectid", "person", "personid", "participant", "participantid", "identity"),
    "intensity": ("intensity",),
    "sex": ("sex", "gender"),
    "age": ("age", "ageyears"),
    "age_group": ("agegroup",),
    "ethnicity": ("ethnicity", "ethnicgroup"),
}
"""Field → names of its column. A plain "id" is none: it may count rows, and persons must not be taken apart."""

MAX_BYTES = 64 << 20
_DELIMITERS = ",;\t|"


@dataclass(frozen=True)
class Row:
    """number: as a spreadsheet counts it; cells: field → text without blanks around it, "" where there is none."""

    number: int
    cells: dict[str, str]

    @property
    def files(self) -> tuple[str, ...]:
        """The paths as they are to be looked up: one scan or three pictures.

        Raises:
            ValueError: neither, both, or only some of the pictures are named.
        """
        scan, pictures = self.cells.get("file", ""), [self.cells.get(name, "") for name in VIEW_NAMES]
        if scan and any(pictures):
            raise ValueError("both a scan and pictures are named; one of them is needed")
        if scan:
            return (_path(scan, SCANS, "scan"),)
        missing = [name for name, path in zip(VIEW_NAMES, pictures, strict=True) if not path]
        if len(missing) == 3:
            raise ValueError("no file is named")
        if missing:
            raise ValueError(f"no {' and no '.join(missing)} picture is named; all three are needed")
        return tuple(_path(path, PICTURES, f"{name} picture") for name, path in zip(VIEW_NAMES, pictures, strict=True))


def add_table(draft: Draft, table: Path, source: str) -> None:
    """Put the faces that a table lists into a draft, and what is wrong with its rows.

    Raises:
        ValueError: the file is no table, or lacks a column.
    """
    rows = list(_rows(draft, table))
    fractions = _are_fractions(draft, rows)
    records: dict[int, Record] = {}
    for row in rows:
        try:
            records[row.number] = _record(draft, row, fractions, source)
        except ValueError as error:
            draft.exclude(f"row {row.number}", str(error))
    draft.records += [records[number] for number in _unique(draft, records)]


def _rows(draft: Draft, table: Path) -> Iterator[Row]:
    """The rows that hold something; those that do not fit the header are excluded."""
    text = _text(draft, table)
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(_DELIMITERS, key=lambda sign: len(_fields(first.split(sign))))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    fields: dict[int, str] | None = None
    number, width = 0, 0
    while True:
        number += 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            break
        except csv.Error as error:
            raise ValueError(f"{table.name} cannot be read as a table: row {number}, {error}") from None
        if not any(cells):
            continue
        if fields is None:
            fields, width = _header(draft, table, cells), len(cells)
        elif any(cells[width:]):
            draft.exclude(f"row {number}", f"{len(cells)} cells where the header has {width}; quotes may be missing")
        else:
            yield Row(number, {field: cells[place] for place, field in fields.items() if place < len(cells)})
    if fields is None:
        raise ValueError(f"{table.name} is empty; a header and one row a face are needed")


def _text(draft: Draft, table: Path) -> str:
    try:
        size = table.stat().st_size
        data = table.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise ValueError(f"{table.name} cannot be read: {error.strerror or 'not a plain file'}") from None
    if size > MAX_BYTES:
        raise ValueError(f"{table.name} has {size:,} bytes; at most {MAX_BYTES:,} are accepted")
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise ValueError(f"{table.name} is a spreadsheet's own file; save it as CSV")
    try:
        # a mark says UTF-16 ("Unicode text" of spreadsheets); the one of UTF-8 is dropped
        text = data.decode("utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
        draft.remarks.append(f"{table.name} is not UTF-8; it was read as Latin-1: look at names with accents")
    if "\0" in text:
        raise ValueError(f"{table.name} is no text; a table as CSV is needed")
    return text


def _header(draft: Draft, table: Path, cells: list[str]) -> dict[int, str]:
    """Place of a column → field."""
    fields = _fields(cells)
    names = list(fields.values())
    twice = [name for name in HEADERS if names.count(name) > 1]
    if twice:
        columns = [ascii(cells[place]) for place, name in fields.items() if name == twice[0]]
        raise ValueError(f"{table.name}: the columns {' and '.join(columns)} both mean {twice[0]}; one is needed")
    missing = [name for name in ("label", "subject") if name not in names]
    if "file" not in names and not set(VIEW_NAMES) <= set(names):
        missing.insert(0, "file (or front, left and right)")
    if missing:
        there = listed(ascii(cell[:40]) for cell in cells)
        raise ValueError(f"{table.name} has no column {' and no column '.join(missing)}; its columns are {there}")
    unused = [ascii(cell[:40]) for place, cell in enumerate(cells) if place not in fields and cell]
    if unused:
        draft.remarks.append(f"columns of {table.name} that were not used: {listed(unused)}")
    return fields


def _fields(cells: list[str]) -> dict[int, str]:
    known = {name: field for field, names in HEADERS.items() for name in names}
    words = [plain(cell) for cell in cells]
    return {place: known[word] for place, word in enumerate(words) if word in known}


def _are_fractions(draft: Draft, rows: list[Row]) -> bool:
    """Whether the column of intensities can be fractions: a 1 in a column with a 3 is a level, not the strongest."""
    beyond = [row for row in rows if (value := _number(row.cells.get("intensity", ""))) and not 0 <= value <= 1]
    if beyond:
        found = ascii(beyond[0].cells["intensity"][:20])
        draft.remarks.append(
            f"the intensities were left aside: row {beyond[0].number} has {found}, and fractions from 0 to 1 are needed"
        )
    return not beyond


def _record(draft: Draft, row: Row, fractions: bool, source: str) -> Record:
    files = row.files
    for file in files:
        if not (draft.root / file).is_file():
            raise ValueError(f"there is no file {ascii(file[:120])}")
    if not row.cells.get("subject"):
        raise ValueError(f"{files[0]}: no subject is named")
    if not row.cells.get("label"):
        raise ValueError(f"{files[0]}: no label is given")
    return Record(
        id=files[0],
        subject=row.cells["subject"],
        label=class_of(row.cells["label"], draft.classes),
        files=files,
        intensity=_intensity(draft, row) if fractions else None,
        metadata=_metadata(draft, row),
        source=source,
    )


def _intensity(draft: Draft, row: Row) -> float | None:
    text = row.cells.get("intensity", "")
    value = _number(text)
    if value is None and not says_nothing(text):
        draft.remark(f"the intensity {ascii(text[:20])} is no number; it was left aside", row.number)
    return value


def _metadata(draft: Draft, row: Row) -> dict[str, str]:
    found: dict[str, str] = {}
    for key in ("sex", "age", "age_group", "ethnicity"):
        try:
            name = metadata_of(key, row.cells.get(key, ""))
        except ValueError as error:
            draft.remark(f"{error}; it was left aside", row.number)
            continue
        if name is not None:
            found["age_group" if key == "age" else key] = name
    return found


def _unique(draft: Draft, records: dict[int, Record]) -> list[int]:
    """The rows whose files no other row names with another label or subject; repeated rows count once."""
    rows_of: dict[str, list[int]] = {}
    for number, record in records.items():
        for file in record.files:
            rows_of.setdefault(file, []).append(number)
    left: dict[int, None] = dict.fromkeys(records)
    for file, numbers in rows_of.items():
        told = {(records[n].label, records[n].subject, records[n].files) for n in numbers}
        for number in numbers if len(told) > 1 else numbers[1:]:
            left.pop(number, None)
            others = " and ".join(str(n) for n in numbers if n != number)
            why = "with another label, subject or other views" if len(told) > 1 else "in the same way"
            draft.exclude(f"row {number}", f"row {others} names {ascii(file)} too, {why}")
    return list(left)


def _number(text: str) -> float | None:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if value == value and abs(value) != float("inf") else None


def _path(text: str, extensions: tuple[str, ...], what: str) -> str:
    """A path of a cell as records hold it. Tables made on Windows have backslashes in it.

    Raises:
        ValueError: it leads out of the folder, or is of no accepted kind.
    """
    path = str(PurePosixPath(safe_path(text.replace("\\", "/"))))
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in extensions:
        return path
    if suffix in PICTURES:
        raise ValueError(f"{ascii(path[-80:])} is a picture; a scan, or columns front, left and right are needed")
    raise ValueError(f"{ascii(path[-80:])} is no {what}; accepted are {', '.join(extensions)}")
