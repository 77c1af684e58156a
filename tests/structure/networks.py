"""Networks that others wrote, at toy size, and small ones by hand; none has its weights in memory."""

import warnings

import torch
import transformers as hf
from torch import nn

HF = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = {**HF, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
STAGES = {"depths": [2, 2, 3, 2]}


def transformer_layer(kind=nn.TransformerEncoderLayer):
    return kind(16, nhead=2, dim_feedforward=32, batch_first=True)


class BasicBlock(nn.Module):
    def __init__(self, narrow, wide):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(narrow, wide, 3, bias=False), nn.BatchNorm2d(wide)
        self.relu = nn.ReLU()
        self.conv2, self.bn2 = nn.Conv2d(wide, wide, 3, bias=False), nn.BatchNorm2d(wide)
        if narrow != wide:
            self.downsample = nn.Sequential(nn.Conv2d(narrow, wide, 1, bias=False), nn.BatchNorm2d(wide))


class ResNet(nn.Module):
    """torchvision's ResNet-18: stages under numbered attributes."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 7, bias=False), nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8))
        self.layer2 = nn.Sequential(BasicBlock(8, 16), BasicBlock(16, 16))
        self.layer3 = nn.Sequential(BasicBlock(16, 32), BasicBlock(32, 32))
        self.layer4 = nn.Sequential(BasicBlock(32, 64), BasicBlock(64, 64))
        self.fc = nn.Linear(64, 10)


class Expert(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.w1, self.w2, self.w3 = (nn.Linear(width, width, bias=False) for _ in range(3))


class MoEBlock(nn.Module):
    def __init__(self, width=16, experts=8):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2)
        self.gate = nn.Linear(width, experts)
        self.experts = nn.ModuleList(Expert(width) for _ in range(experts))


class MoE(nn.Module):
    """Mixtral with its experts in a list, and norms in another one beside the blocks."""

    def __init__(self, depth=3):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.blocks = nn.ModuleList(MoEBlock() for _ in range(depth))
        self.norms = nn.ModuleList(nn.LayerNorm(16) for _ in range(12))
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 5)) for _ in range(4))


class PreNorm(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(16), fn


class PairsViT(nn.Module):
    """vit-pytorch: every layer is a ModuleList of attention and feed-forward; tokens are parameters of the model."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Linear(48, 16)
        self.pos_embedding = nn.Parameter(torch.empty(1, 5, 16))
        self.cls_token = nn.Parameter(torch.empty(1, 1, 16))
        self.layers = nn.ModuleList()
        for _ in range(3):
            feed = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
            self.layers.append(nn.ModuleList([PreNorm(nn.MultiheadAttention(16, 2)), PreNorm(feed)]))
        self.mlp_head = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 10))


class DiTBlock(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(16, elementwise_affine=False) for _ in range(2))
        self.attn = nn.MultiheadAttention(16, 2)
        self.mlp = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16))
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(16, 96))


def dit():
    return nn.Sequential(nn.Linear(4, 16), nn.ModuleList(DiTBlock() for _ in range(3)), nn.Linear(16, 4))


class DoubleConv(nn.Sequential):
    def __init__(self, narrow, wide):
        convs = [nn.Conv2d(narrow, wide, 3), nn.BatchNorm2d(wide), nn.ReLU(), nn.Conv2d(wide, wide, 3)]
        super().__init__(*convs, nn.BatchNorm2d(wide), nn.ReLU())


class Down(nn.Module):
    def __init__(self, narrow, wide):
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(narrow, wide))


class Up(nn.Module):
    def __init__(self, wide, narrow):
        super().__init__()
        self.up = nn.ConvTranspose2d(wide, narrow, 2)
        self.conv = DoubleConv(wide, narrow)


class UNet(nn.Module):
    """A segmentation U-Net: two chains under numbered attributes."""

    def __init__(self):
        super().__init__()
        self.inc = DoubleConv(3, 8)
        self.down1, self.down2, self.down3 = Down(8, 16), Down(16, 32), Down(32, 64)
        self.up1, self.up2, self.up3 = Up(64, 32), Up(32, 16), Up(16, 8)
        self.outc = nn.Conv2d(8, 2, 1)


