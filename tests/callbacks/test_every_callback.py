"""What every callback owes its user, held over all of them together and one by one."""

import copy
import pickle
import re
import warnings
from io import StringIO
from pathlib import Path

import pytest
import rich
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, Logger
from rich.console import Console

from lightning_llmopt import callbacks
from lightning_llmopt.callbacks import (
    AdaGC,
    AdaptiveGradientClip,
    ClipAdvisor,
    GradientNormClip,
    GradientNormMonitor,
    GradientValueClip,
    HyperparameterSchedule,
    IndependentWeightDecay,
    LayerwiseLRDecay,
    LRFinder,
    LRSchedule,
    MuTransfer,
    ParamGroups,
    RunSummary,
    SkipBadSteps,
    UseOptimizer,
    WeightDecaySplit,
    ZClip,
)
from lightning_llmopt.schedules import Anneal, wsd

from fitting import Gan, MemoryLogger, Regression, Watch, loader, trainer


def subject():
    """A module whose weight decay is apart from its gradients, as some callbacks ask."""
    return Regression(torch.optim.AdamW)


MAKE = {
    "LRSchedule": lambda: LRSchedule(wsd(warmup=100, decay=100), total=1_000),
    "HyperparameterSchedule": lambda: HyperparameterSchedule("weight_decay", wsd(warmup=100, decay=100), total=1_000),
    "GradientNormClip": lambda: GradientNormClip(1.0),
    "GradientValueClip": lambda: GradientValueClip(0.1),
    "AdaptiveGradientClip": lambda: AdaptiveGradientClip(0.01),
    "ZClip": lambda: ZClip(warmup_steps=2),
    "AdaGC": lambda: AdaGC(warmup_steps=2),
    "GradientNormMonitor": lambda: GradientNormMonitor(),
    "SkipBadSteps": lambda: SkipBadSteps(),
    "ClipAdvisor": lambda: ClipAdvisor(after=20),
    "LayerwiseLRDecay": lambda: LayerwiseLRDecay(0.5, blocks=["body", "head"]),
    "WeightDecaySplit": lambda: WeightDecaySplit(),
    "ParamGroups": lambda: ParamGroups({"ndim>=2": {"lr_scale": 0.5}}),
    "MuTransfer": lambda: MuTransfer(subject()),
    "UseOptimizer": lambda: UseOptimizer("torch.optim.AdamW", lr=0.1),
    "IndependentWeightDecay": lambda: IndependentWeightDecay(reference_lr=0.1),
    "LRFinder": lambda: LRFinder(steps=10, apply="none"),
    "RunSummary": lambda: RunSummary(),
}
pytestmark = pytest.mark.filterwarnings("ignore:HyperparameterSchedule.'weight_decay'.. it is 0 in every group")
every_callback = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE.keys())


GROUPS = ["LayerwiseLRDecay", "WeightDecaySplit", "ParamGroups", "UseOptimizer"]
OWN_TESTS = ["LRFinder", "MuTransfer", "IndependentWeightDecay"]  # not for every module
CLIPPERS = ["GradientValueClip", "AdaptiveGradientClip", "ZClip", "AdaGC"]


def all_of_them(*further):
    """Of the clippers one: two are refused. What is not for every module, only where it is named."""
    return [make() for name, make in MAKE.items() if name not in CLIPPERS + GROUPS + OWN_TESTS or name in further]


def test_none_is_forgotten_here():
    public = vars(callbacks).items()
    assert MAKE.keys() == {name for name, value in public if isinstance(value, type) and issubclass(value, Callback)}


@every_callback
def test_pickles_and_copies_before_and_after_a_run(tmp_path, make):
    callback = make()
    for twin in (pickle.loads(pickle.dumps(callback)), copy.deepcopy(callback)):
        trainer(tmp_path, twin, max_steps=2, log_every_n_steps=1).fit(subject(), loader())
        again = copy.deepcopy(twin)
        pickle.loads(pickle.dumps(twin))
        trainer(tmp_path, again, max_steps=2).fit(subject(), loader())


@every_callback
def test_state_is_plain_and_loads_with_weights_only(tmp_path, make):
    callback = make()
    run = trainer(tmp_path, callback, max_steps=3)
    run.fit(subject(), loader())
    run.save_checkpoint(tmp_path / "run.ckpt")
    saved = torch.load(tmp_path / "run.ckpt", weights_only=True)["callbacks"]
    assert saved.get(callback.state_key, {}) == callback.state_dict()
    assert make().state_key == callback.state_key
    trainer(tmp_path, make(), max_steps=5).fit(subject(), loader(), ckpt_path=tmp_path / "run.ckpt")


