"""Networks that nobody here wrote, at toy size and from random weights: how to build, feed and score each."""

import warnings
from collections.abc import Callable

from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # theirs, at import
    import litgpt
    import segmentation_models_pytorch as smp
    import timm
    from torch_geometric.nn import models as pyg

from entries import CLASSES, VOCABULARY, Entry, classified, next_token, nodes, segmented
from zoo_transformers import TRANSFORMERS

LIT = {"n_layer": 3, "n_head": 2, "n_embd": 16, "block_size": 16, "padded_vocab_size": VOCABULARY}
VIT = {"img_size": 32, "embed_dim": 16, "depth": 3, "num_heads": 2}
SWIN = {"img_size": 32, "window_size": 2, "embed_dim": 8, "depths": (2, 2, 3, 2), "num_heads": (1, 2, 2, 2)}
CONVNEXT = {"depths": (2, 2, 3, 2), "dims": (8, 16, 24, 32)}
RESNET = {"encoder.layer1": 2, "encoder.layer2": 2, "encoder.layer3": 2, "encoder.layer4": 2}


def _timm(name: str, **settings: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=CLASSES, **settings)


def _litgpt(name: str, **settings: object) -> Callable[[], nn.Module]:
    return lambda: litgpt.GPT(litgpt.Config.from_name(name, **LIT, **settings))


def _smp(kind: type[nn.Module], encoder: str) -> Callable[[], nn.Module]:
    return lambda: kind(encoder, encoder_weights=None, classes=CLASSES)


ZOO = [
    *TRANSFORMERS,
    Entry(
        "ViT", "timm", _timm("vit_tiny_patch16_224", **VIT), classified,
        {"blocks": 3}, ("cls_token", "pos_embed", "patch_embed"), ("norm", "head"),
    ),
    Entry(
        "BEiT", "timm", _timm("beit_base_patch16_224", **VIT), classified,
        {"blocks": 3}, ("cls_token", "patch_embed"), ("fc_norm", "head"),
    ),
    Entry(
        "Swin", "timm", _timm("swin_tiny_patch4_window7_224", **SWIN), classified,
        {"layers.0.blocks": 2, "layers.1.blocks": 2, "layers.2.blocks": 3, "layers.3.blocks": 2},
        ("patch_embed",), ("norm", "head"),
    ),
    Entry(
        "ConvNeXt", "timm", _timm("convnext_atto", **CONVNEXT), classified,
        {"stages.0.blocks": 2, "stages.1.blocks": 2, "stages.2.blocks": 3, "stages.3.blocks": 2},
        ("stem",), ("head",),
    ),
    Entry(
        "ResNet-18", "timm", _timm("resnet18"), classified,
        {"layer1": 2, "layer2": 2, "layer3": 2, "layer4": 2}, ("conv1", "bn1"), ("fc",),
    ),
    Entry(
        "Pythia", "litgpt", _litgpt("pythia-14m"), next_token,
        {"transformer.h": 3}, ("transformer.wte",), ("transformer.ln_f", "lm_head"),
    ),
    Entry(
        "Llama 3.2", "litgpt", _litgpt("Llama-3.2-1B", n_query_groups=1, intermediate_size=32), next_token,
        {"transformer.h": 3}, ("transformer.wte",), ("transformer.ln_f", "lm_head"),
    ),
    Entry(
        "GCN", "torch_geometric", lambda: pyg.GCN(8, 16, 3, CLASSES, norm="layer"), nodes, {"convs": 3}, (), (),
    ),
    Entry("GAT", "torch_geometric", lambda: pyg.GAT(8, 16, 3, CLASSES, heads=2), nodes, {"convs": 3}, (), ()),
    Entry(
        "GIN", "torch_geometric", lambda: pyg.GIN(8, 16, 3, CLASSES, norm="batch"), nodes, {"convs": 3}, (), (),
    ),
    Entry(
        "U-Net", "segmentation_models_pytorch", _smp(smp.Unet, "resnet18"), segmented,
        {**RESNET, "decoder.blocks": 5}, ("encoder.conv1", "encoder.bn1"), ("segmentation_head",),
    ),
    Entry(
        "FPN", "segmentation_models_pytorch", _smp(smp.FPN, "resnet18"), segmented,
        RESNET, ("encoder.conv1", "encoder.bn1"), ("decoder", "segmentation_head"),
    ),
    Entry(
        "SegFormer", "segmentation_models_pytorch", _smp(smp.Segformer, "mit_b0"), segmented,
        {f"encoder.block{stage}": 2 for stage in (1, 2, 3, 4)}, ("encoder.patch_embed1",),
        ("encoder.norm4", "decoder", "segmentation_head"),
    ),
]  # fmt: skip
# timm's own layers, for comparison; shared tables of relative positions are there once for all blocks
TIMM = {
    "ViT": _timm("vit_tiny_patch16_224", **VIT),
    "BEiT": _timm("beit_base_patch16_224", **VIT),
    "BEiT, one table": _timm(
        "beit_base_patch16_224", use_shared_rel_pos_bias=True, use_rel_pos_bias=False, use_abs_pos_emb=True, **VIT
    ),
    "Swin": _timm("swin_tiny_patch4_window7_224", **SWIN),
    "ConvNeXt": _timm("convnext_atto", **CONVNEXT),
    "ResNet-18": _timm("resnet18"),
}