class GCNConv(nn.Module):
    def __init__(self, narrow, wide):
        super().__init__()
        self.lin = nn.Linear(narrow, wide, bias=False)
        self.bias = nn.Parameter(torch.empty(wide))


class GNN(nn.Module):
    """PyG's BasicGNN: convolutions in one list, norms in another."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([GCNConv(7, 16), GCNConv(16, 16), GCNConv(16, 3)])
        self.norms = nn.ModuleList([nn.BatchNorm1d(16), nn.BatchNorm1d(16)])


class Hybrid(nn.Module):
    """Two kinds of block in one list, one of them once."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        decoder = transformer_layer(nn.TransformerDecoderLayer)
        self.layers = nn.ModuleList([transformer_layer(), transformer_layer(), decoder, transformer_layer()])


class LSTM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.lstm = nn.LSTM(16, 16, num_layers=3)
        self.heads = nn.ModuleList(nn.Linear(16, 5) for _ in range(3))


class Shared(nn.Module):
    """One layer that is run four times."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.layers = nn.ModuleList([transformer_layer()] * 4)
        self.head = nn.Linear(16, 50)


class Named(nn.Module):
    """Blocks under attributes without a number."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.lower, self.upper = BasicBlock(8, 8), BasicBlock(8, 8)


def transformer():
    return nn.Transformer(16, nhead=2, num_encoder_layers=3, num_decoder_layers=2, dim_feedforward=32, batch_first=True)


def mlp():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def whisper():
    sizes = {
        f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("ffn_dim", 64), ("attention_heads", 2))
    }
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0, "decoder_start_token_id": 0}
    config = hf.WhisperConfig(d_model=32, encoder_layers=3, decoder_layers=2, vocab_size=50, **ends, **sizes)
    return hf.WhisperForConditionalGeneration(config)


def gpt2(depth=3):
    config = hf.GPT2Config(
        n_embd=32, n_layer=depth, n_head=4, n_positions=16, vocab_size=50, bos_token_id=0, eos_token_id=0
    )
    return hf.GPT2LMHeadModel(config)


def t5():
    return hf.T5ForConditionalGeneration(
        hf.T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=3, num_heads=4, vocab_size=50)
    )


def swin():
    config = hf.SwinConfig(embed_dim=8, num_heads=[1, 1, 2, 2], image_size=56, **STAGES)
    return hf.SwinForImageClassification(config)


def hf_resnet():
    config = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16, 32, 64], **STAGES)
    return hf.ResNetForImageClassification(config)


def mamba():
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return hf.MambaForCausalLM(hf.MambaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=3, **ends))


MAKERS = {
    "encoder": lambda: nn.TransformerEncoder(transformer_layer(), 3, nn.LayerNorm(16)),
    "decoder": lambda: nn.TransformerDecoder(transformer_layer(nn.TransformerDecoderLayer), 3),
    "transformer": transformer,
    "gpt2": gpt2,
    "gpt2 of one layer": lambda: gpt2(1),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT)),
    "bert": lambda: hf.BertForSequenceClassification(hf.BertConfig(**TEXT)),
    "t5": t5,
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**HF, image_size=32, patch_size=8)),
    "swin": swin,
    "convnext": lambda: hf.ConvNextForImageClassification(hf.ConvNextConfig(hidden_sizes=[8, 16, 32, 64], **STAGES)),
    "mixtral": lambda: hf.MixtralForCausalLM(hf.MixtralConfig(**TEXT, num_key_value_heads=4, num_local_experts=4)),
    "hf resnet": hf_resnet,
    "mamba": mamba,
    "whisper": whisper,
    "albert": lambda: hf.AlbertModel(hf.AlbertConfig(**TEXT, embedding_size=16)),
    "resnet": ResNet,
    "moe": MoE,
    "moe of one layer": lambda: MoE(1),
    "pairs": PairsViT,
    "dit": dit,
    "unet": UNet,
    "gnn": GNN,
    "hybrid": Hybrid,
    "shared": Shared,
    "named": Named,
    "mlp": mlp,
}  # fmt: skip


def on_meta(make):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make()


class Whole(nn.Module):
    """Parts under the names given."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
