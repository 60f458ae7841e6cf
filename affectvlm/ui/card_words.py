"""A model card in plain words and as tables. A card may come from anywhere: what it does not say is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from affectvlm.ui.words import VIEW_TITLES, percent

SOURCES = {
    "ict": "faces of the open head model ICT-FaceKit",
    "makehuman": "faces of the open head model MakeHuman",
    "procedural": "faces of our own formulas",
    "folder": "a folder of scans or pictures",
}
"""What the names of training data stand for."""

KINDS = {
    "normals": "the direction of the surface at every point, as colours; light and skin do not matter to it",
    "shaded": "the grey relief under fixed lights",
    "textured": "the face in its own colours",
    "depth": "the distance of every point",
}
"""What the model looks at, by the card's `image_kind`."""

IS = (
    "It names the **posed expression** that this face resembles most, among the classes of the model.",
    "It says how sure the model is. Below 75 % it says so in words; below 45 % it says that it does not know.",
    "It holds back where the face looks neutral, where there may be no face, and where the head's pose is doubtful.",
)
MOVES = "It names the **expression** that the motion of this face resembles most, among the classes of the model."
NEVER_HOLDS_BACK = "It never holds back: whatever it is shown, this model spreads all it has over its classes."
IS_NOT = (
    "It does **not** know what anybody feels. People smile when sad and frown when they think.",
    "It is **not for decisions about people**: not for hiring, schools, workplaces, policing, insurance or medicine. "
    "In the European Union, the law forbids reading emotions at work and in schools, with few exceptions.",
    "It is **not for people who did not agree**. Ask before you bring somebody's face, and tell them what it is for.",
    "It is **not proof of anything**. Faces of other ages, skin tones, cultures or illnesses can be read wrongly.",
)


@dataclass(frozen=True)
class Scores:
    """What a model got right on one set of test faces.

    Attributes:
        title: how the faces were seen, in the card's words.
        count: number of faces, or None.
        accuracy, balanced: share that is right, and its mean over the classes, or None.
        calibration: expected calibration error, or None.
        by_class, by_strength: share that is right in each.
        neutral_fooled, other_fooled: share of neutral faces, and of things that are no face, that got a confident
            emotion, or None.
    """

    title: str
    count: int | None
    accuracy: float | None
    balanced: float | None
    calibration: float | None
    by_class: dict[str, float]
    by_strength: dict[str, float]
    neutral_fooled: float | None
    other_fooled: float | None


def what_it_is(card: Mapping[str, Any]) -> tuple[str, ...]:
    """IS, as far as it is true of the model with that card; an empty one says what is true of the shipped model."""
    names, sure, back = IS
    rejection = card.get("rejection")
    if _many(rejection) and set(rejection) != {"neutral", "no face"}:
        reasons = {"neutral": "where the face looks neutral", "no face": "where there may be no face"}
        known = [reasons.get(name, f"where “{name}” fits better") for name in map(str, rejection)]
        back = f"It holds back {_listed(known)}." if known else NEVER_HOLDS_BACK
    elif card.get("temporal") is True:
        back = "It holds back where the face shows nothing, and where there may be no face."
    return (MOVES if card.get("temporal") is True else names), sure, back


def scores(card: Mapping[str, Any]) -> list[Scores]:
    """Every test the card reports, in its order; those that say nothing of emotions are left out."""
    found = []
    for title, part in _mapping(card, "metrics").items():
        if not isinstance(part, Mapping):
            continue
        emotions = _mapping(part, "emotions")
        one = Scores(
            title=str(title),
            count=_number(emotions, "n", int),
            accuracy=_share(emotions, "accuracy"),
            balanced=_share(emotions, "uar"),
            calibration=_share(emotions, "ece"),
            by_class=_shares(_mapping(part, "by_class")),
            by_strength=_shares(_mapping(part, "by_intensity")),
            neutral_fooled=_confident(_mapping(part, "neutral")),
            other_fooled=_confident(_mapping(part, "no face")),
        )
        if one.accuracy is not None:
            found.append(one)
    return found


