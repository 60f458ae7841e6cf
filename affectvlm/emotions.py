"""The emotion classes: names, order, colours and words. The order is part of every checkpoint."""

from __future__ import annotations

from collections.abc import Iterable

EKMAN = ("happy", "angry", "disgust", "fear", "sad", "surprise")
"""The six basic emotions (Ekman & Friesen) in the order of the papers' tables and of every probability vector."""

BP4D = ("happy", "sad", "surprise", "embarrassment", "fear", "pain", "angry", "disgust")
"""What the eight tasks of BP4D-Spontaneous were meant to elicit, in the order of the tasks."""

FOURDME = ("negative", "positive", "surprise", "repression", "others")
"""The five categories of 4DME; a clip may bear several."""

MEGC = ("negative", "positive", "surprise")
"""The three composite classes of the micro-expression challenges (MEGC)."""

COLORS = {
    "happy": "#E69F00",
    "angry": "#D55E00",
    "disgust": "#009E73",
    "fear": "#CC79A7",
    "sad": "#0072B2",
    "surprise": "#56B4E9",
}
"""One colour-blind-safe colour per emotion (Okabe & Ito); always shown with the word beside it."""

OTHER_COLORS = ("#882255", "#AA33FF", "#B9B58A", "#334499", "#BB0000", "#776677")
"""For classes beyond the six, in the order in which they stand in a set. All twelve are as far apart as the six are,
whatever the colour blindness, and stand out from the backgrounds of both themes."""

GREY = "#8C929B"
"""For what is no emotion: a neutral face, no face."""

ADJECTIVES = {
    "happy": "happy",
    "angry": "angry",
    "disgust": "disgusted",
    "fear": "afraid",
    "sad": "sad",
    "surprise": "surprised",
    "neutral": "neutral",
}
"""How a sentence says it: "this face looks afraid"."""

NOUNS = {
    "contempt": "contempt",
    "embarrassment": "embarrassment",
    "pain": "pain",
    "repression": "repression",
    "negative": "a negative emotion",
    "positive": "a positive emotion",
    "others": "some other emotion",
}
"""The same for classes that are no adjective: "this face shows embarrassment"."""


def class_colors(classes: Iterable[str], rejection: Iterable[str] = ()) -> dict[str, str]:
    """One colour a class, "#RRGGBB", wherever it is shown: the six keep theirs, others get OTHER_COLORS by their order
    among themselves (again from the first after the last), and a neutral face and rejection rows are grey."""
    classes = tuple(classes)
    others = [name for name in classes if name not in COLORS and name != "neutral"]
    fixed = COLORS | {"neutral": GREY}
    found = {name: OTHER_COLORS[place % len(OTHER_COLORS)] for place, name in enumerate(others)}
    return {name: fixed.get(name) or found[name] for name in classes} | dict.fromkeys(rejection, GREY)
