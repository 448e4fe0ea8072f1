"""Depth of clips, from files, a transformers model or the bundled depth model, normalized per clip.

Depth is inverse everywhere: larger is nearer, as MiDaS and the depth-conditioned Stable Diffusion 2 have it.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from motion_adapter.sources import local_path
from pipeline_landscape_video import SHANSHUI_TINY
from pipeline_landscape_video.video_io import VIDEO_EXTENSIONS, read_video


FLAT = 1e-5  # range of a depth map, relative to its largest value, below which it contains no depth
NEAREST = 1e-6  # of distances that are inverted
ASPECT_TOLERANCE = 0.02  # difference between the aspect ratios of depth and clip that rounding may cause
DEPTH_FOLDER = "depth"  # where `render.py --depth` writes the exact depth, beside its clips
BUNDLED = "bundled"  # name of shanshui-tiny's own depth model
BUNDLED_MODEL = SHANSHUI_TINY / "depth" / "model"
BUNDLED_SIZE = 64  # shorter side in pixels of the frames that it was trained on
IMAGE_EXTENSIONS = (".png", ".tif", ".tiff", ".exr", ".jpg", ".jpeg")
# Architectures whose post-processing returns distances, which are larger the farther away. DPT and its like return
# inverse depth. DepthPro predicts inverse depth too, but its post-processing turns it into distances.
RETURNS_DISTANCE = ("depth_pro", "zoedepth", "glpn", "prompt_depth_anything")
CHUNK = 4  # frames that a depth model sees at once


def load_depth(
    source: str | Path | None, frames: np.ndarray, video: str | Path | None = None, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return the depth of every frame of a clip, normalized over the clip.

    Args:
        source: A folder of images (8 or 16 bit PNG, TIFF, EXR; white is near), an `.npy` file, an `.npz` file with
            `depth`, a video, "bundled" for shanshui-tiny's own depth model, or the name of a depth model of
            transformers. None takes the depth that `render.py --depth` wrote beside `video`, or else "bundled".
        frames: uint8 (num_frames, height, width, 3).
        video: File of the clip.
        device: Device of depth models.

    Returns:
        float32 (num_frames, 1, height, width) in [-1, 1], on the CPU; larger is nearer.

    Raises:
        ValueError: The source cannot be read, or its depth has another number of frames or another shape.
    """
    if source is None:
        source = (rendered_depth(video) if video is not None else None) or BUNDLED
    if source == BUNDLED:
        return normalize_depth(predict_bundled(frames, device))
    path = local_path(source)
    if path is None or (path / "config.json").is_file():
        return normalize_depth(predict_depth(str(path or source), frames, device))
    if not path.exists():
        raise ValueError(f"`depth` {source}: no such file or folder.")
    depth = read_depth(path)
    return normalize_depth(fit_depth(depth, frames, source))


def rendered_depth(video: str | Path) -> Path | None:
    """Return the file of exact depth that `render.py --depth` wrote beside a clip, None without it."""
    path = Path(video).parent / DEPTH_FOLDER / f"{Path(video).stem}.npz"
    return path if path.is_file() else None


def normalize_depth(depth: torch.Tensor) -> torch.Tensor:
    """Scale inverse depth to [-1, 1] over a whole clip: -1 is the farthest, 1 the nearest point in it.

    Scaling each frame by itself would change the depth of a still background as soon as an object comes near.

    Args:
        depth: (frames, 1, height, width), larger is nearer.

    Returns:
        float32, of the same shape; 0 where the whole clip has the same depth.
    """
    depth = depth.float()
    low, high = depth.min(), depth.max()
    if high - low <= FLAT * max(low.abs(), high.abs()):
        return torch.zeros_like(depth)
    return 2 * (depth - low) / (high - low) - 1


# Files


def read_depth(path: Path) -> np.ndarray:
    """Read depth maps, float32 (num_frames, height, width), from a folder of images, a video, .npy or .npz.

    Raises:
        ValueError: The file holds something else, or values that are not finite.
    """
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_EXTENSIONS]
        files.sort(key=lambda file: ([int(digits) for digits in re.findall(r"\d+", file.stem)], file.name))
        if not files:
            raise ValueError(f"`depth` {path}: no images; use {', '.join(IMAGE_EXTENSIONS)}.")
        maps = [read_depth_image(file) for file in files]
        if len({depth.shape for depth in maps}) > 1:
            raise ValueError(f"`depth` {path}: images must have one size.")
        depth = np.stack(maps)
    elif path.suffix in (".npy", ".npz"):
        try:
            loaded = np.load(path)
            depth = np.asarray(loaded["depth"] if path.suffix == ".npz" else loaded, np.float32)
        except (ValueError, KeyError, OSError) as error:
            raise ValueError(f"`depth` {path} does not load: {error}") from None
    elif path.suffix.lower() in IMAGE_EXTENSIONS:
        depth = read_depth_image(path)[None]
    elif path.suffix.removeprefix(".").lower() in VIDEO_EXTENSIONS:
        depth = read_video(path).frames.mean(axis=-1, dtype=np.float32)
    else:
        raise ValueError(f"`depth` {path}: must be a folder of images, a video, .npy or .npz.")
    if depth.ndim != 3:
        raise ValueError(f"`depth` {path}: must have the shape (num_frames, height, width), got {depth.shape}.")
    if not np.isfinite(depth).all():
        raise ValueError(f"`depth` {path}: must be finite everywhere.")
    return depth


