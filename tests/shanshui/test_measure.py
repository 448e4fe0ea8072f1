"""A whole measurement of the tiny family on a small random pipeline."""

import pytest

from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier
from shanshui.measure import main, parse_args
from shanshui.renderer.dataset import render_dataset
from shanshui.renderer.scene import FPS
from shanshui.stages.export_family import put_measured
from tiny_clip import save_tiny_clip


def test_the_card_gets_the_tables_in_place_of_earlier_ones(tmp_path):
    card = tmp_path / "README.md"
    card.write_text("# tiny\n\nWords.\n", encoding="utf-8")
    put_measured(card, "first\n\n### English prompts\n")
    assert card.read_text(encoding="utf-8") == "# tiny\n\nWords.\n\n## Measured\n\nfirst\n\n### English prompts\n"
    card.write_text(card.read_text(encoding="utf-8") + "\n## After\n\nmore\n", encoding="utf-8")
    put_measured(card, "second")
    assert card.read_text(encoding="utf-8") == "# tiny\n\nWords.\n\n## Measured\n\nsecond\n\n## After\n\nmore\n"


def test_a_whole_run_and_its_resumption(model, tmp_path, tiny_components):
    save_tiny_clip(model / "clip", tiny_components()["tokenizer"])
    run_dir, output = tmp_path / "run", tmp_path / "measure"
    run_dir.mkdir()
    render_dataset(run_dir / "clips.npy", 4, seed=1, frames=4, size=64, fine_motifs=False, workers=0)
    render_dataset(run_dir / "held_out.npy", 3, seed=2, fps=FPS, size=64, fine_motifs=False, workers=0)
    arguments = [
        "--model", str(model), "--output", str(output), "--run_dir", str(run_dir), "--prompts", "2", "--steps", "1",
        "--control_prompts", "2", "--held_out_clips", "3", "--classifier_steps", "2", "--workers", "0",
        "--device", "cpu",
    ]  # fmt: skip
    (model / "README.md").write_text("# A card\n")
    results = main([*arguments, "--card"])
    assert set(results.languages) == {"en", "zh"}
    assert results.languages["en"].rendered["motion, relative to rendered"].value == 1
    assert results.languages["en"].still["motion"].value == pytest.approx(0, abs=1e-3)
    assert len(results.languages["en"].checks) in (6, 7, 8) and results.languages["zh"].checks == []
    assert "- flicker, relative to rendered, Chinese:" in (model / "README.md").read_text(encoding="utf-8")
    assert "CLIP-text" in results.languages["zh"].generated
    assert "### Chinese prompts" in (output / "results.md").read_text(encoding="utf-8")
    assert (output / "sheets" / "sheet_en_1.png").exists()
    classifier = SceneClassifier.load(output / "classifier" / "classifier.safetensors")
    assert classifier.valid == tuple(name for name in results.held_out.valid if name != "camera")
    made = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.suffix in (".npy", ".safetensors")}
    assert len(made) >= 12
    again = main([*arguments, "--language", "zh"])
    assert {path: path.stat().st_mtime_ns for path in made} == made
    # As text, where NaN equals itself.
    assert str(again.languages["zh"].generated) == str(results.languages["zh"].generated)
    assert "zh" in again.languages and "en" not in again.languages


def test_wrong_input(tmp_path, capsys):
    for arguments, message in (
        (["--seed", "2"], "--seed must not be 2"),
        (["--model", str(tmp_path)], "has no model_index.json"),
    ):
        with pytest.raises(SystemExit) as error:
            parse_args(arguments)
        assert error.value.code == 2 and message in capsys.readouterr().err
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(SystemExit):
        parse_args(["--model", str(tmp_path), "--card"])
    assert "has no README.md" in capsys.readouterr().err
    counts = [parse_args(["--prompts", str(prompts)]).control_prompts for prompts in (200, 20, 3)]
    assert counts == [33, 4, 3]
    with pytest.raises(SystemExit, match="train_tiny.py --stages render"):
        main(["--run_dir", str(tmp_path), "--output", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
