"""The emotion classes: names, order and colours. The order is part of every checkpoint."""

from __future__ import annotations

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

ADJECTIVES = {
    "happy": "happy",
    "angry": "angry",
    "disgust": "disgusted",
    "fear": "afraid",
    "sad": "sad",
    "surprise": "surprised",
}
"""How a sentence says it: "this face looks afraid"."""
