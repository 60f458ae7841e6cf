"""FaceScape, topologically uniform models: 847 people with 20 posed expressions each, as textured meshes.

    1/models_reg/1_neutral.obj 1_neutral.obj.mtl 1_neutral.jpg      and 1/dpmap/1_neutral.png
    info_list_v2.txt                                                number, sex and age of the subjects

Most of the expressions are movements of the face and no emotions. Four have a class here: neutral, smile (happy), anger
and sadness; all others, grin among them, are counted and left out. They were asked for, so none is felt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from affectvlm.datasets.draft import SCANS, Draft
from affectvlm.datasets.layout import (
    conclude,
    data_folder,
    entries,
    extension_of,
    pass_over,
    relative,
    subject_folders,
    tell,
)
from affectvlm.datasets.records import Index, Record
from affectvlm.datasets.words import metadata_of
from affectvlm.emotions import EKMAN

EXPRESSIONS = (
    "neutral", "smile", "mouth_stretch", "anger", "jaw_left", "jaw_right", "jaw_forward", "mouth_left", "mouth_right",
    "dimpler", "chin_raiser", "lip_puckerer", "lip_funneler", "sadness", "lip_roll", "grin", "cheek_blowing",
    "eye_closed", "brow_raiser", "brow_lower",
)  # fmt: skip
"""In the order of their numbers, from 1."""

LABELS = {"neutral": "neutral", "smile": "happy", "anger": "angry", "sadness": "sad"}
"""Expression → class. A name says what was asked for, so only the plain names of emotions and the smile are taken."""

NAME = re.compile(r"(?:\d+_)?(?P<number>\d{1,2})_(?P<expression>[a-z]+(?:_[a-z]+)*)", re.IGNORECASE)
SUBJECT = re.compile(r"\d{1,4}")
MODELS = "models_reg"
LAYOUT = "wanted is FaceScape: 1/models_reg/1_neutral.obj, with its .obj.mtl and .jpg"


def index_facescape(
    path: str | Path,
    classes: Sequence[str] = EKMAN + ("neutral",),
    exclude: str | Path | None = None,
    source: str = "facescape",
) -> Index:
    """The models of FaceScape that show an emotion or nothing.

    Args:
        path: the folder of the data set, or one that holds its parts. A list info_list*.txt in it, the last by name,
            tells sex and age.
        classes: the class set; models of other classes are counted and left out.
        exclude: a text file of known faults (1/2_smile, or 1), see `layout.leave_out`.
        source: how the data set is called in records.

    Returns:
        A record a model: id 1/2_smile, subject 1, intensity not known, sex and age group where listed.

    Raises:
        ValueError: no such folder, no model in it, or an exclusion list that cannot be read.
    """
    draft = Draft(data_folder(path), tuple(classes), layout=LAYOUT)
    people = _people(draft)
    bare: dict[str, str] = {}
    few: dict[str, str] = {}
    subjects = subject_folders(draft, SUBJECT, 1)
    for subject, place in subjects:
        seen = 0
        for entry in entries(draft, place):
            if entry.is_file():
                pass_over(draft, entry)
            elif entry.name.lower() == MODELS:
                seen += _add_models(draft, entry, subject, people.get(subject, {}), source, bare)
            else:
                draft.passed[f"folders {entry.name}"] += 1
        if seen < len(EXPRESSIONS):
            few[subject] = f"{seen} of {len(EXPRESSIONS)} expressions"
    tell(draft, "subjects are incomplete", few, len(subjects))
    tell(draft, "models have no texture (.jpg)", bare, len(draft.records))
    return conclude(draft, exclude)


def _add_models(
    draft: Draft, folder: Path, subject: str, metadata: dict[str, str], source: str, bare: dict[str, str]
) -> int:
    """The records of one subject; returns how many expressions there are, of any kind."""
    files = entries(draft, folder)
    names = {file.name.lower() for file in files}
    seen: dict[str, Path] = {}
    for file in files:
        match = NAME.fullmatch(file.stem)
        if extension_of(file.name) not in SCANS:
            draft.passed["textures and materials"] += 1
            continue
        expression = _expression(match)
        if expression is None:
            draft.exclude(relative(draft, file), "its name is no expression of FaceScape (1_neutral to 20_brow_lower)")
        elif expression in seen:
            draft.exclude(relative(draft, file), f"a second model called like {seen[expression].name}")
        else:
            seen[expression] = file
    for expression, file in seen.items():
        label = LABELS.get(expression)
        if label is None:
            draft.passed["models of movements that are no emotion"] += 1
            continue
        name = f"{subject}/{EXPRESSIONS.index(expression) + 1}_{expression}"
        if f"{file.stem.lower()}.jpg" not in names:
            bare[name] = "no texture"
        draft.records.append(Record(name, subject, label, (relative(draft, file),), None, metadata, source=source))
    return len(seen)


def _expression(match: re.Match[str] | None) -> str | None:
    """The expression a name says, where its number and its word agree."""
    if match is None:
        return None
    number, word = int(match["number"]), match["expression"].lower()
    return word if 1 <= number <= len(EXPRESSIONS) and EXPRESSIONS[number - 1] == word else None


def _people(draft: Draft) -> dict[str, dict[str, str]]:
    """Subject → sex and age group, of the list of information. Subjects that it marks as not valid are remarked."""
    lists = sorted(draft.root.glob("info_list*.txt")) or sorted(draft.root.glob("*/info_list*.txt"))
    if not lists:
        draft.remarks.append("there is no info_list*.txt; sex and age are not known")
        return {}
    people: dict[str, dict[str, str]] = {}
    marked = []
    for number, line in enumerate(lists[-1].read_text("latin-1").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) < 4 or not words[0].isdigit():
            draft.remark(f"{lists[-1].name}: number, sex, age and validity are needed", number)
            continue
        said = {}
        for key, name, word in (("sex", "sex", words[1]), ("age", "age_group", words[2])):
            try:
                if word != "-" and (value := metadata_of(key, word)) is not None:
                    said[name] = value
            except ValueError as error:
                draft.remark(f"{lists[-1].name}: {error}", number)
        people[words[0]] = said
        if words[3][0] == "0":
            marked.append(words[0])
    if marked:
        draft.remarks.append(f"{lists[-1].name} marks {len(marked)} subjects as not complete or not valid: "
                             f"{', '.join(marked)}")  # fmt: skip
    return people
