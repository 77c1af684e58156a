"""How fast our callbacks are, beside torch, beside peers and beside what the hardware allows.

One command, ``python -m benchmarks [ROW ...]``; one row a file in ``benchmarks/rows``, one function a peer
in ``benchmarks/peers.py``. To add a row, write a module there with a function ``run(settings)`` and stop.
"""
