import json
import logging
import sys
from contextlib import redirect_stdout
from io import StringIO

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger

from lightning_llmopt.callbacks import (
    ClipAdvisor,
    GradientNormClip,
    GradientNormMonitor,
    GradientValueClip,
    HyperparameterSchedule,
    LayerwiseLRDecay,
    LRSchedule,
    RunSummary,
    SkipBadSteps,
    WeightDecaySplit,
)
from lightning_llmopt.schedules import wsd

from fitting import Gan, Norms, Regression, loader, trainer
from ranks import on_ranks

PAGES = {"enable_model_summary": True}  # with neither bar nor model summary the run would be quiet


def adamw():
    return Regression(torch.optim.AdamW)


def printed(tmp_path, capsys, *callbacks, module=None, data=None, **settings):
    """Labels and texts of both pages; a label that comes twice has a list."""
    run = trainer(tmp_path, *callbacks, **{**PAGES, "max_steps": 8, **settings})
    run.fit(module or adamw(), data or loader())
    return lines_of(capsys.readouterr().out), run


def lines_of(out):
    found, label = {}, ""
    for line in out.splitlines():
        if line.startswith("  ") and line[2:14].strip() and not line.startswith("   "):
            label, _, text = line.strip().partition("  ")
            found.setdefault(label.strip(), []).append(text.strip())
        elif line.startswith("      ") and label in found:
            found[label].append(line.strip())
        else:
            label = ""
    return found


