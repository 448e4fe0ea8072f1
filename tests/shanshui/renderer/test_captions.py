"""Captions of rendered clips: what they say, how variedly, and that they can be read back."""

import dataclasses
import itertools
import re
from collections import Counter

import numpy as np
import pytest

from caption_parser import find_attributes, parse_caption, scan, vocabulary
from shanshui.renderer import caption_words, captions
from shanshui.renderer.captions import caption, words_of
from shanshui.renderer.scene import ATTRIBUTES, CHOICES, LANGUAGES, Scene, sample_scene
from shanshui.stages.training_data import draw_caption, motion_caption


FULL = Scene("autumn", 4, "right", "river", "left", "right", "left", "petals", "bamboo", "moon", True, True)
PLAIN = Scene("ink", 3, "still")


def sampled(language: str, number: int = 1200) -> list[tuple[Scene, str]]:
    rng = np.random.default_rng(7)
    scenes = [sample_scene(rng) for _ in range(number)]
    return [(scene, caption(scene, rng, language)) for scene in scenes]


@pytest.fixture(scope="module", params=LANGUAGES)
def language_and_samples(request) -> tuple[str, list[tuple[Scene, str]]]:
    return request.param, sampled(request.param)


def without_seed(scene: Scene) -> Scene:
    return dataclasses.replace(scene, seed=0)


def shown(scene: Scene) -> dict[str, object]:
    """The attributes that a caption of the scene mentions."""
    return {name: value for name in ATTRIBUTES if (value := getattr(scene, name)) not in ("none", False)}


def test_round_trip(language_and_samples):
    for scene, text in language_and_samples[1]:
        assert parse_caption(text) == without_seed(scene), text


def test_round_trip_survives_case_and_punctuation(language_and_samples):
    for scene, text in language_and_samples[1][:300]:
        bare = re.sub(r"[^\w\s]", " ", text).upper()
        assert parse_caption(bare) == without_seed(scene), text
        assert parse_caption(text.replace("，", "").replace("。", "")) == without_seed(scene), text


def test_at_least_nine_in_ten_captions_are_distinct(language_and_samples):
    assert len({text for _, text in language_and_samples[1][:1000]}) >= 900


def test_one_scene_has_many_captions():
    for language, scene in itertools.product(LANGUAGES, (FULL, PLAIN)):
        rng = np.random.default_rng(0)
        texts = {caption(scene, rng, language) for _ in range(200)}
        assert len(texts) >= (195 if scene is FULL else 90)


@pytest.mark.parametrize("language, limit", [("en", 45), ("zh", 70)])
def test_captions_are_short(language, limit):
    rng = np.random.default_rng(1)
    crowded = [caption(FULL, rng, language) for _ in range(200)]
    texts = crowded + [text for _, text in sampled(language, 300)]
    counts = [len(text.split()) if language == "en" else len(text) for text in texts]
    assert max(counts) <= limit


@pytest.mark.parametrize("language, most", [("en", 250), ("zh", 250)])
def test_vocabulary_is_compact_and_complete(language, most):
    known = vocabulary(language)
    assert 150 <= len(known) <= most
    used = Counter()
    for _, text in sampled(language, 1200):
        used.update(re.findall(r"[a-z]+|[\u4e00-\u9fff]", text.lower()))
    assert set(used) <= known
    assert len(set(used)) >= 0.97 * len(known)