MODES = {
    "fast_dev_run": {"fast_dev_run": True},
    "fast_dev_run_of_two": {"fast_dev_run": 2},
    "barebones": {"barebones": True, "max_steps": 3, "logger": None, "enable_checkpointing": None,
                  "enable_progress_bar": None, "enable_model_summary": None},
    "no_logger": {"logger": False, "max_steps": 3},
    "several_loggers": {"logger": [MemoryLogger(), MemoryLogger()], "max_steps": 3},
    "limited": {"limit_train_batches": 2, "max_epochs": 2},
    "nothing_to_do": {"max_steps": 0},
    "no_batches": {"limit_train_batches": 0, "max_epochs": 1},
    "short_last_window": {"accumulate_grad_batches": 3, "max_epochs": 2},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*barebones:UserWarning", "ignore:.*max_steps=0:UserWarning")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("module", [Regression, Gan])
def test_works_in_every_mode_of_the_trainer(tmp_path, mode, module):
    if module is Gan and "accumulate_grad_batches" in MODES[mode]:
        pytest.skip("Lightning refuses accumulate_grad_batches in manual optimization")
    trainer(tmp_path, *all_of_them(), **MODES[mode]).fit(module(), loader())
    groups = [LayerwiseLRDecay(0.5, index=lambda name: 0), *(MAKE[name]() for name in GROUPS[1:])]
    trainer(tmp_path, *all_of_them(), *groups, **MODES[mode]).fit(module(), loader())
    further = [] if module is Gan else ["LRFinder"]
    trainer(tmp_path, *all_of_them(*further), **MODES[mode]).fit(module(), loader())


def test_fast_dev_run_plays_the_first_updates_of_a_schedule_that_does_not_fit(tmp_path):
    watch = Watch()
    run = trainer(tmp_path, LRSchedule(wsd(warmup=100, decay="20%")), watch, fast_dev_run=2)
    run.fit(Regression(), loader())
    assert watch.first == pytest.approx([0.1 * 1 / 100, 0.1 * 2 / 100])


def test_validation_and_testing_alone_are_left_alone(tmp_path):
    run = trainer(
        tmp_path, *all_of_them(), *(MAKE[name]() for name in GROUPS), limit_val_batches=1, limit_test_batches=1
    )
    run = trainer(tmp_path, *all_of_them("LRFinder"), limit_val_batches=1, limit_test_batches=1)
    run.validate(BoringModel(), verbose=False)
    run.test(BoringModel(), verbose=False)


def test_two_fits_in_a_row_go_on_with_the_count(tmp_path):
    watch, schedule = Watch(), LRSchedule(wsd(warmup=4, decay=4), total=20)
    run = trainer(tmp_path, schedule, GradientNormClip(1.0), GradientNormMonitor(), watch, max_epochs=1)
    run.fit(Regression(), loader(8))
    run.fit_loop.max_epochs = 2
    run.fit(Regression(), loader(8))
    planned = wsd(warmup=4, decay=4).resolve(total_steps=20)
    assert watch.first == [0.1 * planned(step) for step in range(16)]


def test_one_callback_serves_two_trainers_in_a_row(tmp_path):
    together = all_of_them()
    rates = []
    for _ in range(2):
        watch = Watch()
        trainer(tmp_path, *together, watch, max_steps=5).fit(Regression(), loader())
        rates.append(watch.first)
    assert rates[0] == rates[1]


def test_one_optimizer_object_in_two_fits_keeps_its_base_rate(tmp_path):
    module = Regression()
    optimizer = module.configure_optimizers()
    module.configure_optimizers = lambda: optimizer
    for _ in range(2):
        watch = Watch()
        trainer(tmp_path, LRSchedule(wsd(decay="50%")), watch, max_steps=5).fit(module, loader())
        assert watch.first[0] == 0.1


class Ties(Regression):
    """Tied, frozen, empty and unused parameters beside the usual ones."""

    def __init__(self):
        super().__init__()
        self.tied, self.frozen = self.body, torch.nn.Linear(2, 2).requires_grad_(False)
        self.empty, self.unused = torch.nn.Parameter(torch.zeros(0)), torch.nn.Parameter(torch.zeros(3))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_odd_parameters_are_no_trouble(tmp_path):
    logger = MemoryLogger()
    run = trainer(tmp_path, *all_of_them(), logger=logger, log_every_n_steps=1, max_steps=3)
    run.fit(Ties(), loader())
    assert all(0 < norm < 100 for norm in logger.points["grad_norm/total"].values())


class Broken(Logger):
    name, version = "broken", 0

    def log_metrics(self, metrics, step=None):
        raise OSError("disk full")

    def log_hyperparams(self, *args, **kwargs):
        pass


def test_a_failing_logger_is_warned_about_once_and_ends_nothing(tmp_path):
    working = MemoryLogger()
    run = trainer(tmp_path, *all_of_them(), logger=[Broken(), working], log_every_n_steps=1, max_steps=4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.fit(Regression(), loader())
    assert run.global_step == 4
    assert [str(warning.message) for warning in caught if "disk full" in str(warning.message)] == [
        "Broken could not log ['lr/SGD/group0', 'lr/SGD/head', 'schedule/phase', 'schedule/progress']: disk full. "
        "Training goes on."
    ]
    assert len(working.points["grad_norm/total"]) == 4


class Texts:
    """Notes what the bar below it is asked to show."""

    def on_train_batch_end(self, trainer, pl_module, *args):
        super().on_train_batch_end(trainer, pl_module, *args)
        self.shown = [*getattr(self, "shown", []), self.get_metrics(trainer, pl_module)]


class TqdmTexts(Texts, TQDMProgressBar):
    pass


class RichTexts(Texts, RichProgressBar):
    pass


@pytest.mark.parametrize("bar", [TqdmTexts, RichTexts])
def test_the_bar_shows_rate_norm_and_phase_and_is_left_as_it_was(tmp_path, bar):
    bar = bar()
    logger = MemoryLogger()
    run = trainer(
        tmp_path, LRSchedule(wsd(warmup=2, decay=2)), GradientNormMonitor(), bar, enable_progress_bar=True,
        max_steps=6, logger=logger, log_every_n_steps=2,
    )  # fmt: skip
    run.fit(Regression(), loader())
    shown = [(texts["lr"], texts["phase"], texts.get("grad_norm")) for texts in bar.shown]
    norms = [f"{norm:.3g}" for norm in logger.points["grad_norm/total"].values()]  # at updates 1, 3 and 5
    assert [phase for _, phase, _ in shown] == ["warmup", "warmup", "stable", "stable", "decay", "decay"]
    assert [rate for rate, _, _ in shown] == ["5.00e-02", "1.00e-01", "1.00e-01", "1.00e-01", "1.00e-01", "2.93e-02"]
    assert [norm for _, _, norm in shown] == [None, norms[0], norms[0], norms[1], norms[1], norms[2]]
    assert "get_metrics" not in vars(bar)


class Narrow(TQDMProgressBar):
    """As on a terminal of this many characters."""

    def __init__(self, width):
        super().__init__()
        self.width, self.drawn = width, []

    def init_train_tqdm(self):
        bar = super().init_train_tqdm()
        bar.dynamic_ncols, bar.ncols = None, self.width
        return bar

    def on_train_batch_end(self, *args):
        super().on_train_batch_end(*args)
        self.drawn.append(str(self.train_progress_bar))
        self.formats = {*getattr(self, "formats", ()), self.train_progress_bar.bar_format}


class Logs(Regression):
    """A loss in the bar."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("train/loss", loss, prog_bar=True)
        return loss


@pytest.mark.parametrize("width", [80, 105, 200])
def test_tqdm_shows_loss_rate_phase_and_norm_at_any_width(tmp_path, width):
    bar = Narrow(width)
    fields = [LRSchedule(wsd(warmup=2, decay=2)), GradientNormMonitor(every_n_steps=1)]
    logger = CSVLogger(tmp_path)  # brings v_num
    run = trainer(tmp_path, *fields, bar, enable_progress_bar=True, max_steps=6, logger=logger)
    run.fit(Logs(), loader())
    words = ["train/loss=", "lr=1.0e-01 stable", "norm="] if width < 200 else ["loss=", "lr=1.00e-01", "phase=stable"]
    assert all(word in bar.drawn[2] for word in words), bar.drawn[2]
    assert all(len(line) <= width for line in bar.drawn)
    assert bar.train_progress_bar.bar_format == bar.BAR_FORMAT  # left as it was
    assert (bar.formats == {bar.BAR_FORMAT}) == (width == 200)


@pytest.mark.parametrize(("width", "lines"), [(80, 2), (120, 2), (200, 1)])
def test_rich_shows_loss_rate_phase_and_norm_on_one_line(tmp_path, width, lines):
    class Drawn(RichProgressBar):
        shown = ()

        def on_train_batch_end(self, *args):
            super().on_train_batch_end(*args)
            console = Console(width=width, file=StringIO())
            console.print(self.progress.get_renderable())
            self.shown = [*self.shown, console.file.getvalue()]

    bar = Drawn(console_kwargs={"width": width, "file": StringIO(), "force_terminal": True})
    fields = [LRSchedule(wsd(warmup=2, decay=2)), GradientNormMonitor(every_n_steps=1)]
    run = trainer(tmp_path, *fields, bar, enable_progress_bar=True, max_steps=6, logger=CSVLogger(tmp_path))
    try:
        run.fit(Logs(), loader())
    finally:
        rich.reconfigure()
    drawn = [line.strip() for line in bar.shown[2].splitlines()]
    assert len(drawn) == lines, drawn
    assert re.search(r"train/loss: \S+ lr: 1.00e-01 phase: stable grad_norm: \S+$", drawn[-1])
    assert "get_renderables" not in vars(bar.progress)


def test_a_bar_with_metrics_of_its_own_keeps_them(tmp_path):
    bar = TqdmTexts()
    own = bar.get_metrics = lambda trainer, pl_module: {"mine": 1}
    trainer(tmp_path, *all_of_them(), bar, enable_progress_bar=True, max_steps=2).fit(Regression(), loader())
    assert bar.shown[0].keys() >= {"mine", "lr", "phase"}
    assert bar.get_metrics is own


YAML = """
trainer:
  max_steps: 8
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning_llmopt.callbacks.LRSchedule
      init_args:
        schedule:
          class_path: lightning_llmopt.schedules.wsd
          init_args: {warmup: 2, decay: 50%, shape: linear, floor: 0.1}
    - class_path: lightning_llmopt.callbacks.GradientNormClip
      init_args: {max_norm: 0.5}
    - class_path: lightning_llmopt.callbacks.GradientNormMonitor
      init_args: {every_n_steps: 2}
    - class_path: lightning_llmopt.callbacks.SkipBadSteps
      init_args: {sigma: null, max_consecutive: 10}
    - class_path: lightning_llmopt.callbacks.ClipAdvisor
      init_args: {after: 20, quantiles: [50, 99]}
    - class_path: lightning_llmopt.callbacks.LRFinder
      init_args: {min_multiplier: 0.01, max_multiplier: 10, steps: 10, stop_factor: null}
    - class_path: lightning_llmopt.callbacks.RunSummary
      init_args: {save: false}
    - class_path: fitting.Watch
"""


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")  # Lightning's use of it
def test_can_be_written_in_yaml(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(YAML)
    monkeypatch.setattr("sys.argv", ["train.py", "--config", "run.yaml"])
    cli = LightningCLI(Regression, run=False, save_config_callback=None, seed_everything_default=0)
    cli.trainer.fit(Regression(), loader())
    watch = next(callback for callback in cli.trainer.callbacks if isinstance(callback, Watch))
    schedule = wsd(warmup=2, decay="50%", shape="linear", floor=0.1).resolve(total_steps=8)
    assert watch.first == [0.1 * schedule(step) for step in range(8)]


DOCUMENTED = re.search(
    r"```yaml\n(.*?)```", (Path(__file__).parents[2] / "docs" / "schedules.md").read_text(), flags=re.DOTALL
)[1]


class Adam(Regression):
    def __init__(self):
        super().__init__(torch.optim.AdamW)


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")  # Lightning's use of it
def test_what_the_docs_write_in_yaml_is_read_and_written_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.yaml").write_text(DOCUMENTED)
    monkeypatch.setattr("sys.argv", ["train.py", "--config", "run.yaml"])
    settings = {"logger": False, "enable_checkpointing": False, "max_epochs": 1}
    cli = LightningCLI(Adam, run=False, save_config_callback=None, seed_everything_default=0, trainer_defaults=settings)
    schedule = next(callback for callback in cli.trainer.callbacks if isinstance(callback, LRSchedule))
    assert schedule.schedule == wsd(warmup="2%", decay="20%")
    assert schedule.anneal == Anneal(duration="5%")
    assert schedule.during == {"decay": {"beta2": 0.99}}
    assert str(schedule.total) == "10000000000 tokens"
    assert "recipe: wsd" in cli.parser.dump(cli.config, skip_none=False)


def test_a_run_that_fails_leaves_nothing_behind(tmp_path):
    class Fails(Regression):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise RuntimeError("boom")
            return super().training_step(batch, batch_idx)

    bar = TqdmTexts()
    module, run = Fails(), trainer(tmp_path, *all_of_them(), bar, enable_progress_bar=True, max_steps=5)
    with pytest.raises(RuntimeError, match="boom"):
        run.fit(module, loader())
    optimizer = run.optimizers[0]
    optimizer.param_groups[0]["lr"] = 3.0
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 3.0
    assert "get_metrics" not in vars(bar)
