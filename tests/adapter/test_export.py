"""Export pipelines and adapters: what the folder holds, how it loads, and that it is written whole or not at all."""

import json

import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    DDIMScheduler,
    DiffusionPipeline,
    MotionAdapter,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from safetensors.torch import load_file, save_file

from motion_adapter.export import export_adapter, export_pipeline, extract_image_unet
from motion_adapter.validate import check_export
from pipeline_calls import sample
from pipeline_landscape_video import ImageRetention, LandscapeImageToVideoPipeline, LandscapeVideoPipeline
from retention_models import build_image_to_video, fuse_projections


CODE_FILES = {
    "pipeline.py",
    "landscape_acceleration.py",
    "landscape_color_anchor.py",
    "landscape_denoising.py",
    "landscape_fast_layers.py",
    "landscape_frame_interpolation.py",
    "landscape_frame_noise.py",
    "landscape_free_noise.py",
    "landscape_guidance.py",
    "landscape_motion_attention.py",
    "landscape_optical_flow.py",
    "landscape_pipeline_mixin.py",
    "landscape_prompt_schedule.py",
    "landscape_sampling.py",
    "landscape_scheduler.py",
    "landscape_sofp.py",
    "landscape_unet_compatibility.py",
    "landscape_warping.py",
    "landscape_windows.py",
}
FOLDERS = {"vae", "text_encoder", "tokenizer", "unet", "motion_adapter", "scheduler"}


def latents_of(pipe):
    return sample(pipe, output_type="latent")


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_folder_holds_code_and_each_weight_once(tiny_pipeline, tmp_path):
    pipe = tiny_pipeline()
    assert export_pipeline(pipe, tmp_path / "export") == tmp_path / "export"
    assert names(tmp_path / "export") == CODE_FILES | FOLDERS | {"model_index.json"}
    assert names(tmp_path) == {"export"}  # nothing is left beside it
    index = json.loads((tmp_path / "export" / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline", "LandscapeVideoPipeline"]
    assert index["unet"] == ["diffusers", "UNet2DConditionModel"]
    assert index["motion_adapter"] == ["diffusers", "MotionAdapter"]
    assert index["tokenizer"] == ["transformers", "CLIPTokenizer"]
    assert index["image_encoder"] == [None, None]
    image_weights = load_file(tmp_path / "export" / "unet" / "diffusion_pytorch_model.safetensors")
    motion_weights = load_file(tmp_path / "export" / "motion_adapter" / "diffusion_pytorch_model.safetensors")
    assert image_weights.keys() | motion_weights.keys() == pipe.unet.state_dict().keys()
    assert not image_weights.keys() & motion_weights.keys()


def test_folder_with_a_branch_holds_both_pipelines_and_the_branch_with_its_class(tmp_path):
    pipe = build_image_to_video()
    export_pipeline(pipe, tmp_path / "export", dtype=torch.float16)
    pictures = {"pipeline_image_to_video.py", "landscape_prompt_stages.py", "landscape_pictures.py"}
    pictures |= {"landscape_first_frame_inpainting.py", "landscape_image_retention.py", "image_retention"}
    assert names(tmp_path / "export") == CODE_FILES | FOLDERS | pictures | {"model_index.json"}
    assert names(tmp_path / "export" / "image_retention") == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "landscape_image_retention.py",
    }
    index = json.loads((tmp_path / "export" / "model_index.json").read_text())
    assert index["_class_name"] == ["pipeline_image_to_video", "LandscapeImageToVideoPipeline"]
    assert index["image_retention"] == ["landscape_image_retention", "ImageRetention"]
    check_export(tmp_path / "export", torch.float16)
    for file in tmp_path.rglob("*.py"):
        file.write_text("raise AssertionError('this code must not run')")
    loaded = LandscapeImageToVideoPipeline.from_pretrained(tmp_path / "export")
    assert type(loaded.image_retention) is ImageRetention
    weights = zip(loaded.image_retention.parameters(), pipe.image_retention.parameters(), strict=True)
    assert all(torch.equal(ours, theirs.half().float()) for ours, theirs in weights)
    assert not hasattr(LandscapeVideoPipeline.from_pretrained(tmp_path / "export"), "image_retention")


def test_the_files_of_a_branch_are_checked(tmp_path):
    export = export_pipeline(build_image_to_video(), tmp_path / "export", include_code=False)
    check_export(export)
    code = export / "image_retention" / "landscape_image_retention.py"
    content = code.read_bytes()
    code.unlink()
    with pytest.raises(ValueError, match="image_retention: code files are missing: landscape_image_retention.py"):
        check_export(export)
    code.write_bytes(content)
    weights = export / "image_retention" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["zero_conv_mid.weight"][0] = torch.nan
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="not finite in zero_conv_mid.weight"):
        check_export(export)
    pipe = build_image_to_video()
    fuse_projections(pipe.image_retention)
    with pytest.raises(ValueError, match="`image_retention` has .* weights that its config does not describe"):
        export_pipeline(pipe, tmp_path / "fused")


