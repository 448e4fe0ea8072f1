"""Generate a clip from a text prompt with the bundled model: `python examples/text_to_video.py`."""

import torch

from pipeline_landscape_video import SHANSHUI_TINY, LandscapeVideoPipeline
from pipeline_landscape_video.video_io import write_video


pipe = LandscapeVideoPipeline.from_pretrained(SHANSHUI_TINY)
prompt = "mist drifting over layered mountains, a boat on a calm lake"
generator = torch.Generator().manual_seed(7)  # the same seed generates the same clip
frames = pipe(prompt, num_frames=16, num_inference_steps=25, generator=generator).frames[0]
write_video("text_to_video.mp4", frames, fps=16)  # 31 frames, because interpolation turns N into 2N - 1
