"""Small modules and runs for the tests: a real CPU Trainer, quiet, in a folder of its own."""

import lightning as L
import torch
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader, TensorDataset

BASE_RATE = 0.1


class Regression(L.LightningModule):
    """A two-layer network with two parameter groups; what it sees depends only on the batch."""

    def __init__(self, optimizer=torch.optim.SGD, rates=(BASE_RATE, BASE_RATE / 10), **settings):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = torch.nn.Linear(4, 8), torch.nn.Linear(8, 1)
        self.optimizer, self.rates, self.settings = optimizer, rates, settings

    def training_step(self, batch, batch_idx):
        return (self.head(torch.tanh(self.body(batch[0]))) - batch[1]).pow(2).mean()

    def configure_optimizers(self):
        groups = [
            {"params": self.body.parameters(), "lr": self.rates[0]},
            {"params": self.head.parameters(), "lr": self.rates[1], "name": "head"},
        ]
        return self.optimizer(groups, **self.settings)


class Gan(L.LightningModule):
    """Two optimizers in manual optimization; the critic steps ``critic_steps`` times a batch."""

    def __init__(self, critic_steps=1):
        super().__init__()
        torch.manual_seed(0)
        self.automatic_optimization = False
        self.generator, self.critic = torch.nn.Linear(4, 4), torch.nn.Linear(4, 1)
        self.critic_steps = critic_steps

    def training_step(self, batch, batch_idx):
        generator, critic = self.optimizers()
        for _ in range(self.critic_steps):
            critic.zero_grad()
            loss = (self.critic(self.generator(batch[0]).detach()) - self.critic(batch[0])).mean().pow(2) + 0.1
            self.manual_backward(loss + self.critic(batch[0]).pow(2).mean())
            critic.step()
        generator.zero_grad()
        self.manual_backward(self.critic(self.generator(batch[0])).pow(2).mean())
        generator.step()

    def configure_optimizers(self):
        return [
            torch.optim.Adam(self.generator.parameters(), lr=0.01),
            torch.optim.Adam(self.critic.parameters(), lr=0.04),
        ]


class Watch(L.Callback):
    """Notes the rates of every group at every step, as the optimizer's step sees them."""

    def __init__(self):
        self.rates = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])

    @property
    def first(self):
        return [rates[0] for rates in self.rates]


class Norms(Watch):
    """The true norm of all gradients at every step, as this callback sees them."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradients = [
            parameter.grad.double().norm() for parameter in pl_module.parameters() if parameter.grad is not None
        ]
        self.rates.append([torch.stack(gradients).norm().item()])


class SaveAt(L.Callback):
    """Saves when ``batch`` batches are over, wherever that is in an accumulation window."""

    def __init__(self, path, batch):
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer, *args):
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.batch:
            trainer.save_checkpoint(self.path)


class MemoryLogger(Logger):
    """Keeps what it is given: ``{tag: {step: value}}``; a tag that is written twice at a step is an error."""

    name, version = "memory", 0

    def __init__(self):
        super().__init__()
        self.points = {}

    def log_metrics(self, metrics, step=None):
        for tag, value in metrics.items():
            points = self.points.setdefault(tag, {})
            assert tag == "epoch" or step not in points, f"{tag} was logged twice at step {step}"
            points[step] = value

    def log_hyperparams(self, *args, **kwargs):
        pass


def loader(batches=8, *, seed=1, batch_size=4):
    """Batches of 4 inputs and 1 target, the same every epoch."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(batches * batch_size, 4, generator=generator)
    return DataLoader(TensorDataset(data, data.sum(1, keepdim=True)), batch_size=batch_size)


def trainer(tmp_path, *callbacks, **settings):
    """A Trainer that runs on CPU and prints nothing."""
    quiet = {
        "accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "default_root_dir": tmp_path,
    }  # fmt: skip
    return L.Trainer(callbacks=list(callbacks), **{**quiet, **settings})


def weights(module):
    """All parameters in one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
