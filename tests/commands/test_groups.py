"""``llmopt groups``: the groups of a model by its import path."""

import re

import pytest
import torch
from torch import nn

from lightning_llmopt.callbacks import LayerwiseLRDecay, WeightDecaySplit
from lightning_llmopt.cli import main

MINE = """
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torch import nn


class Net(nn.Sequential):
    def __init__(self, width=8, depth=2):
        super().__init__(nn.Embedding(10, width), *(nn.Linear(width, width) for _ in range(depth)), nn.LayerNorm(width))


def looks_at_its_numbers():
    net = Net()
    net.norm = float(net[1].weight.norm())
    return net


class Tuned(BoringModel):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.25, weight_decay=0.5)


class NeedsTrainer(BoringModel):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1 / self.trainer.max_steps)


made = Net(width=4)
broken = nn.Linear
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return f"{tmp_path}/mine.py"


def rows(out):
    """Cells of the table in a pipe."""
    table = out.partition("\ngroup ")[2].splitlines()[1:]
    return [re.split(r" {2,}", line) for line in table]


def test_layers_and_kinds_get_groups_of_their_own(capsys, path):
    words = ["--layer-decay", "0.5", "--no-decay", "norm,bias", "--lr", "0.8", "--weight-decay", "0.2"]
    assert main(["groups", f"{path}:Net", *words]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Net: 240 parameters, built on the meta device.\n\nAdamW\n")
    assert rows(out) == [
        ["embedding.decay", "80", "1", "0.1", "0.2", "embedding"],
        ["block_0.decay", "64", "1", "0.2", "0.2", "block 0"],
        ["block_0.no_decay", "8", "1", "0.2", "0", "block 0"],
        ["block_1.decay", "64", "1", "0.4", "0.2", "block 1"],
        ["block_1.no_decay", "8", "1", "0.4", "0", "block 1"],
        ["head.no_decay", "16", "2", "0.8", "0", "head"],
    ]


def test_the_groups_are_those_that_the_callbacks_make(capsys, path, tmp_path):
    """The same model trains for one update under the callbacks."""
    from lightning.pytorch import Trainer
    from lightning.pytorch.demos.boring_classes import BoringModel

    class Module(BoringModel):
        def __init__(self):
            super().__init__()
            self.layer = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32), nn.LayerNorm(32), nn.Linear(32, 2))

        def configure_optimizers(self):
            self.made = torch.optim.AdamW(self.parameters(), lr=0.01, weight_decay=0.1)
            return self.made

    module, callbacks = Module(), [LayerwiseLRDecay(0.9, show=False), WeightDecaySplit(show=False)]
    Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, callbacks=callbacks,
    ).fit(module)  # fmt: skip
    trained = [(one["name"], one["lr"], one["weight_decay"]) for one in module.made.param_groups]

    (tmp_path / "same.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    return nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32), nn.LayerNorm(32), nn.Linear(32, 2))\n"
    )
    words = ["--layer-decay", "0.9", "--no-decay", "norm,bias", "--lr", "0.01"]
    assert main(["groups", f"{tmp_path}/same.py:net", *words]) == 0
    shown = [(row[0], float(row[3]), float(row[4])) for row in rows(capsys.readouterr().out)]
    assert shown == [(name, pytest.approx(rate, rel=1e-3), decay) for name, rate, decay in trained]


def test_embeddings_go_without_decay_on_request(capsys, path):
    assert main(["groups", f"{path}:Net", "--no-decay", "norm,bias,embedding"]) == 0
    assert [row[:3] for row in rows(capsys.readouterr().out)] == [["no_decay", "112", "5"], ["decay", "128", "2"]]


def test_arguments_reach_the_model(capsys, path):
    main(["groups", f"{path}:Net", "--init", "width=4", "--init", "depth=3"])
    assert capsys.readouterr().out.startswith("Net: 108 parameters, built on the meta device.")


def test_a_model_larger_than_any_machine_costs_nothing(capsys):
    words = ["--init", "in_features=10000000", "--init", "out_features=10000000"]
    assert main(["groups", "torch.nn:Linear", *words]) == 0
    assert capsys.readouterr().out.startswith("Linear: 100,000,010,000,000 parameters, built on the meta device.")


def test_a_module_that_is_made_already_is_shown(capsys, path):
    main(["groups", f"{path}:made"])
    assert capsys.readouterr().out.startswith("Net: 88 parameters")


def test_a_model_that_looks_at_its_numbers_is_built_on_the_cpu(capsys, path):
    assert main(["groups", f"{path}:looks_at_its_numbers"]) == 0
    assert "240 parameters, built on the CPU: it cannot be built on the meta device." in capsys.readouterr().out


def test_a_lightning_module_brings_its_own_optimizer(capsys, path):
    main(["groups", f"{path}:Tuned"])
    out = capsys.readouterr().out
    assert "\nSGD\n" in out
    assert rows(out) == [["all", "66", "2", "0.25", "0.5"]]


def test_a_model_of_transformers_gets_its_configuration(capsys):
    pytest.importorskip("transformers")
    words = ["--init", "n_layer=2", "--init", "n_embd=16", "--init", "n_head=2", "--layer-decay", "0.5"]
    assert main(["groups", "transformers:GPT2LMHeadModel", *words]) == 0
    assert [row[0] for row in rows(capsys.readouterr().out)] == ["embedding", "block_0", "block_1", "head"]


def test_blocks_can_be_named(capsys, path):
    words = ["--blocks", "1", "--blocks", "3", "--layer-decay", "0.5"]
    assert main(["groups", f"{path}:Net", *words]) == 0
    assert [row[0] for row in rows(capsys.readouterr().out)] == ["embedding", "block_0", "block_1"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["{path}:Nett"], "MODEL '{path}:Nett': {path} has no 'Nett'. Did you mean Net?"),
        (["{path}:broken"], "could not be made: Linear.__init__() missing 2 required positional arguments"),
        (["{path}:Net", "--init", "widht=3"], "unexpected keyword argument 'widht'. --init KEY=VALUE gives arguments."),
        (["{path}:Net", "--init", "a=1", "b=2"], "Each KEY=VALUE must follow an --init of its own, got 'b=2' alone"),
        ([".:Net"], "MODEL must be an import path such as package.module:attribute or file.py:name, got '.:Net'."),
        (["{path}:Net", "--init", "3"], "--init must be KEY=VALUE, such as width=64, got '3'."),
        (["{path}:Net", "--no-decay", "norm"], "--no-decay must be norm,bias or norm,bias,embedding, got 'norm'."),
        (["{path}:Net", "--layer-decay", "1.5"], "--layer-decay must be a finite number > 0 and <= 1, got '1.5'."),
        (["{path}:Net", "--blocks", "no.*"], "--blocks: "),
        (["{path}:NeedsTrainer"], "Give --lr, and AdamW stands in for its optimizer."),
        (["torch.nn:ReLU"], "MODEL must have parameters to train, got none in ReLU."),
        (["lightning.pytorch.demos.boring_classes:BoringModel", "--layer-decay", "0.5"], "--layer-decay needs blocks"),
        (["os:getcwd"], "MODEL must be a torch.nn.Module or make one, got str from 'os:getcwd'."),
        (["nowhere.at.all:Net"], "there is no module 'nowhere' here. Install it, or call llmopt where it lies."),
        (["nowhere.py:Net"], "MODEL must be a file that is there, got 'nowhere.py'."),
        (["Net"], "MODEL must be an import path such as package.module:attribute or file.py:name, got 'Net'."),
        ([], "MODEL must be given."),
    ],
)
def test_what_is_wrong_is_a_sentence(capsys, path, words, sentence):
    assert main(["groups", *(word.format(path=path) for word in words)]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("llmopt: ")
    assert sentence.format(path=path) in err
    assert not out


def test_a_file_that_fails_is_a_sentence(capsys, tmp_path):
    (tmp_path / "fails.py").write_text("1 / 0")
    assert main(["groups", f"{tmp_path}/fails.py:Net"]) == 2
    assert "importing" in (err := capsys.readouterr().err)
    assert err.endswith("failed: ZeroDivisionError: division by zero.\n")
