"""The renderer of ink-landscape clips: what a scene names is seen, moves as named, and is the same every time."""

import dataclasses
import json
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from caption_parser import parse_caption
from landscape_video.evaluation.metrics.motion_metrics import fit_camera
from pipeline_landscape_video.video_io import read_video
from shanshui.render import main
from shanshui.renderer.brushwork import COLORS, Canvas, View
from shanshui.renderer.composition import Layout
from shanshui.renderer.dataset import beginning_of, render_dataset, scene_of, write_video_folder
from shanshui.renderer.landscape import River
from shanshui.renderer.rendering import SceneRenderer, render_clip
from shanshui.renderer.scene import ATTRIBUTES, CAMERAS, FPS, LAYERS, PALETTES, WAYS, Scene, sample_scene


FULL = Scene(
    palette="ink", layers=4, camera="left", water="lake", boat="right", mist="left", birds="right", weather="petals",
    trees="bamboo", light="sun", waterfall=True, pavilion=True, seed=5,
)  # fmt: skip


def changed(first: np.ndarray, second: np.ndarray, levels: int = 24) -> np.ndarray:
    """(..., h, w) where two images differ visibly."""
    return np.abs(first.astype(int) - second).max(-1) > levels


@cache
def both_ends(scene: Scene) -> np.ndarray:
    """First and last frame of a clip of two seconds."""
    return render_clip(scene, [0.0, 2.0])


def center_x(weights: np.ndarray) -> float:
    return float((weights * np.arange(weights.shape[1])).sum() / weights.sum())


def flow(scene: Scene, start: float = 0.9, end: float = 1.1) -> np.ndarray:
    first, second = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in render_clip(scene, [start, end]))
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(first, second, None)


@pytest.mark.parametrize("scene", [FULL, dataclasses.replace(FULL, water="river", weather="rain", camera="closer")])
def test_a_frame_depends_on_its_instant_only(scene: Scene) -> None:
    clip = render_clip(scene, [1.7, 0.25, 0.0], 64, 64)
    assert np.array_equal(clip, render_clip(scene, [1.7, 0.25, 0.0], 64, 64))
    assert np.array_equal(clip[1], render_clip(scene, [0.25], 64, 64)[0])
    assert not np.array_equal(clip[0], clip[1])


def test_scenes_that_differ_in_seed_differ() -> None:
    first, second = (render_clip(Scene(seed=seed), [0.0])[0] for seed in (0, 1))
    assert changed(first, second).mean() > 0.1


@pytest.mark.parametrize("time", [-3.0, 61.7])
def test_any_real_time_can_be_rendered(time: float) -> None:
    for camera in CAMERAS:
        clip = render_clip(dataclasses.replace(FULL, camera=camera), [time], 64, 64)
        assert clip.std() > 10


@pytest.mark.parametrize("direction", ["left", "right"])
def test_half_way_in_time_is_half_way_in_space(direction: str) -> None:
    scene = Scene(water="lake", boat=direction, seed=3)
    times = [0.5, 0.5625, 0.625]
    boats = render_clip(scene, times).astype(float) - render_clip(dataclasses.replace(scene, boat="none"), times)
    before, middle, after = map(center_x, np.abs(boats).sum(-1))
    assert (after - before) * (1 if direction == "right" else -1) > 0.9
    assert middle == pytest.approx((before + after) / 2, abs=0.15)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("palette", ["ink", "dawn"])
def test_camera_moves_as_named(palette: str, seed: int) -> None:
    flows = {camera: flow(Scene(palette, 4, camera, seed=seed)) for camera in CAMERAS}
    # Compare where there is something to follow: the half with the strongest gradients, below the sky.
    across = {camera: np.median(field[50:90, :, 0]) for camera, field in flows.items()}
    assert across["left"] > 0.5 and across["right"] < -0.5
    assert abs(across["still"]) < 0.05 and np.abs(flows["still"]).mean() < 0.05

    def spread(camera: str) -> float:
        field = flows[camera]
        return float(np.median(field[50:90, 90:, 0]) - np.median(field[50:90, :38, 0]))

    assert spread("closer") > 0.5 and spread("away") < -0.5


