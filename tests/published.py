"""A tiny AddSR in the layout of its release: networks, Stable Diffusion base, RAM, DAPE and tag lists, random weights."""

import json

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, PNDMScheduler
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer

from addsr.models.controlnet import AddSRControlNet
from addsr.models.tagger import Tagger
from addsr.models.unet import AddSRUNet

WEIGHTS = "diffusion_pytorch_model.safetensors"
NETWORK = {
    "block_out_channels": [16, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "layers_per_block": 1,
    "attention_head_dim": [1, 2],
    "cross_attention_dim": 16,
    "norm_num_groups": 4,
    "use_linear_projection": True,
}
UNET = NETWORK | {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}
OFFICIAL = {  # of what the published config.json says beside that
    "_diffusers_version": "0.21.0",
    "act_fn": "silu",
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "resnet_time_scale_shift": "default",
    "sample_size": 64,
    "upcast_attention": True,
    "use_image_cross_attention": True,
}
TAGS = ["cat", "tree", "sky", "street"]


def write_network(network, folder, config):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / WEIGHTS)


def write_tokenizer(folder):
    """CLIP's tokenizer without merges: every byte is a token."""
    codes = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(c) for c in codes] + [chr(256 + i) for i in range(256 - len(codes))]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    options = {"model_max_length": 77, "pad_token": "!", "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(options))
    CLIPTokenizer.from_pretrained(folder)


def write_base(folder, unet=None):
    vae_config = {
        "block_out_channels": [8, 8, 8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 4,
    }
    write_network(AutoencoderKL(**vae_config), folder / "vae", vae_config)
    text_config = {
        "vocab_size": 514,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "bos_token_id": 512,
        "eos_token_id": 513,
    }
    CLIPTextModel(CLIPTextConfig(**text_config)).save_pretrained(folder / "text_encoder")
    write_tokenizer(folder / "tokenizer")
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    schedule = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    if unet is None:
        PNDMScheduler(**schedule).save_pretrained(folder / "scheduler")
    else:  # SD-Turbo
        EulerDiscreteScheduler(**schedule, timestep_spacing="trailing").save_pretrained(folder / "scheduler")
        plain = {name: value for name, value in (UNET | OFFICIAL).items() if name != "use_image_cross_attention"}
        write_network(unet, folder / "unet", plain | {"_class_name": "UNet2DConditionModel"})


def adapters(weights):
    """DAPE's, of rank 8, for RAM's weights: of the encoder's queries and values, of the head's queries and keys."""
    lora = {}
    for name, weight in weights.items():
        stem, rows, width = name.removesuffix("weight"), *([*weight.shape, 0, 0][:2])
        if name.endswith("attn.qkv.weight"):
            lora |= {f"{stem}lora_A": torch.randn(16, width), f"{stem}lora_B": torch.randn(rows * 2 // 3, 8)}
        elif name.endswith(("crossattention.self.query.weight", "crossattention.self.key.weight")):
            lora |= {f"{stem}lora_A": torch.randn(8, width), f"{stem}lora_B": torch.randn(rows, 8)}
    return lora


def write_tagger(folder):
    """RAM (with what it has beside the tagger) and DAPE as pickles, and the tag lists."""
    sizes = {"embed_dim": 4, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1]}
    head = {"tagging_width": 8, "tagging_hidden": 8, "tagging_layers": 1, "num_tags": len(TAGS)}
    tagger = Tagger(**sizes, **head)
    torch.nn.init.normal_(tagger.label_embed)
    tagger.save_pretrained(folder / "made")
    from safetensors.torch import load_file

    weights = load_file(folder / "made" / WEIGHTS)
    weights["tag_encoder.embeddings.word_embeddings.weight"] = torch.zeros(2, 2)
    weights["visual_encoder.layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(144, 144)
    torch.save({"model": weights}, folder / "ram_swin_large_14m.pth")
    torch.save(adapters(weights), folder / "DAPE.pth")
    (folder / "ram_tag_list.txt").write_text("\n".join(TAGS) + "\n")
    (folder / "ram_tag_list_threshold.txt").write_text("0.0\n1.0\n0.0\n1.0\n")  # always cat and sky
    for path in (folder / "made").iterdir():
        path.unlink()
    (folder / "made").rmdir()


def write_published(root, name="addsr"):
    """`root`/name with unet/ and controlnet/, and beside it everything else."""
    torch.manual_seed(0)
    unet = AddSRUNet(**UNET)
    controlnet = AddSRControlNet.from_unet(unet)
    for convolution in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        torch.nn.init.normal_(convolution.weight, std=0.1)
    torch.nn.init.normal_(controlnet.controlnet_cond_embedding.conv_out.weight, std=0.1)
    write_network(unet, root / name / "unet", UNET | OFFICIAL | {"_class_name": "UNet2DConditionModel"})
    embedding = {"conditioning_embedding_out_channels": [16, 32, 96, 256], "global_pool_conditions": False}
    config = NETWORK | OFFICIAL | embedding | {"_class_name": "ControlNetModel"}
    write_network(controlnet, root / name / "controlnet", config)
    write_base(root / "stable-diffusion-2-base")
    write_tagger(root)
    return root / name
