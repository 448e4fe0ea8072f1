#!/usr/bin/env bash
# Guess: diffusers' `AnimateDiffPipeline` runs AnimateDiff's motion modules as AnimateDiff does, because the weights are
# converted name by name.
#
# What happens: AnimateDiff folds the frames into the batch before the group norm of a motion module, so its statistics
# are those of each frame. diffusers keeps the frames apart from the batch, so its statistics are those of the whole
# clip. On a clip whose frames brighten, the two differ by more than half of what the module adds. The norm of the clip
# also lets a later frame change all earlier ones, whatever the attention's mask.
#
# Seen with diffusers 0.42.1, torch 2.15.0, Python 3.11; AnimateDiff's lines are in its animatediff/models/
# motion_module.py, `TemporalTransformer3DModel.forward`.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.15.0 transformers==5.24.0
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

torch.manual_seed(0)
module = AnimateDiffTransformer3D(
    num_attention_heads=4,
    attention_head_dim=8,
    in_channels=32,
    norm_num_groups=8,
    attention_bias=False,
    activation_fn="geglu",
    positional_embeddings="sinusoidal",
    num_positional_embeddings=16,
).eval()
frames = 8
brightness = torch.linspace(0.2, 4, frames)[:, None, None, None]
clip = brightness * (torch.randn(frames, 32, 6, 6) + 1)


def norm_of_each_frame(norm, inputs, output):
    batch, channels, count, height, width = inputs[0].shape
    folded = inputs[0].transpose(1, 2).reshape(batch * count, channels, height, width)
    normed = torch.nn.functional.group_norm(folded, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return normed.reshape(batch, count, channels, height, width).transpose(1, 2)


def first_normed_frame(frames):
    return module.norm(frames.transpose(0, 1)[None])[:, :, 0]


with torch.no_grad():
    of_the_clip = module(clip, num_frames=frames) - clip
    brighter = torch.cat([clip[:-1], 5 * clip[-1:]])
    moves = first_normed_frame(clip) - first_normed_frame(brighter)
    module.norm.register_forward_hook(norm_of_each_frame)
    of_each_frame = module(clip, num_frames=frames) - clip
    stays = first_normed_frame(clip) - first_normed_frame(brighter)
added, difference = of_each_frame.abs().max(), (of_the_clip - of_each_frame).abs().max()
print(f"the module adds up to {added:.2f}; the two norms differ by up to {difference:.2f}")
print(f"a brighter last frame moves the first one by {moves.abs().max():.2f} (clip), {stays.abs().max():.2f} (frame)")
assert difference > 0.5 * added
assert moves.abs().max() > 0.1 and stays.abs().max() == 0
PYTHON
