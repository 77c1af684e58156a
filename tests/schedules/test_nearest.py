"""A question for who mistyped a name, and none for who meant something else."""

import pytest

from lightning_llmopt.schedules.nearest import did_you_mean


@pytest.mark.parametrize(
    ("got", "question"),
    [("cosin", " Did you mean 'cosine'?"), ("liner", " Did you mean 'linear'?"), ("adam", ""), (3, ""), (None, "")],
)
def test_asks_for_the_nearest_name(got, question):
    assert did_you_mean(got, ["cosine", "linear", "wsd"]) == question
