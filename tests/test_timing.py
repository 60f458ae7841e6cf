import numpy as np
import pytest

from affectvlm.synthesis.timing import timeline


def test_rises_holds_and_falls():
    curve = timeline(0.5, 1.0, 0.5, fps=50, peak=0.8)
    assert curve.shape == (101,)
    assert curve[0] == 0 and curve[-1] == pytest.approx(0)
    assert (np.diff(curve[:26]) > 0).all() and (np.diff(curve[75:]) < 0).all()
    assert curve[25:76] == pytest.approx(0.8)


def test_starts_and_stops_softly():
    curve = timeline(1.0, 0.0, 1.0, fps=1000)
    speed = np.gradient(curve[:1001], 1e-3)
    assert abs(speed[0]) < 0.01 and abs(speed[-1]) < 0.01
    assert speed.max() == pytest.approx(1.875, rel=1e-3)  # peak speed of a minimum-jerk move of 1 in 1 s


def test_is_symmetric_in_time_for_equal_onset_and_offset():
    curve = timeline(0.3, 0.2, 0.3, fps=60)
    assert curve == pytest.approx(curve[::-1])


def test_a_sudden_onset_starts_at_the_peak():
    assert timeline(0, 0.5, 0.5, fps=10, peak=0.6)[0] == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((-1, 1, 1, 25, 1), "onset"), ((0, 0, 0, 25, 1), "all 0"), ((1, 1, 1, 0, 1), "fps"), ((1, 1, 1, 25, 1.2), "peak")],
)
def test_refuses_nonsense(arguments, said):
    with pytest.raises(ValueError, match=said):
        timeline(*arguments)