@pytest.mark.parametrize("language", LANGUAGES)
def test_order_of_attributes_varies(language):
    rng = np.random.default_rng(2)
    scene = Scene("dawn", 2, "away", light="moon", pavilion=True)
    first = Counter()
    for _ in range(200):
        text = caption(scene, rng, language)
        tokens = [token for token in words_of(text.lower(), language) if token[0].isalnum()]
        meanings = [meaning for _, meaning in scan(tokens) if meaning]
        first[tuple(attribute for attribute, _ in meanings)] += 1
    assert len(first) >= 12
    assert {order[0] for order in first} >= {"palette", "layers", "camera"}
    assert {order[-1] for order in first} >= {"palette", "layers", "camera", "light", "pavilion"}
    assert max(first.values()) <= 0.4 * sum(first.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_same_generator_same_caption(language):
    def draw(seed: int) -> list[str]:
        rng = np.random.default_rng(seed)
        return [caption(FULL, rng, language) for _ in range(5)]

    assert draw(3) == draw(3)
    assert draw(3) != draw(4)


@pytest.mark.parametrize("language", LANGUAGES)
def test_seed_of_the_scene_plays_no_part(language):
    texts = {
        caption(dataclasses.replace(FULL, seed=seed), np.random.default_rng(5), language) for seed in (0, 1, 2**31 - 1)
    }
    assert len(texts) == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_pair_of_values_round_trips(language):
    rng = np.random.default_rng(11)
    for a, b in itertools.combinations(ATTRIBUTES, 2):
        for value_a, value_b in itertools.product(CHOICES[a], CHOICES[b]):
            values = {"water": "lake", a: value_a, b: value_b}
            if values.get("boat", "none") != "none" and values["water"] == "none":
                continue
            scene = Scene(**values)
            text = caption(scene, rng, language)
            assert parse_caption(text) == scene, text
            assert find_attributes(text) == shown(scene), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_phrase_means_one_thing(language):
    table = caption_words.PHRASEBOOKS[language].phrases
    meanings = {}
    for name, values in table.items():
        attribute = caption_words.FORMS.get(name, name)
        for value, templates in values.items():
            for template in templates:
                for phrase in captions._expand(template):
                    for form in (r"\1", r"\2"):
                        text = captions._VERB.sub(form, phrase)
                        assert find_attributes(text) == {attribute: value}, text
                        assert meanings.setdefault(text, (attribute, value)) == (attribute, value), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_tables_can_say_every_scene(language):
    table = caption_words.PHRASEBOOKS[language].phrases
    for attribute, allowed in CHOICES.items():
        assert set(table[attribute]) == set(allowed) - {"none", False}
    assert set(table["palette_title"]) == set(CHOICES["palette"])
    assert set(table["water_place"]) == {"lake", "river"}


def test_absent_motifs_are_not_mentioned(language_and_samples):
    for scene, text in language_and_samples[1][:400]:
        assert find_attributes(text) == shown(scene), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_is_to_stay_unsaid_is_not_said(language):
    rng = np.random.default_rng(3)
    for _ in range(400):
        scene = sample_scene(rng)
        unsaid = {name for name in ATTRIBUTES if rng.random() < 0.4}
        text = caption(scene, rng, language, unsaid=unsaid)
        assert find_attributes(text) == {k: v for k, v in shown(scene).items() if k not in unsaid}, text
    assert caption(FULL, rng, language, unsaid=ATTRIBUTES) == ""


def test_unknown_unsaid_attribute_is_refused():
    with pytest.raises(ValueError, match=r"`unsaid` must hold names .* got \['color'\]"):
        caption(PLAIN, np.random.default_rng(0), unsaid=["color", "boat"])


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_boat_is_told_with_its_water_once(language):
    rng = np.random.default_rng(0)
    scene = Scene(water="lake", boat="still")
    for _ in range(50):
        text = caption(scene, rng, language)
        assert text.count("lake" if language == "en" else "湖") == 1, text


@pytest.mark.parametrize(
    "text, scene",
    [
        (
            "Four folds of hills in autumn ochre. A lone boat sails to the left on the river while mist drifts right. "
            "Birds fly leftward. Petals fall and bamboo sways in the wind. The moon shines. A waterfall pours down. "
            "A small pavilion stands on the slope and the camera pans right.",
            FULL,
        ),
        ("an ink wash landscape of three mountain ranges, a still camera", PLAIN),
        (
            "two mountain layers under snow, pushing in, snow falling, a moored boat, a quiet lake, a red sun",
            Scene("snow", 2, "closer", "lake", "still", weather="snowfall", light="sun"),
        ),
        (
            "A blue-green scroll of five layers of peaks with rain falling and pines swaying, the view pulling back.",
            Scene("blue_green", 5, "away", weather="rain", trees="pines"),
        ),
        (
            "朝霞山水，五重远山，江上孤舟向左行，云雾右飘，大雁右飞，细雨蒙蒙，古松摇曳，红日高悬，飞瀑直下，一座小亭，镜头左移",
            Scene("dawn", 5, "left", "river", "left", "right", "right", "rain", "pines", "sun", True, True),
        ),
        (
            "积雪满山，群山两叠。雪花飘落，湖上渔舟停泊。一轮明月，竹林迎风，镜头拉远。",
            Scene("snow", 2, "away", "lake", "still", weather="snowfall", trees="bamboo", light="moon"),
        ),
    ],
)
def test_captions_written_by_hand_mean_what_they_say(text, scene):
    assert parse_caption(text) == scene


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("", "nothing about .*'palette', 'layers', 'camera'"),
        ("a dog runs over a meadow", "no caption has: 'a'"),
        ("three ranges of mountains in ink", "nothing about .*'camera'"),
        ("three ranges of mountains, a still camera", "nothing about .*'palette'"),
        ("水墨山水，镜头静止", "nothing about .*'layers'"),
        ("three ranges of mountains in ink, a still camera, a tiger", "no caption has: 'a'"),
        ("水墨山水，三重远山，镜头静止，虎", "no caption has: '虎'"),
        ("two mountain ranges, three mountain ranges, in ink, a still camera", "contradictions about .*'layers'"),
        ("three mountain ranges in ink, panning left, panning right", "contradictions about .*'camera'"),
        ("水墨山水，三重远山，镜头静止，云雾左飘，云雾右飘", "contradictions about .*'mist'"),
        ("three mountain ranges in ink, a still camera, a moored boat", "needs water"),
    ],
)
def test_foreign_text_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_caption(text)


def test_unknown_language_is_refused():
    with pytest.raises(ValueError, match=r"`language` must be one of \('en', 'zh'\), got 'fr'"):
        caption(PLAIN, np.random.default_rng(0), "fr")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("draw", [draw_caption, motion_caption])
def test_drawn_captions_state_what_they_claim_to(draw, language):
    rng = np.random.default_rng(0)
    for _ in range(300):
        scene = sample_scene(rng)
        text, said = draw(scene, rng, language)
        assert find_attributes(text) == {name: getattr(scene, name) for name in said}, text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_motion_caption_says_what_moves(language):
    rng = np.random.default_rng(0)
    rest = Scene(palette="dawn", layers=4, camera="still", mist="left", light="moon", waterfall=True)
    told = [find_attributes(motion_caption(rest, rng, language)[0]) for _ in range(60)]
    for found in told:
        assert found["mist"] == "left" and not {"palette", "layers"} & found.keys()
    for name in ("camera", "light", "waterfall"):  # said in some, and not in others
        assert 10 < sum(name in found for found in told) < 50
    pan = dataclasses.replace(rest, camera="right")
    assert all(find_attributes(motion_caption(pan, rng, language)[0])["camera"] == "right" for _ in range(20))
    nothing = Scene(palette="ink", layers=2)  # moves, or says, nothing: sometimes the whole caption is left
    assert all(motion_caption(nothing, rng, language)[0] for _ in range(20))