@pytest.mark.parametrize(
    ("name", "value", "area"),
    [
        ("boat", "still", 100), ("boat", "left", 100), ("birds", "left", 80), ("birds", "right", 80),
        ("mist", "left", 300), ("weather", "rain", 300), ("weather", "snowfall", 300), ("weather", "petals", 100),
        ("trees", "pines", 400), ("trees", "bamboo", 400), ("light", "sun", 100), ("light", "moon", 100),
        ("waterfall", True, 100), ("pavilion", True, 150), ("water", "lake", 1000), ("water", "river", 1000),
    ],
)  # fmt: skip
def test_every_motif_is_seen_all_the_time(name: str, value: str | bool, area: int) -> None:
    for seed, palette in enumerate(PALETTES):
        water = "river" if name == "boat" and seed % 2 else "lake" if name == "boat" else "none"
        without = Scene(palette, layers=LAYERS[seed % 4], camera=CAMERAS[seed], water=water, seed=seed)
        areas = changed(both_ends(without), both_ends(dataclasses.replace(without, **{name: value}))).sum((1, 2))
        assert areas.min() >= area, (palette, areas)


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("name", ["boat", "birds"])
def test_what_travels_goes_to_the_named_side_under_every_camera(name: str, camera: str) -> None:
    for direction, sign in (("left", -1), ("right", 1)):
        scene = Scene("snow", camera=camera, water="lake", seed=8, **{name: direction})
        rows = slice(85, 110) if name == "boat" else slice(0, 40)
        first, last = render_clip(scene, [0.2, 1.8])[:, rows].max(-1) < 75  # the darkest ink of a snowy scene
        assert (center_x(last) - center_x(first)) * sign > 5


@pytest.mark.parametrize("other", CAMERAS)
def test_a_clip_that_begins_like_another_goes_its_own_way(other: str) -> None:
    for number, camera in enumerate(CAMERAS):
        scene = Scene("ink", 4, camera, water=("lake", "river")[number % 2], boat="left", birds="right", seed=8)
        begins_like = dataclasses.replace(scene, camera=other, boat="right")
        clip = render_clip(scene, np.arange(8) / 4, begins_like=begins_like)
        assert np.array_equal(clip[0], render_clip(begins_like, [0.0])[0]), camera
        assert fit_camera(clip).direction == camera


@pytest.mark.parametrize("other", ["left", "closer"])
@pytest.mark.parametrize("camera", ["right", "still", "away"])
@pytest.mark.parametrize("water", ["lake", "river"])
def test_a_boat_begins_where_it_does_in_another_scene_and_goes_its_own_way(water, camera, other) -> None:
    def x_of_boat(scene: Scene, begins_like: Scene, time: float) -> float:
        """Where it is, as what differs from the same frame without it."""
        renderer = SceneRenderer(scene, 128, 128, begins_like)
        with_boat = renderer.frame(time)
        renderer.elements = [element for element in renderer.elements if element.name != "boat"]
        return center_x(changed(with_boat, renderer.frame(time)))

    anchored = {"right": -1, "still": 0, "away": None}[camera]  # it goes with the ground
    for boat, sign in (("left", -1), ("still", anchored), ("right", 1)):
        scene = Scene("snow", camera=camera, water=water, boat=boat, seed=8)
        for begun in ("left", "still", "right"):
            begins_like = dataclasses.replace(scene, camera=other, boat=begun)
            first = render_clip(scene, [0.0], begins_like=begins_like)
            assert np.array_equal(first, render_clip(begins_like, [0.0])), (boat, begun)
            if sign is None:  # to the middle, from wherever it is
                continue
            way = x_of_boat(scene, begins_like, 1.5) - x_of_boat(scene, begins_like, 0.0)
            assert way * sign > 3 if sign else abs(way) < 1, (boat, begun, way)


def test_another_landscape_cannot_be_begun_like() -> None:
    scene = Scene(water="lake", boat="left")
    for other in (dataclasses.replace(scene, boat="none"), dataclasses.replace(scene, seed=1)):
        with pytest.raises(ValueError, match="`begins_like` must differ in .* only"):
            render_clip(scene, [0.0], 64, 64, begins_like=other)


@pytest.mark.parametrize("other", ["closer", "left", "right"])
def test_a_camera_that_draws_away_finds_the_painting_everywhere(other: str) -> None:
    view = View(128, 128)
    pixels = np.random.default_rng(0).uniform(0.1, 1, (view.rows, view.columns, 4)).astype(np.float32)
    canvas = Canvas(pixels, view)
    for seed in range(8):
        scene = Scene(camera="away", water="river", seed=seed)
        layout = Layout(view, scene, dataclasses.replace(scene, camera=other))
        inverse = layout.inverse(0.55, 3.75, foot=1.0)
        seen = canvas.sample(inverse, (128, 128))[1][2:]  # below the canvas' upper edge, which fades
        for axis in (0, 1):  # no row and no column is the one beside it again
            assert np.abs(np.diff(seen, axis=axis)).mean((1 - axis, 2)).min() > 0.01, seed
        y = inverse[1, 1] * np.arange(layout.horizon + 1, 128) + inverse[1, 2]
        assert np.diff(River(layout, COLORS["ink"]).course(y / view.oversample)[1]).min() > 0


