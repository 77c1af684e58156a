"""Models that nobody here wrote train with our callbacks, each by its own code; one table of what came out."""

import os

import pytest

from cases import of_group
from checks import leaves_out_a_bad_update, refuses_a_second_writer, trains_as_told

CASES = of_group(os.environ["ECOSYSTEM"])


def marked(case):
    return pytest.param(case, marks=[pytest.mark.xfail(strict=True, reason=case.fails)] if case.fails else [])


every_case = pytest.mark.parametrize("case", list(map(marked, CASES)), ids=[str(case) for case in CASES])
pytestmark = pytest.mark.filterwarnings("ignore")  # theirs: deprecations, missing kernels, hints


@every_case
def test_rates_norms_clipping_and_groups_are_what_they_should_be(case, tmp_path):
    trains_as_told(case, tmp_path)


@every_case
def test_an_update_with_a_nan_is_left_out_and_the_schedule_waits(case, tmp_path):
    leaves_out_a_bad_update(case, tmp_path)


@pytest.mark.parametrize("case", [case for case in CASES if case.scheduler and not case.fails], ids=str)
def test_a_scheduler_of_its_own_is_refused_with_the_way_out(case, tmp_path):
    refuses_a_second_writer(case, tmp_path)