class SometimesNaN(Regression):
    """The loss of batch 5 is not a number."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * (float("nan") if batch_idx == 5 else 1)


def test_says_schedule_groups_clipping_strategy_and_horizon(tmp_path, capsys):
    callbacks = [LRSchedule(wsd(warmup=2, decay=2)), GradientNormClip(0.5), SkipBadSteps(sigma=4.0), WeightDecaySplit()]
    seen, _ = printed(tmp_path, capsys, RunSummary(), *callbacks, GradientNormMonitor(every_n_steps=2))
    assert seen["horizon"] == ["8 updates, 8 batches an epoch"]
    assert seen["schedule"][0] == "LRSchedule: wsd, warmup 2, stable 4, decay 2 updates"
    assert len(seen["schedule"][1]) == 40
    assert seen["clipping"] == ["GradientNormClip(max_norm=0.5)"]
    assert seen["skipping"] == ["SkipBadSteps(sigma=4.0)"]
    assert seen["strategy"] == ["SingleDeviceStrategy, one process on cpu, precision 32-true"]
    assert sorted(seen["also"]) == ["GradientNormMonitor(every_n_steps=2)", "WeightDecaySplit()"]


def test_says_what_was_applied_skipped_and_clipped(tmp_path, capsys):
    norms = Norms()
    callbacks = [LRSchedule(wsd(warmup=2, decay=2)), norms, GradientNormClip(6.0), SkipBadSteps(sigma=None)]
    with pytest.warns(UserWarning, match="update 5 is skipped"), pytest.warns(UserWarning, match="ended after 7"):
        seen, _ = printed(tmp_path, capsys, *callbacks, RunSummary(), module=SometimesNaN())
    above = sum(norm > 6.0 for (norm,) in norms.rates)
    assert 0 < above < 7
    assert seen["updates"] == ["7 applied, 1 skipped (1 not finite)"]
    assert seen["clipped"] == [f"{above} of 7 updates ({above / 7:.1%})"]
    assert seen["last rate"] == ["0.1 (decay)"]  # the schedule has played 7 of its 8 updates
    assert "updates a second" in seen["time"][0]


@pytest.mark.parametrize("first", [True, False])
def test_its_place_in_the_list_does_not_matter(tmp_path, capsys, first):
    others = [LRSchedule(wsd(warmup=2, decay=2)), GradientNormClip(1e-3), WeightDecaySplit()]
    callbacks = [RunSummary(), *others] if first else [*others, RunSummary()]
    seen, _ = printed(tmp_path, capsys, *callbacks)
    assert seen["clipped"] == ["8 of 8 updates (100.0%)"]
    assert seen["last rate"] == ["0.0293 (decay)"]


def test_a_plain_module_alone(tmp_path, capsys):
    seen, _ = printed(tmp_path, capsys, RunSummary(), module=BoringModel(), data=BoringModel().train_dataloader())
    assert seen["schedule"] == ["StepLR, every epoch"]
    assert seen["clipping"] == ["none"]
    assert "clipped" not in seen
    assert seen["updates"] == ["8 applied, 0 skipped"]


def test_no_schedule_at_all(tmp_path, capsys):
    seen, _ = printed(tmp_path, capsys, RunSummary())
    assert seen["schedule"] == ["none: rates stay as configure_optimizers returns them"]


def test_the_trainers_own_clipping_is_counted_where_somebody_reads_norms(tmp_path, capsys):
    norms = Norms()
    callbacks = [norms, GradientNormMonitor(every_n_steps=2), RunSummary()]
    seen, _ = printed(tmp_path, capsys, *callbacks, gradient_clip_val=2.0)
    above = sum(norm > 2.0 for (norm,) in norms.rates[1::2])
    assert 0 < above < 4
    assert seen["clipping"] == ["by the Trainer, norm 2"]
    assert seen["clipped"] == [f"{above} of 4 updates ({above / 4:.1%}); 4 more were not looked at"]


def test_clipping_that_nobody_measures_is_said_to_be_so(tmp_path, capsys):
    seen, _ = printed(tmp_path, capsys, RunSummary(), GradientValueClip(0.01))
    assert seen["clipped"] == ["not counted, since nobody reads the norm of updates here"]


def test_several_optimizers_in_manual_optimization(tmp_path, capsys):
    seen, _ = printed(tmp_path, capsys, LRSchedule("constant"), RunSummary(), module=Gan(critic_steps=2), max_steps=24)
    assert seen["updates"] == ["8 of Adam, 16 of Adam-1 applied, 0 skipped"]
    assert seen["last rate"] == ["0.01, 0.04 (stable)"]


def test_accumulation_with_a_short_last_window(tmp_path, capsys):
    settings = {"accumulate_grad_batches": 3, "max_epochs": 2, "max_steps": -1}
    for further in ([], [LRSchedule("constant")]):
        seen, _ = printed(tmp_path, capsys, RunSummary(), GradientNormClip(1.0), *further, **settings)
        assert seen["horizon"] == ["6 updates, 8 batches an epoch, 3 batches an update"]
        assert seen["updates"] == ["6 applied, 0 skipped"]
        assert " of 6 updates (" in seen["clipped"][0]


def test_a_resumed_run_counts_what_it_did_itself(tmp_path, capsys):
    def callbacks():
        return [RunSummary(), LRSchedule(wsd(warmup=2, decay=2), total=8)]

    _, first = printed(tmp_path, capsys, *callbacks(), max_steps=5)
    first.save_checkpoint(tmp_path / "five.ckpt")
    run = trainer(tmp_path, *callbacks(), **PAGES, max_steps=8)
    run.fit(adamw(), loader(), ckpt_path=tmp_path / "five.ckpt")
    seen = lines_of(capsys.readouterr().out)
    assert seen["horizon"] == ["8 updates, 5 done, 8 batches an epoch"]
    assert seen["updates"] == ["3 applied, 0 skipped"]


def test_groups_are_shown_once(tmp_path, capsys):
    groups = [LayerwiseLRDecay(0.5, blocks=["body", "head"]), WeightDecaySplit()]
    trainer(tmp_path, *groups, RunSummary(), **PAGES, max_steps=2).fit(adamw(), loader())
    out = capsys.readouterr().out
    assert out.count("Parameter groups of AdamW (LayerwiseLRDecay + WeightDecaySplit)") == 1
    assert out.count("no_decay") == 2


def test_a_long_table_loses_its_middle(tmp_path, capsys):
    class Many(Regression):
        def configure_optimizers(self):
            extra = [{"params": [torch.nn.Parameter(torch.zeros(1))], "name": f"extra{index}"} for index in range(30)]
            return torch.optim.SGD([{"params": self.parameters()}, *extra], lr=0.1)

    trainer(tmp_path, RunSummary(), **PAGES, max_steps=1).fit(Many(), loader())
    out = capsys.readouterr().out
    assert "... 17 more" in out
    assert "extra9" in out
    assert "extra10" not in out
    assert "extra29" in out


def test_a_run_that_fails_says_how_far_it_came(tmp_path, capsys):
    class Fails(Regression):
        def training_step(self, batch, batch_idx):
            if batch_idx == 3:
                raise RuntimeError("boom")
            return super().training_step(batch, batch_idx)

    module = Fails()
    run = trainer(tmp_path, RunSummary(), **PAGES, max_steps=8)
    with pytest.raises(RuntimeError, match="boom"):
        run.fit(module, loader())
    seen = lines_of(capsys.readouterr().out)
    assert seen["stopped"] == ["by RuntimeError at update 3"]
    assert seen["updates"] == ["3 applied, 0 skipped"]
    assert not run.optimizers[0]._optimizer_step_post_hooks  # and lets go


@pytest.mark.filterwarnings("ignore:.*barebones:UserWarning")
@pytest.mark.parametrize(
    "settings",
    [
        {"enable_model_summary": False},
        {"barebones": True, "logger": None, "enable_checkpointing": None, "enable_progress_bar": None,
         "enable_model_summary": None},
    ],
    ids=["neither_bar_nor_model_summary", "barebones"],
)  # fmt: skip
def test_quiet_runs_are_quiet(tmp_path, capsys, settings):
    callbacks = [RunSummary(), WeightDecaySplit(), LRSchedule("constant"), GradientNormClip(1.0), ClipAdvisor(after=20)]
    trainer(tmp_path, *callbacks, max_steps=3, **settings).fit(adamw(), loader())
    assert capsys.readouterr().out == ""


def test_a_logger_that_is_told_to_be_quiet_is_obeyed(tmp_path, capsys):
    log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    before = log.level
    try:
        for level, heard in ((logging.WARNING, False), (logging.INFO, True)):
            log.setLevel(level)
            trainer(tmp_path, RunSummary(), max_steps=1, **PAGES).fit(adamw(), loader())
            assert ("Run of Regression" in capsys.readouterr().out) == heard
    finally:
        log.setLevel(before)


def test_prints_without_rich(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.setitem(sys.modules, "rich", None)
    bar = TQDMProgressBar()
    run = trainer(tmp_path, RunSummary(), bar, max_steps=2, enable_progress_bar=True)
    run.fit(adamw(), loader())
    out = capsys.readouterr().out
    assert "Run of Regression\n  horizon " in out
    assert "End of the run\n  updates " in out


def test_prints_what_the_terminal_can_take(tmp_path, monkeypatch):
    class Ascii(StringIO):
        encoding = "ascii"

        def write(self, text):
            text.encode("ascii")
            return super().write(text)

    out = Ascii()
    monkeypatch.setattr(sys, "stdout", out)
    run = trainer(tmp_path, RunSummary(), LRSchedule(wsd(warmup=2, decay=2)), **PAGES, max_steps=8)
    monkeypatch.setattr(
        run, "callbacks", [one for one in run.callbacks if not isinstance(one, L.pytorch.callbacks.ModelSummary)]
    )
    run.callbacks.append(TQDMProgressBar(refresh_rate=0))
    run.fit(adamw(), loader())
    assert "::::" + "#" * 25 in out.getvalue()


def test_keeps_both_pages_beside_the_log(tmp_path):
    callbacks = [RunSummary(), LRSchedule(wsd(warmup=2, decay=2)), HyperparameterSchedule("weight_decay", "constant")]
    logger = CSVLogger(tmp_path)
    trainer(tmp_path, *callbacks, logger=logger, max_steps=8).fit(adamw(), loader())
    kept = json.loads((tmp_path / logger.name / "version_0" / "run_summary.json").read_text())
    assert kept["phases"] == [
        {"number": 0, "name": "warmup", "begin": 0, "end": 2},
        {"number": 1, "name": "stable", "begin": 2, "end": 6},
        {"number": 2, "name": "decay", "begin": 6, "end": 8},
    ]
    assert ["horizon", "8 updates, 8 batches an epoch"] in kept["start"]
    assert kept["end"][0] == ["updates", "8 applied, 0 skipped"]
    assert kept["groups"][0]["rows"][1][0] == "head"


def test_a_file_that_cannot_be_written_ends_nothing(tmp_path):
    logger = CSVLogger(tmp_path)
    assert logger.experiment
    (tmp_path / logger.name / "version_0" / "run_summary.json").mkdir()
    run = trainer(tmp_path, RunSummary(), logger=logger, max_steps=2)
    with pytest.warns(UserWarning, match="RunSummary could not write .*Training goes on"):
        run.fit(adamw(), loader())
    assert run.global_step == 2


def test_nothing_is_written_on_request(tmp_path):
    trainer(tmp_path, RunSummary(save=False), logger=CSVLogger(tmp_path), max_steps=2).fit(adamw(), loader())
    assert not list(tmp_path.rglob("run_summary.json"))


def test_save_is_a_choice():
    with pytest.raises(ValueError, match="save must be True or False, got 'yes'"):
        RunSummary(save="yes")


def _fit_on_ranks(rank, tmp_path):
    out = StringIO()
    with redirect_stdout(out):
        callbacks = [RunSummary(), WeightDecaySplit(), LRSchedule("constant"), GradientNormClip(1e-3)]
        run = trainer(tmp_path, *callbacks, devices=2, strategy="ddp", max_steps=3, **PAGES)
        run.fit(adamw(), loader())
    return out.getvalue()


def test_only_rank_zero_prints(tmp_path):
    first, second = on_ranks(2, _fit_on_ranks, tmp_path)
    assert first.count("Run of Regression") == first.count("End of the run") == 1
    assert first.count("Parameter groups") == 1
    assert "DDPStrategy, 2 processes on cpu" in first
    assert "3 of 3 updates (100.0%)" in first
    assert second == ""
