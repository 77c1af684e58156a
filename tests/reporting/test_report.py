import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_llmopt.callbacks import (
    GradientNormClip,
    GradientNormMonitor,
    LRSchedule,
    RunSummary,
    SkipBadSteps,
)
from lightning_llmopt.reporting import report
from lightning_llmopt.schedules import wsd

from fitting import Regression, loader, trainer


class SometimesNaN(Regression):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("train/loss", loss)
        return loss * (float("nan") if batch_idx == 5 else 1)


@pytest.mark.parametrize("logger", [TensorBoardLogger, CSVLogger])
def test_a_real_run_on_one_page(tmp_path, logger):
    callbacks = [
        LRSchedule(wsd(warmup=4, decay=5)),
        GradientNormClip(0.5),
        GradientNormMonitor(per_layer=True, blocks=["body", "head"]),
    ]
    run = trainer(
        tmp_path, *callbacks, SkipBadSteps(sigma=None), RunSummary(), logger=logger(tmp_path), log_every_n_steps=1,
        max_epochs=1,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="update 5 is skipped"):
        run.fit(SometimesNaN(torch.optim.AdamW), loader(20))
    file = report(tmp_path)
    assert file == tmp_path / "report.html"
    text = file.read_text()
    for words in (
        "<figcaption>Loss", "<figcaption>Learning rate", "<figcaption>Gradient norm", "before clipping",
        "after clipping", "1 skipped up to update 5", "19 applied, 1 skipped (1 not finite)", ">stable<", ">decay<",
    ):  # fmt: skip
        assert words in text, words
    assert text.count("<svg") >= 4


def test_writes_where_it_is_told(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n0,1.0\n")
    assert report(str(tmp_path), to=tmp_path / "pages" / "run.html") == tmp_path / "pages" / "run.html"
    assert (tmp_path / "pages" / "run.html").read_text().startswith("<!DOCTYPE html>")
    assert not (tmp_path / "report.html").exists()


def test_to_is_no_folder(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n0,1.0\n")
    with pytest.raises(ValueError, match="to must be the file to write, such as 'report.html', got the folder"):
        report(tmp_path, to=tmp_path)


def test_one_point_is_a_page_too(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,loss\n0,1.0\n")
    assert "<circle" in report(tmp_path).read_text()
