"""What others have published under the names of our protocols, and why it is not the same measurement."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """A figure of the literature.

    Attributes:
        method: as its authors call it. metric: "accuracy" or "macro_f1". value: share of one.
        caveat: what is known to differ from our measurement; empty where only the general remarks apply.
    """

    method: str
    metric: str
    value: float
    caveat: str = ""


_PER_IMAGE = "highest test accuracy of 200 epochs, per image, one split (public code and logs; data set not named)"
_ABSTRACT = "abstract only; its folds were not read"


def _table(affectvlm: float, multiview: float, best_other: float, *more: Published) -> tuple[Published, ...]:
    """A row of the AffectVLM and MultiviewVLM papers, in percent."""
    return (
        Published("AffectVLM", "accuracy", affectvlm / 100),
        Published("MultiviewVLM (no labels)", "accuracy", multiview / 100),
        Published("best other method in their tables", "accuracy", best_other / 100),
        *more,
    )


_BP4D = _table(92.58, 88.34, 88.56)
_SUBSETS = "the definitions of the subsets were not readable in the papers; ours are those of the wider literature"

PUBLISHED: dict[str, tuple[Published, ...]] = {
    "bu3dfe-subset1": _table(92.63, 89.29, 89.31),
    "bu3dfe-subset2": _table(86.56, 83.98, 82.67),
    "bosphorus": _table(89.74, 79.86, 86.77),
    "bu4dfe": _table(
        99.36, 96.47, 96.50,
        Published("CCDN", "accuracy", 0.965, _ABSTRACT),
        Published("sparsity-aware deep learning", "accuracy", 0.9969, _ABSTRACT),
        Published("MiT tiny / small / base: the best, base", "accuracy", 0.9970, _PER_IMAGE),
    ),
    "bp4d": _BP4D,
    "bp4d-six": _BP4D,
    "bu4dfe-to-bp4d": _table(86.07, 80.36, 81.70),
    "4dme": (
        Published(
            "winner of the 4DMR challenge 2025", "macro_f1", 0.536,
            "24 people, video instead of 4D, five yes-or-no outputs",
        ),
    ),
}  # fmt: skip
"""Name of a protocol → figures."""

CAVEATS = (
    "Papers leave open whether the epoch was chosen on the test fold. The public code of this line of work does so; "
    "ours never does, which alone may cost points.",
    "Published folds and seeds are not known, and accuracies of different draws of people differ.",
    "Our validation people come out of the training people, so one ninth fewer people are trained on.",
)
"""Of all of them."""

OF_PROTOCOL: dict[str, tuple[str, ...]] = {
    "bu3dfe-subset1": (_SUBSETS,),
    "bu3dfe-subset2": (_SUBSETS,),
    "bp4d": ("The papers do not say whether they tell apart eight tasks or six.",),
    "bp4d-six": ("The papers do not say whether they tell apart eight tasks or six.",),
    "bu4dfe-to-bp4d": ("The papers do not say by which rule they decide; two ways are given here.",),
    "4dme": ("Figures near 0.9 for 4DME come from easier settings (one label, fewer classes, accuracy).",),
}
