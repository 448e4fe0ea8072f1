"""Turn raw videos into training clips, as LPV-HD was made: single scenes, filtered, cropped, resized, captioned.

    python training/prepare_dataset.py RAW_VIDEOS --output_dir CLIPS

CLIPS becomes a folder for `train_motion.py --train_data_dir`: `clips/`, `metadata.jsonl`, a card (`README.md`), and
for a person `report.html` with a contact sheet of every clip, kept and rejected; `refused.jsonl` says the same to a
program. RAW_VIDEOS is only read. CLIPS.work keeps what is done: a run that was stopped, or that gets other captions,
does not do it again. CLIPS itself is written anew each time.
"""

import logging
import sys

from landscape_video.training.preparation.clip_captions import (
    ask_for_captions,
    read_caption_table,
    take_written_captions,
)
from landscape_video.training.preparation.dataset import fit, prepare_sources, reject_duplicates, write_dataset
from landscape_video.training.run.command_line import parse_settings
from landscape_video.training.settings.preparation import PreparationSettings


EXIT_FAILED, EXIT_STOPPED = 1, 130  # the second as shells report Ctrl-C

logger = logging.getLogger("prepare_dataset")


def main(settings: PreparationSettings) -> int:
    """Prepare the dataset, and return the exit code."""
    captions = settings.captions
    table = read_caption_table(captions.captions) if captions.captions is not None else {}

    # 1. Scenes, filters, clips: each source by itself, on all workers
    outcomes = prepare_sources(settings)
    errors = {outcome["source"]: outcome["error"] for outcome in outcomes if outcome["error"]}
    clips = [clip for outcome in outcomes for clip in outcome["clips"]]

    # 2. What takes all clips together. Written captions come first, because a clip rejected for want of one must not
    #    take a captioned clip that looks like it along. The model is slow, so it is not asked about duplicates.
    model = captions.caption_model
    take_written_captions(fit(clips), settings.folders.source_dir, table, others_follow=model is not None)
    reject_duplicates(fit(clips), settings.filters.max_hash_distance)
    if model is not None:
        ask_for_captions(fit(clips), settings.work_dir, model, captions.caption_prompt)

    # 3. The dataset
    write_dataset(clips, errors, settings)
    kept = len(fit(clips))
    logger.info(
        "%d clips kept, %d rejected, %d videos could not be read: see %s.",
        kept, len(clips) - kept, len(errors), settings.folders.output_dir / "report.html",
    )  # fmt: skip
    if kept == 0:
        logger.error("No clip is left to train on: report.html gives the measured values, the flags the thresholds.")
        return EXIT_FAILED
    return 0


def parse_args(argv: list[str] | None = None) -> PreparationSettings:
    """Parse and check the flags; wrong ones end the process with code 2 and one line."""
    return parse_settings(PreparationSettings, __doc__, argv)


def run(argv: list[str] | None = None) -> int:
    """Parse the flags and prepare; expected faults become one message and code 1."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    settings = parse_args(argv)
    try:
        return main(settings)
    except (ValueError, OSError, ImportError) as error:
        logger.error("%s", error)
        return EXIT_FAILED
    except KeyboardInterrupt:
        logger.error("Stopped. Finished videos are kept: run the same command again to resume.")
        return EXIT_STOPPED


if __name__ == "__main__":
    sys.exit(run())