def facts(card: Mapping[str, Any]) -> dict[str, str]:
    """What the model is, as name → sentence."""
    views = card.get("view_names")
    views = [VIEW_TITLES.get(name, name).lower() for name in views if isinstance(name, str)] if _many(views) else []
    prompts = _mapping(card, "prompts")
    templates = prompts.get("templates")
    kind = card.get("image_kind")
    made = str(card.get("created") or "")[:10]
    version = str(card.get("code_version") or "")
    lines = {
        "Answers with": _listed(card.get("classes")),
        "Also knows": _listed(card.get("rejection")),
        "Takes": _motion(card) if card.get("temporal") is True else "",
        "Looks at": _listed(views),
        "Sees": KINDS.get(kind, "") if isinstance(kind, str) else "",
        "Engine": str(card.get("arch") or ""),
        "Is asked in": f"sentences of {len(templates)} patterns" if isinstance(templates, list) and templates else "",
        "Was trained on": trained_on(card),
        "Made": " · ".join(filter(None, (made, version and f"version {version} of this software"))),
        "Licence": str(card.get("licence") or ""),
    }
    return {title: line for title, line in lines.items() if line}


def _motion(card: Mapping[str, Any]) -> str:
    """How a model of sequences sees them."""
    strong = _number(card, "magnify", float)
    times = f", its motion shown {strong:g} times as strong" if strong and strong != 1 else ""
    return f"sequences of scans, each as one dynamic image a view{times}"


def trained_on(card: Mapping[str, Any]) -> str:
    """Number and kind of the training faces: "28,672 faces of 5,055 people: faces of our own formulas"."""
    train = _mapping(_mapping(card, "training_data"), "faces").get("train")
    train = train if isinstance(train, Mapping) else {}
    faces, people = _number(train, "faces", int), _number(train, "subjects", int)
    names = train.get("sources")
    names = [SOURCES.get(name, name) for name in names if isinstance(name, str)] if isinstance(names, list) else []
    counted = f"{faces:,} faces" if faces else ""
    counted += f" of {people:,} people" if counted and people else ""
    return ": ".join(filter(None, (counted, _listed(names))))


def headline(card: Mapping[str, Any]) -> str:
    """How good the model is, in one sentence with its data; empty where the card does not say."""
    tests = scores(card)
    if not tests:
        return ""
    best = tests[0]
    count = f" of {best.count:,} test faces" if best.count else ""
    classes = card.get("classes")
    luck = f" Guessing would get {percent(1 / len(classes))}." if _many(classes) and classes else ""
    return f"It names {percent(best.accuracy)}{count} right, of people that it never met in training.{luck}"


def _many(names: Any) -> bool:
    return isinstance(names, list | tuple)


def _listed(names: Any) -> str:
    if not _many(names):
        return ""
    names = [str(name) for name in names]
    return ", ".join(names[:-1]) + f" and {names[-1]}" if len(names) > 1 else "".join(names)


def _confident(part: Mapping[str, Any]) -> float | None:
    """The share with a confident emotion; its name in the card carries the threshold."""
    return next((_share(part, name) for name in part if str(name).startswith("confident")), None)


def _mapping(place: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = place.get(name)
    return found if isinstance(found, Mapping) else {}


def _number(place: Mapping[str, Any], name: str, kind: type) -> Any:
    value = place.get(name)
    return kind(value) if isinstance(value, int | float) and not isinstance(value, bool) and value == value else None


def _share(place: Mapping[str, Any], name: str) -> float | None:
    value = _number(place, name, float)
    return value if value is not None and 0 <= value <= 1 else None


def _shares(place: Mapping[str, Any]) -> dict[str, float]:
    found = {str(name): _share(place, name) for name in place}
    return {name: share for name, share in found.items() if share is not None}
