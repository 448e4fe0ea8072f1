"""Buttons write palettes and camera moves into prompts, in the words that the model was trained on."""

import pytest

from landscape_video.generation.vocabulary import unknown_words
from landscape_video.web.styles import CAMERAS, PALETTES, PHRASES, camera_success, write_phrase
from pipeline_landscape_video import SHANSHUI_TINY


def test_a_phrase_replaces_another_one_of_its_kind():
    prompt = write_phrase("a boat, the camera pans left", "camera", "closer", "en")
    assert prompt == "a boat, the camera moves closer"
    assert write_phrase(prompt, "palette", "snow", "en") == "a boat, the camera moves closer, under deep snow"
    assert write_phrase(prompt, "camera", "closer", "en") == prompt


def test_a_prompt_keeps_its_language():
    assert write_phrase("湖上一叶孤舟", "camera", "left", "en") == "湖上一叶孤舟，镜头左移"
    assert write_phrase("a boat", "palette", "ink", "zh") == "a boat, in ink wash"
    assert write_phrase("", "palette", "ink", "zh") == "水墨晕染"


def test_the_bundled_model_knows_all_phrases():
    said = [phrase for kind in PHRASES.values() for phrases in kind.values() for phrase in phrases.values()]
    assert unknown_words("\n".join(said), SHANSHUI_TINY) == []
    assert tuple(PHRASES["palette"]) == PALETTES and tuple(PHRASES["camera"]) == CAMERAS


@pytest.mark.parametrize("language", ["en", "zh"])
def test_success_rates_are_those_of_the_card(language):
    rates = camera_success(SHANSHUI_TINY, language)
    assert set(rates) == set(CAMERAS)
    assert all(0 <= rate <= 1 for rate in rates.values())


def test_success_rates_are_read_from_the_table_of_the_language(tmp_path):
    head = f"| Camera asked for, and seen | {' | '.join(CAMERAS)} |\n| --- | --- | --- | --- | --- | --- |\n"
    rows = "| left | 1 | 3 | 0 | 0 | 0 |\n| away | 0 | 0 | 0 | 0 | 5 |\n\n| left | 9 | 9 | 9 | 9 | 9 |\n"
    (tmp_path / "README.md").write_text(f"### English prompts\n\n{head}{rows}", encoding="utf-8")
    assert camera_success(tmp_path, "en") == {"left": 0.75, "away": 1.0}
    assert camera_success(tmp_path, "zh") == {} == camera_success(None, "en")
