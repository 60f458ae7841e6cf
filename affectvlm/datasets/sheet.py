"""Rows of a label sheet: a CSV file, or the first sheet of an Excel workbook where openpyxl is installed."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

MAX_BYTES = 64 << 20
DELIMITERS = ",;\t"


def read_sheet(file: str | Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header, and (row number as spreadsheets count, cells) of each row that holds something.

    Cells are stripped; a whole number is written without a decimal point, whatever Excel keeps it as.

    Raises:
        ValueError: the file is missing, too large, empty or damaged, or a workbook cannot be opened here.
    """
    file = Path(file)
    if not file.is_file():
        raise ValueError(f"there is no label sheet {file.name}; a CSV file or a workbook is needed")
    if file.stat().st_size > MAX_BYTES:
        raise ValueError(f"{file.name} has {file.stat().st_size:,} bytes; at most {MAX_BYTES:,} are accepted")
    cells = _workbook(file) if file.suffix.lower() in (".xlsx", ".xlsm") else _csv(file)
    rows = [(number, row) for number, row in enumerate(cells, 1) if any(row)]
    if not rows:
        raise ValueError(f"{file.name} is empty; a header and one row a sample are needed")
    header = rows[0][1]
    return header, [(number, row + [""] * (len(header) - len(row))) for number, row in rows[1:]]


def columns(header: Sequence[str], wanted: dict[str, str], file: str) -> dict[str, int]:
    """Field → place of its column. Case, blanks and underscores of names do not matter.

    Raises:
        ValueError: a column is missing or there twice.
    """
    plain = ["".join(name.casefold().replace("_", " ").split()) for name in header]
    places = {}
    for field, name in wanted.items():
        found = [place for place, one in enumerate(plain) if one == "".join(name.casefold().replace("_", " ").split())]
        if len(found) != 1:
            what = f"{len(found)} columns" if found else "no column"
            raise ValueError(f"{file} has {what} {name!r}; its columns are {', '.join(filter(None, header))}")
        places[field] = found[0]
    return places


def _csv(file: Path) -> list[list[str]]:
    data = file.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if "\0" in text:
        raise ValueError(f"{file.name} is no text; a CSV file (or .xlsx) is needed")
    first = text.lstrip("\r\n").partition("\n")[0]
    delimiter = max(DELIMITERS, key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise ValueError(f"{file.name} cannot be read as a table: {error}") from None
    return [[cell.strip() for cell in row] for row in rows]


def _workbook(file: Path) -> list[list[str]]:
    try:
        from openpyxl import load_workbook
    except ImportError:
        raise ValueError(
            f"{file.name} is an Excel workbook, and openpyxl is not installed: "
            "export the sheet as CSV, or `pip install openpyxl`"
        ) from None
    try:
        book = load_workbook(file, read_only=True, data_only=True)
        try:
            return [[_text(cell) for cell in row] for row in book.worksheets[0].iter_rows(values_only=True)]
        finally:
            book.close()
    except Exception as error:  # noqa: BLE001  what a damaged workbook raises depends on where it is damaged
        raise ValueError(f"{file.name} cannot be read as an Excel workbook: {error}") from None


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).strip()
