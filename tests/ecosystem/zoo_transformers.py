"""Networks of transformers, at toy size and from random weights."""

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    import transformers as hf

from entries import CLASSES, VOCABULARY, Entry, classified, labelled

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
TEXT = {**SIZES, "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
MAMBA = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 3, "state_size": 4}
T5 = {
    "vocab_size": VOCABULARY, "d_model": 16, "d_kv": 8, "d_ff": 32,
    "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2,
}  # fmt: skip
GPT2 = {
    "vocab_size": VOCABULARY, "n_positions": 16, "n_embd": 16, "n_layer": 3, "n_head": 2,
    "bos_token_id": 0, "eos_token_id": 0,
}  # fmt: skip

TRANSFORMERS = [
    Entry(
        "GPT-2, tied", "transformers", lambda: hf.GPT2LMHeadModel(hf.GPT2Config(**GPT2)), labelled,
        {"transformer.h": 3}, ("transformer.wte", "transformer.wpe"), ("transformer.ln_f",),
        tied=(("transformer.wte.weight", "lm_head.weight"),),
    ),
    Entry(
        "Llama", "transformers", lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT, num_key_value_heads=1)), labelled,
        {"model.layers": 3}, ("model.embed_tokens",), ("model.norm", "lm_head"),
    ),
    Entry(
        "BERT", "transformers", lambda: hf.BertForMaskedLM(hf.BertConfig(**TEXT)), labelled,
        {"bert.encoder.layer": 3}, ("bert.embeddings",), ("cls.predictions.transform", "cls.predictions.bias"),
        tied=(
            ("bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight"),
            ("cls.predictions.bias", "cls.predictions.decoder.bias"),
        ),
    ),
    Entry(
        "T5", "transformers", lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5, decoder_start_token_id=0)),
        labelled, {"encoder.block": 3, "decoder.block": 2}, ("shared",), ("decoder.final_layer_norm",),
        tied=(("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"),),
    ),
    Entry(
        "Mixtral", "transformers",
        lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**TEXT, num_key_value_heads=1, num_local_experts=4)),
        labelled, {"model.layers": 3}, ("model.embed_tokens",), ("model.norm", "lm_head"),
    ),
    Entry(
        "Mamba", "transformers", lambda: hf.MambaForCausalLM(hf.MambaConfig(**MAMBA)), labelled,
        {"backbone.layers": 3}, ("backbone.embeddings",), ("backbone.norm_f",),
        tied=(("backbone.embeddings.weight", "lm_head.weight"),),
    ),
    Entry(
        "ViT", "transformers",
        lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZES, image_size=32, patch_size=8, num_labels=CLASSES)),
        classified, {"vit.layers": 3}, ("vit.embeddings",), ("vit.layernorm", "classifier"),
    ),
]  # fmt: skip
