"""Double the frame rate of a clip: `python examples/interpolate_video.py`."""

from pathlib import Path

import torch

from pipeline_landscape_video import interpolate_frames, load_flow_estimator
from pipeline_landscape_video.video_io import read_video, write_video


clip = read_video(Path(__file__).with_name("mist.gif"))
frames = torch.from_numpy(clip.frames).permute(0, 3, 1, 2).float() / 255  # (num_frames, 3, height, width)
frames = interpolate_frames(frames, load_flow_estimator("dis"))  # N frames become 2N - 1
write_video("interpolate_video.mp4", frames, fps=2 * clip.fps)
