"""Bosphorus: 105 people, range scans of emotions, neutral faces, action units, head poses and occlusions.

    bs000/bs000_E_HAPPY_0.bnt .png .lm2 .lm3        subject, group E, code HAPPY, repeat 0

Samples are the groups E (six emotions) and N (neutral); scans of the other groups are counted. Not everybody has all
six emotions: `complete_subjects` are the people of the usual protocol.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from affectvlm.datasets.draft import Draft
from affectvlm.datasets.layout import conclude, data_folder, pass_over, relative, tell, walk
from affectvlm.datasets.records import Index, Record
from affectvlm.emotions import EKMAN

NAME = re.compile(
    r"bs(?P<number>\d{3})_(?P<group>[A-Z]+)_(?P<code>[A-Z0-9]+)_(?P<repeat>\d+)\.(?P<extension>bnt|png|lm2|lm3)",
    re.IGNORECASE,
)
SUBJECT = re.compile(r"bs\d{3}", re.IGNORECASE)
CODES = {
    "ANGER": "angry", "DISGUST": "disgust", "FEAR": "fear", "HAPPY": "happy", "SADNESS": "sad", "SURPRISE": "surprise",
}  # fmt: skip
GROUPS = {
    "LFAU": "action units of the lower face (LFAU)",
    "UFAU": "action units of the upper face (UFAU)",
    "CAU": "combined action units (CAU)",
    "YR": "turned heads (YR)",
    "PR": "lowered or raised heads (PR)",
    "CR": "turned and lowered or raised heads (CR)",
    "O": "covered faces (O)",
    "IGN": "scans to be ignored (IGN)",
}
"""Groups that are no samples here."""

LEVELS_DEEP = 3
LAYOUT = "wanted is Bosphorus: bs000/bs000_E_HAPPY_0.bnt, with its .png, .lm2 and .lm3"

_COMPANIONS = {"png": "picture (.png)", "lm3": "landmarks (.lm3)", "lm2": "picture landmarks (.lm2)"}


def index_bosphorus(
    path: str | Path,
    classes: Sequence[str] = EKMAN + ("neutral",),
    exclude: str | Path | None = None,
    source: str = "bosphorus",
) -> Index:
    """The scans of emotions and neutral faces of Bosphorus, all repeats of them.

    Args:
        path: the folder of the data set.
        classes: the class set; scans of other classes are counted and left out.
        exclude: a text file of known faults, see `layout.leave_out`.
        source: how the data set is called in records.

    Returns:
        A record a scan: id bs000_E_HAPPY_0, subject bs000; the intensity is not known. `repeat_of` tells repeats.

    Raises:
        ValueError: no such folder, no scan in it, or an exclusion list that cannot be read.
    """
    draft = Draft(data_folder(path), tuple(classes), layout=LAYOUT)
    files = _files(draft)
    lacking: dict[str, dict[str, str]] = defaultdict(dict)
    for (subject, label, _), kinds in sorted(files.items()):
        scans = kinds.get("bnt", [])
        if not scans:
            first = min(file for found in kinds.values() for file in found)
            draft.exclude(relative(draft, first), "there is no .bnt for it")
            continue
        for other in scans[1:]:
            draft.exclude(relative(draft, other), f"a second scan called like {relative(draft, scans[0])}")
        scan = scans[0]
        for extension, words in _COMPANIONS.items():
            if extension not in kinds:
                lacking[words][scan.stem] = f"no {words}"
        landmarks = _elsewhere(draft, scan, kinds.get("lm3", []))
        draft.records.append(Record(scan.stem, subject, label, (relative(draft, scan),), None, {}, landmarks, source))
    for words, found in lacking.items():
        tell(draft, f"scans have no {words}", found, len(draft.records))
    _tell_repeats(draft)
    return conclude(draft, exclude)


def repeat_of(record: Record) -> int:
    """Number of the repeat, 0 for the first scan of an expression."""
    return int(record.id.rpartition("_")[2])


def complete_subjects(index: Index) -> tuple[str, ...]:
    """Subjects with at least one scan of each of the six emotions; there are 65 in the whole data set.

    (Having exactly six scans of group E, as public scripts ask, is not the same where there are repeats.)
    """
    labels: dict[str, set[str]] = defaultdict(set)
    for record in index.records:
        labels[record.subject].add(record.label)
    return tuple(sorted(subject for subject, found in labels.items() if set(EKMAN) <= found))


def _files(draft: Draft) -> dict[tuple[str, str, int], dict[str, list[Path]]]:
    """(subject, label, repeat) → extension → files, of the groups E and N."""
    found: dict[tuple[str, str, int], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for file in walk(draft, draft.root, LEVELS_DEEP):
        match = NAME.fullmatch(file.name)
        if match is None:
            pass_over(draft, file, "its name is none of Bosphorus (bs000_E_HAPPY_0.bnt)")
            continue
        subject, group, code = f"bs{match['number']}", match["group"].upper(), match["code"].upper()
        folder = next((part.lower() for part in reversed(file.parts[:-1]) if SUBJECT.fullmatch(part)), subject)
        extension = match["extension"].lower()
        label = CODES.get(code) if group == "E" else "neutral" if group == "N" else None
        if group in GROUPS:
            if extension == "bnt":
                draft.passed[GROUPS[group]] += 1
        elif label is None:
            if extension == "bnt":
                what = f"emotion {code}" if group == "E" else f"group {group}"
                draft.exclude(relative(draft, file), f"the {what} is not known")
        elif folder != subject:
            draft.exclude(relative(draft, file), f"its name says {subject}, its folder {folder}")
        else:
            found[subject, label, int(match["repeat"])][extension].append(file)
    return found


def _elsewhere(draft: Draft, scan: Path, landmarks: list[Path]) -> str | None:
    """An `.lm3` that does not lie beside its scan under its name, where the reader finds it."""
    if not landmarks or any(
        file.parent == scan.parent and file.stem.lower() == scan.stem.lower() for file in landmarks
    ):
        return None
    return relative(draft, landmarks[0])


def _tell_repeats(draft: Draft) -> None:
    repeats = [record for record in draft.records if repeat_of(record) > 0 and record.label != "neutral"]
    if repeats:
        draft.remarks.append(f"{len(repeats)} scans of emotions are repeats (_1 and on); protocols take the first")
    emotional = {record.subject for record in draft.records if record.label != "neutral"}
    if emotional:
        whole = complete_subjects(Index(draft.root, EKMAN + ("neutral",), tuple(draft.records)))
        draft.remarks.append(f"{len(whole)} of {len(emotional)} subjects have all six emotions")
