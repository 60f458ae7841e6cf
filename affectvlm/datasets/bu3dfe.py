"""BU-3DFE: 100 people, six emotions at four intensities and a neutral face, as cropped textured meshes.

    F0001/F0001_AN01WH_F3D.wrl      subject, expression AN, intensity 01, ethnic group WH; the cropped model
          F0001_AN01WH_F3D.bnd      its 83 landmarks; ...F3D.bmp its texture, two views side by side
          F0001_AN01WH_F2D.bmp      a portrait; ...RAW.wrl and RAW.pse the whole head, in another frame

Only `_F3D.wrl` are samples: the RAW models have no landmarks of their own and lie in another coordinate frame. Names
are read without regard to case, and files may lie in folders of subjects or all in one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from affectvlm.datasets.draft import Draft
from affectvlm.datasets.layout import conclude, data_folder, pass_over, relative, tell, walk
from affectvlm.datasets.records import Index, Record, listed
from affectvlm.emotions import EKMAN

NAME = re.compile(
    r"(?P<sex>[FM])(?P<number>\d{4})_(?P<code>AN|DI|FE|HA|SA|SU|NE)(?P<level>\d{2})(?P<group>[A-Z]{2})"
    r"_(?P<kind>F3D|F2D|RAW)\.(?P<extension>wrl|bnd|bmp|pse)",
    re.IGNORECASE,
)
SUBJECT = re.compile(r"[FM]\d{4}", re.IGNORECASE)

CODES = {
    "AN": "angry", "DI": "disgust", "FE": "fear", "HA": "happy", "SA": "sad", "SU": "surprise", "NE": "neutral",
}  # fmt: skip
LEVELS = (1, 2, 3, 4)
"""Intensities of an emotion, lowest first; they become quarters of 1. A neutral face has level 0."""

ETHNICITIES = {
    "WH": "white", "BL": "black", "LA": "latino", "AE": "east asian", "AM": "middle eastern", "IN": "indian",
}  # fmt: skip
"""Letters in a name → names of the prompt set."""

SEXES = {"F": "female", "M": "male"}
SCANS_OF_A_SUBJECT = frozenset((code, level) for code in CODES for level in ((0,) if code == "NE" else LEVELS))
LEVELS_DEEP = 3
LAYOUT = "wanted is BU-3DFE: F0001/F0001_AN01WH_F3D.wrl, with its .bnd and .bmp"

_COMPANIONS = {("F3D", "bnd"): "landmarks (.bnd)", ("F3D", "bmp"): "texture (.bmp)"}
_SIDE = {("F2D", "bmp"): "portraits (F2D)", ("RAW", "wrl"): "whole heads (RAW)", ("RAW", "pse"): "points of RAW (.pse)"}


def index_bu3dfe(
    path: str | Path,
    classes: Sequence[str] = EKMAN + ("neutral",),
    exclude: str | Path | None = None,
    source: str = "bu3dfe",
) -> Index:
    """The scans of BU-3DFE.

    Args:
        path: the folder of the data set.
        classes: the class set; scans of other classes are counted and left out.
        exclude: a text file of known faults, see `layout.leave_out`.
        source: how the data set is called in records.

    Returns:
        A record a scan: id F0001_AN01WH_F3D, subject F0001, intensity 0.25 to 1 (0 for neutral), sex and ethnicity.

    Raises:
        ValueError: no such folder, no scan in it, or an exclusion list that cannot be read.
    """
    draft = Draft(data_folder(path), tuple(classes), layout=LAYOUT)
    files = _files(draft)
    ethnicity = _ethnicities(draft, files)
    lacking: dict[str, dict[str, str]] = defaultdict(dict)
    for (subject, code, level), kinds in sorted(files.items()):
        scans = kinds.get(("F3D", "wrl"), [])
        if not scans:
            _tell_no_scan(draft, kinds)
            continue
        for other in scans[1:]:
            draft.exclude(relative(draft, other), f"a second scan called like {relative(draft, scans[0])}")
        scan, metadata = scans[0], {"sex": SEXES[subject[0]]}
        if subject in ethnicity:
            metadata["ethnicity"] = ethnicity[subject]
        for kind, words in _COMPANIONS.items():
            if kind not in kinds:
                lacking[words][scan.stem] = f"no {words}"
        landmarks = _elsewhere(draft, scan, kinds.get(("F3D", "bnd"), []))
        intensity = level / max(LEVELS)
        draft.records.append(
            Record(scan.stem, subject, CODES[code], (relative(draft, scan),), intensity, metadata, landmarks, source)
        )
    for words, found in lacking.items():
        tell(draft, f"scans have no {words}", found, len(draft.records))
    _tell_incomplete(draft, set(files))
    return conclude(draft, exclude)


def _files(draft: Draft) -> dict[tuple[str, str, int], dict[tuple[str, str], list[Path]]]:
    """(subject, code, level) → (kind, extension) → files; what does not fit is excluded or counted."""
    found: dict[tuple[str, str, int], dict[tuple[str, str], list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in walk(draft, draft.root, LEVELS_DEEP):
        match = NAME.fullmatch(file.name)
        if match is None:
            pass_over(draft, file, "its name is none of BU-3DFE (F0001_AN01WH_F3D.wrl)")
            continue
        subject, code, level = (match["sex"] + match["number"]).upper(), match["code"].upper(), int(match["level"])
        kind = (match["kind"].upper(), match["extension"].lower())
        folder = next((part.upper() for part in reversed(file.parts[:-1]) if SUBJECT.fullmatch(part)), subject)
        if kind not in _COMPANIONS and kind != ("F3D", "wrl"):
            draft.passed[_SIDE.get(kind, f"{match['kind']}.{match['extension']} files")] += 1
        if folder != subject:
            draft.exclude(relative(draft, file), f"its name says {subject}, its folder {folder}")
        elif (code, level) not in SCANS_OF_A_SUBJECT:
            draft.exclude(relative(draft, file), f"there is no intensity {level:02d} of {CODES[code]}")
        else:
            found[subject, code, level][kind].append(file)
    return found


def _ethnicities(draft: Draft, files: dict) -> dict[str, str]:
    """Subject → name of the prompt set, of those whose file names agree and are known."""
    letters: dict[str, set[str]] = defaultdict(set)
    for (subject, _, _), kinds in files.items():
        letters[subject] |= {NAME.fullmatch(file.name)["group"].upper() for found in kinds.values() for file in found}
    names: dict[str, str] = {}
    unknown: dict[str, list[str]] = defaultdict(list)
    for subject, groups in sorted(letters.items()):
        if len(groups) > 1:
            shown = " and ".join(sorted(groups))
            draft.remarks.append(f"{subject}: the letters {shown} of the ethnic group contradict each other")
        elif (group := next(iter(groups))) in ETHNICITIES:
            names[subject] = ETHNICITIES[group]
        else:
            unknown[group].append(subject)
    for group, subjects in unknown.items():
        draft.remarks.append(f"the letters {group} are no ethnic group: {len(subjects)} subjects, {listed(subjects)}")
    return names


def _tell_no_scan(draft: Draft, kinds: dict[tuple[str, str], list[Path]]) -> None:
    if ("RAW", "wrl") in kinds:
        raw = kinds["RAW", "wrl"][0]
        draft.exclude(relative(draft, raw), "only the RAW model is there, which lies in another frame; F3D is needed")
    else:
        companions = [file for kind in sorted(kinds, key=lambda kind: kind not in _COMPANIONS) for file in kinds[kind]]
        draft.exclude(relative(draft, companions[0]), "there is no F3D.wrl for it")


def _elsewhere(draft: Draft, scan: Path, landmarks: list[Path]) -> str | None:
    """A `.bnd` that does not lie beside its scan under its name, where the reader finds it."""
    if not landmarks or any(file.parent == scan.parent and file.stem == scan.stem for file in landmarks):
        return None
    return relative(draft, landmarks[0])


def _tell_incomplete(draft: Draft, present: set[tuple[str, str, int]]) -> None:
    has: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for record in draft.records:
        match = NAME.fullmatch(Path(record.files[0]).name)
        has[record.subject].add((match["code"].upper(), int(match["level"])))
    subjects = sorted({subject for subject, _, _ in present})
    missing = {subject: sorted(SCANS_OF_A_SUBJECT - has[subject]) for subject in subjects}
    words = {
        subject: f"{len(gaps)} of {len(SCANS_OF_A_SUBJECT)} scans are missing: "
        + listed(f"{code}{level:02d}" for code, level in gaps)
        for subject, gaps in missing.items()
        if gaps
    }
    tell(draft, "subjects are incomplete", words, len(subjects))
