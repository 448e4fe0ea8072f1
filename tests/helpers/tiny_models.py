"""Build small real components for tests: random weights with a fixed seed, no downloads, no mocks."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer


TINY_WORDS = (
    "misty",
    "mist",
    "mountains",
    "river",
    "boat",
    "pine",
    "rain",
    "snow",
    "moon",
    "a",
    "over",
    "the",
    "drifting",
)


def build_tokenizer(words: tuple[str, ...] = TINY_WORDS) -> CLIPTokenizer:
    """Return a `CLIPTokenizer` with 77 positions. Every byte is a token, and so is each of `words`."""
    alphabet = sorted(ByteLevel.alphabet())
    tokens = alphabet + [character + "</w>" for character in alphabet]
    merges = []
    for word in words:
        pieces = [*word[:-1], word[-1] + "</w>"]
        while len(pieces) > 1:
            merge = (pieces[0], pieces[1])
            pieces = ["".join(merge), *pieces[2:]]
            if merge not in merges:
                merges.append(merge)
            if pieces[0] not in tokens:
                tokens.append(pieces[0])
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Return a two-layer `CLIPTextModel` of width 16 for the tokenizer's vocabulary."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            projection_dim=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()


def build_vae() -> AutoencoderKL:
    """Return an `AutoencoderKL` with four latent channels and an 8x smaller height and width."""
    return AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=4,
        sample_size=64,
    ).eval()


def build_unet2d(**overrides: Any) -> UNet2DConditionModel:
    """Return a two-level image UNet, (8, 16) channels, for latents of 8 x 8."""
    config = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**(config | overrides)).eval()


def build_motion_adapter(
    sparse_causal_mode: str | None = "previous", motion_norm: str | None = None, **overrides: Any
) -> MotionAdapter:
    """Return a `MotionAdapter` for `build_unet2d`, random in every layer; a stock one without mode and norm."""
    config = {
        "block_out_channels": (8, 16),
        "motion_layers_per_block": 1,
        "motion_num_attention_heads": 2,
        "motion_norm_num_groups": 4,
        "motion_max_seq_length": 32,
        "use_motion_mid_block": False,
    }
    adapter = MotionAdapter(**(config | overrides)).eval()
    if sparse_causal_mode is not None:
        adapter.register_to_config(sparse_causal_mode=sparse_causal_mode)
    if motion_norm is not None:
        adapter.register_to_config(motion_norm=motion_norm)
    return adapter


def build_scheduler() -> DDIMScheduler:
    """Return NADM's DDIM scheduler: linear betas from 0.00085 to 0.012, no clipping."""
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="linear", steps_offset=1, clip_sample=False)


def build_components(
    sparse_causal_mode: str | None = "previous", seed: int = 0, motion_norm: str | None = None, **overrides: Any
) -> dict[str, Any]:
    """Return the arguments of a `LandscapeVideoPipeline`; `overrides` replaces any of them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer()
        components = {
            "vae": build_vae(),
            "text_encoder": build_text_encoder(tokenizer),
            "tokenizer": tokenizer,
            "unet": build_unet2d(),
            "motion_adapter": build_motion_adapter(sparse_causal_mode, motion_norm),
            "scheduler": build_scheduler(),
        }
    return components | overrides


def build_captioner(directory: Path) -> Path:
    """Save an untrained BLIP with its processor; its captions are random words."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    torch.manual_seed(0)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"describe this mist mountain river boat moves".split()]
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0}
    text = {"vocab_size": len(words), "encoder_hidden_size": 16, "max_position_embeddings": 256, **size, **tokens}
    config = BlipConfig(text_config=text, vision_config={"image_size": 32, "patch_size": 8, **size})
    BlipForConditionalGeneration(config).save_pretrained(directory)
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(directory)
    return directory


def build_chat_captioner(directory: Path) -> Path:
    """Save an untrained LLaVA with its processor and a chat template."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(0)
    words = ["<pad>", "<unk>", "<s>", "</s>", "<image>", *"describe this mist mountain river boat moves".split()]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()
    special = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, additional_special_tokens=["<image>"], **special)
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}"
        "{% endfor %}{% endfor %}"
    )
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=16, patch_size=8, **size),
        text_config=LlamaConfig(vocab_size=len(words), max_position_embeddings=256, pad_token_id=0, **size),
        image_token_index=words.index("<image>"),
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).save_pretrained(directory)
    pictures = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    LlavaProcessor(
        pictures,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        chat_template=template,
        num_additional_image_tokens=1,
    ).save_pretrained(directory)
    return directory


def build_classifier(directory: Path) -> Path:
    """Save an untrained VideoMAE with five classes, with its processor."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification, VideoMAEVideoProcessor

    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = VideoMAEConfig(image_size=32, patch_size=16, num_frames=8, num_labels=5, **size)
    VideoMAEForVideoClassification(config).save_pretrained(directory)
    processor = VideoMAEVideoProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(directory)
    return directory
