import json

import pytest

from landscape_video.cli.generate import warn_about_unknown_words
from landscape_video.generation.vocabulary import unknown_words


@pytest.fixture
def model(tmp_path):
    (tmp_path / "words.json").write_text(json.dumps(["a", "boat", "on", "the", "lake", "湖", "上"]), encoding="utf-8")
    return tmp_path


def test_words_of_the_list_are_known_whatever_their_case_and_punctuation(model):
    assert unknown_words("A boat, on the LAKE! The lake's boat. 湖上", model) == []


def test_unknown_words_are_named_once_and_in_order(model):
    prompt = "a dragon on the lake, 龙上湖, a dragon's tower in 4K"
    assert unknown_words(prompt, model) == ["dragon", "龙", "tower", "in", "k"]


def test_a_model_without_a_list_has_met_every_word(tmp_path):
    assert unknown_words("a dragon", tmp_path) == []
    assert unknown_words("a dragon", None) == []  # a name on the Hub


def test_the_warning_is_one_line_that_names_the_words(model, capsys):
    warn_about_unknown_words(["a boat", "a dragon and a tower"], model)
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "dragon, and, tower" in line


def test_no_warning_without_an_unknown_word(model, capsys):
    warn_about_unknown_words(["a boat on the lake"], model)
    assert capsys.readouterr().err == ""
