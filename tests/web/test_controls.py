"""Controls come from the settings, and what a visitor sends is checked on the server."""

from dataclasses import fields

import gradio as gr
import pytest

from landscape_video.generation.settings import ImageToVideoSettings, TextToVideoSettings
from landscape_video.web.controls import (
    NOT_ON_THE_PAGE,
    Limits,
    PageError,
    check_prompt,
    fields_on_the_page,
    make_control,
    settings_from,
)
from landscape_video.web.field_texts import FIELD_TEXTS


LIMITS = Limits(frames=16, side=64, steps=10, prompt=20)


def refused(language: str = "en", **values: object) -> str:
    with pytest.raises(PageError) as caught:
        settings_from(TextToVideoSettings, values, LIMITS, language)
    return str(caught.value)


def test_every_setting_has_words_in_both_languages():
    assert set(FIELD_TEXTS) == {each.name for each in fields(ImageToVideoSettings)} - set(NOT_ON_THE_PAGE)
    for (english, chinese), explanations in FIELD_TEXTS.values():
        assert english.isascii() and not chinese.isascii() and all(explanations)


def test_no_control_names_a_file():
    names = {each.name for each in fields_on_the_page(ImageToVideoSettings)}
    assert "flow_weights" not in names and "seed" in names


def test_controls_fit_their_settings():
    kinds = {
        each.name: type(make_control(each, each.default, LIMITS)) for each in fields_on_the_page(TextToVideoSettings)
    }
    assert kinds["num_frames"] is gr.Slider and kinds["interpolate"] is gr.Checkbox
    assert kinds["sofp_mode"] is gr.Dropdown and kinds["negative_prompt"] is gr.Textbox


def test_values_of_a_browser_become_settings():
    values = {"num_frames": 4.0, "seed": "7", "fps": "", "guidance_scale": 2, "eta": None, "interpolate": False}
    expected = TextToVideoSettings(num_frames=4, seed=7, guidance_scale=2, interpolate=False)
    assert settings_from(TextToVideoSettings, values, LIMITS, "en") == expected


def test_limits_hold_on_the_server():
    assert refused(num_frames=17) == "Frames must be at most 16 on this page, got 17."
    assert refused(width=72) == "Width must be at most 64 on this page, got 72."
    assert refused(height=10**9) == "Height must be at most 64 on this page, got 1000000000."
    assert refused(steps=11) == "Steps must be at most 10 on this page, got 11."
    assert refused(negative_prompt="x" * 21) == "The prompt must have at most 20 characters, got 21."
    assert "Seed must be at most" in refused(seed=2**60)


def test_errors_name_labels_in_the_language_of_the_visitor():
    assert refused(steps=0) == "Steps must be at least 1, got 0."
    assert refused(seed="seven") == "Seed must be a number, got seven."
    assert refused("zh", seed="七") == "随机种子须为数字，现在是 七。"
    assert refused("zh", num_frames=17) == "帧数在本页最多为 16，现在是 17。"
    assert refused(num_frames="nan").startswith("Frames must be")


def test_prompts_are_checked():
    assert check_prompt("  a boat ", LIMITS, "en") == "a boat"
    for prompt in ("", "   ", None, "x" * 21):
        with pytest.raises(PageError):
            check_prompt(prompt, LIMITS, "en")
