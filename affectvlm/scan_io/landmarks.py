"""Landmark files that lie beside a scan: `.lm3` (Bosphorus, by name) and `.bnd` (BU-3DFE and BU-4DFE, 83 in
order)."""

from __future__ import annotations

import numpy as np

from affectvlm.scan import ScanError
from affectvlm.scan_io.limits import MAX_COORDINATE, MAX_NOTE_BYTES
from affectvlm.scan_io.raw import RawScan
from affectvlm.scan_io.source import ScanFile
from affectvlm.scan_io.text import numbers

BND_GROUPS = (
    ("left eye", 8),
    ("right eye", 8),
    ("left eyebrow", 10),
    ("right eyebrow", 10),
    ("nose", 12),
    ("mouth", 20),
    ("chin", 15),
)
"""The 83 points of a `.bnd` in order; a point's name is its group and its number there, "mouth 0" to "mouth 19"."""

MAX_LANDMARKS = 1000


def attach(file: ScanFile, raw: RawScan) -> None:
    """Puts the landmarks of a sibling `.lm3` or `.bnd` into `raw`; a damaged file is left out with a warning."""
    for extension, parse in ((".lm3", parse_lm3), (".bnd", parse_bnd)):
        beside = file.siblings.with_stem(file.stem, (extension,), MAX_NOTE_BYTES)
        if beside is None:
            continue
        try:
            raw.landmarks = parse(beside[1])
        except ScanError as error:
            raw.warnings.append(f"The landmarks {beside[0][:80]!r} were left out: {error}.")
        return


def parse_lm3(data: bytes) -> dict[str, np.ndarray]:
    """Label → (3,) float64 mm. Comments (#), starred lines and blank ones are passed over; fewer than announced are
    taken."""
    lines = [line.strip() for line in data.decode("latin-1").splitlines()]
    lines = [line for line in lines if line and line[0] not in "#*"]
    while lines and not lines[0].split()[0].isdigit():
        lines.pop(0)
    if not lines:
        raise ScanError("no count of landmarks")
    pairs = lines[1:]
    if len(pairs) > 2 * MAX_LANDMARKS:
        raise ScanError(f"more than {MAX_LANDMARKS} landmarks")
    return {label: _point(place, label) for label, place in zip(pairs[::2], pairs[1::2], strict=False)}


def parse_bnd(data: bytes) -> dict[str, np.ndarray]:
    """Name → (3,) float64. 83 rows of a vertex index and x y z; the index, of doubtful base, is not used."""
    rows = [line for line in data.decode("latin-1").splitlines() if line.strip()]
    total = sum(count for _, count in BND_GROUPS)
    if len(rows) != total:
        raise ScanError(f"{len(rows)} rows; {total} are needed")
    names = [f"{group} {i}" for group, count in BND_GROUPS for i in range(count)]
    return {name: _point(" ".join(row.split()[1:]), name) for name, row in zip(names, rows, strict=True)}


def _point(text: str, label: str) -> np.ndarray:
    values = numbers(text.encode("latin-1"), f"landmark {label[:40]!r}")
    if len(values) != 3 or not (np.abs(values) < MAX_COORDINATE).all():
        raise ScanError(f"landmark {label[:40]!r} is not three finite numbers")
    return values
