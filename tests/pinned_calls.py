"""Call the pipelines, the interpolation and the export in Python, and write all arrays that come out to `arrays.npz`.

`pins.py` starts this script: `pinned_calls.py CASE [FILE]`. Arguments whose defaults belong to the model (guidance,
eta) are always given, so that the same computation is compared whatever the defaults are.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AnimateDiffPipeline,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    MotionAdapter,
)
from peft import LoraConfig
from PIL import Image
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft_small

from pipeline_landscape_video import (
    SHANSHUI_TINY,
    SOFP_MODES,
    LandscapeImageToVideoPipeline,
    LandscapeVideoPipeline,
    interpolate_frames,
    load_flow_estimator,
)
from pipeline_landscape_video.video_io import read_video


try:
    from motion_adapter.export import export_adapter, export_pipeline
except ImportError:  # the name before the issue
    from motion_adapter.publish import export_adapter, export_pipeline


Results = Iterator[tuple[str, Any]]
PROMPT = "mist drifting over layered mountains, a boat on a calm lake"
OTHER_PROMPT = "an autumn scroll, the camera panning to the right"
COMMON = {"num_frames": 4, "num_inference_steps": 4, "output_type": "latent"}
TEXT = COMMON | {"guidance_scale": 2.0, "eta": 1.0}
IMAGE = COMMON | {
    "guidance_scale": 4.0, "eta": 0.0, "image_guidance_scale": 1.5, "guidance_order": "text_first",
    "hold_first_frame": False, "retention_scale": 1.0, "fit": "crop",
}  # fmt: skip
WITH_FRAMES = {"output_type": "np", "interpolate": True, "flow_estimator": "dis", "sofp_mode": "quadratic"}


def load(pipeline_class: type[DiffusionPipeline], folder: Path = SHANSHUI_TINY, **kwargs: Any) -> DiffusionPipeline:
    pipe = pipeline_class.from_pretrained(folder, **kwargs)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def sample(pipe: DiffusionPipeline, *args: Any, seed: int | list[int] = 7, **kwargs: Any) -> Any:
    """The clips of a call with seeded noise; a list of seeds gives each clip its own."""
    generators = [torch.Generator().manual_seed(number) for number in ([seed] if isinstance(seed, int) else seed)]
    return pipe(*args, generator=generators[0] if isinstance(seed, int) else generators, **kwargs).frames


def damp(names: tuple[str, ...], stop_after: int | None = None) -> Callable[..., dict[str, torch.Tensor]]:
    """A callback that scales tensors, and may interrupt after a step."""

    def on_step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        pipe._interrupt = step == stop_after
        return {name: tensors[name] * 0.95 for name in names}

    return on_step_end


def text_pipeline() -> Results:
    """`LandscapeVideoPipeline` with its own arguments and with what it inherits, each time freshly loaded."""
    pipe = load(LandscapeVideoPipeline)
    yield "frames", sample(pipe, PROMPT, **TEXT | WITH_FRAMES)
    yield (
        "linear, not square",
        sample(pipe, PROMPT, height=64, width=96, **TEXT | WITH_FRAMES | {"sofp_mode": "linear"}),
    )
    yield "no guidance", sample(pipe, PROMPT, **TEXT | {"guidance_scale": 1.0, "eta": 0.0})
    two = {
        "prompt": [PROMPT, OTHER_PROMPT],
        "negative_prompt": ["rain", "snow"],
        "seed": [1, 2],
        "decode_chunk_size": 3,
    }
    yield (
        "two prompts",
        sample(pipe, **two, **TEXT | {"guidance_scale": 8.0, "output_type": "np", "interpolate": False}),
    )

    tensors = ("latents", "prompt_embeds", "negative_prompt_embeds")
    for name, stop_after in (("callback", None), ("interrupt", 1)):
        callback = {"callback_on_step_end": damp(tensors, stop_after), "callback_on_step_end_tensor_inputs": tensors}
        yield name, sample(pipe, PROMPT, **TEXT, **callback)

    embeds, negative_embeds = pipe.encode_prompt(PROMPT, "cpu", 1, True, "rain")
    given = {"prompt_embeds": embeds, "negative_prompt_embeds": negative_embeds}
    given["latents"] = torch.randn(
        1, pipe.unet.config.in_channels, 4, 16, 16, generator=torch.Generator().manual_seed(5)
    )
    yield "given tensors", sample(pipe, **given, **TEXT)

    yield from text_pipeline_inherited()
    # The stock pipeline takes the root of a negative number with eta 1.
    yield "stock pipeline", sample(load(AnimateDiffPipeline), PROMPT, **TEXT | {"eta": 0.0})


def text_pipeline_inherited() -> Results:
    """Schedulers, FreeNoise, FreeInit, FreeU, LoRA and IP-Adapter: what the base class brings."""
    for scheduler_class in (EulerDiscreteScheduler, HeunDiscreteScheduler, DPMSolverMultistepScheduler):
        pipe = load(LandscapeVideoPipeline)
        pipe.scheduler = scheduler_class.from_config(pipe.scheduler.config)
        yield scheduler_class.__name__, sample(pipe, PROMPT, **TEXT | {"eta": 0.0})

    pipe = load(LandscapeVideoPipeline)
    pipe.enable_free_noise(context_length=4, context_stride=2)
    yield "FreeNoise", sample(pipe, {0: PROMPT, 7: OTHER_PROMPT}, **TEXT | {"num_frames": 8})
    pipe.disable_free_noise()
    pipe.enable_free_init(num_iters=2, use_fast_sampling=True)
    yield "FreeInit", sample(pipe, PROMPT, **TEXT)
    pipe.disable_free_init()
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    yield "FreeU", sample(pipe, PROMPT, **TEXT)
    pipe.disable_freeu()

    torch.manual_seed(0)
    pipe.unet.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False))
    yield "LoRA", sample(pipe, PROMPT, cross_attention_kwargs={"scale": 0.5}, **TEXT)

    pipe = load(LandscapeVideoPipeline)
    pipe.load_ip_adapter(ip_adapter_weights(pipe), subfolder="", weight_name="", image_encoder_folder=None)
    image_embeds = [torch.linspace(-1, 1, 2 * 8).reshape(2, 1, 8)]
    yield "IP-Adapter", sample(pipe, PROMPT, ip_adapter_image_embeds=image_embeds, **TEXT)


def ip_adapter_weights(pipe: DiffusionPipeline) -> dict[str, dict[str, torch.Tensor]]:
    """A random IP-Adapter: 8 image channels in, 4 tokens out."""
    generator = torch.Generator().manual_seed(3)
    width = pipe.unet.config.cross_attention_dim
    image_proj = {
        "proj.weight": torch.randn(4 * width, 8, generator=generator),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }
    ip_adapter = {}
    names = [name for name in pipe.unet.attn_processors if "motion_modules" not in name and "attn2" in name]
    for index, name in enumerate(names):  # diffusers counts text attentions in this order, by odd numbers
        channels = pipe.unet.get_submodule(name.removesuffix(".processor")).inner_dim
        for projection in ("to_k_ip", "to_v_ip"):
            weight = torch.randn(channels, width, generator=generator)
            ip_adapter[f"{2 * index + 1}.{projection}.weight"] = weight
    return {"image_proj": image_proj, "ip_adapter": ip_adapter}


def image_pipeline(painting: str) -> Results:
    """`LandscapeImageToVideoPipeline` from image, text and both, in one stage and in two."""
    image = Image.open(painting)
    pipe = load(LandscapeImageToVideoPipeline)
    held = IMAGE | {"hold_first_frame": True, "guidance_order": "picture_first"}
    yield "frames", sample(pipe, PROMPT, image, **held | WITH_FRAMES)
    yield "as in the paper", sample(pipe, PROMPT, image, **IMAGE | {"guidance_scale": 8.0})
    yield "eta 1, padded", sample(pipe, PROMPT, image, **held | {"eta": 1.0, "fit": "pad"})
    yield "image only", sample(pipe, None, image, **held)
    yield "text only", sample(pipe, PROMPT, **held)

    # British spelling today, American by the end of the issue
    spelling = next(name for name in inspect.signature(pipe.__call__).parameters if name.startswith("match_stage_col"))
    stages = {"prompts": [PROMPT, OTHER_PROMPT], "image": image, "drop_duplicate_frame": True}
    yield "two stages", sample(pipe, **stages, **{spelling: True}, **held | WITH_FRAMES)
    yield "two stages, latents", sample(pipe, **stages, **IMAGE)

    batch = {"prompt": [PROMPT, OTHER_PROMPT], "image": [image, image.rotate(90)], "negative_prompt": "rain"}
    yield "two images", sample(pipe, **batch, seed=[1, 2], height=64, width=96, **held | {"retention_scale": 0.5})
    tensors = ("latents", "prompt_embeds")
    for name, stop_after in (("callback", None), ("interrupt", 1)):
        callback = {"callback_on_step_end": damp(tensors, stop_after), "callback_on_step_end_tensor_inputs": tensors}
        yield name, sample(pipe, PROMPT, image, **callback, **held)
    latents = torch.randn(1, pipe.unet.config.in_channels, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    yield "given latents", sample(pipe, PROMPT, image, latents=latents, **held)
    for scheduler_class in (EulerDiscreteScheduler, DPMSolverMultistepScheduler):
        pipe.scheduler = scheduler_class.from_config(pipe.scheduler.config)
        yield scheduler_class.__name__, sample(pipe, PROMPT, image, **held)


def sofp(clip: str) -> Results:
    """Interpolation of a rendered clip in all modes, with DIS, and with RAFT of random weights."""
    frames = torch.from_numpy(read_video(clip).frames).movedim(-1, 1).float() / 255
    torch.manual_seed(0)
    save_file(raft_small(weights=None).state_dict(), "raft.safetensors")
    for name, estimator in (
        ("DIS", load_flow_estimator("dis")),
        ("RAFT", load_flow_estimator("raft-small", "raft.safetensors")),
    ):
        yield f"{name}: flow", estimator(frames[:-1], frames[1:])
        for mode in SOFP_MODES:
            yield f"{name}: {mode}", interpolate_frames(frames[:6], estimator, sofp_mode=mode, times=2)
    timestamps = [0.0, 0.25, 0.4, 0.7, 1.0, 1.1]
    yield "uneven times", interpolate_frames(frames[:6], load_flow_estimator("dis"), timestamps=timestamps)


def hub_export(painting: str) -> Results:
    """The bundled model exported as pipelines and as an adapter, and what the code in the exported folder computes."""
    exported = Path("exported")
    with_image = export_pipeline(load(LandscapeImageToVideoPipeline), exported / "image-to-video")
    text_only = export_pipeline(load(LandscapeVideoPipeline), exported / "text-to-video", torch.float16)
    adapter = MotionAdapter.from_pretrained(SHANSHUI_TINY / "motion_adapter")
    export_adapter(adapter, exported / "adapter", card="---\nlicense: apache-2.0\n---\n")
    pipe = load(DiffusionPipeline, with_image, trust_remote_code=True)
    yield "image to video", sample(pipe, PROMPT, Image.open(painting), **IMAGE)
    yield "text to video", sample(load(DiffusionPipeline, text_only, trust_remote_code=True), PROMPT, **TEXT)


def main() -> None:
    case, *arguments = sys.argv[1:]
    cases = {function.__name__: function for function in (text_pipeline, image_pipeline, sofp, hub_export)}
    with torch.no_grad():
        results = {name: np.asarray(values) for name, values in cases[case](*arguments)}
    for name, values in results.items():
        if not np.isfinite(values).all():
            sys.exit(f"{case}: {name!r} is not finite, so its hash would say little.")
    np.savez("arrays.npz", **results)


if __name__ == "__main__":
    main()
