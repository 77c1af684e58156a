from lightning_llmopt.planning import plan


def test_printed_it_is_no_wider_than_80_columns_and_says_its_units():
    for model in ("70B", "gpt2"):
        text = str(plan(model, gpus=64))
        assert max(map(len, text.splitlines())) <= 80
        assert "1 GB = 10**9 bytes" in text
    assert "1 GiB = 2**30 bytes" in str(plan("gpt2", memory="80 GiB"))


def test_every_component_strategy_and_mode_is_shown():
    found = plan("70B")
    components, modes = found.tables
    assert components.long[1:9] == (
        "parameters", "master", "gradients", "state", "activations", "logits", "communication", "transient",
    )  # fmt: skip
    labels = {row[0] for row in components.rows}
    assert {"one device", "DDP", "ZeRO-1", "ZeRO-2", "ZeRO-3", "FSDP2", "TP 8", "PP 8", "FSDP2 4, TP 2"} <= labels
    assert modes.columns[1:6] == ("none", "selective", "attention", "sqrt", "every_block")
    assert [row[0] for row in modes.rows] == [row[0] for row in components.rows]


def test_stars_and_words_mark_what_fits():
    found = plan("llama-2-7b", memory="30 GB")
    components, modes = found.tables
    for layout, row, peaks in zip(found.layouts, components.rows, modes.rows, strict=True):
        zero3 = layout.strategy.startswith("zero3")  # which does not take "selective"
        modes_here = [mode for mode in found.modes if not (zero3 and mode == "selective")]
        fitting = {mode for mode in modes_here if found.memory(layout, mode).peak <= 30 * 10**9}
        fits = [mode in fitting for mode in found.modes]
        assert row[-1] == ("yes" if fits[0] else "no")
        assert [cell.endswith("*") for cell in peaks[1:6]] == fits
    assert {row[-1] for row in components.rows} == {"yes", "no"}


def test_what_zero_3_does_not_take_is_a_dash():
    components, modes = plan("llama-2-7b", checkpointing="selective").tables
    rows = {row[0]: row for row in components.rows}
    assert set(rows["ZeRO-3"][1:-1]) == {"-"}
    assert "-" not in rows["ZeRO-2"]
    assert {row[0] for row in modes.rows if row[2].strip() == "-"} == {"ZeRO-3", "ZeRO-3 host"}
