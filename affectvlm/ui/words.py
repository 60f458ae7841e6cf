"""What the app says about an answer, in whole sentences. No streamlit in here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from affectvlm.emotions import ADJECTIVES, EKMAN, NOUNS

if TYPE_CHECKING:
    from affectvlm.predictor import Prediction
    from affectvlm.zero_shot import Answer

TAGLINE = "Reads the posed emotion of a face from a 3D scan or three photos."
PRIVACY = (
    "What you bring stays in this computer's memory. It is gone soon after you close the page, and at once when you "
    "press “Forget everything”."
)
INTENDED_USE = (
    "The answer names a posed expression, not what anybody feels. It is made for research and demonstrations, "
    "not for judging people."
)
NO_MODEL = (
    "There is no model to answer yet. Put a trained one into the folder “checkpoints” beside the app, or train one as "
    "the README says, and reload this page. Until then a scan can be looked at under “Mesh”."
)
NEEDS_MOTION = (
    "The chosen model reads faces in motion: it takes a sequence of scans, and a face that holds still tells it "
    "nothing. Bring one on the page “Sequence”, or choose another model in the sidebar."
)
MOST_NAMED = 12
"""Most classes that a sentence lists."""

REJECTED = {"no face": "This does not look like a face.", "neutral": "This face looks neutral."}
"""What is said where a rejection row has most of the probability."""

CERTAINTY = {"sure": "sure", "leaning": "leaning", "not sure": "not sure"}
VIEW_TITLES = {"front": "Front", "left": "Left cheek", "right": "Right cheek"}


def introduction(classes: Sequence[str] | None, reads_motion: bool = False) -> str:
    """What can be brought, and among what the answer is chosen; None where no model answers."""
    if reads_motion:
        return "The chosen model reads faces in motion. It answers sequences of 3D scans, not a single scan or photos."
    bring = "Bring one face as a 3D scan or as three photos. "
    if classes is None or tuple(classes) == EKMAN:
        return f"{bring}You get one of six posed emotions, and how sure that is."
    named = f" ({', '.join(map(plain, classes))})" if len(classes) <= MOST_NAMED else ""
    return f"{bring}You get one of the {len(classes)} classes of the chosen model{named}, and how sure that is."


def headline(prediction: Prediction | Answer) -> str:
    """The answer in one sentence, as careful as the model is certain."""
    row = max(prediction.rejection, key=prediction.rejection.get, default=None)
    if row is not None and prediction.rejection[row] >= 0.5:
        return REJECTED.get(row, f"This face fits “{row}”, which is none of the model's classes.")
    if prediction.certainty == "sure":
        return f"This face {looks(prediction.emotion)}."
    if prediction.certainty == "leaning":
        return f"This face leans towards {called(prediction.emotion)}."
    return "Hard to say: no emotion stands out."


def looks(name: str) -> str:
    """What a face of the class does: "looks afraid", "shows embarrassment"; quoted where the word is not known, which
    is right for a noun and an adjective: "shows “boredom”"."""
    return f"{'looks' if name in ADJECTIVES else 'shows'} {called(name)}"


def called(name: str) -> str:
    """The class inside a sentence: "afraid", "embarrassment", "a negative emotion"; quoted where it is not known."""
    return ADJECTIVES.get(name) or NOUNS.get(name) or f"“{name}”"


def more(name: str) -> str:
    """What goes with "Make it look more …": "afraid", "like embarrassment"."""
    return called(name) if name in ADJECTIVES else f"like {called(name)}"


def expression(name: str) -> str:
    """How a face of the class looks, as a noun: "happy expression", "expression of pain", "expression “bored”"."""
    if name in ADJECTIVES:
        return f"{ADJECTIVES[name]} expression"
    return f"expression of {NOUNS[name]}" if name in NOUNS else f"expression “{name}”"


def confidence(prediction: Prediction | Answer) -> str:
    """Certainty in words and the number behind it, such as "Sure · happy 93 %"."""
    return f"{prediction.certainty.capitalize()} · {prediction.emotion} {percent(prediction.confidence)}"


def percent(share: float) -> str:
    """0.934 → "93 %"; never "0 %" or "100 %" for what is neither."""
    rounded = round(100 * share)
    if rounded == 0 and share > 0:
        return "< 1 %"
    if rounded == 100 and share < 1:
        return "> 99 %"
    return f"{rounded} %"


def plain(text: str) -> str:
    """The text as it is, where markdown would see marks in it."""
    return re.sub(r"[\\`*_\[\]$#~|{}]|[:<](?=[\w/!])|^>", r"\\\g<0>", text)


def unbroken(text: str) -> str:
    """The text with no line ending between a number and its percent sign."""
    return re.sub(r"(?<=\d) %", "\N{NO-BREAK SPACE}%", text)


def parted(warnings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Warnings as sentences: what casts doubt on the answer, and what was only put right in the file.

    The latter begin with how many of something there were: "2 pin holes were closed".
    """
    said = [warning[:1].upper() + warning[1:] for warning in warnings]
    return [one for one in said if not one[:1].isdigit()], [one for one in said if one[:1].isdigit()]


def cost(timings_ms: dict[str, float]) -> str:
    """The steps and the whole in milliseconds, or seconds where it was more than one, as small print."""
    steps = [f"{name.replace('_', ' ')} {_time(value)}" for name, value in timings_ms.items() if name != "total"]
    total = timings_ms.get("total", sum(timings_ms.values()))
    return f"Answered in {_time(total)}" + (f" ({', '.join(steps)})" if steps else "")


def _time(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.0f} ms"


def pose_found(yaw: float, pitch: float, roll: float, certainty: float) -> str:
    """How the head was turned in the file."""
    sure = "quite sure" if certainty >= 0.75 else "fairly sure" if certainty >= 0.45 else "not sure"
    return f"Found in the file: yaw {yaw:.0f}°, pitch {pitch:.0f}°, roll {roll:.0f}° ({sure})."


def model_card(card: Mapping[str, Any]) -> dict[str, list[str]]:
    """Title → lines of what a visitor may want to know of a model; the card itself holds the rest.

    Args:
        card: the content of a `card.json`; what it does not say is left out.
    """
    training = card.get("training_data") or {}
    counts = (training.get("faces") or {}).get("train") or {}
    sources = [f"{name}: {text}" for name, text in (training.get("sources") or {}).items()]
    trained = [f"{counts['faces']:,} modelled faces of {counts['subjects']:,} people"] if counts else []
    tests = {name: part for name, part in (card.get("metrics") or {}).items() if isinstance(part, dict)}
    scores = {name: (part.get("emotions") or {}).get("accuracy") for name, part in tests.items()}
    measured = [f"{name}: {percent(score)}" for name, score in scores.items() if score is not None]
    classes = card.get("classes")
    parts = {
        "Answers with": [", ".join(map(str, classes))] if isinstance(classes, list) else [],
        "Takes": ["sequences of 3D scans, whose motion it reads"] if card.get("temporal") is True else [],
        "Made for": [card.get("intended_use")],
        "Limits": [card.get("limits")],
        "Trained on": trained + sources,
        "Right on people it has never seen": measured,
        "Licence": [card.get("licence")],
        "Made on": [str(card.get("created") or "")[:10]],
    }
    return {title: [line for line in lines if line] for title, lines in parts.items() if any(lines)}
