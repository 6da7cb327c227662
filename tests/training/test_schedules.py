"""Learning-rate schedules: factors at positions of a stage."""

import numpy as np
import pytest

from hiptrack.errors import ConfigError
from hiptrack.training.schedules import (
    ConstantSchedule,
    CosineSchedule,
    KeepRatioSchedule,
    PolynomialSchedule,
    StepSchedule,
    TimmSchedule,
)


def test_step_drops_at_each_milestone():
    schedule = StepSchedule(milestones=(8, 4), factor=0.5)
    assert [schedule(epoch, 10) for epoch in (0, 3.99, 4, 7.5, 8, 9.9)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


def test_polynomial_goes_down_to_final_with_its_power():
    straight = PolynomialSchedule(final=0.1)
    assert [straight(epoch, 20) for epoch in (0, 5, 10, 20)] == pytest.approx([1, 0.775, 0.55, 0.1])
    poly = PolynomialSchedule(power=0.9)
    assert [poly(epoch, 20) for epoch in (0, 10, 20)] == pytest.approx([1, 0.5**0.9, 0])


def test_cosine_passes_the_middle_at_half():
    assert [CosineSchedule(final=0.2)(epoch, 10) for epoch in (0, 5, 10)] == pytest.approx([1, 0.6, 0.2])


@pytest.mark.parametrize("kind", [CosineSchedule, PolynomialSchedule])
def test_warm_up_rises_in_a_line_and_the_rest_falls(kind):
    schedule = kind(warmup_epochs=2, final=0.05)
    factors = np.array([schedule(epoch, 12) for epoch in np.arange(0, 12.01, 0.1)])
    assert 0 < factors[0] < 0.01 and factors[10] == pytest.approx(0.5, abs=0.01)
    assert (np.diff(factors[:20]) > 0).all() and (np.diff(factors[20:]) < 0).all()
    assert factors[20] == 1 and factors[-1] == pytest.approx(0.05)


def test_timms_cosine_is_ours_and_restarts_lower():
    epochs = np.arange(0, 12, 0.25)
    timms, ours = TimmSchedule(final=0.05), CosineSchedule(final=0.05)
    assert [timms(epoch, 12) for epoch in epochs] == pytest.approx([ours(epoch, 12) for epoch in epochs])
    restarted = TimmSchedule(cycles=3, cycle_decay=0.5)
    assert [restarted(epoch, 12) for epoch in (0, 2, 4, 6, 8, 10)] == pytest.approx([1, 0.5, 0.5, 0.25, 0.25, 0.125])


def test_timms_tanh_stays_high_longer_and_warms_up():
    tanh, cosine = TimmSchedule("tanh"), TimmSchedule("cosine")
    assert tanh(0, 10) == pytest.approx(1, abs=0.01) and tanh(4, 10) > cosine(4, 10)
    warm = TimmSchedule("tanh", warmup_epochs=2.0)
    assert warm(0, 10) < 0.01 and warm(1, 10) == pytest.approx(0.5, abs=0.01)


def test_cycles_that_start_below_their_end_are_an_error():
    with pytest.raises(ConfigError, match="TimmSchedule.cycles = 3"):
        TimmSchedule(cycles=3, cycle_decay=0.1, final=0.05)


@pytest.mark.parametrize(
    "schedule, epochs, words",
    [
        (StepSchedule(), 20, "StepSchedule.milestones = (80,): the rate would never drop"),
        (
            CosineSchedule(warmup_epochs=30),
            20,
            "CosineSchedule.warmup_epochs = 30: the full rate would never be reached",
        ),
        (TimmSchedule(cycles=4, warmup_epochs=6), 20, "TimmSchedule.warmup_epochs = 6: the full rate"),
        (KeepRatioSchedule(start=20), 20, "KeepRatioSchedule.start = 20: no token would ever be eliminated"),
    ],
)
def test_a_schedule_that_does_nothing_in_its_stage_says_so(schedule, epochs, words):
    assert schedule.problem(epochs).startswith(words)
    assert schedule.problem(200) is None


def test_a_warm_up_as_long_as_the_stage_ends_at_the_full_rate():
    assert PolynomialSchedule(warmup_epochs=3)(2.999, 3) == pytest.approx(1)
    assert ConstantSchedule()(2.9, 3) == 1
