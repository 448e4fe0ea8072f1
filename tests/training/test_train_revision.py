"""`--revision` of `train_motion.py`, against a stand-in for the Hub."""

from pathlib import Path

from tiny_models import build_components, build_text_encoder, build_tokenizer
from training_runs import WEIGHTS, digest
from video_files import make_video_folder


def test_a_revision_of_the_image_model_is_taken_as_a_whole(hub, train, image_model, tmp_path):
    """Every part of the newest revision differs; a run with the older revision must use none of them."""

    def files_of(folder: Path) -> dict[str, bytes]:
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    newest = build_components(seed=1)
    newest["tokenizer"] = build_tokenizer(words=("clip", "lantern"))
    newest["text_encoder"] = build_text_encoder(newest["tokenizer"])
    newest["scheduler"].register_to_config(beta_end=0.02)
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        newest[name].save_pretrained(tmp_path / "newest" / name)
    repo = hub.create("someone/stills", files_of(image_model))
    older = repo.head
    repo.commit("other weights", files_of(tmp_path / "newest"))

    folder = make_video_folder(tmp_path / "videos", [12, 10])
    flags = ("--num_frames_range", "6", "--sample_stride", "1", "--resolution", "64", "--caption_dropout_prob", "0")
    flags += ("--max_train_steps", "1", "--validation_steps", "1", "--validation_inference_steps", "2")
    named = ("--pretrained_model_name_or_path", "someone/stills")
    _, expected = train("folder", *flags, data=folder)
    code, output = train("revision", *flags, *named, "--revision", older, data=folder)
    assert code == 0
    code, other = train("newest", *flags, *named, data=folder)
    assert code == 0
    for name in (f"motion_adapter/{WEIGHTS}", "validation/step-000001.mp4"):
        assert digest(output / name) == digest(expected / name) != digest(other / name), name
