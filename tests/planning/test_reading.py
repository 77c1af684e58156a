from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lightning_llmopt.planning import Layout, Transformer, plan
from lightning_llmopt.planning.activations import MODES
from lightning_llmopt.planning.reading import network_of

from decoders import gpt2, llama


def test_a_module_on_the_meta_device_is_read_by_its_shapes():
    with torch.device("meta"):
        models = {
            gpt2(layers=3, width=128, vocabulary=500): Transformer(
                layers=3, width=128, heads=2, vocabulary=500, positions=64
            ),
            llama(layers=3, width=128, ffn=352): Transformer(
                layers=3, width=128, heads=2, vocabulary=96, ffn=352, tied=False, gated=True, bias=False,
                norm="rms_eager", fused_qkv=False,
            ),
        }  # fmt: skip
    for model, described in models.items():
        network = plan(model).job.network
        assert network.size == sum(parameter.numel() for parameter in model.parameters())
        assert len(network.blocks) == 3
        assert network.widths.guessed_heads
        widths = vars(network.widths) | {
            "kv": described.widths.kv,
            "guessed_heads": False,
        }  # Llama's two key heads of 16 are 32
        assert widths == vars(described.widths)
    assert network.widths.kv == 32


def test_hugging_face_configurations_and_models_are_read():
    transformers = pytest.importorskip("transformers")
    small = {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 176, "vocab_size": 96}
    llama = transformers.LlamaConfig(**small, num_attention_heads=4, num_key_value_heads=2)
    gpt = transformers.GPT2Config(n_layer=2, n_embd=64, n_head=4, vocab_size=96, n_positions=32)
    for config, build in ((llama, transformers.LlamaForCausalLM), (gpt, transformers.GPT2LMHeadModel)):
        with torch.device("meta"):
            model = build(config)
        size = sum(parameter.numel() for parameter in model.parameters())
        assert plan(config).job.network.size == plan(model).job.network.size == size
        assert plan(config).job.network.widths == plan(model).job.network.widths
        assert plan(config).job.network.tied == plan(model).job.network.tied


def test_frozen_parameters_have_no_gradient_and_no_state():
    model = gpt2()
    everything = plan(model, precision="fp32").memory(Layout("single"))
    for parameter in model.blocks.parameters():
        parameter.requires_grad_(False)
    found = plan(model, precision="fp32").memory(Layout("single"))
    trained = 4 * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert (found.parameters, found.gradients, found.state) == (everything.parameters, trained, 2 * trained)


def test_blocks_of_any_kind_are_planned_with_activations_given():
    block = lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 3))  # noqa: E731
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *(block() for _ in range(4)), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"Sequential keep for the backward pass is not known: give activations= "):
        plan(model)
    found = plan(model, activations="4 MB", checkpointing="none").memory(Layout("single"))
    assert found.activations == 4 * 10**6
    assert plan(model, activations="4 MB").memory(Layout("single"), "every_block").activations == 0


def test_a_network_without_blocks_is_planned():
    assert plan(nn.Linear(3, 2), activations="1 kB", precision="fp32").memory(Layout("single")).parameters == 4 * 8


@pytest.mark.parametrize("mode", [*MODES, 2])
def test_what_a_network_without_blocks_keeps_is_what_was_given_and_not_computed_again(mode):
    found = plan(nn.LSTM(8, 8, 2), activations="20 GB", memory="10 GB", gpus=2)
    assert found.memory(Layout("fsdp2", data=2), mode).activations == 20 * 10**9
    assert not found.fits
    assert "checkpointing" not in found.advice.partition("Smallest")[2]
    assert "nothing is computed again" in str(found)


@pytest.mark.parametrize("model", [nn.LSTM, nn.Module])
def test_a_class_is_no_module(model):
    with pytest.raises(TypeError, match=f"or a module, got the class {model.__name__}"):
        plan(model)


def test_a_configuration_of_an_encoder_and_a_decoder_is_refused_and_not_read_as_one_of_them():
    sizes = {"d_model": 512, "num_layers": 6, "num_decoder_layers": 6, "num_attention_heads": 8, "vocab_size": 32128}
    with pytest.raises(ValueError, match=r"SimpleNamespace has an encoder and a decoder, .*: give the module itself\."):
        plan(SimpleNamespace(**sizes, is_encoder_decoder=True))


def test_what_cannot_be_read_is_refused():
    with pytest.raises(TypeError, match=r"model must be a size such as '70B', .*, got list\."):
        plan([70])


def test_a_plan_for_tensor_parallelism_is_read_as_the_preset_reads_it():
    model = nn.Module()
    model.token, model.blocks = nn.Embedding(10, 8), nn.ModuleList([nn.Module() for _ in range(2)])
    for block in model.blocks:
        block.up, block.down = nn.Linear(8, 32), nn.Linear(32, 8)
    styles = {"token": "embedding_rowwise", "blocks.*.up": "colwise", "blocks.*.down": "rowwise"}
    network = network_of(model, tensor_parallel_plan=styles)
    assert [weight.cut for weight in network.embedding.weights] == [0]
    assert [weight.cut for weight in network.blocks[1].weights] == [0, 0, 1, None]
    assert [weight.cut for weight in network_of(model).blocks[1].weights] == [0, None, 0, None]
    for wrong, error in (({"blocks.*.upp": "colwise"}, r"got 'blocks\.\*\.upp'"), ({"token": "cut"}, r"got 'cut' at")):
        with pytest.raises(ValueError, match=error):
            network_of(model, tensor_parallel_plan=wrong)
