"""Animate a painting with the bundled model: `python examples/image_to_video.py`."""

from pathlib import Path

from PIL import Image

from pipeline_landscape_video import SHANSHUI_TINY, LandscapeImageToVideoPipeline
from pipeline_landscape_video.video_io import write_video


pipe = LandscapeImageToVideoPipeline.from_pretrained(SHANSHUI_TINY)
painting = Image.open(Path(__file__).with_name("painting.png"))
text = "mist drifting, the boat sails to the left"
keep_image = {"guidance_order": "picture_first", "hold_first_frame": True}  # for texts that say only what moves
frames = pipe(text, painting, num_frames=16, num_inference_steps=25, **keep_image).frames[0]
write_video("image_to_video.mp4", frames, fps=16)
