"""Captions by models of transformers: those that answer about one picture, and those that one talks to."""

import pytest
from PIL import Image

from landscape_video.training.preparation.clip_captions import load_captioner
from tiny_models import build_captioner, build_chat_captioner


@pytest.mark.parametrize("build", [build_captioner, build_chat_captioner])
def test_a_model_describes_pictures_in_words_and_twice_the_same(tmp_path, build):
    describe = load_captioner(str(build(tmp_path)), "describe this river")
    pictures = [Image.new("RGB", (64, 48), color) for color in ("black", "gray", "white")]
    said = describe(pictures)
    assert said and set(said.split()) & {"mist", "mountain", "river", "boat", "moves", "describe", "this"}
    assert not said.startswith("describe this river") and describe(pictures) == said


def test_a_model_of_another_kind_is_refused_in_a_line(tmp_path):
    with pytest.raises(ValueError, match="--caption_model .* cannot be loaded as an image-text-to-text model"):
        load_captioner(str(tmp_path), "describe")
