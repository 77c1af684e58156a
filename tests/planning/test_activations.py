import pytest
import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from lightning_llmopt.planning import Job, Layout, Transformer, memory
from lightning_llmopt.planning.activations import kept as formula
from lightning_llmopt.planning.precisions import precision_of
from lightning_llmopt.strategies.checkpointing import MODES, apply_checkpointing

from decoders import gpt2, hooked, kept, llama, tokens_of

LAYERS = 9
GPT2 = {"layers": LAYERS, "width": 64, "heads": 4, "vocabulary": 96}
LLAMA = {"layers": LAYERS, "width": 64, "heads": 8, "vocabulary": 96, "kv_heads": 2, "ffn": 172}
DESCRIBED = {
    "GPT-2": (gpt2, GPT2, Transformer(**GPT2, positions=64)),
    "GPT-2, scores kept": (lambda **k: gpt2(**k, eager=True), GPT2, Transformer(**GPT2, eager_attention=True)),
    "Llama": (
        llama, LLAMA,
        Transformer(**LLAMA, tied=False, gated=True, bias=False, norm="rms_eager", fused_qkv=False),
    ),
}  # fmt: skip
every_model = pytest.mark.parametrize("name", DESCRIBED)
aten = torch.ops.aten
PRODUCTS = {
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten._scaled_dot_product_flash_attention_for_cpu.default,
}


def expected(description, *, precision="fp32", mode="none", **settings):
    job = Job(description.network(), sequence=64, micro_batch=2, precision=precision, **settings)
    inside = formula(
        description.widths, precision_of(precision, "single"), tokens=128, sequence=64, mode=mode, layers=LAYERS
    )
    found = memory(job, Layout("single"), checkpointing=mode)
    return found.activations + inside.logits


def every(blocks, x, *, nth, **settings):
    for index, block in enumerate(blocks):
        again = index % nth == 0
        x = checkpoint(block, x, use_reentrant=False, **settings) if again else block(x)
    return x


def keep_products(context, op, *args, **kwargs):
    return CheckpointPolicy.MUST_SAVE if op in PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE


@every_model
def test_saved_tensor_hooks_count_what_the_formula_says(name):
    make, shape, description = DESCRIBED[name]
    assert hooked(make(**shape), tokens_of()) == pytest.approx(expected(description), rel=0.01)


@every_model
@pytest.mark.parametrize(("mode", "nth"), [("every_block", 1), ("sqrt", 3), (2, 2), (4, 4)])
def test_blocks_computed_again_keep_what_the_formula_says(name, mode, nth):
    make, shape, description = DESCRIBED[name]
    model = make(**shape)
    model.play = lambda blocks, x: every(blocks, x, nth=nth)
    assert kept(model, tokens_of()) == pytest.approx(expected(description, mode=mode), rel=0.05)


@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_keeping_only_products_keeps_what_the_formula_says(name):
    make, shape, description = DESCRIBED[name]
    model = make(**shape)
    contexts = lambda: create_selective_checkpoint_contexts(keep_products)  # noqa: E731
    model.play = lambda blocks, x: every(blocks, x, nth=1, context_fn=contexts)
    found = kept(model, tokens_of())
    assert found == pytest.approx(expected(description, mode="selective"), rel=0.05)


@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
@pytest.mark.parametrize("layers", [3, 9])
def test_autocast_keeps_what_the_formula_says_and_a_copy_of_each_matrix(name, layers):
    make, shape, description = DESCRIBED[name]
    model = make(**{**shape, "layers": layers})
    copies = 2 * (
        sum(weight.numel() for weight in model.blocks.parameters() if weight.ndim == 2) + model.head.weight.numel()
    )
    job = Job(Transformer(**{**vars(description), "layers": layers}).network(), sequence=64, micro_batch=2)
    found = memory(job, Layout("single"))
    scores = 4 * 128 * 96
    assert kept(model, tokens_of(), autocast=True) == pytest.approx(found.activations + scores + copies, rel=0.02)


@pytest.mark.parametrize("name", ["GPT-2", "Llama"])
def test_pure_bf16_keeps_what_the_formula_says(name):
    make, shape, description = DESCRIBED[name]
    found = kept(make(**shape).bfloat16(), tokens_of())
    assert found == pytest.approx(expected(description, precision="bf16_pure"), rel=0.03)


@every_model
@pytest.mark.parametrize("mode", [*MODES, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_pure"])
def test_our_own_checkpointing_keeps_what_the_formula_says(name, mode, precision):
    make, shape, description = DESCRIBED[name]
    if description.eager_attention and precision == "bf16" and mode in ("none", "sqrt", 2):
        pytest.skip("autocast computes a softmax in fp32 on a GPU, and so says the formula; on the CPU it does not")
    model = make(**shape).bfloat16() if precision == "bf16_pure" else make(**shape)
    apply_checkpointing(model, mode)
    found = kept(model, tokens_of(), autocast=precision == "bf16")
    copies = 2 * sum(matrix.numel() for matrix in cast(model, mode)) if precision == "bf16" else 0
    assert found - copies == pytest.approx(expected(description, precision=precision, mode=mode), rel=0.01)


def cast(model, mode):
    """Matrices of which autocast keeps a copy: those that are not computed with again."""
    again = {"none": 0, "every_block": 1, "selective": 1, "sqrt": 3, "attention": 0}.get(mode, mode)
    whole = [block for index, block in enumerate(model.blocks) if not again or index % again]
    parts = [part for block in whole for name, part in block.named_children() if (name, mode) != ("attn", "attention")]
    return [model.head.weight, *(one for part in parts for one in part.parameters() if one.ndim == 2)]
