"""Molecules (chemprop) and single cells (scvi-tools, which makes its Trainer itself)."""

import warnings

import lightning as L
import numpy as np
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    import scvi
    from chemprop import data, models, nn

from given import BATCHES, given
from shipped import Case

MOLECULES = ("CCO", "CCN", "CCC", "c1ccccc1", "CC(=O)O", "CCCl")
HIDDEN = 16


def molecules(targets):
    """Batches of graphs, read from their formulas."""
    points = [
        data.MoleculeDatapoint.from_smi(smiles, [float(t)]) for smiles, t in zip(MOLECULES * 4, targets, strict=True)
    ]
    return data.build_dataloader(data.MoleculeDataset(points), batch_size=4, num_workers=0, shuffle=False)


def mpnn(passing, predictor, targets, **settings):
    def build():
        network = models.MPNN(
            passing(d_h=HIDDEN), nn.MeanAggregation(), predictor(input_dim=HIDDEN, hidden_dim=HIDDEN), **settings
        )
        return network, molecules(targets)

    return build


REGRESSION, CLASSES = np.linspace(-1.0, 1.0, 4 * BATCHES), [0, 1] * 2 * BATCHES


def cells():
    """Counts of genes in 120 cells of two batches, with proteins, from scvi-tools' own generator."""
    np.random.seed(0)
    return scvi.data.synthetic_iid(batch_size=60, n_genes=20, n_proteins=5)


def scvi_model(make, **settings):
    """As its pages say: register the data, make the model, call ``train``."""

    def fit(folder, callbacks, logger):
        scvi.settings.seed = 0
        torch.manual_seed(0)
        usual = {
            "max_epochs": 3, "accelerator": "cpu", "devices": 1, "batch_size": 60, "train_size": 1.0,
            "validation_size": 0.0, "log_every_n_steps": 1, "enable_progress_bar": False, "default_root_dir": folder,
        }  # fmt: skip
        make(cells()).train(callbacks=callbacks, logger=logger, **{**usual, **settings})

    return fit


def plain_scvi(kind, **settings):
    def make(adata):
        kind.setup_anndata(adata, batch_key="batch")
        return kind(adata, **settings)

    return make


def scanvi(adata):
    scvi.model.SCANVI.setup_anndata(adata, labels_key="labels", unlabeled_category="unknown", batch_key="batch")
    return scvi.model.SCANVI(adata, n_hidden=HIDDEN)


def totalvi(adata):
    scvi.model.TOTALVI.setup_anndata(adata, batch_key="batch", protein_expression_obsm_key="protein_expression")
    return scvi.model.TOTALVI(adata)


assert issubclass(models.MPNN, L.LightningModule)
CASES = [
    Case(
        "MPNN over bonds, regression", "chemprop",
        given(mpnn(nn.BondMessagePassing, nn.RegressionFFN, REGRESSION), max_epochs=3), scheduler="LambdaLR",
    ),
    Case(
        "MPNN over atoms, classes", "chemprop",
        given(mpnn(nn.AtomMessagePassing, nn.BinaryClassificationFFN, CLASSES, batch_norm=True), max_epochs=3),
        scheduler="LambdaLR",
    ),
    Case("SCVI", "scvi-tools", scvi_model(plain_scvi(scvi.model.SCVI, n_hidden=HIDDEN))),
    Case("LinearSCVI", "scvi-tools", scvi_model(plain_scvi(scvi.model.LinearSCVI, n_hidden=HIDDEN))),
    Case("SCANVI", "scvi-tools", scvi_model(scanvi)),
    Case(
        "TOTALVI", "scvi-tools", scvi_model(totalvi, train_size=0.9, validation_size=0.1), manual=True,
        scheduler="ReduceLROnPlateau",
    ),
]  # fmt: skip
