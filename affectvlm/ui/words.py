"""What the app says about an answer, in whole sentences. No streamlit in here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from affectvlm.emotions import ADJECTIVES

if TYPE_CHECKING:
    from affectvlm.predictor import Prediction

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
CERTAINTY = {"sure": "sure", "leaning": "leaning", "not sure": "not sure"}
VIEW_TITLES = {"front": "Front", "left": "Left cheek", "right": "Right cheek"}


def headline(prediction: Prediction) -> str:
    """The answer in one sentence, as careful as the model is certain."""
    if prediction.rejection.get("no face", 0.0) >= 0.5:
        return "This does not look like a face."
    if prediction.rejection.get("neutral", 0.0) >= 0.5:
        return "This face looks neutral."
    adjective = ADJECTIVES[prediction.emotion]
    if prediction.certainty == "sure":
        return f"This face looks {adjective}."
    if prediction.certainty == "leaning":
        return f"This face leans towards {adjective}."
    return "Hard to say: no emotion stands out."


def confidence(prediction: Prediction) -> str:
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


def cost(timings_ms: dict[str, float]) -> str:
    """The steps and the whole in milliseconds, as small print."""
    steps = [f"{name.replace('_', ' ')} {value:.0f} ms" for name, value in timings_ms.items() if name != "total"]
    total = timings_ms.get("total", sum(timings_ms.values()))
    return f"Answered in {total:.0f} ms" + (f" ({', '.join(steps)})" if steps else "")


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
    parts = {
        "Made for": [card.get("intended_use")],
        "Limits": [card.get("limits")],
        "Trained on": trained + sources,
        "Right on people it has never seen": measured,
        "Licence": [card.get("licence")],
        "Made on": [str(card.get("created") or "")[:10]],
    }
    return {title: [line for line in lines if line] for title, lines in parts.items() if any(lines)}
