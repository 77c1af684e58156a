"""Pictures: anomalib's LightningModules, without the weights that it would download."""

import warnings

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    from anomalib.data import ImageBatch
    from anomalib.models import Fastflow, Fre, Ganomaly, ReverseDistillation
from torch.utils.data import DataLoader

from given import Made, given
from shipped import Case

SIZE = 64
QUIET = {"post_processor": False, "evaluator": False, "visualizer": False}


def pictures(index):
    generator = torch.Generator().manual_seed(index)
    return torch.rand(2, 3, SIZE, SIZE, generator=generator)


def batch(items):
    (image,) = items
    return ImageBatch(image=image, gt_label=torch.zeros(len(image), dtype=torch.int64))


def of(kind, **settings):
    def build():
        torch.manual_seed(0)
        size = kind.configure_pre_processor((SIZE, SIZE))  # where networks learn how large pictures are
        return kind(pre_processor=size, **QUIET, **settings), DataLoader(Made(pictures), collate_fn=batch)

    return given(build)


RESNET = {"backbone": "resnet18", "pre_trained": False}
CASES = [
    Case("Ganomaly", "anomalib", of(Ganomaly, n_features=8, latent_vec_size=10), manual=True),
    Case("Fastflow", "anomalib", of(Fastflow, flow_steps=2, **RESNET)),
    Case("ReverseDistillation", "anomalib", of(ReverseDistillation, **RESNET)),
    Case("FRE", "anomalib", of(Fre, layer="layer3", input_dim=1024, latent_dim=10, **RESNET)),
]
