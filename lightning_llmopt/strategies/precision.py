"""Precisions by name, and the plugins for those that Lightning alone does not get right."""

import importlib
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from typing_extensions import override

from .._lightning import HalfPrecision, MisconfigurationException, MixedPrecision, Precision
from ._values import is_word

PRECISIONS = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "bf16_pure": "bf16-true",
    "fp16": "16-mixed",
    "fp8": "bf16-mixed",
}
FP8_CAPABILITY = (8, 9)  # Ada and Hopper: the first GPUs with fp8 matrix units


def precision_plugin(name: str) -> Precision:
    """The plugin for one device, or DDP.

    Args:
        name: A key of ``PRECISIONS``.

    Raises:
        ValueError: If the name is unknown.
        MisconfigurationException: For ``"fp8"`` where the hardware or torchao is missing.
    """
    if not is_word(name, PRECISIONS):
        raise ValueError(f"precision must be one of {list(PRECISIONS)}, got {name!r}.")
    if name == "fp32":
        return Precision()
    if name == "bf16_pure":
        return HalfPrecision("bf16-true")
    return {"bf16": _DeviceAutocast, "fp16": FP16, "fp8": FP8}[name]()


class _DeviceAutocast(MixedPrecision):
    """Autocast on whatever device the module turns out to be."""

    KIND: Any = "bf16-mixed"

    def __init__(self) -> None:
        super().__init__(self.KIND, "cuda" if torch.cuda.is_available() else "cpu")

    @override
    def connect(self, model: nn.Module, optimizers: Any, lr_schedulers: Any) -> tuple[nn.Module, Any, Any]:
        device = next((parameter.device.type for parameter in model.parameters()), self.device)
        if device != self.device:
            self.device = device
            self.scaler = None if self.scaler is None else torch.amp.GradScaler(device=device)
        return model, optimizers, lr_schedulers


class FP16(_DeviceAutocast):
    """Matrix products in float16 by autocast, with a loss scaler, on the CPU too.

    Lightning turns ``precision="16-mixed"`` into bfloat16 there. Weights, gradients and optimizer state are fp32.
    """

    KIND = "16-mixed"


class FP8(_DeviceAutocast):
    """Linear layers of the model in float8 through torchao, the rest in bfloat16 by autocast.

    The first and the last linear layer, and those with a side that is no multiple of 16, are left in bfloat16.

    Raises:
        MisconfigurationException: Without torchao, or a GPU with fp8 matrix units.
    """

    def __init__(self) -> None:
        refuse_fp8_without_hardware()
        super().__init__()

    @override
    def convert_module(self, module: nn.Module) -> nn.Module:
        """Swap the layers, in place."""
        convert = importlib.import_module("torchao.float8").convert_to_float8_training
        layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
        kept = {id(layer) for layer in (layers[:1] + layers[-1:])}
        convert(module, module_filter_fn=lambda part, name: id(part) not in kept and _fits_fp8(part))
        return module


def _fits_fp8(part: nn.Module) -> bool:
    return isinstance(part, nn.Linear) and part.in_features % 16 == 0 and part.out_features % 16 == 0


def refuse_fp8_without_hardware() -> None:
    """Raise where float8 has no matrix units, or torchao is missing.

    Raises:
        MisconfigurationException: Naming what is there, and both ways out.
    """
    if not torch.cuda.is_available():
        here = "this machine has no CUDA GPU"
    elif torch.cuda.get_device_capability() < FP8_CAPABILITY:
        here = f"{torch.cuda.get_device_name()} has none"
    elif find_spec("torchao") is None:
        raise MisconfigurationException(
            "fp8 needs torchao, which is not installed: pip install torchao, or use preset('bf16')."
        )
    else:
        return
    raise MisconfigurationException(
        f"fp8 needs a GPU with fp8 matrix units (compute capability 8.9 or newer), and {here}: run on such a GPU, or "
        "use preset('bf16')."
    )
