"""What people have of a model, as a ``Network``: a size, a name, a description, a configuration, or the module."""

import difflib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ._widths import widths_of_shapes
from .amounts import parse_count
from .cuts import cuts_of
from .network import Network, Unit, Weight, Widths
from .transformer import NAMED, Transformer, of_size

_NAMES = {  # of a number in Hugging Face configurations
    "layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "width": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head"),
    "vocabulary": ("vocab_size",),
}
_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")


def network_of(model: Any, *, tensor_parallel_plan: Mapping[str, str] | None = None) -> Network:
    """Shapes of a model, whatever is known of it.

    Args:
        model: A number of parameters (``"70B"``), a published model (``"llama-2-7b"``), a ``Transformer``, an object
            with the attributes of a Hugging Face configuration, or a module; of a module only shapes are read, so it
            may lie on the meta device.
        tensor_parallel_plan: What tensor parallelism splits of a module, as ``FSDP2`` takes it. By default the plan
            that a Hugging Face model brings along; without one the rows of each matrix of a block.

    Raises:
        ValueError: If a text is neither a size nor a known name, a configuration has experts, or the plan does not fit
            the module.
        TypeError: If ``model`` is none of these.

    Example:
        >>> network_of("gpt2").size
        124439808
    """
    if hasattr(model, "named_parameters") and not isinstance(model, type):
        return _of_module(model, tensor_parallel_plan)
    if tensor_parallel_plan is not None:
        raise ValueError(
            f"tensor_parallel_plan names modules, and model is a {type(model).__name__}: give the module, or no plan."
        )
    if isinstance(model, Network):
        return model
    if isinstance(model, Transformer):
        return model.network()
    if isinstance(model, str) and model in NAMED:
        return NAMED[model].network()
    if isinstance(model, int | float | str):
        return _sized(model)
    if _is_configuration(model):
        return transformer_of(model).network()
    raise TypeError(
        "model must be a size such as '70B', a name, a Transformer, a configuration with hidden_size or n_embd, or a "
        f"module, got {f'the class {model.__name__}' if isinstance(model, type) else type(model).__name__}."
    )


def transformer_of(config: Any) -> Transformer:
    """The numbers in a Hugging Face configuration, or in anything with the same attributes.

    With ``rms_norm_eps`` it is read as a Llama (RMS norms written out, gate, three matrices before the attention),
    otherwise as a GPT-2.

    Raises:
        ValueError: If a number is missing, or there are experts or an encoder beside the decoder: they are not planned.

    Example:
        >>> from types import SimpleNamespace
        >>> config = SimpleNamespace(n_layer=12, n_embd=768, n_head=12, vocab_size=50257, n_positions=1024)
        >>> transformer_of(config).network().size
        124439808
    """
    if any((getattr(config, name, None) or 0) > 1 for name in _EXPERTS):
        raise ValueError(f"{type(config).__name__} has experts, which are not planned: give the module itself.")
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"{type(config).__name__} has an encoder and a decoder, which are not planned: give the module itself."
        )
    numbers = {ours: _first(config, theirs) for ours, theirs in _NAMES.items()}
    llama = getattr(config, "rms_norm_eps", None) is not None
    return Transformer(
        **numbers,
        kv_heads=getattr(config, "num_key_value_heads", None),
        ffn=getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None),
        tied=bool(getattr(config, "tie_word_embeddings", not llama)),
        gated=llama,
        bias=bool(getattr(config, "attention_bias", False)) if llama else True,
        norm="rms_eager" if llama else "layer",
        positions=0 if llama else getattr(config, "n_positions", None) or 0,
        head_size=getattr(config, "head_dim", None),
        fused_qkv=not llama,
        eager_attention=getattr(config, "_attn_implementation", None) == "eager",
        name=getattr(config, "model_type", None) or type(config).__name__,
    )


def _sized(size: float | str) -> Network:
    try:
        parameters = parse_count(size)
    except ValueError as error:
        near = difflib.get_close_matches(str(size).lower(), NAMED, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else "."
        raise ValueError(f"{str(error)[:-1]}; known names are {', '.join(NAMED)}{guess}") from None
    network = of_size(parameters)
    return replace(network, name=size.strip() if isinstance(size, str) else f"{parameters:,} parameters")


def _is_configuration(model: Any) -> bool:
    return any(hasattr(model, name) for name in _NAMES["width"]) and hasattr(model, "vocab_size")


def _first(config: Any, names: tuple[str, ...]) -> int:
    for name in names:
        if (value := getattr(config, name, None)) is not None:
            return int(value)
    raise ValueError(f"A configuration needs one of {', '.join(names)}, got a {type(config).__name__} without.")


def _of_module(model: Any, plan: Mapping[str, str] | None) -> Network:
    from ..structure import find_blocks, shapes_of  # the one place of this room that needs torch

    shapes, cuts = shapes_of(model), cuts_of(model, plan)
    weights = {
        name: Weight(tuple(shape), trainable, (cuts or {}).get(name)) for name, (shape, trainable) in shapes.items()
    }
    try:
        structure = find_blocks(model)
    except ValueError:
        everything = Unit(tuple(weights.values()))
        assumed = "no repeated blocks found, so nothing is computed again"
        return Network(type(model).__name__, everything, (), Unit(()), assumed=assumed)
    embedding, head, *blocks = (
        Unit(tuple(weights[name] for name in names))
        for names in (structure.embedding, structure.head, *(block.parameters for block in structure.blocks))
    )
    if cuts is None:
        blocks = [_rows(block) for block in blocks]
    tied = bool(set(structure.aliases.values()) & set(structure.embedding))
    network = Network(type(model).__name__, embedding, tuple(blocks), head, tied=tied)
    widths, assumed = _widths(model, network)
    return replace(network, widths=widths, assumed=assumed)


def _rows(block: Unit) -> Unit:
    """The same with the rows of each matrix cut."""
    return Unit(tuple(replace(one, cut=0) if len(one.shape) > 1 else one for one in block.weights))


def _widths(model: Any, network: Network) -> tuple[Widths | None, str]:
    """From the first configuration in the module, or from shapes; and what was assumed."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and _is_configuration(config):
            try:
                return transformer_of(config).widths, ""
            except ValueError:
                break
    widths = widths_of_shapes(network)
    return widths, "inside of blocks read from shapes, heads of 64, flash attention" if widths else ""
