"""Settings of training runs: made from flat names, checked, and saved under the names that older files have."""

from pathlib import Path

import pytest

from landscape_video.training.settings.training import MotionTraining, RetentionTraining
from pipeline_landscape_video import SHANSHUI_TINY


def settings(**options) -> MotionTraining:
    required = {"pretrained_model_name_or_path": "a/model", "train_data_dir": Path("clips")}
    return MotionTraining.from_options(**required | options)


def test_settings_are_made_without_a_command_line():
    made = MotionTraining.from_options(preset="tiny", train_data_dir=Path("clips"), max_train_steps=7)
    assert made.preset == "tiny" and made.optimization.max_train_steps == 7
    assert made.model.pretrained_model_name_or_path == str(SHANSHUI_TINY) and made.data.resolution == 128


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_batch_size": 0}, "`train_batch_size` must be at least 1, got 0."),
        ({"negatives": "some"}, "`negatives` must be one of all, eq10, got 'some'."),
        ({"report_to": ("wandb", "paper")}, "`report_to` must be one of tensorboard, trackio, wandb, got 'paper'."),
        ({"num_frames_range": (8,)}, "`num_frames_range` must be one number or MIN MAX"),
        ({"preset": "huge"}, "`preset` must be one of paper, fast, tiny, got 'huge'."),
        ({"learning_rte": 1e-4}, "Unknown settings: learning_rte."),
        ({"dataset_name": "a/set"}, "Exactly one of `train_data_dir` and `dataset_name` must be given."),
        ({"train_data_dir": None}, "Exactly one of `train_data_dir` and `dataset_name` must be given."),
        ({"dataset_revision": "main"}, "`dataset_revision` is a version of `dataset_name`"),
        ({"validation_prompts": ("mist",)}, "`validation_prompts` are for validation clips: set `validation_steps`"),
    ],
)
def test_wrong_settings_are_refused_by_name(options, message):
    with pytest.raises(ValueError) as refused:
        settings(**options)
    assert str(refused.value).startswith(message)


def test_a_model_must_be_named():
    with pytest.raises(ValueError, match="`pretrained_model_name_or_path` must be given"):
        MotionTraining.from_options(train_data_dir=Path("clips"))


def test_files_keep_the_names_that_older_runs_wrote():
    made = settings(slow_motion_prob=0.7, freeze_prob=0.5)
    assert made.comparable()["standstill_prob"] == "0.5" and made.published()["standstill_prob"] == 0.5
    assert not {"freeze_prob"} & (made.comparable().keys() | made.published().keys())


def test_a_resumed_run_is_compared_by_what_affects_a_step():
    changed = {"output_dir": Path("other"), "logging_steps": 3, "torch_compile": True, "validation_steps": 5}
    assert settings(**changed).comparable() == settings().comparable()
    assert settings(seed=1).comparable() != settings().comparable()


def test_no_path_of_this_machine_is_published():
    made = RetentionTraining.from_options(
        pretrained_model_name_or_path="/private/model",
        motion_adapter_name_or_path="/private/adapter",
        image_retention_name_or_path="/private/branch",
        train_data_dir=Path("/private/clips"),
        cache_dir=Path("/private/cache"),
        output_dir=Path("/private/run"),
        resume_from_checkpoint="/private/checkpoint-1",
    )
    assert "/private" not in str(made.published())
    assert made.published()["num_frames_range"] == [8, 8] and made.published()["preset"] == "paper"
