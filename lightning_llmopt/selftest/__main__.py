"""``python -m lightning_llmopt.selftest``: print the matrix, and exit with 1 if any error is over 1e-6."""

import argparse
import os
import sys
from collections.abc import Sequence

import torch

from ._doubles import deepspeed_is_here
from ._matrix import QUANTITIES, errors, run
from ._places import PLACES

LIMIT = 1e-6
ABOUT = f"""\
Gradient norms, clipping and weights under each strategy, next to one process that holds everything:
largest relative error over two models (tied, frozen and unused parameters; torch.nn.TransformerEncoder), 1 and 3
batches to an update, three clipped updates and all ranks. Limit {LIMIT:g}. CPU, fp32, real processes over gloo; FSDP1
and ZeRO run in subclasses of Lightning's strategies that lift their CUDA-only guards."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the strategies that were asked for; 1 if one is wrong or fails."""
    parser = argparse.ArgumentParser(prog="python -m lightning_llmopt.selftest", description="One norm everywhere.")
    parser.add_argument("names", nargs="*", metavar="STRATEGY", help=f"of {', '.join(PLACES)}; all if none is named")
    names = parser.parse_args(arguments).names or list(PLACES)
    if unknown := [name for name in names if name not in PLACES]:
        parser.error(f"STRATEGY must be one of {list(PLACES)}, got {unknown[0]!r}.")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)  # a fork after a multi-threaded region hangs
    print(ABOUT, "\n\n", f"{'strategy, ranks':<24}", *(f"{quantity:>12}" for quantity in QUANTITIES), sep="")
    truth, wrong = run(None)[0], []
    for name in names:
        line, right = "not run: pip install 'lightning-llmopt[deepspeed]'", True
        if not PLACES[name].divides_twice or deepspeed_is_here():
            worst = errors(run(name), truth)
            right = all(error <= LIMIT for error in worst.values())
            line = "".join(f"{worst[quantity]:12.1e}" for quantity in QUANTITIES) + ("" if right else "  WRONG")
        print(f"{name:<24}{line}", flush=True)
        wrong += [] if right else [name]
    print(f"\nover {LIMIT:g}: {', '.join(wrong) or 'none'}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
