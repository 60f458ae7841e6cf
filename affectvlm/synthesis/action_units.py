"""The action units that the procedural face knows, by the names of FACS, each with what it does in plain words.

Numbers and names after Ekman & Friesen, Facial Action Coding System (1978; Hager's edition 2002).
"""

from __future__ import annotations

from dataclasses import dataclass

REGIONS = ("brows", "eyes", "nose", "mouth")


@dataclass(frozen=True)
class ActionUnit:
    """One unit of movement of a face.

    Attributes:
        code: "AU4".
        name: as FACS calls it: "brow lowerer".
        does: the same as a person would say it.
        region: one of REGIONS, where it shows most.
    """

    code: str
    name: str
    does: str
    region: str


_TABLE = (
    ("AU1", "inner brow raiser", "lifts the inner ends of the brows", "brows"),
    ("AU2", "outer brow raiser", "lifts the outer ends of the brows", "brows"),
    ("AU4", "brow lowerer", "draws the brows down and together", "brows"),
    ("AU5", "upper lid raiser", "opens the eyes wide", "eyes"),
    ("AU6", "cheek raiser", "lifts the cheeks and narrows the eyes, as in a hearty smile", "eyes"),
    ("AU7", "lid tightener", "tightens the lids, as in a hard stare", "eyes"),
    ("AU43", "eyes closed", "lets the upper lids fall", "eyes"),
    ("AU9", "nose wrinkler", "wrinkles the nose", "nose"),
    ("AU10", "upper lip raiser", "lifts the upper lip and deepens the fold beside the nose", "nose"),
    ("AU34", "cheek puff", "fills the cheeks with air", "nose"),
    ("AU12", "lip corner puller", "pulls the corners of the mouth up: the smile", "mouth"),
    ("AU14", "dimpler", "tightens the corners of the mouth into dimples", "mouth"),
    ("AU15", "lip corner depressor", "pulls the corners of the mouth down", "mouth"),
    ("AU16", "lower lip depressor", "draws the lower lip down", "mouth"),
    ("AU17", "chin raiser", "pushes the chin and the lower lip up", "mouth"),
    ("AU18", "lip pucker", "draws the lips to a point", "mouth"),
    ("AU20", "lip stretcher", "stretches the lips sideways", "mouth"),
    ("AU22", "lip funneler", "turns the lips out, as in a drawn-out “oh”", "mouth"),
    ("AU23", "lip tightener", "tightens and narrows the lips", "mouth"),
    ("AU24", "lip pressor", "presses the lips together", "mouth"),
    ("AU25", "lips part", "opens the lips a little", "mouth"),
    ("AU26", "jaw drop", "lets the jaw fall", "mouth"),
    ("AU27", "mouth stretch", "opens the mouth wide", "mouth"),
    ("AU28", "lip suck", "rolls the lips over the teeth", "mouth"),
)

UNITS: dict[str, ActionUnit] = {row[0]: ActionUnit(*row) for row in _TABLE}
"""Code → unit, from the brows down."""
