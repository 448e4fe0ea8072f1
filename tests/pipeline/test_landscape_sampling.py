"""Recommended sampling: stored with the model's scheduler, read by both pipelines, kept by swaps and exports."""

import logging
import shutil

import pytest
import torch
from diffusers import AnimateDiffPipeline, DDIMScheduler, EulerDiscreteScheduler

from motion_adapter.export import export_pipeline
from pipeline_calls import Steps, recommend, sample
from pipeline_landscape_video import (
    SHANSHUI_TINY,
    LandscapeImageToVideoPipeline,
    LandscapeVideoPipeline,
    resolve_sampling,
)
from retention_models import build_image_to_video, painting
from tiny_models import build_scheduler


STORED = {
    "text": {"guidance_scale": 3.0, "eta": 0.5, "num_inference_steps": 3},
    "image": {"guidance_scale": 2.0, "image_guidance_scale": 1.25},
}


def recommending_scheduler():
    scheduler = build_scheduler()
    scheduler.register_to_config(_landscape_sampling=STORED)
    return scheduler


def test_settings_come_from_the_call_then_the_model_then_the_paper():
    config = {"_landscape_sampling": STORED}
    assert resolve_sampling({}, "text") == {"num_inference_steps": 25, "guidance_scale": 8.0, "eta": 0.0}
    assert resolve_sampling({}, "image")["image_guidance_scale"] == 1.5
    assert resolve_sampling(config, "text") == STORED["text"]
    assert resolve_sampling(config, "text", eta=0.0, guidance_scale=None) == STORED["text"] | {"eta": 0.0}
    assert resolve_sampling(config, "image") == {"num_inference_steps": 25, "eta": 0.0, **STORED["image"]}


def test_an_unknown_recommendation_is_refused():
    config = {"_landscape_sampling": {"text": {"guidance": 2.0}}}
    with pytest.raises(ValueError, match="must hold settings among .* for 'text', got 'guidance'"):
        resolve_sampling(config, "text")


def test_a_call_uses_what_the_model_recommends(tiny_pipeline):
    pipe = tiny_pipeline(scheduler=recommending_scheduler())
    steps = Steps(pipe)
    recommended = sample(pipe, num_inference_steps=None)
    assert (steps.count, pipe.guidance_scale) == (3, 3.0)
    given = sample(pipe, num_inference_steps=3, guidance_scale=3.0, eta=0.5)
    assert torch.equal(recommended, given)
    assert not torch.equal(recommended, sample(pipe, num_inference_steps=3, guidance_scale=3.0, eta=0.0))
    assert not torch.equal(recommended, sample(pipe, num_inference_steps=3, guidance_scale=8.0, eta=0.5))


def test_a_call_with_an_image_uses_the_settings_of_its_task():
    pipe = build_image_to_video(scheduler=recommending_scheduler())
    recommended = sample(pipe, image=painting())
    given = sample(pipe, image=painting(), guidance_scale=2.0, image_guidance_scale=1.25, eta=0.0)
    assert torch.equal(recommended, given)
    assert not torch.equal(recommended, sample(pipe, image=painting(), image_guidance_scale=1.5))


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        (LandscapeVideoPipeline, {"num_inference_steps": 25, "guidance_scale": 2.0, "eta": 1.0}),
        (
            LandscapeImageToVideoPipeline,
            {"num_inference_steps": 25, "guidance_scale": 4.0, "image_guidance_scale": 1.5, "eta": 0.0},
        ),
    ],
    ids=["text", "image"],
)
def test_the_bundled_model_recommends(pipeline, expected):
    assert pipeline.from_pretrained(SHANSHUI_TINY).resolve_sampling() == expected


def test_training_the_bundled_model_anew_stores_the_same():
    from shanshui.stages.family_run import build_scheduler

    bundled = DDIMScheduler.from_pretrained(SHANSHUI_TINY, subfolder="scheduler").config
    assert build_scheduler().config["_landscape_sampling"] == bundled["_landscape_sampling"]


def test_recommendations_survive_a_swap_a_save_and_an_export(tiny_pipeline, tmp_path):
    pipe = tiny_pipeline(scheduler=recommending_scheduler())
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    assert pipe.resolve_sampling() == STORED["text"]
    pipe.save_pretrained(tmp_path / "saved")
    export_pipeline(pipe, tmp_path / "exported")
    for folder in ("saved", "exported"):
        assert LandscapeVideoPipeline.from_pretrained(tmp_path / folder).resolve_sampling() == STORED["text"]


def test_recommendations_survive_the_replacement_of_a_scaled_linear_scheduler(tiny_pipeline):
    given = DDIMScheduler(beta_schedule="scaled_linear")
    given.register_to_config(_landscape_sampling=STORED)
    pipe = tiny_pipeline(scheduler=given)
    assert pipe.scheduler is not given
    assert pipe.resolve_sampling() == STORED["text"]


def test_stock_pipelines_load_the_model_and_warn_of_nothing_more(tiny_pipeline, tmp_path, caplog):
    plain, recommending = tmp_path / "plain", tmp_path / "recommending"
    export_pipeline(tiny_pipeline(sparse_causal_mode=None), plain, include_code=False)
    shutil.copytree(plain, recommending)
    recommend(recommending, STORED)

    def warnings_of(folder):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            stock = AnimateDiffPipeline.from_pretrained(folder)
        return stock, [record.getMessage() for record in caplog.records]

    (stock, messages), (_, expected) = warnings_of(recommending), warnings_of(plain)
    assert messages == expected
    assert stock.scheduler.config["_landscape_sampling"] == STORED


@pytest.mark.parametrize("value", [float("nan"), "8"])
def test_a_guidance_scale_must_be_a_number(tiny_pipeline, value):
    with pytest.raises(ValueError, match=f"`guidance_scale` must be a finite number, got {value}"):
        sample(tiny_pipeline(), guidance_scale=value)