def read_depth_image(path: Path) -> np.ndarray:
    """Read an image of one channel, or the mean of its colors, with the values of the file, as float32."""
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # read when OpenCV first opens an EXR file

    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError(f"`depth` {path}: OpenCV cannot read it; convert it to PNG of 16 bits.")
    image = image.astype(np.float32)
    return image if image.ndim == 2 else image[..., :3].mean(axis=-1)


def fit_depth(depth: np.ndarray, frames: np.ndarray, source: str | Path) -> torch.Tensor:
    """Check the number of depth maps and their aspect ratio, and resize them to the frames by area.

    Raises:
        ValueError: Either differs from the clip's.
    """
    count, height, width = frames.shape[:3]
    if len(depth) != count:
        raise ValueError(f"`depth` {source}: must have {count} frames, as the clip, got {len(depth)}.")
    aspect = depth.shape[2] / depth.shape[1]
    if abs(aspect / (width / height) - 1) > ASPECT_TOLERANCE:
        raise ValueError(
            f"`depth` {source}: must have the aspect ratio of the clip, {width} x {height}, got "
            f"{depth.shape[2]} x {depth.shape[1]}."
        )
    maps = torch.from_numpy(depth)[:, None]
    return maps if depth.shape[1:] == (height, width) else F.interpolate(maps, size=(height, width), mode="area")


# Models


@torch.no_grad()
def predict_bundled(
    frames: np.ndarray, device: torch.device | str = "cpu", model: str | Path = BUNDLED_MODEL
) -> torch.Tensor:
    """Predict depth, (num_frames, 1, height, width), with the depth model of shanshui-tiny, made for its style.

    Args:
        frames: uint8 (num_frames, height, width, 3).
        device: Device of the model.
        model: Folder of the model.

    Raises:
        ValueError: The folder is missing.
    """
    from diffusers import UNet2DModel

    if not Path(model).is_dir():
        raise ValueError(f"`depth` must name files or a depth model: {model} does not exist.")

    model = UNet2DModel.from_pretrained(model, dtype=torch.float32).to(device)
    height, width = frames.shape[1:3]
    scale = BUNDLED_SIZE / min(height, width)
    size = [max(8, round(side * scale / 8) * 8) for side in (height, width)]
    maps = []
    for chunk in _chunks(frames):
        pixels = torch.from_numpy(chunk).permute(0, 3, 1, 2).float().to(device) / 127.5 - 1
        small = F.interpolate(pixels, size=size, mode="bilinear", antialias=True)
        depth = model(small, 0).sample.clamp(0, 1)
        maps.append(F.interpolate(depth, size=(height, width), mode="bilinear").cpu())
    return torch.cat(maps)


@torch.no_grad()
def predict_depth(name: str, frames: np.ndarray, device: torch.device | str = "cpu") -> torch.Tensor:
    """Predict inverse depth, (num_frames, 1, height, width), with a depth model of transformers.

    Args:
        name: Folder or Hub id of the model with its image processor.
        frames: uint8, which the processors take; float frames would be scaled twice.
        device: Device of the model.

    Raises:
        ValueError: The model does not load.
    """
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForDepthEstimation

    try:
        config = AutoConfig.from_pretrained(name)
        if config.model_type == "depth_pro":
            config.use_fov_model = False  # its field of view differs from frame to frame, and with it the scale
        model = AutoModelForDepthEstimation.from_pretrained(name, config=config).eval().to(device)
        processor = AutoImageProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"`depth` {name} does not load: {' '.join(str(error).split())}") from None
    size, maps = tuple(frames.shape[1:3]), []
    for chunk in _chunks(frames):
        inputs = processor(images=list(chunk), return_tensors="pt", input_data_format="channels_last").to(device)
        outputs = processor.post_process_depth_estimation(model(**inputs), target_sizes=[size] * len(chunk))
        maps += [output["predicted_depth"].float().cpu() for output in outputs]
    depth = torch.stack(maps)[:, None]
    return 1 / depth.clamp(min=NEAREST) if returns_distance(model) else depth


def returns_distance(model: nn.Module) -> bool:
    """Whether the post-processed output of a model grows with the distance."""
    return (
        model.config.model_type in RETURNS_DISTANCE or getattr(model.config, "depth_estimation_type", "") == "metric"
    )


def _chunks(frames: np.ndarray) -> Iterator[np.ndarray]:
    return (frames[start : start + CHUNK] for start in range(0, len(frames), CHUNK))