def test_the_way_of_a_clip_and_that_of_its_beginning_are_drawn_apart() -> None:
    scenes = [scene_of(index, 7, False) for index in range(2000)]
    beginnings = [beginning_of(scene, index, 7) for index, scene in enumerate(scenes)]
    for name in WAYS:
        pairs = [(getattr(one, name), getattr(other, name)) for one, other in zip(scenes, beginnings, strict=True)]
        ways = sorted({way for way, _ in pairs} - {"none"})
        assert all(other == "none" for way, other in pairs if way == "none")
        counts = np.array([[pairs.count((way, other)) for other in ways] for way in ways])
        shares = counts / counts.sum(1, keepdims=True)
        assert counts.min() > 0 and np.abs(shares - 1 / len(ways)).max() < 0.08, (name, counts)


def test_palettes_are_told_apart_by_their_mean_color() -> None:
    rng = np.random.default_rng(0)
    scenes = [dataclasses.replace(sample_scene(rng, False), palette=palette) for palette in PALETTES for _ in range(4)]
    means = np.array([render_clip(scene, [1.0], 64, 64).mean((0, 1, 2)) for scene in scenes]).reshape(5, 4, 3)
    centers = means.mean(1)
    nearest = np.linalg.norm(means[:, :, None] - centers, axis=-1).argmin(-1)
    assert (nearest == np.arange(5)[:, None]).mean() >= 0.9


@pytest.mark.parametrize("camera", ["left", "away"])
def test_paper_and_seal_stay_in_the_frame(camera: str) -> None:
    for palette in PALETTES:
        clip = render_clip(Scene(palette, camera=camera, seed=2), [0.0, 2.0]).astype(int)
        red = np.abs(clip - (179, 39, 30)).max(-1) < 25
        assert 8 < red[0].sum() < 120 and not red[:, :108].any()
        assert np.abs(clip[0] - clip[1])[red[0]].max() <= 2
        grain = [(sky - cv2.GaussianBlur(sky, (0, 0), 1.5)).ravel() for sky in clip[:, :20].astype(np.float32)]
        assert np.corrcoef(*grain)[0, 1] > 0.8


def test_grain_is_subtle() -> None:
    sky = render_clip(Scene(seed=4), [0.0])[0, :20].astype(np.float32)
    assert 0.2 < (sky - cv2.GaussianBlur(sky, (0, 0), 1.5)).std() < 1.5


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 168), (168, 96), (65, 131)])
def test_sizes_and_aspects(height: int, width: int) -> None:
    clip = render_clip(FULL, [0.0, 1.0], height, width)
    assert clip.shape == (2, height, width, 3) and clip.dtype == np.uint8
    assert all(len(np.unique(frame)) > 50 for frame in clip)


