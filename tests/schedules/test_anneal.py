"""How a cooldown on request is described."""

import pickle

import pytest

from lightning_llmopt.schedules import Anneal, parse_duration


def test_reads_its_length():
    assert Anneal(duration="20%").length() == parse_duration("duration", 0.2)
    assert Anneal().length() is None
    assert pickle.loads(pickle.dumps(Anneal(duration=3))) == Anneal(duration=3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"duration": 0}, "duration must be more than nothing and less than the whole run, got 0"),
        ({"duration": "100%"}, "duration must be more than nothing and less than the whole run, got '100%'"),
        ({"duration": "3 parsecs"}, "duration must be updates .*, got '3 parsecs'"),
        ({"shape": "straight"}, "shape must be one of .*, got 'straight'"),
        ({"shape": "exponential"}, "shape 'exponential' needs floor > 0, got 0.0"),
        ({"floor": 2}, r"floor must be a number in \[0, 1\] .*, got 2"),
        ({"file": ""}, "file must be a name or None, got ''"),
        ({"signal": 12}, "signal must be a name or None, got 12"),
        ({"signal": "SIGNOTHING"}, "signal must be one that this system has, such as .*, got 'SIGNOTHING'"),
        ({"file": "../ANNEAL"}, "file must be a bare name, without a folder, got '../ANNEAL'"),
    ],
)
def test_refuses_what_it_cannot_be(wrong, message):
    with pytest.raises(ValueError, match=message):
        Anneal(**wrong)
