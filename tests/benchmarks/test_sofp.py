"""The benchmark of interpolation: what it measures, how it counts, what it refuses, and its page of results."""

import json
from collections import Counter
from pathlib import Path

import pytest
import torch

import sofp
import sofp_table
from assets import ASSETS
from interpolators import RIFE, CachedFlow, average
from shanshui.renderer.scene import CAMERAS


ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "sofp.json"


def test_every_motif_is_measured_at_every_speed_and_five_rounds_meet_every_camera():
    first, second = sofp.rendered_clips(0), sofp.all_clips(rounds=2)
    assert len(set(second)) == len(second) and set(first) < set(second)
    assert Counter(clip.speed for clip in first) == {speed: len(first) // 3 for speed in sofp.SPEEDS}
    every = {(clip.motif, clip.camera, clip.speed) for clip in sofp.all_clips(rounds=5) if clip.kind == "rendered"}
    nothing_moves = len(sofp.STILL_MOTIFS)
    assert len(every) == (len(sofp.MOTIFS) * len(CAMERAS) - nothing_moves) * len(sofp.SPEEDS)


def test_speeds_begin_and_end_at_the_same_instants():
    """The first and last frames of a clip are the same at every speed; at rising speed the first step is smallest."""
    clips = {speed: sofp.load_clip(sofp.Clip("rendered", "boat", "right", speed), size=48) for speed in sofp.SPEEDS}
    for clip in clips.values():
        assert clip.shape == (2 * sofp.NUM_FRAMES - 1, 3, 48, 48)
        assert torch.equal(clip[0], clips["even"][0]) and torch.equal(clip[-1], clips["even"][-1])
    first_step = {speed: (clip[2] - clip[0]).abs().mean() for speed, clip in clips.items()}
    assert first_step["rising"] < first_step["even"] < first_step["falling"]


def test_scores_of_a_known_error():
    truth = torch.full((2, 3, 16, 16), 0.5)
    scores = sofp.score(truth + 10 / 255, truth)
    assert scores["psnr"] == pytest.approx(28.131, abs=2e-3)  # 20 log10(255 / 10)
    assert sofp.score(truth, truth)["ssim"] == 1


def test_flow_is_estimated_once_for_each_pair():
    asked = []

    def flow(frames_a, frames_b):
        asked.extend(zip(frames_a.mean((1, 2, 3)).tolist(), frames_b.mean((1, 2, 3)).tolist(), strict=True))
        return (frames_b - frames_a)[:, :2]

    frames = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    remembered = CachedFlow(flow)
    for a, b in (([0, 1], [1, 2]), ([1, 2, 0], [2, 3, 1])):
        assert torch.equal(remembered(frames[a], frames[b]), (frames[b] - frames[a])[:, :2])
    assert asked == [(0, 1), (1, 2), (2, 3)]


def test_rife_without_motion_is_the_average():
    """Its last layers at zero find no flow and blend half and half; any size comes back as it was."""
    model = RIFE()
    for name, parameter in model.named_parameters():
        if "lastconv" in name:
            torch.nn.init.zeros_(parameter)
    frames = torch.rand(3, 3, 50, 70, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(frames[:-1], frames[1:]), average(frames))


def results_of(*clips):
    """Raw results of (motif, camera, speed, quadratic's lead over linear) with all other rivals far behind."""
    records = []
    for motif, camera, speed, lead in clips:
        scores = {name: {"psnr": 30.0, "ssim": 0.9} for name in sofp_table.NAMES}
        scores["sofp_linear"] = {"psnr": 40.0, "ssim": 0.95}
        scores["sofp_quadratic"] = {"psnr": 40.0 + lead, "ssim": 0.95}
        records.append({"kind": "rendered", "motif": motif, "camera": camera, "speed": speed, "scores": scores})
    settings = {"size": 64, "num_frames": 9, "frame_rate": 8, "seed": 0, "device": "CPU", "versions": {"torch": "2"}}
    return {"settings": settings, "clips": records}


def test_the_table_says_where_quadratic_loses():
    results = results_of(
        ("boat", "left", "even", -0.1),
        ("rain", "left", "even", -0.3),
        ("rain", "left", "rising", -11.0),
        ("mist", "still", "falling", 1.5),
    )
    promises = sofp_table.promises(results["clips"])
    assert "Below averaging in 1 of 4 classes\n  * rain left rising (average, -1.00 dB)\n" in promises
    assert "Even speed: -0.20 dB" in promises and "in 1 of 2 classes\n  * rain left even (SOFP" in promises
    assert "Changing speed: -4.75 dB" in promises and "* rain left rising (SOFP linear, -11.00 dB)" in promises
    assert "mist" not in promises and "boat" not in promises
    assert "| SOFP quadratic | 39.80 | 29.00 | 41.50 |" in sofp_table.markdown(results)


def run_main(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["sofp.py", *map(str, arguments)])
    sofp.main()


def test_wrong_calls_end_with_one_line(monkeypatch, tmp_path, capsys):
    output = tmp_path / "sofp.json"
    for message, *arguments in (
        ("--rounds must be from 1 to 5, the number of camera moves, got 6", "--rounds", 6),
        ("--output must have results to make tables from", "--table-only"),
        ("python benchmarks/assets.py", "--clips", 1),
    ):
        monkeypatch.setattr(sofp, "ASSETS", tmp_path / "nothing")
        with pytest.raises(SystemExit) as stopped:
            run_main(monkeypatch, "--output", output, *arguments)
        assert stopped.value.code == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_results_of_other_settings_are_not_added_to(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(sofp, "settings", lambda size: {"size": size})
    output = tmp_path / "sofp.json"
    output.write_text(json.dumps(results_of(("boat", "left", "even", 0.0))))
    before = output.read_text()
    with pytest.raises(SystemExit):
        run_main(monkeypatch, "--output", output)
    assert "other settings" in capsys.readouterr().err
    assert output.read_text() == before and len(list(tmp_path.iterdir())) == 1


def test_the_page_of_results_is_made_from_the_results():
    assert RESULTS.with_suffix(".md").read_text() == sofp_table.markdown(json.loads(RESULTS.read_text()))


def test_nothing_of_others_is_in_the_repository():
    assert ASSETS.relative_to(ROOT).parts[0] == "runs"
    assert "/runs/" in (ROOT / ".gitignore").read_text().split()
