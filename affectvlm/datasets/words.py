"""The words that people write in folder names and tables → our names of classes and of metadata.

Case, digits, spaces and signs do not matter: "4_Anger" is "anger". What could mean two things is refused in words,
never guessed.
"""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence

from affectvlm.prompts import PromptSet

CLASS_WORDS = (
    ("happy", "happiness", "joy", "joyful", "HA"),
    ("angry", "anger", "AN"),
    ("disgust", "disgusted", "DI"),
    ("fear", "fearful", "afraid", "scared", "FE"),
    ("sad", "sadness", "SA"),
    ("surprise", "surprised", "SU"),
    ("neutral", "NE"),
)
"""Words in one row mean one class; a class set may use any of them as its own name."""

AMBIGUOUS = {
    "shock": "fear or surprise",
    "shocked": "fear or surprise",
    "startled": "fear or surprise",
    "smile": "happy or a posed smile without it",
    "smiling": "happy or a posed smile without it",
    "positive": "happy or surprise",
    "negative": "angry, disgust, fear or sad",
}

SEX = {"female": ("f", "w", "woman", "girl"), "male": ("m", "man", "boy")}

AGE_GROUPS = {
    "child": ("children", "kid"),
    "young": ("young adult",),
    "middle-aged": ("middle aged", "middle age"),
    "older": ("old", "elderly", "senior"),
}
YOUNG, MIDDLE_AGED, OLDER = 13, 35, 60
"""Years from which somebody is called so; a child below."""
OLDEST = 120

ETHNICITIES = {
    "white": ("caucasian",),
    "black": ("african american",),
    "latino": ("latina", "latinx", "latin american", "hispanic"),
    "middle eastern": ("middle east",),
}

NOTHING = {"", "na", "nan", "none", "null", "unknown", "notknown"}
"""What an empty cell may look like, as `plain` writes it."""


def plain(text: str) -> str:
    """Lower case, letters only."""
    return re.sub(r"[\W\d_]+", "", text.casefold())


def says_nothing(text: str) -> bool:
    """Whether a cell is empty, or says that its value is not known."""
    return plain(text) in NOTHING and not re.search(r"\d", text)


def class_of(text: str, classes: Sequence[str]) -> str:
    """The class that a word means.

    Raises:
        ValueError: none, or more than one; the message says which words are known.
    """
    word, shown = plain(text), ascii(text[:60])
    own = [name for name in classes if plain(name) == word and word]
    if len(own) == 1:
        return own[0]
    if not word:
        raise ValueError(f"{shown} is no class name; data sets number their classes differently, so a word is needed")
    if len(own) > 1 or len(word) == 1 or word in AMBIGUOUS:
        could = AMBIGUOUS.get(word, " or ".join(own) if own else "more than one class")
        raise ValueError(f"{shown} could mean {could}; one of {', '.join(classes)} is needed")
    alike = next((row for row in (tuple(map(plain, row)) for row in CLASS_WORDS) if word in row), ())
    own = [name for name in classes if plain(name) in alike]
    if len(own) == 1:
        return own[0]
    if len(own) > 1:
        raise ValueError(f"{shown} could mean {' or '.join(own)}; one of {', '.join(classes)} is needed")
    near = difflib.get_close_matches(word, [plain(name) for name in classes], n=1)
    hint = f"; did you mean {next(name for name in classes if plain(name) == near[0])}?" if near else ""
    raise ValueError(f"{shown} is no class; the classes are {', '.join(classes)}{hint}")


def metadata_of(key: str, text: str) -> str | None:
    """The name that the prompts know for what a table says of a subject; None where it says nothing.

    Args:
        key: "sex", "age" (years), "age_group" or "ethnicity".

    Raises:
        ValueError: a word or number that is not known.
    """
    if says_nothing(text):
        return None
    if key == "age" and re.search(r"\d", text):
        return _group_of_age(text)
    word = plain(text)
    # people write words into the column of ages too
    for name, others in _known("age_group" if key == "age" else key).items():
        if word and word in {plain(name), *map(plain, others)}:
            return name
    names = ", ".join(_known("age_group" if key == "age" else key))
    raise ValueError(f"the {key} {ascii(text[:40])} is not known; {names} are")


def _group_of_age(text: str) -> str:
    try:
        years = float(text.replace(",", "."))
    except ValueError:
        years = -1.0
    if not 0 <= years <= OLDEST:
        raise ValueError(f"the age {ascii(text[:40])} is no number of years from 0 to {OLDEST}")
    return "child" if years < YOUNG else "young" if years < MIDDLE_AGED else "middle-aged" if years < OLDER else "older"


@functools.cache
def _known(key: str) -> dict[str, tuple[str, ...]]:
    """Name in the prompt set → other words for it."""
    prompts = PromptSet.load()
    names = [name for name in prompts.people if name != "any"] if key == "sex" else list(getattr(prompts, key))
    others = {"sex": SEX, "age_group": AGE_GROUPS, "ethnicity": ETHNICITIES}[key]
    return {name: others.get(name, ()) for name in names}
