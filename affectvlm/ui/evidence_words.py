"""What the app says about evidence, in whole sentences. No streamlit in here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from affectvlm.ui.words import percent

if TYPE_CHECKING:
    from affectvlm.gradcam import Contributions, Level, Target, Trust, ViewMaps

INTRODUCTION = (
    "Bright places are what speaks for the answer, each view beside the others on one scale. "
    "It shows what this model used, not what a face means."
)
METHODS = {
    "integrated": "Integrated, from no expression to this one (best on our model)",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "gradcam": "Grad-CAM, as first published",
    "gradcam++": "Grad-CAM++",
    "attention": "Attention and its gradient",
    "occlusion": "Occlusion, window by window (slow)",
}
REGIONS = {"brows": "Brows", "eyes": "Eyes", "nose": "Nose", "mouth": "Mouth", "rest": "The rest"}
TESTED_AT = 2  # of the fractions of the pixels: the one that is told in a sentence
TRUST_TITLES = {
    "points at what counts": "This map points at what counts.",
    "better than chance": "This map is better than chance, but not clearly.",
    "no better than chance": "This map is no better than chance.",
}


def nothing_found(evidence: ViewMaps) -> str | None:
    """Said in place of a map where nothing speaks for the target."""
    if evidence.shares.any():
        return None
    return f"Nothing in this face speaks for {evidence.target}, so the maps are empty."


def level(value: float, is_share: bool) -> str:
    """A share in percent, with a decimal near its ends, or a cosine as it is."""
    if not is_share:
        return f"{value:.2f}".replace("-", "−")
    tenths = f"{100 * value:.1f}"
    return percent(value) if 0.015 < value < 0.985 or tenths in ("0.0", "100.0") else f"{tenths} %"


def strength(target: Target, value: float) -> str:
    """How strongly the face speaks for the target, such as "The model gives fear 94 %"."""
    if not target.is_share:
        return f"Similarity of this face to {target.name}: {level(value, False)}"
    return f"The model gives {target.name.replace(' rather than ', ' over ')} {percent(value)}"


def tested(trust: Trust, target: Target, share: float) -> str:
    """What smoothing the bright places did, and what smoothing others did.

    Args:
        share: of the pixels that were smoothed.
    """
    shares = [one / (1 + one) for one in np.exp([trust.start, *_at(trust)])] if target.is_share else None
    told = f"Smoothing the brightest {percent(share)} of the pictures takes "
    if shares is not None:
        whole, bright, other = shares
        fell = f"{told}{target.name} from {percent(whole)} to {percent(bright)}"
        return f"{fell}; as much elsewhere on the face, to {percent(other)}."
    drop, chance = (trust.start - value for value in _at(trust))
    if drop <= 0:
        return f"Smoothing the brightest {percent(share)} of the pictures takes nothing from it."
    return f"{told}{drop:.1f} logits from it; as much elsewhere on the face, {max(chance, 0.0):.1f}."


def _at(trust: Trust) -> tuple[float, float]:
    return trust.deletion_curve[TESTED_AT], trust.random_deletion_curve[TESTED_AT]


def likeness(value: float) -> str:
    """The check with shuffled weights in words."""
    if value < 0.4:
        told = "another map, as it should be: the map shows what the model has learned"
    elif value < 0.7:
        told = "a map that is partly the same: some of it shows the picture, not what the model has learned"
    else:
        told = "nearly the same map: it shows the picture, not what the model has learned"
    return f"The same network with its weights shuffled gives {told} (rank correlation {value:.2f})."


def most(contributions: Contributions) -> str | None:
    """The region whose absence costs most, in a sentence; None where none costs anything."""
    falls = {name: fall(contributions.whole, part) for name, part in contributions.without_region.items()}
    name = max(falls, key=falls.__getitem__)
    if falls[name] <= 0:
        return None
    return f"Without the {'rest of the face' if name == 'rest' else name} the answer would lose most."


def fall(whole: Level, without: Level) -> float:
    """How many logits are lost; negative where the part speaks against the target."""
    return whole.score - without.score
