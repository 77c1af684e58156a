"""Pipelines of real processes under torch's 1F1B schedule, against what the plan says of them."""

import itertools
import warnings

import pytest
import torch
from torch import distributed, nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.nn.functional import cross_entropy

from lightning_llmopt.planning import Job, Layout, Transformer, bubble, memory

from decoders import Alive, gpt2
from ranks import on_ranks

SHAPE = {"layers": 6, "width": 64, "heads": 4, "vocabulary": 96}


class Part(nn.Module):
    """What one stage has of a GPT-2."""

    def __init__(self, whole, place, stages):
        super().__init__()
        first, last, each = place == 0, place == stages - 1, len(whole.blocks) // stages
        self.blocks = whole.blocks[place * each : (place + 1) * each]
        self.token, self.position = (whole.token, whole.position) if first else (None, None)
        self.norm, self.head = (whole.norm, whole.head) if last else (None, None)

    def forward(self, x):
        if self.token is not None:
            x = self.token(x) + self.position(torch.arange(x.shape[1]))
        for block in self.blocks:
            x = block(x)
        return x if self.head is None else self.head(self.norm(x))


def one_update(rank, stages, micro_batches):
    """Most micro-batches under way on this rank, and bytes alive when they first were."""
    distributed.init_process_group("gloo")
    part, seen, alive = Part(gpt2(**SHAPE), rank, stages), {}, Alive()
    stage = PipelineStage(part, rank, stages, torch.device("cpu"))
    schedule = Schedule1F1B(stage, micro_batches, loss_fn=lambda x, y: cross_entropy(x.flatten(0, 1), y.flatten()))
    tokens = torch.randint(96, (2 * micro_batches, 64))
    forward = stage.forward_one_chunk

    def noting(*args, **kwargs):
        result = forward(*args, **kwargs)
        seen.setdefault(len(stage.fwd_cache), alive.bytes(but=part.parameters()))
        return result

    stage.forward_one_chunk = noting
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = [tokens] if rank == 0 else []
        target = {"target": tokens} if rank == stages - 1 else {}
        schedule.step(*given, **target)  # makes the buffers of what is received
        seen.clear()
        part.zero_grad()
        with alive:
            schedule.step(*given, **target)
    distributed.destroy_process_group()
    return max(seen), seen[max(seen)]


@pytest.mark.parametrize(
    ("stages", "micro_batches"), [(2, 4), pytest.param(3, 8, marks=pytest.mark.distributed), (3, 3)]
)
def test_stage_p_holds_as_many_micro_batches_as_stages_follow(stages, micro_batches):
    found = on_ranks(stages, one_update, stages, micro_batches)
    network = Transformer(**SHAPE, positions=64).network()
    job = Job(network, sequence=64, micro_batch=2, accumulate=micro_batches, precision="fp32")
    assert [under_way for under_way, _ in found] == [min(micro_batches, stages - place) for place in range(stages)]
    planned = memory(job, Layout("ddp", pipeline=stages)).activations
    assert planned == pytest.approx(found[0][1], rel=0.05)  # torch keeps each micro-batch's output too


@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 1), (2, 2), (4, 4), (4, 13), (8, 32)])
@pytest.mark.parametrize("backward", [1, 2])
def test_the_bubble_is_the_idle_part_of_1f1b(stages, micro_batches, backward):
    ends, held = played(stages, micro_batches, backward)
    work = micro_batches * (1 + backward)
    assert bubble(stages, micro_batches=micro_batches) == pytest.approx(1 - work / ends)
    assert held == [min(micro_batches, stages - place) for place in range(stages)]


def played(stages, micro_batches, backward):
    """When 1F1B ends, and the most micro-batches that each stage held: every stage does its next task when it can."""
    todo = []
    for place in range(stages):
        ahead = min(micro_batches, stages - place)
        forwards = [("F", index) for index in range(micro_batches)]
        pairs = itertools.zip_longest([("B", index) for index in range(micro_batches)], forwards[ahead:])
        todo.append([*forwards[:ahead], *(task for pair in pairs for task in pair if task)])
    done, free, held, most = {}, [0] * stages, [0] * stages, [0] * stages
    while any(todo):
        for place in range(stages):
            if not todo[place]:
                continue
            kind, index = todo[place][0]
            before = ("F", index, place - 1) if kind == "F" else ("B", index, place + 1)
            if 0 <= before[2] < stages and before not in done:
                continue
            start = max(free[place], done.get(before, 0), done.get(("F", index, place), 0))
            free[place] = done[kind, index, place] = start + (1 if kind == "F" else backward)
            held[place] += 1 if kind == "F" else -1
            most[place] = max(most[place], held[place])
            todo[place].pop(0)
    return max(free), most
