"""Recipes of action units: every emotion in several ways, scaled by intensity, repeatable."""

import numpy as np
import pytest

from affectvlm.emotions import EKMAN
from affectvlm.synthesis.base import sided
from affectvlm.synthesis.expressions import RECIPES, mirror, prototype, sample_expression


@pytest.mark.parametrize("emotion", [*EKMAN, "neutral"])
def test_samples_are_valid_action_units_and_repeat_for_equal_generators(emotion):
    a, b = (sample_expression(emotion, 0.7, np.random.default_rng(5)) for _ in range(2))
    assert a == b
    assert all(0 <= left <= 1 and 0 <= right <= 1 for left, right in sided(a).values())


def test_no_emotion_has_one_face_only():
    for emotion in EKMAN:
        assert len(RECIPES[emotion]) >= 3
        rng = np.random.default_rng(0)
        shown = {
            frozenset(k for k, v in sided(sample_expression(emotion, 1.0, rng)).items() if max(v) > 0.15)
            for _ in range(40)
        }
        assert len(shown) > 8, emotion


def test_intensity_scales_what_is_shown():
    strength = lambda level: sum(  # noqa: E731
        max(v)
        for seed in range(30)
        for v in sided(sample_expression("fear", level, np.random.default_rng(seed))).values()
    )
    assert strength(0.3) < 0.5 * strength(1.0)


def test_neutral_shows_no_emotional_action_unit():
    for seed in range(200):
        units = sided(sample_expression("neutral", 0.0, np.random.default_rng(seed)))
        assert all(max(units.get(name, (0, 0))) <= 0.11 for name in ("AU4", "AU9", "AU10", "AU12", "AU15", "AU20"))


@pytest.mark.parametrize(
    ("emotion", "needed"),
    [("happy", {"AU12", "AU6"}), ("sad", {"AU1", "AU15"}), ("surprise", {"AU1", "AU2", "AU26"}),
     ("fear", {"AU1", "AU4", "AU5", "AU20"}), ("angry", {"AU4", "AU23"}), ("disgust", {"AU10", "AU17"})],
)  # fmt: skip
def test_prototypes_hold_what_the_textbook_names(emotion, needed):
    assert needed <= prototype(emotion).keys()
    assert prototype(emotion, 0.5) == pytest.approx({k: v / 2 for k, v in prototype(emotion).items()})


def test_mirroring_twice_changes_nothing():
    assert [mirror(mirror(name)) for name in ("AU9L", "AU9R", "AU12")] == ["AU9L", "AU9R", "AU12"]
    assert mirror("AU9L") == "AU9R"


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: sample_expression("bored", 1, np.random.default_rng()), "bored"),
     (lambda: sample_expression("happy", 1.5, np.random.default_rng()), "0 to 1"),
     (lambda: prototype("bored"), "bored"),
     (lambda: sided({"AU12X": 0.5}), "AU12X"),
     (lambda: sided({"smile": 0.5}), "smile"),
     (lambda: sided({"AU12LR": 0.5}), "AU12LR"),
     (lambda: sided({"AU12": 1.5}), "0 to 1")],
)  # fmt: skip
def test_unknown_names_and_ranges_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
