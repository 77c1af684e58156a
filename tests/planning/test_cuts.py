"""Plans for tensor parallelism: read from a model, checked, and turned into cuts."""

from types import SimpleNamespace

import pytest
from torch import nn

from lightning_llmopt.planning.cuts import cuts_of, matches, own_plan, refuse_no_plan


def model(plan=None):
    net = nn.ModuleDict(
        {
            "table": nn.Embedding(10, 4),
            "blocks": nn.ModuleList(nn.ModuleDict({"up": nn.Linear(4, 8), "down": nn.Linear(8, 4)}) for _ in range(2)),
        }
    )
    net.config = SimpleNamespace(base_model_tp_plan=plan)
    return net


def test_rows_go_with_their_biases_and_tables_are_stored_the_other_way_round():
    plan = {"table": "embedding_rowwise", "blocks.*.up": "colwise", "blocks.1.down": "rowwise"}
    assert cuts_of(model(), plan) == {
        "table.weight": 0, "blocks.0.up.weight": 0, "blocks.0.up.bias": 0, "blocks.1.up.weight": 0,
        "blocks.1.up.bias": 0, "blocks.1.down.weight": 1,
    }  # fmt: skip
    assert cuts_of(model(), {"table": "colwise"}) == {"table.weight": 1}


def test_a_plan_comes_with_the_model_and_its_names_are_those_of_the_whole():
    assert own_plan(model()) is None
    assert cuts_of(model()) is None
    whole = nn.ModuleDict({"net": model({"blocks.*.up": "colwise"})})
    assert own_plan(whole) == {"net.blocks.*.up": "colwise"}
    assert cuts_of(whole) == {f"net.blocks.{i}.up.{name}": 0 for i in (0, 1) for name in ("weight", "bias")}


@pytest.mark.parametrize(
    ("name", "glob", "expected"),
    [("a.0.b", "a.*.b", True), ("a.0.b", "a.*", False), ("a.b", "a.*.b", False), ("A.b", "a.b", False)],
)
def test_names_are_matched_part_by_part(name, glob, expected):
    assert matches(name, glob) is expected


@pytest.mark.parametrize("plan", [{}, [], "auto", {1: "colwise"}, {"blocks.*": 2}, {"blocks.*": ["rowwise"]}])
def test_what_is_no_plan_is_refused(plan):
    with pytest.raises(ValueError, match="tensor_parallel_plan must be a dict of one glob or more .*, or None, got"):
        refuse_no_plan(plan)
    with pytest.raises(ValueError, match="tensor_parallel_plan must be a dict of one glob or more"):
        cuts_of(model(), plan)


@pytest.mark.parametrize(
    ("plan", "sentence"),
    [
        ({"blocks.*.up": "sequence"}, "A style .* must be one of .*, got 'sequence' at 'blocks.*.up'"),
        ({"blocks.*.gate": "colwise"}, "must match a module of ModuleDict, got 'blocks.*.gate'"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(plan, sentence):
    with pytest.raises(ValueError, match=sentence):
        cuts_of(model(), plan)
