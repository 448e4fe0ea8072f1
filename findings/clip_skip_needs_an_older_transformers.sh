#!/usr/bin/env bash
# Guess: diffusers 0.42.1 and transformers 5.24, which pip installs together without a complaint, agree on `clip_skip`, an
# argument of most Stable Diffusion pipelines.
#
# What happens: `encode_prompt(..., clip_skip=1)` raises an AttributeError: it asks the text encoder for `text_model`, a
# level that `CLIPTextModel` no longer has in transformers 5. Without `clip_skip` the same call works.
#
# Seen with diffusers 0.42.1, transformers 5.24.0, torch 2.15.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet diffusers==0.42.1 transformers==5.24.0 torch==2.15.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import AnimateDiffPipeline
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
encoder = CLIPTextModel(CLIPTextConfig(vocab_size=8, bos_token_id=1, eos_token_id=2, **size))
words = Tokenizer(WordLevel({"<pad>": 0, "<start>": 1, "<end>": 2, "mist": 3, "<unknown>": 4}, unk_token="<unknown>"))
words.pre_tokenizer = Whitespace()
pipe = AnimateDiffPipeline.__new__(AnimateDiffPipeline)  # encoding a prompt needs these two parts only
pipe.text_encoder = encoder
pipe.tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", model_max_length=8)


def encode(clip_skip):
    return AnimateDiffPipeline.encode_prompt(pipe, "mist", torch.device("cpu"), 1, False, clip_skip=clip_skip)[0]


print("without clip_skip:", tuple(encode(None).shape))
try:
    encode(1)
except AttributeError as error:
    print("with clip_skip=1:", error)
    assert "text_model" in str(error)
else:
    raise SystemExit("clip_skip works: this finding is out of date")
PYTHON
