"""Loading: folders, files and names on the Hub, one rule for all parts, and errors that name the setting."""

from dataclasses import replace

import pytest
import torch
from diffusers import MotionAdapter
from safetensors.torch import save_file

from landscape_video.generation.generate_clip import generate_clip
from landscape_video.generation.models import check_models, find_weights, load_motion_adapter, load_pipeline
from landscape_video.generation.settings import ImageModelSettings, ModelSettings, TextToVideoSettings
from motion_adapter.convert import save_animatediff
from motion_adapter.export import export_pipeline
from pipeline_landscape_video import SHANSHUI_TINY, LandscapeImageToVideoPipeline, LandscapeVideoPipeline
from pipeline_landscape_video.landscape_decoder import DoubleSizeDecoder


def test_the_class_follows_the_settings(models):
    pipe = load_pipeline(ModelSettings(device="cpu"))
    assert type(pipe) is LandscapeVideoPipeline and pipe.is_optimized
    assert not load_pipeline(ModelSettings(device="cpu", optimize=False)).is_optimized
    assert type(load_pipeline(ImageModelSettings(device="cpu"))) is LandscapeImageToVideoPipeline


def test_decoders_are_those_of_the_model_or_named_or_native(models, tmp_path):
    bundled = load_pipeline(ModelSettings(device="cpu"))
    assert type(bundled.frame_decoder) is DoubleSizeDecoder
    assert load_pipeline(ModelSettings(device="cpu", decoder="native")).frame_decoder is None
    tiny = ModelSettings(model=str(models / "video"), device="cpu")
    assert load_pipeline(tiny).frame_decoder is None
    DoubleSizeDecoder.from_vae(load_pipeline(tiny).vae).save_pretrained(tmp_path / "decoder")
    named = load_pipeline(replace(tiny, decoder=str(tmp_path / "decoder")))
    clip = generate_clip(named, "mist", TextToVideoSettings(num_frames=2, steps=1, seed=1, interpolate=False))
    assert clip.frames.shape == (2, 128, 128, 3) and clip.size == (128, 128)
    assert clip.metadata["height"] == 64  # the setting that makes it again
    with pytest.raises(ValueError, match="^`decoder` .*: does not load: its latent_channels is 8, that of"):
        load_pipeline(replace(tiny, decoder=str(SHANSHUI_TINY / "decoder")))
    with pytest.raises(ValueError, match="^`decoder` nowhere/x/: no such file or folder"):
        check_models(replace(tiny, decoder="nowhere/x/"))
    with pytest.raises(ValueError, match="^`decoder` .*: does not load: it is of the class AutoencoderKL"):
        load_pipeline(replace(tiny, decoder=str(SHANSHUI_TINY / "vae")))


def test_an_adapter_file_gives_the_same_clip_as_its_folder(models, tmp_path):
    adapter = load_motion_adapter(models / "adapter", torch.float32)
    save_animatediff(adapter, tmp_path / "adapter.safetensors")
    settings = TextToVideoSettings(num_frames=2, steps=1, seed=1, interpolate=False)
    clips = []
    for source in (models / "adapter", tmp_path / "adapter.safetensors"):
        loaded = ModelSettings(model=str(models / "still"), motion_adapter=str(source), device="cpu")
        check_models(loaded)
        clips.append(generate_clip(load_pipeline(loaded), "mist", settings).frames)
    assert (clips[0] == clips[1]).all()


def test_a_published_pipeline_loads_by_its_name_without_its_code(hub, tiny_pipeline, tmp_path):
    folder = export_pipeline(tiny_pipeline(), tmp_path / "export")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    hub.create("me/mountains", files | {"pipeline.py": b"raise SystemExit('code of a repository was run')"})
    pipe = load_pipeline(ModelSettings(model="me/mountains", device="cpu"))
    assert type(pipe) is LandscapeVideoPipeline
    with pytest.raises(ValueError, match="^`model` me/none: me/none is not on the Hub"):
        load_pipeline(ModelSettings(model="me/none", device="cpu"))


def test_adapters_of_both_layouts(models, tmp_path):
    sizes = {"block_out_channels": (32, 64), "motion_layers_per_block": 1, "motion_norm_num_groups": 32}
    adapter = MotionAdapter(**sizes, motion_num_attention_heads=8, use_motion_mid_block=False)
    save_file(adapter.state_dict(), tmp_path / "lightning_diffusers.safetensors")
    save_animatediff(adapter, tmp_path / "lightning_comfyui.safetensors")
    for name in ("lightning_diffusers.safetensors", "lightning_comfyui.safetensors"):
        loaded = load_motion_adapter(tmp_path / name, torch.float32)
        assert loaded.config.block_out_channels in ((32, 64), [32, 64])
        weights = loaded.state_dict()
        assert weights.keys() == adapter.state_dict().keys()
        assert all(torch.equal(weights[key], tensor) for key, tensor in adapter.state_dict().items())
    assert load_motion_adapter(models / "adapter", torch.bfloat16).dtype is torch.bfloat16


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ModelSettings(model="./none"), "`model` ./none: no such file or folder."),
        (ModelSettings(motion_adapter="none"), "`motion_adapter` none: no such file or folder."),
        (ModelSettings(lora=["./none"]), "`lora` ./none: no such file or folder."),
        (ImageModelSettings(image_retention="a/b/c"), "`image_retention` a/b/c: no such file or folder."),
    ],
)
def test_a_missing_path_is_named_before_anything_loads(settings, message):
    with pytest.raises(ValueError) as caught:
        check_models(settings)
    assert str(caught.value) == message
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        find_weights("./none")
