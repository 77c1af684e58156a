"""Schedules of peers that are not installed here, from their documented formulas: the slow oracles of the tests.

Every function gives the rate of a peer whose base rate is 1, at the number that the peer itself counts: the update
that is coming counted from 0 (torchtitan, Megatron-LM, timm), or counted from 1 (OLMo-core, whose trainer counts an
update before it sets the rate).
"""

import math

import torch


def torchtitan_wsd(update, *, total, warmup, decay, kind, low=0.0):
    """pytorch/torchtitan b5bcd76, components/optimizer/lr_scheduler.py: ``linear_warmup_stable_decay``."""
    if update < warmup:
        return (update + 1) / warmup
    turn = total + 1 - decay  # one virtual update more
    if update < turn:
        return 1.0
    x = (update + 1 - turn) / decay
    return (
        low
        + (1 - low)
        * {
            "linear": 1 - x,
            "sqrt": 1 - math.sqrt(x),
            "cosine": (1 + math.cos(math.pi * x)) / 2,
        }[kind]
    )


def olmo_warmup(count, warmup, start=0.0):
    """allenai/OLMo-core fa6c501, optim/scheduler.py, as all that follow."""
    return start + (1 - start) * min(count, warmup) / warmup


def olmo_wsd(count, *, total, warmup, decay, start=0.0, low=0.0):
    """``WSD``: nothing stops it at the end of the run."""
    if count <= warmup:
        return olmo_warmup(count, warmup, start)
    return low + (1 - low) * min(total - count, decay) / decay if count >= total - decay else 1.0


def olmo_fall(count, *, total, warmup, kind, low=0.1, start=0.0):
    """``CosWithWarmup`` and ``LinearWithWarmup``."""
    if count < warmup:
        return olmo_warmup(count, warmup, start)
    x = min(1.0, (count - warmup) / (total - warmup))
    return low + (1 - low) * ((1 + math.cos(math.pi * x)) / 2 if kind == "cosine" else 1 - x)


def olmo_inverse_sqrt(count, *, warmup, low=0.1):
    """``InvSqrtWithWarmup``: falls towards ``low``, not to it."""
    return olmo_warmup(count, warmup) if count < warmup else low + (1 - low) * math.sqrt(warmup / count)


def olmo_power(count, *, total, warmup, decay, exponent=-0.51, low=0.0):
    """``PowerLR``."""
    if count <= warmup:
        return olmo_warmup(count, warmup)
    if count < total - decay:
        return (count / warmup) ** exponent
    return low + (((total - decay) / warmup) ** exponent - low) * min(total - count, decay) / decay


def olmo_wsds(count, *, periods, share, warmup, low=0.0):
    """``WSDS``: the last update of a period is at ``low``; decays are rounded to the nearest update."""
    if count < warmup:
        return olmo_warmup(count, warmup)
    if count >= sum(periods):
        return low
    end = 0
    for length in periods:
        end += length
        if count <= end:
            break
    decay = round(share * length)
    return low + (1 - low) * min(1.0, (end - count) / decay) if decay else 1.0


def olmo_exponential(count, *, total, low):
    """``ExponentialScheduler``: rises from ``low``, for tests of the range of rates."""
    return low * (1 / low) ** min(1.0, count / total)


def megatron(update, *, total, warmup, style, low=0.0, start=0.0, decay=None, wsd_style=None):
    """NVIDIA/Megatron-LM d98e8a6, core/optimizer_param_scheduler.py, with samples counted in whole batches."""
    if warmup > 0 and update <= warmup:
        return start + (1 - start) * update / warmup
    if style == "constant":
        return 1.0
    if update > total:
        return low
    if style == "inverse-square-root":
        return max(low, math.sqrt(max(warmup, 1) / max(update, 1)))
    x = (update - warmup) / (total - warmup)
    if style == "WSD":
        x, style = max(0.0, (update - (total - decay)) / decay), wsd_style
    return (
        low
        + (1 - low)
        * {
            "linear": 1 - x,
            "cosine": (1 + math.cos(math.pi * x)) / 2,
            "exponential": 2 * 0.5**x - 1,
            "minus_sqrt": 1 - math.sqrt(x),
        }[style]
    )


def timm_cycles(update, *, first, kind, low=0.0, factor=1, cycles=1, warmup=0, start=0.0, prefix=True, power=0.5):
    """huggingface/pytorch-image-models aa4b585, scheduler/cosine_lr.py and poly_lr.py; ``prefix``: warmup comes before.

    The cycle that an update lies in is counted out here; theirs takes a logarithm and rounds it down.
    """
    if update < warmup:
        return start + (1 - start) * update / warmup
    place, length = update - warmup * prefix, first
    while place >= length and cycles > 1:
        place, length, cycles = place - length, length * factor, cycles - 1
    if place >= length:
        return low
    x = place / length
    return low + (1 - low) * ((1 + math.cos(math.pi * x)) / 2 if kind == "cosine" else (1 - x) ** power)


def timm_steps(update, *, every, factor, warmup=0, start=0.0):
    """The same, scheduler/step_lr.py."""
    return start + (1 - start) * update / warmup if update < warmup else factor ** ((update - warmup) // every)


def rates_of(scheduler, updates, *, momentum=0.0):
    """What a scheduler that is installed gives to each of these first updates, at a base rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=momentum)
    running, rates = scheduler(optimizer), []
    for _ in range(updates):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        running.step()
    return rates
