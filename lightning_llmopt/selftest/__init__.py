"""One gradient norm on every strategy, shown on this machine: ``python -m lightning_llmopt.selftest``.

Two small models train for three clipped updates under each strategy, in real processes that talk over gloo, and
once in one process that holds everything. Norms of all tensors, the total, the clipped total and the weights have
to agree to a relative 1e-6. Our own tests use the same models, strategies and fits.
"""
