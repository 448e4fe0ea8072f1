"""Serve the page of landscape-video on a Hugging Face Space, with the models of this repository only."""

import tempfile
from pathlib import Path

from landscape_video.generation.settings import ImageModelSettings
from landscape_video.web.controls import Limits
from landscape_video.web.page import launch_page
from landscape_video.web.workshop import Workshop


ADAPTER = Path(__file__).parent / "adapter"  # `landscape-video space --motion-adapter` puts one there

models = ImageModelSettings(motion_adapter=str(ADAPTER) if ADAPTER.is_dir() else None)
# Visitors share two cores, and do not see each other's clips.
limits = Limits(frames=16, side=192, steps=50, upload_mb=16, video_frames=200, video_side=640)
shop = Workshop(models, Path(tempfile.mkdtemp()), limits, shared_gallery=False)
shop.measure_speed()
launch_page(shop, server_name=None, mcp_server=True)  # the Space sets the address of its server