def test_a_scene_looks_the_same_at_any_size() -> None:
    scene = dataclasses.replace(FULL, weather="none")
    small = render_clip(scene, [0.5], 128, 128)[0].astype(np.float32)
    large = cv2.resize(render_clip(scene, [0.5], 384, 384)[0], (128, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(small - large).mean() < 6
    assert np.corrcoef(small.ravel(), large.ravel().astype(np.float32))[0, 1] > 0.95


def test_consistent_textures_are_those_of_a_small_image() -> None:
    scene = dataclasses.replace(FULL, weather="none")
    small = render_clip(scene, [0.5])[0].astype(np.float32)
    assert np.array_equal(render_clip(scene, [0.5], consistent=True)[0], small)
    distances = []
    for consistent in (False, True):
        large = render_clip(scene, [0.5], 256, 256, consistent=consistent)[0]
        assert large.std() > 10
        difference = cv2.resize(large, (128, 128), interpolation=cv2.INTER_AREA) - small
        distances.append(np.abs(difference[6:-6, 6:-6]).mean())  # without the bare paper at the borders
    assert distances[1] < 0.75 * distances[0]


def test_motion_is_smooth_below_the_pixel() -> None:
    """A slow pan changes the image by the same amount in every step, and never its sharpness."""
    clip = render_clip(Scene(layers=4, camera="left", seed=4), np.arange(24) / 64).astype(np.float32).mean(-1)
    steps = np.abs(np.diff(clip, axis=0)).mean((1, 2))
    sharpness = (np.diff(clip, axis=1) ** 2).mean((1, 2))
    assert steps.std() / steps.mean() < 0.05
    assert sharpness.std() / sharpness.mean() < 0.05


def test_dataset_is_parallel_restartable_and_deterministic(tmp_path: Path) -> None:
    settings = {"count": 3, "seed": 7, "frames": 2, "size": 64, "fine_motifs": False}
    serial, scenes = render_dataset(tmp_path / "serial.npy", workers=0, **settings)
    assert serial.shape == (3, 2, 64, 64, 3) and serial.dtype == np.uint8
    assert scenes == [scene_of(index, 7, False) for index in range(3)]
    assert np.array_equal(serial[1], render_clip(scenes[1], [0, 1 / FPS], 64, 64))
    assert all(scene.weather == "none" and scene.trees != "bamboo" for scene in scenes)
    parallel, _ = render_dataset(tmp_path / "parallel.npy", workers=2, **settings)
    for suffix in (".npy", ".jsonl"):
        assert (tmp_path / f"serial{suffix}").read_bytes() == (tmp_path / f"parallel{suffix}").read_bytes()

    lines = (tmp_path / "serial.jsonl").read_text()
    half = np.load(tmp_path / "serial.npy", mmap_mode="r+")
    half[1:] = 0  # what a run that was killed in its second clip leaves behind
    (tmp_path / "serial.jsonl").write_text(lines[: lines.index("\n") + 30])
    resumed, _ = render_dataset(tmp_path / "serial.npy", workers=0, **settings)
    assert np.array_equal(resumed, parallel) and (tmp_path / "serial.jsonl").read_text() == lines
    with pytest.raises(ValueError, match="other settings"):
        render_dataset(tmp_path / "serial.npy", workers=0, **{**settings, "seed": 8})
    with pytest.raises(ValueError, match="other settings"):
        render_dataset(tmp_path / "serial.npy", workers=0, begin_anywhere=True, **settings)


def test_a_dataset_of_clips_that_begin_like_others(tmp_path: Path) -> None:
    clips, scenes = render_dataset(tmp_path / "clips.npy", 4, 7, frames=2, size=64, workers=0, begin_anywhere=True)
    rows = [json.loads(line) for line in (tmp_path / "clips.jsonl").read_text("utf-8").splitlines()]
    beginnings = [dataclasses.replace(Scene(**row["scene"]), **row["begins_like"]) for row in rows]
    assert scenes == [scene_of(index, 7) for index in range(4)] == [Scene(**row["scene"]) for row in rows]
    assert sum(one != other for one, other in zip(scenes, beginnings, strict=True)) >= 2
    for clip, scene, beginning in zip(clips, scenes, beginnings, strict=True):
        assert np.array_equal(clip, render_clip(scene, [0, 1 / FPS], 64, 64, beginning))
    folder = tmp_path / "videos"
    arguments = ["--output", str(folder), "--clips", "1", "--frames", "2", "--size", "64", "--seed", "7"]
    main([*arguments, "--workers", "0", "--begin-anywhere"])
    row = json.loads((folder / "metadata.jsonl").read_text("utf-8"))
    assert row["begins_like"] == rows[0]["begins_like"] != {name: row[name] for name in WAYS}
    first, other = (render_clip(scenes[0], [0], 64, 64, one)[0].astype(int) for one in (beginnings[0], None))
    written = read_video(folder / "clip_000000.mp4").frames[0]
    assert np.abs(written - first).mean() < 0.5 * np.abs(written - other).mean()


def test_video_folder_holds_clips_captions_and_attributes(tmp_path: Path) -> None:
    arguments = ["--output", str(tmp_path), "--clips", "2", "--frames", "3", "--height", "64", "--width", "96"]
    main([*arguments, "--workers", "0", "--seed", "4"])
    rows = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text("utf-8").splitlines()]
    assert [row["file_name"] for row in rows] == ["clip_000000.mp4", "clip_000001.mp4"]
    for index, row in enumerate(rows):
        scene = scene_of(index, 4)
        assert {name: row[name] for name in (*ATTRIBUTES, "seed")} == dataclasses.asdict(scene)
        for text in (row["text"], *row["texts"]):
            told = parse_caption(text)
            assert all(getattr(told, name) == getattr(scene, name) for name in ATTRIBUTES)
        assert any("\u4e00" <= letter <= "\u9fff" for text in row["texts"] for letter in text)
        clip = read_video(tmp_path / row["file_name"])
        assert len(clip.frames) == 3
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    last = tmp_path / "clip_000001.mp4"
    last.unlink()
    (tmp_path / "metadata.jsonl").write_text(json.dumps(rows[0], ensure_ascii=False) + "\n", "utf-8")
    main([*arguments, "--workers", "0", "--seed", "4"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    with pytest.raises(SystemExit, match="other settings"):
        main([*arguments, "--workers", "0", "--seed", "5"])


@pytest.mark.parametrize("option", ["--clips", "--frames", "--size", "--fps"])
def test_command_refuses_sizes_that_make_no_clip(option: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"{option} must be positive, got 0"):
        main(["--output", str(tmp_path / "clips"), "--clips", "1", option, "0"])
    assert not (tmp_path / "clips").exists()


def test_unknown_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="language"):
        write_video_folder(tmp_path, 1, language="fr", workers=0)
