"""Find the masks of objects with SAM, SAM 2 or SAM 3 of transformers, from points or boxes on the first frame.

The models are optional: they are loaded only when asked for, by name. SAM 2 and SAM 3 track objects through the clip.
SAM sees single images, so here its prompt in each later frame is the box around the mask of the frame before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from motion_adapter.sources import local_path


# Classes by the model type in config.json.
TRACKERS = {
    "sam2": ("Sam2VideoModel", "Sam2VideoProcessor"),
    "sam2_video": ("Sam2VideoModel", "Sam2VideoProcessor"),
    "sam3": ("Sam3TrackerVideoModel", "Sam3TrackerVideoProcessor"),
    "sam3_video": ("Sam3TrackerVideoModel", "Sam3TrackerVideoProcessor"),
    "sam3_tracker_video": ("Sam3TrackerVideoModel", "Sam3TrackerVideoProcessor"),
}
MARGIN = 0.1  # of the sides of a box that follows an object to the next frame


@dataclass(frozen=True)
class ObjectPrompt:
    """Where an object is in the first frame: a box, or points on it.

    Args:
        points: (x, y) in pixels.
        box: (left, top, right, bottom) in pixels.
    """

    points: tuple[tuple[float, float], ...] = ()
    box: tuple[float, float, float, float] | None = None

    def moved(self, scale: float, left: float, top: float) -> "ObjectPrompt":
        """Return the prompt for frames that were scaled, then cropped at the left and the top."""
        points = tuple((scale * x - left, scale * y - top) for x, y in self.points)
        shift = (left, top, left, top)
        box = None if self.box is None else tuple(scale * a - b for a, b in zip(self.box, shift, strict=True))
        return ObjectPrompt(points, box)


def parse_prompts(points: Sequence[str], boxes: Sequence[str]) -> list[ObjectPrompt]:
    """Parse prompts of objects: each of `points` is "x,y" or "x,y;x,y;...", each of `boxes` "left,top,right,bottom".

    Raises:
        ValueError: A text has another form.
    """
    prompts = []
    for text in points:
        pairs = [_numbers("points", part, 2) for part in text.split(";")]
        prompts.append(ObjectPrompt(points=tuple((x, y) for x, y in pairs)))
    return prompts + [ObjectPrompt(box=tuple(_numbers("boxes", text, 4))) for text in boxes]


def _numbers(option: str, text: str, count: int) -> list[float]:
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count:
        form = "x,y" if count == 2 else "left,top,right,bottom"
        raise ValueError(f"`{option}` must be numbers such as {form}, got {text!r}.")
    return numbers


@torch.no_grad()
def segment(
    frames: torch.Tensor, source: str, prompts: Sequence[ObjectPrompt], device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Consistency tuning Eq. 9: return the masks of objects, (objects, num_frames, height, width), 0 or 1.

    Args:
        frames: Frames, (num_frames, 3, height, width) in [0, 1].
        source: Folder or Hub name of a SAM, SAM 2 or SAM 3 model with its processor.
        prompts: Place of each object in the first frame.
        device: Device to compute on.

    Raises:
        ValueError: The source does not load, or is another model.
    """
    import transformers

    name = str(local_path(source) or source)
    try:
        model_type = transformers.AutoConfig.from_pretrained(name).model_type
        if model_type not in ("sam", *TRACKERS):
            raise ValueError(f"it must be SAM, SAM 2 or SAM 3, got {model_type}.")
        classes = TRACKERS.get(model_type, ("SamModel", "SamProcessor"))
        model_class, processor_class = (getattr(transformers, each) for each in classes)
        model = model_class.from_pretrained(name).eval().to(device)
        processor = processor_class.from_pretrained(name)
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"`segmenter` {source} does not load: {error}") from error
    # uint8: the processors take floats for values from 0 to 255, and the frames would be near black.
    pixels = frames.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    if model_type in TRACKERS:
        return _track(model, processor, pixels, prompts)
    masks = [torch.stack(list(_follow(model, processor, pixels, prompt))) for prompt in prompts]
    return torch.stack(masks)


def _inputs_of(prompt: ObjectPrompt) -> dict[str, Any]:
    """Keywords of a processor for one image with one object."""
    if prompt.box is not None:
        return {"input_boxes": [[list(prompt.box)]]}
    return {"input_points": [[[list(point) for point in prompt.points]]], "input_labels": [[[1] * len(prompt.points)]]}


def _follow(model: Any, processor: Any, pixels: np.ndarray, prompt: ObjectPrompt) -> Iterator[torch.Tensor]:
    """Yield the mask of an object in each frame; SAM sees one frame at a time."""
    height, width = pixels.shape[1:3]
    for frame in pixels:
        inputs = processor(images=frame, return_tensors="pt", **_inputs_of(prompt)).to(model.device)
        output = model(**inputs, multimask_output=False)
        sizes = (inputs["original_sizes"], inputs["reshaped_input_sizes"])
        mask = processor.post_process_masks(output.pred_masks.cpu(), *(size.cpu() for size in sizes))[0][0, 0]
        yield mask.float()
        if mask.any():
            rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
            box = [float(columns.min()), float(rows.min()), float(columns.max()) + 1, float(rows.max()) + 1]
            across, down = MARGIN * (box[2] - box[0]), MARGIN * (box[3] - box[1])
            prompt = ObjectPrompt(
                box=(
                    max(0.0, box[0] - across),
                    max(0.0, box[1] - down),
                    min(float(width), box[2] + across),
                    min(float(height), box[3] + down),
                )
            )


def _track(model: Any, processor: Any, pixels: np.ndarray, prompts: Sequence[ObjectPrompt]) -> torch.Tensor:
    """Return the masks of all objects, tracked from the first frame."""
    session = processor.init_video_session(video=list(pixels), inference_device=model.device, dtype=model.dtype)
    for number, prompt in enumerate(prompts, start=1):
        processor.add_inputs_to_inference_session(session, frame_idx=0, obj_ids=number, **_inputs_of(prompt))
    # Each call marks only its own object as new, and objects that are not new are not segmented in the first frame.
    session.obj_with_new_inputs = list(range(1, len(prompts) + 1))
    size = [list(pixels.shape[1:3])]
    masks = torch.zeros(len(prompts), *pixels.shape[:3])
    for output in model.propagate_in_video_iterator(session, start_frame_idx=0):
        found = processor.post_process_masks([output.pred_masks], original_sizes=size)[0]
        masks[:, output.frame_idx] = found[:, 0].float().cpu()
    return masks
