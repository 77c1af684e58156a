"""Runs a function in several real processes that train together over gloo."""

import multiprocessing
import os
import queue
import socket
import traceback


def on_ranks(world_size, function, *args, timeout=120):
    """Results of ``function(rank, *args)`` from ``world_size`` forked processes, in order of rank.

    A rank that raises fails the test with its traceback; ranks that hang are killed after ``timeout`` seconds.
    """
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    port = _free_port()
    processes = [
        context.Process(target=_run, args=(rank, world_size, port, function, args, results))
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    try:
        answers = dict(results.get(timeout=timeout) for _ in processes)
    except queue.Empty:
        raise AssertionError(f"ranks did not answer within {timeout} s") from None
    finally:
        for process in processes:
            process.join(5)
            process.kill()
    failures = [answer for answer in answers.values() if isinstance(answer, _Failure)]
    assert not failures, "\n".join(failure.text for failure in failures)
    return [answers[rank] for rank in range(world_size)]


class _Failure:
    def __init__(self, text):
        self.text = text


def _run(rank, world_size, port, function, args, results):
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size), NODE_RANK="0",
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    try:
        results.put((rank, function(rank, *args)))
    except BaseException:  # noqa: BLE001 - reported by the parent
        results.put((rank, _Failure(f"rank {rank}:\n{traceback.format_exc()}")))


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
