"""Lengths as people write them."""

import math
from datetime import timedelta
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_llmopt.schedules import parse_duration


@pytest.mark.parametrize(
    ("written", "steps"),
    [
        (0, 0), (2000, 2000), ("2000", 2000), ("2000 steps", 2000), ("1 step", 1), ("1_000 updates", 1000),
        (" 1,000 ", 1000),
        (0.02, 40), ("2%", 40), ("2 %", 40), ("0.02", 40), ("2e-2", 40), ("2.5%", 50), (1.0, 2000),
        ("100%", 2000), ("0%", 0), ("0.01%", 0), (2**63, 2**63),
    ],
)  # fmt: skip
def test_is_read_as_written(written, steps):
    assert parse_duration("warmup", written).steps(2000) == steps


@pytest.mark.parametrize(
    ("written", "unit", "ticks"),
    [
        ("375M tokens", "tokens", 375_000_000),
        ("1.5B tokens", "tokens", 1_500_000_000), ("1e9 tokens", "tokens", 10**9),
        ("14.8T tokens", "tokens", 14_800_000_000_000), ("1.2M samples", "samples", 1_200_000),
        ("512 sequences", "samples", 512), ("10k steps", "updates", 10_000), ("2k", "updates", 2_000),
        ("45 min", "seconds", 2_700_000_000), ("1.5 h", "seconds", 5_400_000_000), ("90s", "seconds", 90_000_000),
        ("2 days", "seconds", 172_800_000_000), (timedelta(minutes=45), "seconds", 2_700_000_000),
        ("0.001 ms", None, None), ("3 epochs", "epochs", 3), ("1 epoch", "epochs", 1),
    ],
)  # fmt: skip
def test_units_are_read(written, unit, ticks):
    if unit is None:
        with pytest.raises(
            ValueError, match=r"samples \('1.2M samples'\) or a time \('45 min', '8 h'\), got '0.001 ms'"
        ):
            parse_duration("total", written)
    else:
        duration = parse_duration("total", written)
        assert (duration.unit, duration.ticks()) == (unit, ticks)


def test_parts_of_an_epoch_and_of_a_second_are_exact():
    assert parse_duration("warmup", "0.1 epochs").amount == Fraction(1, 10)
    assert parse_duration("warmup", "0.1 s").ticks() == 100_000
    with pytest.raises(ValueError, match="warmup must be a whole number of tokens, got '1.5 tokens'"):
        parse_duration("warmup", "1.5 tokens")


def test_a_decimal_fraction_is_exact():
    assert parse_duration("warmup", 0.1).steps(30) == 3
    assert parse_duration("warmup", 0.29).steps(100) == 29
    assert parse_duration("warmup", "10%").steps(10 * 2**60) == 2**60


def test_numpys_numbers_are_numbers():
    assert parse_duration("warmup", np.int64(7)).steps(100) == 7
    assert parse_duration("warmup", np.float64(0.07)).steps(100) == 7


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=5), st.integers(0, 2**63))
def test_parts_of_at_most_the_whole_always_fit(shares, total):
    whole = max(1, sum(shares))
    parts = [parse_duration("part", f"{share * 100 / whole:.6f}%") for share in shares]
    if sum(part.amount for part in parts) <= 1:
        assert sum(part.steps(total) for part in parts) <= total


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (-1, "warmup must be >= 0, got -1"),
        ("-3%", "warmup must be >= 0, got '-3%'"),
        (-0.1, "warmup must be >= 0, got -0.1"),
        (1.5, r"warmup must be at most the whole run \(1.0 or '100%'\), got 1.5"),
        (2000.0, "at most the whole run .* got 2000.0. For updates write 2000"),
        ("150%", "at most the whole run .* got '150%'"),
        ("2.5 steps", "warmup must be a whole number of updates, got '2.5 steps'"),
        ("1,5", "warmup must be updates .*, got '1,5'"),
        ("1__0", "warmup must be updates .*, got '1__0'"),
        ("1e999999999 steps", "warmup must be updates .*, got '1e999999999 steps'"),
        ("9" * 5_000, r"warmup must be updates .*, got '9999.*\.\.\..*999'"),
        (1e300, r"at most the whole run .*, got 1e\+300\.$"),
        ("3 parsecs", "warmup must be updates .* a part of the run .*, got '3 parsecs'"),
        ("", "warmup must be updates .*, got ''"),
        ("%", "warmup must be updates .*, got '%'"),
        (math.nan, "warmup must be updates .*, got nan"),
        (math.inf, "warmup must be updates .*, got inf"),
        (True, "warmup must be updates .*, got True"),
        (None, "warmup must be updates .*, got None"),
        ([2], r"warmup must be updates .*, got \[2\]"),
    ],
)
def test_refuses_what_is_no_length(written, message):
    with pytest.raises(ValueError, match=message):
        parse_duration("warmup", written)
