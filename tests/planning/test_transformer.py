import pytest

from lightning_llmopt.planning import Layout, Transformer, of_size, plan


def test_a_size_has_exactly_that_many_parameters():
    for size, number in {"1B": 10**9, "3.3B": 33 * 10**8, "405B": 405 * 10**9, 123_456_789: 123_456_789}.items():
        assert plan(size).job.network.size == number


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("gpt2", 124_439_808),
        ("gpt2-xl", 1_557_611_200),
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-70b", 68_976_648_192),
        ("llama-3-8b", 8_030_261_248),
    ],
)
def test_published_models_have_their_published_parameters(name, parameters):
    assert plan(name).job.network.size == parameters


GPT2 = {"layers": 12, "width": 768, "heads": 12, "vocabulary": 50257}


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"layers": 0}, r"Transformer\.layers must be a whole number >= 1, got 0\."),
        ({"ffn": 1.5}, r"Transformer\.ffn must be a whole number >= 1, got 1\.5\."),
        ({"positions": -1}, r"Transformer\.positions must be a whole number >= 0, got -1\."),
        ({"norm": "batch"}, r"Transformer\.norm must be one of .*, got 'batch'\."),
        ({"heads": 7}, r"Transformer\.heads must divide width \(768\), got 7"),
        ({"kv_heads": 5}, r"Transformer\.kv_heads must divide heads \(12\), got 5\."),
    ],
)
def test_numbers_that_make_no_transformer_are_refused(changed, error):
    with pytest.raises(ValueError, match=error):
        Transformer(**{**GPT2, **changed})


def test_a_size_too_small_for_its_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"A size must be enough for blocks beside a vocabulary of 32000"):
        of_size(99)


def test_a_size_alone_has_the_factored_state_of_matrices():
    for size in ("70B", "1.3B", "300M"):
        job = plan(size, optimizer="adafactor")
        assert job.memory(Layout("single")).state < 0.05 * job.job.network.size