def test_folder_without_code_loads_as_ours(tiny_pipeline, tmp_path):
    pipe = tiny_pipeline(motion_norm="frame")
    export_pipeline(pipe, tmp_path / "plain", include_code=False)
    assert names(tmp_path / "plain") == FOLDERS | {"model_index.json"}
    loaded = LandscapeVideoPipeline.from_pretrained(tmp_path / "plain")
    assert loaded.unet.config.sparse_causal_mode == "previous" and loaded.unet.config.motion_norm == "frame"
    assert torch.equal(latents_of(loaded), latents_of(pipe))


def test_folder_with_code_loads_as_our_class_without_running_it(tiny_pipeline, tmp_path):
    pipe = tiny_pipeline()
    export_pipeline(pipe, tmp_path / "export")
    (tmp_path / "export" / "pipeline.py").write_text("raise AssertionError('this code must not run')")
    loaded = LandscapeVideoPipeline.from_pretrained(tmp_path / "export")
    assert type(loaded) is LandscapeVideoPipeline
    assert torch.equal(latents_of(loaded), latents_of(pipe))
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        DiffusionPipeline.from_pretrained(tmp_path / "export")


def test_parts_load_in_stock_pipelines(tiny_pipeline, tmp_path):
    export_pipeline(tiny_pipeline(sparse_causal_mode="full"), tmp_path / "plain", include_code=False)
    stock = AnimateDiffPipeline.from_pretrained(tmp_path / "plain")
    ours = LandscapeVideoPipeline.from_pretrained(tmp_path / "plain")
    with torch.no_grad():
        arguments = (torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 10, torch.ones(3, 77, 16))
        assert torch.equal(stock.unet(*arguments).sample, ours.unet(*arguments).sample)
    images = StableDiffusionPipeline.from_pretrained(
        tmp_path / "plain", safety_checker=None, feature_extractor=None, requires_safety_checker=False
    )
    assert isinstance(images.unet, UNet2DConditionModel)


def test_trained_weights_are_written_and_not_those_of_the_first_adapter(tiny_pipeline, tmp_path):
    pipe = tiny_pipeline()
    with torch.no_grad():
        for name, weight in pipe.unet.named_parameters():
            if "motion_modules" in name:
                weight.mul_(1.5)
    export_pipeline(pipe, tmp_path / "plain", include_code=False)
    adapter = MotionAdapter.from_pretrained(tmp_path / "plain" / "motion_adapter")
    for name, weight in adapter.state_dict().items():
        assert torch.equal(weight, pipe.unet.state_dict()[name])
    assert torch.equal(latents_of(LandscapeVideoPipeline.from_pretrained(tmp_path / "plain")), latents_of(pipe))


def test_mode_and_norm_of_an_adapter_beside_a_new_unet_are_kept(tiny_pipeline, tiny_components, tmp_path):
    pipe, components = tiny_pipeline(motion_norm="frame"), tiny_components()
    pipe.unet = UNetMotionModel.from_unet2d(components["unet"], components["motion_adapter"])
    export_pipeline(pipe, tmp_path / "plain", include_code=False)
    config = json.loads((tmp_path / "plain" / "motion_adapter" / "config.json").read_text())
    assert config["sparse_causal_mode"] == "previous" and config["motion_norm"] == "frame"


def test_an_export_says_how_other_programs_run_it(tiny_pipeline, tmp_path, caplog):
    pipe = tiny_pipeline(motion_norm="frame")
    export_pipeline(pipe, tmp_path / "pipeline", include_code=False)
    export_adapter(pipe.motion_adapter, tmp_path / "adapter")
    lines = [record.getMessage() for record in caplog.records if record.name == "motion_adapter.export"]
    assert len(lines) == 2 and lines[0] == lines[1]
    assert "'previous' and motion_norm 'frame': diffusers' own pipelines run it with full attention" in lines[0]


def test_exporting_changes_nothing(tiny_pipeline, tmp_path):
    pipe = tiny_pipeline()
    before, config = latents_of(pipe), dict(pipe.config)
    export_pipeline(pipe, tmp_path / "half", dtype=torch.float16)
    assert pipe.unet.dtype == pipe.vae.dtype == pipe.text_encoder.dtype == torch.float32
    assert torch.equal(latents_of(pipe), before)
    assert dict(pipe.config) == config


def test_no_local_path_is_written(tiny_pipeline, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "secret-place")
    pipe = LandscapeVideoPipeline.from_pretrained(tmp_path / "secret-place")
    export_pipeline(pipe, tmp_path / "export")
    files = [path for path in (tmp_path / "export").rglob("*") if path.is_file()]
    assert files and not [path for path in files if b"secret-place" in path.read_bytes()]


