"""Point clouds as text: XYZ and PTS. One point a line, blanks, commas or semicolons between the numbers.

Columns after x y z: one (intensity) is passed over; three are a colour where they are whole numbers of 0 to 255, else
a normal; four are intensity and colour (PTS), six are colour and normal in either order. A first line of words (a
heading) or of one number (PTS: the count of points) is understood. Commas between numbers that semicolons or tabs
separate, in a list without any point, are decimal ones.
"""

from __future__ import annotations

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.limits import MAX_VERTICES
from affectvlm.scan_io.raw import RawScan, check_counts
from affectvlm.scan_io.source import ScanFile
from affectvlm.scan_io.text import Lines, columns, plain_text, strip_comments, table

MAX_COLUMNS = 12


def read(file: ScanFile) -> RawScan:
    text = plain_text(file.data, "the point list").replace(b"//", b"##")
    text = strip_comments(text)
    decimal = b"," in text and b"." not in text and (b";" in text or b"\t" in text)
    text = text.translate(bytes.maketrans(b",;", b". " if decimal else b"  "))
    lines = Lines(text)
    if not len(lines):
        raise ScanError("a point list without points")
    if len(lines) > MAX_VERTICES + 2:
        raise ScanError(f"{len(lines):,} points; at most {MAX_VERTICES:,} are accepted")
    rows, declared, warnings = np.ones(len(lines), bool), None, []
    if not _is_numeric(lines.line(0)):
        rows[0] = False
    first = int(rows.argmax())
    if rows.any() and lines.words[first] == 1 and lines.line(first).isdecimal():
        declared = int(lines.line(first)[:20])
        check_counts(declared)
        rows[first] = False
    if not rows.any():
        raise ScanError("a point list without points")
    values, count = columns(lines, rows, "point")
    if count.max() > MAX_COLUMNS:
        raise ScanError(f"{count.max()} numbers on a line of a point list; 3 to {MAX_COLUMNS} are accepted")
    points = table(values, count, 3, "point")
    if declared is not None and declared != len(points):
        if declared > len(points):
            raise ScanError(f"{declared:,} points declared, but {len(points):,} follow; it is cut off or damaged")
        warnings.append(f"{declared:,} points were declared, but {len(points):,} follow; all were read.")
    colors = None
    if (count == count[0]).all():
        colors = _colors(values.reshape(-1, count[0])[:, 3:])
    return RawScan(points, colors=colors, warnings=warnings)


def _is_numeric(line: str) -> bool:
    try:
        float(line.split()[0])
    except (ValueError, IndexError):  # no word at all: a blank that only Unicode knows as one
        return False
    return True


def _colors(rest: np.ndarray) -> np.ndarray | None:
    """Colours (n, 3) uint8 among the columns after x y z, or None."""
    places = {3: (0,), 4: (1, 0), 6: (0, 3), 7: (1,)}.get(rest.shape[1], ())
    for place in places:
        part = rest[:, place : place + 3]
        if np.isfinite(part).all() and part.min() >= 0 and part.max() <= 255 and (part == np.floor(part)).all():
            if part.max() > 1 or not part.any():
                return part.astype(np.uint8)
    return None


READERS = {".xyz": read, ".pts": read}
