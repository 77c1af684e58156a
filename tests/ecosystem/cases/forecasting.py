"""Time series: pytorch-forecasting; neuralforecast, which trains by ``pytorch_lightning`` and copies callbacks."""

import warnings

import numpy as np
import pandas as pd
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    import pytorch_forecasting as pf
    from neuralforecast import NeuralForecast
    from neuralforecast import models as nf

from given import given
from shipped import Case

STEPS, INPUT, HORIZON = 40, 8, 2


def series():
    """Two sine waves with noise."""
    time = np.arange(STEPS)
    values = np.sin(time / 3) + np.random.default_rng(0).normal(scale=0.1, size=(2, STEPS))
    frames = [pd.DataFrame({"time": time, "who": str(number), "value": row}) for number, row in enumerate(values)]
    return pd.concat(frames, ignore_index=True).astype({"value": "float32"})


def of_pytorch_forecasting(kind, loss=pf.SMAPE, *, known=(), **settings):
    """As its pages say: a data set, and the model from it; a loss keeps values, so each fit gets one of its own."""

    def build():
        data = pf.TimeSeriesDataSet(
            series(), time_idx="time", target="value", group_ids=["who"],
            max_encoder_length=INPUT, min_encoder_length=INPUT, max_prediction_length=HORIZON,
            min_prediction_length=HORIZON, time_varying_unknown_reals=["value"],
            time_varying_known_reals=list(known), target_normalizer=pf.GroupNormalizer(groups=["who"]),
            **({"add_relative_time_idx": False} if not known else {}),
        )  # fmt: skip
        torch.manual_seed(0)
        return kind.from_dataset(data, log_interval=-1, loss=loss(), **settings), data.to_dataloader(
            train=True, batch_size=4, num_workers=0, shuffle=False
        )

    return given(build, limit_train_batches=6)


def of_neuralforecast(kind, **settings):
    """As its pages say: the Trainer's settings go to the model, the library makes both Trainer and loaders."""

    def fit(folder, callbacks, logger):
        model = kind(
            h=HORIZON, input_size=INPUT, max_steps=6, batch_size=2, windows_batch_size=4, val_check_steps=100,
            callbacks=callbacks, logger=logger, log_every_n_steps=1, accelerator="cpu", devices=1,
            default_root_dir=folder, enable_progress_bar=False, enable_checkpointing=False,
            enable_model_summary=False, num_sanity_val_steps=0, **settings,
        )  # fmt: skip
        frame = series().rename(columns={"who": "unique_id", "time": "ds", "value": "y"})
        NeuralForecast(models=[model], freq=1).fit(frame)

    return fit


PLATEAU = {"scheduler": "ReduceLROnPlateau"}
STEP = {"scheduler": "StepLR"}
CASES = [
    Case(
        "TemporalFusionTransformer", "pytorch-forecasting",
        of_pytorch_forecasting(
            pf.TemporalFusionTransformer, pf.QuantileLoss, known=["time"], hidden_size=8, attention_head_size=2,
            hidden_continuous_size=4, reduce_on_plateau_patience=4,
        ),
        **PLATEAU,
    ),
    Case("NBeats", "pytorch-forecasting", of_pytorch_forecasting(pf.NBeats, pf.MASE, widths=[16, 16]), **PLATEAU),
    Case("NHiTS", "pytorch-forecasting", of_pytorch_forecasting(pf.NHiTS, hidden_size=16), **PLATEAU),
    Case(
        "DeepAR", "pytorch-forecasting",
        of_pytorch_forecasting(pf.DeepAR, pf.NormalDistributionLoss, known=["time"], hidden_size=8), **PLATEAU,
    ),
    Case("TiDE", "pytorch-forecasting", of_pytorch_forecasting(pf.TiDEModel, known=["time"], hidden_size=8), **PLATEAU),
    Case("NHITS", "neuralforecast", of_neuralforecast(nf.NHITS, mlp_units=[[16, 16]] * 3), **STEP),
    Case("NBEATS", "neuralforecast", of_neuralforecast(nf.NBEATS, mlp_units=[[16, 16]] * 3), **STEP),
    Case(
        "PatchTST", "neuralforecast",
        of_neuralforecast(nf.PatchTST, hidden_size=8, n_heads=2, linear_hidden_size=8, patch_len=4, stride=2), **STEP,
    ),
    Case("LSTM", "neuralforecast", of_neuralforecast(nf.LSTM, encoder_hidden_size=8, decoder_hidden_size=8), **STEP),
]  # fmt: skip
