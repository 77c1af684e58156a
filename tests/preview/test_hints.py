import pytest

from lightning_llmopt.preview import schedule_warnings
from lightning_llmopt.schedules import Phase, Schedule, constant, cosine_restarts, inverse_sqrt, one_cycle, wsd


def only(warnings):
    (warning,) = warnings
    return warning


@pytest.mark.parametrize(
    ("schedule", "total_steps"),
    [
        (wsd(warmup="10%"), 1_000),
        (wsd(warmup=1).resolve(total_steps=10), 10),
        (constant(), 1),
        (constant(warmup=10).resolve(total_steps=None), 500),
        (inverse_sqrt(warmup=10).resolve(total_steps=None), 500),
        (lambda step: 0.5, 10),
    ],
)
def test_nothing_is_said_of_a_usual_schedule(schedule, total_steps):
    assert schedule_warnings(schedule, total_steps=total_steps, groups={"all": 3e-4}) == ()


def test_a_warmup_above_a_tenth_is_said_with_both_numbers():
    warning = only(schedule_warnings(wsd(warmup=101), total_steps=1_000))
    assert warning.startswith("The warmup takes 101 of 1,000 updates (10.1 % of the run")
    assert "Shorten it" in warning


def test_one_cycle_is_told_of_its_warmup_as_well():
    assert "300 of 1,000" in only(schedule_warnings(one_cycle(), total_steps=1_000))


def test_a_warmup_behind_the_end_is_not_long_but_missed():
    schedule = Schedule(Phase("stable", 10, 1.0, 1.0), Phase("warmup", 10, 0.0, 1.0))
    assert "never reaches 'warmup'" in only(schedule_warnings(schedule, total_steps=10))


def test_a_decay_that_is_never_reached_is_named_with_its_updates_and_where_the_run_ends():
    schedule = wsd(warmup=10, decay=200).resolve(total_steps=1_000)
    warning = only(schedule_warnings(schedule, total_steps=700, groups={"a": 3e-4, "b": 1e-4}))
    assert warning == (
        "The run of 700 updates ends within 'stable' (updates 10 to 799) and never reaches 'decay' (updates 800 to "
        "999): its last update, number 699, has multiplier 1 (rate 0.0003). Fit the schedule to total_steps=700, or "
        "run all of its 1,000 updates."
    )


def test_a_decay_that_begins_right_where_the_run_ends_is_never_reached():
    schedule = wsd(decay=200).resolve(total_steps=1_000)
    warning = only(schedule_warnings(schedule, total_steps=800))
    assert warning.startswith("The run of 800 updates never reaches 'decay' (updates 800 to 999): ")


def test_a_decay_that_is_cut_is_named_with_the_multiplier_it_comes_to():
    schedule = wsd(decay=200, shape="linear").resolve(total_steps=1_000)
    warning = only(schedule_warnings(schedule, total_steps=900))
    assert "ends within 'decay' (updates 800 to 999): its last update, number 899, has multiplier 0.505." in warning


def test_a_last_cycle_that_is_cut_is_said_of_the_recipe_as_well():
    warning = only(schedule_warnings(cosine_restarts(first_cycle=40), total_steps=100))
    assert "ends within 'cycle 3' (updates 80 to 119)" in warning


def test_of_many_phases_that_are_never_reached_three_are_named():
    schedule = cosine_restarts(first_cycle=10).resolve(total_steps=1_000)
    warning = only(schedule_warnings(schedule, total_steps=10))
    assert "'cycle 2' (updates 10 to 19)" in warning
    assert "(96 more)" in warning


def test_a_run_that_outlives_its_schedule_is_told_where_it_stays():
    schedule = wsd(decay=50, floor=0.1).resolve(total_steps=100)
    warning = only(schedule_warnings(schedule, total_steps=300, groups={"all": 0.5}))
    assert "ends after 100 of 300 updates: the other 200 run at multiplier 0.1 (rate 0.05)" in warning


def test_a_first_update_at_rate_zero_is_said():
    warning = only(schedule_warnings(lambda step: min(1.0, step / 3), total_steps=100))
    assert warning.startswith("The first update, number 0, has rate 0")


def test_a_last_update_at_rate_zero_is_said():
    warning = only(schedule_warnings(lambda step: 1 - step / 999, total_steps=1_000))
    assert warning.startswith("The last update, number 999, has rate 0")


def test_a_single_update_at_rate_zero_is_said_once():
    assert "number 0" in only(schedule_warnings(lambda step: 0.0, total_steps=1))


def test_groups_without_a_rate_are_named():
    groups = {"all": 1.0, **{f"frozen{number}": 0.0 for number in range(5)}}
    warning = only(schedule_warnings(constant(), total_steps=5, groups=groups))
    assert "'frozen0', 'frozen1', 'frozen2', ... (2 more)" in warning


@pytest.mark.parametrize("total_steps", [0, -1, 1.5, True, None])
def test_a_length_that_is_none_is_refused(total_steps):
    with pytest.raises(ValueError, match="total_steps must be a whole number of updates >= 1, got"):
        schedule_warnings(constant(), total_steps=total_steps)
