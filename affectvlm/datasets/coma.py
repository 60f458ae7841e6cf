"""CoMA: 12 people with 12 extreme expressions each, as sequences of registered meshes without texture.

    FaceTalk_170725_00137_TA/high_smile/high_smile.000001.ply

The expressions are movements of the face; only the high smile has a class here (happy). All others are counted and left
out. Meshes are in metres, which reading finds by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from affectvlm.datasets.draft import Draft
from affectvlm.datasets.layout import (
    Frames,
    conclude,
    data_folder,
    entries,
    pass_over,
    read_frames,
    relative,
    sequence,
    subject_folders,
    tell_frames,
)
from affectvlm.datasets.records import Index
from affectvlm.emotions import EKMAN

EXPRESSIONS = (
    "bareteeth", "cheeks_in", "eyebrow", "high_smile", "lips_back", "lips_up", "mouth_down", "mouth_extreme",
    "mouth_middle", "mouth_open", "mouth_side", "mouth_up",
)  # fmt: skip
LABELS = {"high_smile": "happy"}
"""Expression → class."""

SUBJECT = re.compile(r"FaceTalk_\d{6}_\d{5}_TA", re.IGNORECASE)
FRAME = re.compile(r"(?P<expression>[a-z_]+)\.(?P<number>\d+)", re.IGNORECASE)
MESHES = (".ply",)
LAYOUT = "wanted is CoMA: FaceTalk_170725_00137_TA/high_smile/high_smile.000001.ply"


def index_coma(
    path: str | Path,
    classes: Sequence[str] = EKMAN + ("neutral",),
    exclude: str | Path | None = None,
    source: str = "coma",
) -> Index:
    """The smiles of CoMA.

    Args:
        path: the folder of the data set.
        classes: the class set; without "happy" nothing is left.
        exclude: a text file of known faults, see `layout.leave_out`.
        source: how the data set is called in records.

    Returns:
        A record a sequence: id FaceTalk_170725_00137_TA/high_smile, subject FaceTalk_170725_00137_TA.

    Raises:
        ValueError: no such folder, no smile in it, or an exclusion list that cannot be read.
    """
    draft = Draft(data_folder(path), tuple(classes), layout=LAYOUT)
    found: dict[str, Frames] = {}
    for _, place in subject_folders(draft, SUBJECT, 1):
        for entry in entries(draft, place):
            expression, name = entry.name.lower(), f"{place.name}/{entry.name.lower()}"
            if not entry.is_dir():
                pass_over(draft, entry)
            elif expression not in EXPRESSIONS:
                draft.exclude(f"{relative(draft, entry)}/", "no expression of CoMA")
            elif expression not in LABELS:
                draft.passed["sequences of movements that are no emotion"] += 1
            else:
                frames = read_frames(draft, entry, FRAME, MESHES)
                if not frames.scans:
                    draft.exclude(f"{relative(draft, entry)}/", "the folder holds no scan")
                    continue
                found[name] = frames
                draft.records.append(
                    sequence(frames, id=name, subject=place.name, label=LABELS[expression], source=source)
                )
    if found:
        for frames in found.values():
            frames.pictures = set(frames.scans)  # there are none in this data set, so none is missing
        tell_frames(draft, found)
    return conclude(draft, exclude)
