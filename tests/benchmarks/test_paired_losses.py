"""Losses of a row are paired with the full model's of the same seed and step."""

import json

import pytest

from paired_losses import main


def write_log(study, run, losses):
    folder = study / "trained" / run
    folder.mkdir(parents=True)
    lines = [{"step": 5 * (index + 1), "diffusion_loss": loss} for index, loss in enumerate(losses)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_difference_is_that_of_the_same_seed_and_step(tmp_path, capsys):
    for seed, extra in ((0, 0.01), (1, 0.03)):
        losses = [0.5 + seed, 0.4 + seed, 0.3 + seed, 0.2 + seed]
        write_log(tmp_path, f"full-seed{seed}", losses)
        write_log(tmp_path, f"frame_norm-seed{seed}", [loss + extra for loss in losses[:3]])  # not finished
    assert main([str(tmp_path), "frame_norm", "--intervals", "3"]) == 0
    text = capsys.readouterr().out
    # Student's margin of two differences is 12.706 x 0.01414 / 1.41421
    assert "| 5 to 5 | 1.0000 | +0.02000 | ±0.12706 |" in text and "| 15 to 15 | 0.8000 |" in text
    assert "2 seeds" in text and "20 to" not in text


def test_one_seed_is_refused(tmp_path, capsys):
    write_log(tmp_path, "full-seed0", [0.5])
    write_log(tmp_path, "frame_norm-seed0", [0.5])
    with pytest.raises(SystemExit):
        main([str(tmp_path), "frame_norm"])
    assert "must have trained frame_norm and full from two seeds or more, got 1" in capsys.readouterr().err