def test_half_precision_halves_the_files_and_loads_in_float32(tiny_pipeline, tmp_path):
    pipe = tiny_pipeline()
    export_pipeline(pipe, tmp_path / "half", dtype=torch.float16, include_code=False)
    for folder in ("unet", "motion_adapter", "vae", "text_encoder"):
        (weights,) = (tmp_path / "half" / folder).glob("*.safetensors")
        assert {weight.dtype for weight in load_file(weights).values()} == {torch.float16}
    loaded = LandscapeVideoPipeline.from_pretrained(tmp_path / "half")
    assert {loaded.unet.dtype, loaded.vae.dtype, loaded.text_encoder.dtype} == {torch.float32}
    torch.testing.assert_close(latents_of(loaded), latents_of(pipe), atol=0.05, rtol=0.05)
    in_half = LandscapeVideoPipeline.from_pretrained(tmp_path / "half", dtype=torch.bfloat16)
    assert {in_half.unet.dtype, in_half.vae.dtype, in_half.text_encoder.dtype} == {torch.bfloat16}


def test_a_pipeline_in_half_precision_loads_in_float32_too(tiny_pipeline, tmp_path):
    export_pipeline(tiny_pipeline().to(torch.bfloat16), tmp_path / "half", include_code=False)
    loaded = LandscapeVideoPipeline.from_pretrained(tmp_path / "half")
    assert loaded.text_encoder.dtype == loaded.unet.dtype == torch.float32
    assert torch.isfinite(latents_of(loaded)).all()


def test_values_that_half_precision_cannot_hold_are_refused(tiny_pipeline, tmp_path):
    pipe = tiny_pipeline()
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias[0] = 1e5
    with pytest.raises(ValueError, match=r"`vae` has values that are not finite in decoder.conv_out.bias"):
        export_pipeline(pipe, tmp_path / "half", dtype=torch.float16)
    assert not names(tmp_path)
    export_pipeline(pipe, tmp_path / "full")


def test_scaled_linear_scheduler_keeps_the_motion_unet(tiny_pipeline, tmp_path):
    pipe = tiny_pipeline(motion_norm="frame")
    pipe.scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    export_pipeline(pipe, tmp_path / "plain", include_code=False)
    assert "motion_adapter" not in names(tmp_path / "plain")
    loaded = LandscapeVideoPipeline.from_pretrained(tmp_path / "plain")
    assert loaded.scheduler.config.beta_schedule == "scaled_linear"
    assert loaded.unet.config.sparse_causal_mode == "previous" and loaded.unet.config.motion_norm == "frame"
    assert torch.equal(latents_of(loaded), latents_of(pipe))


@pytest.mark.parametrize("heads", [2, (2, 4)])
def test_image_unet_makes_the_motion_unet_again(tiny_components, heads):
    from tiny_models import build_unet2d

    components = tiny_components(unet=build_unet2d(attention_head_dim=heads))
    adapter = components["motion_adapter"]
    unet = UNetMotionModel.from_unet2d(components["unet"], adapter)
    again = UNetMotionModel.from_unet2d(extract_image_unet(unet), adapter)
    assert again.config == unet.config
    for (name, weight), (name_again, weight_again) in zip(
        unet.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == name_again and torch.equal(weight, weight_again)


def test_lora_is_refused_until_it_is_fused(tiny_pipeline, tmp_path):
    from peft import LoraConfig

    pipe = tiny_pipeline()
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(ValueError, match="`unet` has .* weights that its config does not describe, such as .*to_q"):
        export_pipeline(pipe, tmp_path / "export")
    assert not names(tmp_path)


@pytest.mark.parametrize(
    "export, part, files",
    [
        (export_pipeline, None, CODE_FILES | FOLDERS | {"model_index.json"}),
        (export_adapter, "motion_adapter", CODE_FILES | {"config.json", "diffusion_pytorch_model.safetensors"}),
    ],
    ids=["pipeline", "adapter"],
)
def test_folder_with_files_is_kept_unless_told_otherwise(tiny_pipeline, tmp_path, export, part, files):
    pipe, folder = tiny_pipeline(), tmp_path / "export"
    what = pipe if part is None else getattr(pipe, part)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="export exists already"):
        export(what, folder)
    assert names(folder) == {"notes.txt"}
    export(what, folder, overwrite=True)
    assert names(folder) == files
    assert names(tmp_path) == {"export"}
    with pytest.raises(FileExistsError):
        export(what, folder / "pipeline.py", overwrite=True)


def test_failure_leaves_the_old_folder_whole(tiny_pipeline, tmp_path):
    pipe, folder = tiny_pipeline(), tmp_path / "export"
    export_pipeline(pipe, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        export_pipeline(pipe, folder, overwrite=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert names(tmp_path) == {"export"}
