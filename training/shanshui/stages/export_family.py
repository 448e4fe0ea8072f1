"""Export the trained family in half precision, as the folder that the package bundles."""

import json
import logging

import torch
from diffusers import MotionAdapter
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from landscape_video.files import write_directory, write_json
from motion_adapter.export import export_pipeline, save_component
from pipeline_landscape_video import ImageRetention
from pipeline_landscape_video.landscape_decoder import DoubleSizeDecoder
from pipeline_landscape_video.pipeline import LandscapeVideoPipeline
from shanshui.renderer.captions import words_of
from shanshui.renderer.scene import LANGUAGES
from shanshui.stages.family_models import load_image_model
from shanshui.stages.family_run import FamilyRun
from shanshui.stages.model_card import write_model_card
from shanshui.stages.training_data import training_captions, training_clips


logger = logging.getLogger("train_tiny")


def export_family(run: FamilyRun) -> None:
    """Write the pipeline, the image retention branch if it is trained, the whole CLIP and the model card.

    The previous content of the folder is removed, as it belongs to other weights.
    """
    motion_adapter = MotionAdapter.from_pretrained(run.run_dir / "motion" / "motion_adapter")
    pipe = LandscapeVideoPipeline(**load_image_model(run), motion_adapter=motion_adapter)
    clip_folder, branch = run.model("clip"), run.run_dir / "retention" / "image_retention"
    with write_directory(run.export_dir) as target:
        export_pipeline(pipe, target, dtype=torch.float16, include_code=False, overwrite=True)
        CLIPModel.from_pretrained(clip_folder).half().save_pretrained(target / "clip")
        # transformers reads the dtype from the file; float16 would load as such and fail beside float32 parts.
        config = json.loads((target / "clip" / "config.json").read_text())
        write_json(target / "clip" / "config.json", config | {"dtype": "float32"})
        CLIPTokenizer.from_pretrained(clip_folder).save_pretrained(target / "clip")
        CLIPImageProcessorPil.from_pretrained(clip_folder).save_pretrained(target / "clip")
        words = json.dumps(known_words(run), ensure_ascii=False, indent=0) + "\n"
        (target / "words.json").write_text(words, encoding="utf-8")
        if branch.is_dir():
            (target / "image_retention").mkdir()
            save_component(ImageRetention.from_pretrained(branch), target / "image_retention", torch.float16)
        if run.model("decoder").is_dir():
            (target / "decoder").mkdir()
            save_component(DoubleSizeDecoder.from_pretrained(run.model("decoder")), target / "decoder", torch.float16)
        write_model_card(target, run)
    size = sum(file.stat().st_size for file in run.export_dir.rglob("*.safetensors"))
    logger.info("%s: all weights %.1f MB", run.export_dir, size / 1e6)


def known_words(run: FamilyRun) -> list[str]:
    """Return the words of the training captions; the pipeline warns about others in a prompt."""
    captions = training_captions(training_clips(run)[1])
    numbered = ((k, text) for texts in captions for k, text in enumerate(texts))
    words = {word for k, text in numbered for word in words_of(text, LANGUAGES[k % len(LANGUAGES)])}
    return sorted(word for word in words if word.isalpha())
