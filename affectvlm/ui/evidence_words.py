"""What the app says about evidence, in whole sentences. No streamlit in here."""

from __future__ import annotations

from collections.abc import Sequence
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
TESTED_AT = 2  # of the fractions of the pixels: the one that is told in a sentence, where it tells anything
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


def tested(trust: Trust, target: Target, fractions: Sequence[float]) -> str:
    """What smoothing the bright places did, and what smoothing others did.

    Args:
        fractions: of the pixels, one for each point of the curves.
    """
    place = _telling(trust)
    bright, other = trust.deletion_curve[place], trust.random_deletion_curve[place]
    told = f"Smoothing the brightest {percent(fractions[place])} of the pictures"
    if target.is_share:
        before, after, elsewhere = (percent(one / (1 + one)) for one in np.exp([trust.start, bright, other]))
        if before == after == elsewhere:
            return f"{told} leaves {target.name} at {before}, as it does elsewhere: no place counts for much."
        return f"{told} takes {target.name} from {before} to {after}; as much elsewhere on the face, to {elsewhere}."
    drop, chance = trust.start - bright, trust.start - other
    if drop > 0:
        return f"{told} takes {drop:.1f} logits from it; as much elsewhere on the face, {max(chance, 0.0):.1f}."
    if trust.insertion_curve[place] > trust.random_insertion_curve[place]:
        return f"{told} takes nothing from it, but shown alone they bring back more of it than other places do."
    return f"{told} takes nothing from it."


def _telling(trust: Trust) -> int:
    """Where on the curves it shows what the verdict says: the usual place, or where bright and random differ most."""
    ahead = np.subtract(trust.random_deletion_curve, trust.deletion_curve)
    no_better = trust.word == "no better than chance"
    costs = trust.deletion_curve[TESTED_AT] < trust.start
    return TESTED_AT if no_better or (ahead[TESTED_AT] > 0 and costs) else int(np.argmax(ahead))


def likeness(value: float) -> str:
    """The check with shuffled weights in words."""
    if value < 0.4:
        told = "another map, as it should be: the map shows what the model has learned"
    elif value < 0.7:
        told = "a map that is partly the same: some of it shows the picture, not what the model has learned"
    else:
        told = "nearly the same map: it shows the picture, not what the model has learned"
    return f"The same network with its weights shuffled gives {told} (rank correlation {level(value, False)})."


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
