"""Small steps around a made face: which there are, what they do, and that the best one does what it promised."""

from __future__ import annotations

import numpy as np
import pytest

from affectvlm.steering import STEP, Step, best_step, effects, look_around, steps_around, views
from affectvlm.synthesis.action_units import REGIONS, UNITS
from affectvlm.synthesis.procedural import ProceduralFace
from affectvlm.synthesis.procedural.identity import sample_identity
from affectvlm.synthesis.recipe import FaceRecipe
from affectvlm.zero_shot import ZeroShot


@pytest.fixture(scope="module")
def model() -> ProceduralFace:
    return ProceduralFace()


@pytest.fixture(scope="module")
def asked(predictor) -> ZeroShot:
    return ZeroShot(predictor.model, predictor.card)


# recipes


def test_every_unit_of_the_face_has_a_name_and_a_region():
    assert set(UNITS) == set(ProceduralFace.action_units)
    assert {unit.region for unit in UNITS.values()} == set(REGIONS)
    assert len({unit.name for unit in UNITS.values()}) == len(UNITS)
    assert UNITS["AU4"].name == "brow lowerer"


def test_equal_recipes_are_equal_faces_and_keys(model):
    first = FaceRecipe(3, units={"AU12": 0.5, "AU4": 0.0, "AU1": 0.25})
    same = FaceRecipe(3, units={"AU1": 0.25, "AU12": 0.5})
    assert first == same and first.key == same.key
    assert np.array_equal(first.scan(model).vertices, same.scan(model).vertices)
    others = [same.with_unit("AU1", 0.3), FaceRecipe(4, units=same.units), FaceRecipe(3, "male", units=same.units)]
    assert len({same.key, *(other.key for other in others)}) == 4


def test_a_seed_without_traits_is_the_person_the_model_would_draw(model):
    assert FaceRecipe(9).person() == model.sample_identity(np.random.default_rng(9))


@pytest.mark.parametrize("seed", range(4))
def test_traits_change_only_what_hangs_on_them(seed):
    drawn = sample_identity(np.random.default_rng(seed))
    given = FaceRecipe(seed, "male", 70.0, 1.5).person()
    assert (given.sex, given.age, given.build) == ("male", 70.0, 1.5)
    assert (given.modes, given.asymmetric_modes, given.asymmetry) == (
        drawn.modes,
        drawn.asymmetric_modes,
        drawn.asymmetry,
    )
    same = FaceRecipe(seed, drawn.sex, drawn.age, drawn.build).person()
    assert same == drawn


@pytest.mark.parametrize("traits", [{"sex": "robot"}, {"age": 5}, {"age": float("nan")}, {"build": 9}])
def test_impossible_people_are_refused(traits):
    with pytest.raises(ValueError, match="needed"):
        FaceRecipe(1, **traits).person()


@pytest.mark.parametrize(
    "units", [{"AU99": 0.5}, {"AU12": 1.5}, {"AU12": -0.1}, {"AU12": float("nan")}, {"AU12L": 0.5}]
)
def test_impossible_muscles_are_refused(units):
    with pytest.raises(ValueError, match="action unit"):
        FaceRecipe(units=units)


def test_a_pose_replaces_the_expression_and_keeps_the_person():
    recipe = FaceRecipe(2, "female", 30, units={"AU43": 1.0}).posing("happy", 0.5)
    assert recipe.person() == FaceRecipe(2, "female", 30).person()
    assert "AU43" not in recipe.units and recipe.units["AU12"] > 0
    assert recipe.posing("neutral").units == {}


# steps


def test_steps_go_both_ways_and_stay_inside():
    steps = steps_around({"AU1": 0.1, "AU4": 1.0, "AU12": 0.5}, 0.2)
    found = {(step.unit, step.more): step.value for step in steps}
    assert found["AU1", True] == pytest.approx(0.3) and found["AU1", False] == 0
    assert ("AU4", True) not in found and found["AU4", False] == pytest.approx(0.8)
    assert found["AU12", True] == pytest.approx(0.7) and found["AU12", False] == pytest.approx(0.3)
    assert found["AU43", True] == pytest.approx(0.2) and ("AU43", False) not in found
    assert len(steps) == 2 * 3 - 1 + (len(UNITS) - 3)


@pytest.mark.parametrize("step", [0, -0.1, 1.1, float("nan")])
def test_a_step_has_a_size(step):
    with pytest.raises(ValueError, match="step"):
        steps_around({}, step)


def test_the_best_step_is_the_one_that_helps_most():
    up, down, side = Step("AU1", 0.2, True), Step("AU2", 0.0, False), Step("AU4", 0.2, True)
    assert best_step({up: 0.1, down: 0.4, side: -1.0}) == down
    assert best_step({up: -0.1, side: 0.0}) is None and best_step({}) is None


class Brightness:
    """Stands in for a model: a face's feature is its mean colour, so that effects are known without one."""

    def __init__(self, card) -> None:
        self.card = card

    def fused_features(self, pictures: np.ndarray) -> np.ndarray:
        return pictures.astype(np.float64).mean(axis=(1, 2, 3))


def test_looking_around_is_looking_at_each(model, predictor):
    recipe, shares = FaceRecipe(1, units={"AU27": 0.9}), []
    eye = Brightness(predictor.card)
    around = look_around(recipe, model, eye, 0.5, shares.append)
    assert len(around.features) == 1 + len(around.steps) and around.steps == steps_around(recipe.units, 0.5)
    assert shares == sorted(shares) and shares[-1] == 1.0
    for place in (0, 5, len(around.steps) - 1):
        step = around.steps[place]
        alone = eye.fused_features(views([recipe.with_unit(step.unit, step.value)], model, predictor.card))[0]
        assert around.features[1 + place] == pytest.approx(alone)
    changes = effects(around, around.features, 2)
    wanted = around.features[1:, 2] - around.features[0, 2]
    assert [changes[step] for step in around.steps] == pytest.approx(wanted)


def test_it_stops_when_told(model, predictor):
    class Enough(Exception):
        pass

    def stop(share: float) -> None:
        raise Enough

    with pytest.raises(Enough):
        look_around(FaceRecipe(1), model, Brightness(predictor.card), on_progress=stop)


@pytest.mark.slow
def test_a_few_best_steps_lead_to_the_emotion(model, asked, predictor):
    if predictor.card.name != "affectvlm-compact":
        pytest.skip("needs the trained model")
    prompts, recipe = predictor.card.prompts, FaceRecipe(1)
    bank, row = asked.bank(prompts), prompts.classes.index("fear")
    known = None
    for _ in range(4):
        around = look_around(recipe, model, asked, STEP)
        logs = asked.log_probabilities(around.features, bank, 6)
        if known is not None:
            assert logs[0, row] == pytest.approx(known, abs=1e-3)  # the step did what it promised
        changes = effects(around, logs, row)
        best = best_step(changes)
        assert changes[best] == max(changes.values()) > 0
        known = logs[0, row] + changes[best]
        recipe = recipe.with_unit(best.unit, best.value)
    assert predictor.predict(recipe.scan(model)).emotion == "fear"
