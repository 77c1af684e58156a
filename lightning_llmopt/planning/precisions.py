"""Bytes of a number: of a parameter, its master copy, its gradient, in matrix products and between the blocks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Precision:
    """How many bytes each number takes.

    Args:
        parameter: Of a parameter as it is kept.
        master: Of its fp32 copy; 0 if there is none.
        gradient: Of its gradient.
        state: Of each number of the optimizer's state.
        compute: Of inputs and outputs of matrix products.
        residual: Of the stream between the blocks.
        reduce: Of a gradient while ranks add it up.
    """

    parameter: int
    master: int
    gradient: int
    state: int
    compute: int
    residual: int
    reduce: int

    @property
    def casts(self) -> bool:
        """Whether autocast makes a copy of each weight, and of its input, for every matrix product."""
        return self.parameter != self.compute and self.residual != self.compute


FP32 = Precision(parameter=4, master=0, gradient=4, state=4, compute=4, residual=4, reduce=4)
AUTOCAST = Precision(parameter=4, master=0, gradient=4, state=4, compute=2, residual=4, reduce=4)
GATHERED = Precision(parameter=4, master=0, gradient=4, state=4, compute=2, residual=2, reduce=4)
MASTER = Precision(parameter=2, master=4, gradient=2, state=4, compute=2, residual=2, reduce=2)
SUMMED = Precision(parameter=2, master=4, gradient=4, state=4, compute=2, residual=2, reduce=4)
PURE = Precision(parameter=2, master=0, gradient=2, state=2, compute=2, residual=2, reduce=2)
PURE_GATHERED = Precision(parameter=2, master=0, gradient=2, state=2, compute=2, residual=2, reduce=4)
FP32_ZERO = Precision(parameter=4, master=4, gradient=4, state=4, compute=4, residual=4, reduce=4)

PRECISIONS = ("fp32", "bf16", "fp16", "bf16_master", "bf16_pure")


def precision_of(name: str, strategy: str) -> Precision:
    """What a precision means under a strategy.

    - ``"fp32"``: everything in single precision. DeepSpeed keeps a second fp32 copy of each partition all the same.
    - ``"bf16"``, ``"fp16"``: fp32 weights, by autocast on one device and under DDP, cast when they are gathered under
      FSDP. DeepSpeed keeps 16-bit weights and an fp32 master copy; our presets let it sum gradients in fp32, except
      in ``"zero1"`` with ``"bf16"``.
    - ``"bf16_master"``: 16-bit weights and gradients, and an fp32 master copy, wherever.
    - ``"bf16_pure"``: everything in bfloat16, the optimizer's state too; FSDP reduces gradients in fp32 all the same,
      and DeepSpeed holds what it holds under ``"bf16"``.

    Args:
        name: One of those.
        strategy: A key of ``STRATEGIES``.

    Raises:
        ValueError: If ``name`` is unknown.

    Example:
        >>> precision_of("bf16", "ddp").parameter, precision_of("bf16", "zero1").parameter
        (4, 2)
    """
    if name not in PRECISIONS:
        raise ValueError(f"precision must be one of {list(PRECISIONS)}, got {name!r}.")
    zero = strategy.startswith("zero")
    if name == "fp32":
        return FP32_ZERO if zero else FP32
    if zero and name in ("bf16", "fp16", "bf16_pure"):
        return SUMMED if name == "fp16" or strategy != "zero1" else MASTER
    sharded = strategy.startswith(("fsdp", "hybrid"))
    if name in ("bf16", "fp16"):
        return GATHERED if sharded else AUTOCAST
    pure = PURE_GATHERED if sharded else PURE
    return MASTER if name == "bf16_master" else pure
