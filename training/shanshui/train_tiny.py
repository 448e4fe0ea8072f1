"""Build shanshui-tiny from nothing: render clips, train every model of the family, export.

    python training/shanshui/train_tiny.py --run_dir runs/shanshui

does everything, one stage after the other, and leaves the family in `RUN_DIR/shanshui_tiny`. Stop it whenever you
like: the same command goes on where it was. Each stage trains for its minutes (`--minutes vae=40 unet=60`); asking for
more minutes later trains that stage further. What stands on it learnt from its former weights, though: after more
minutes of `vae`, for one, remove RUN_DIR/unet, motion, pictures and retention, and they are trained anew.
"""

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from PIL import Image
from tqdm.auto import tqdm
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTextModel, CLIPTokenizer

from landscape_video.files import hash_file, write_directory
from landscape_video.training.data.latent_cache import write_first_frames, write_shard
from landscape_video.training.run.run_control import EXIT_STOPPED
from shanshui.renderer.captions import words_of
from shanshui.renderer.constants import FPS, HELD_OUT_SEED, LANGUAGES, PICTURES_SEED, SIZE, TRAINING_SEED
from shanshui.renderer.dataset import render_dataset, scene_of
from shanshui.renderer.painting import render_clip
from shanshui.renderer.scene import Scene
from shanshui.stages.family_models import build_scheduler
from shanshui.stages.model_card import write_model_card
from shanshui.stages.stage_scripts import run_script
from shanshui.stages.train_clip import (
    attribute_labels,
    draw_caption,
    motion_caption,
    train_clip,
    train_tokenizer,
)
from shanshui.stages.train_image_unet import train_image_unet
from shanshui.stages.train_text import train_text
from shanshui.stages.train_vae import train_vae


TRAINING = Path(__file__).resolve().parents[1]

logger = logging.getLogger("train_tiny")

MINUTES = {
    "clip": 10.0, "text": 15.0, "vae": 40.0, "unet": 60.0, "motion": 140.0, "pictures": 15.0, "retention": 220.0,
}  # fmt: skip
CAPTIONS_PER_CLIP = 4
VALIDATION_PICTURES = 3
# How the adapter is trained, in `train_motion.py`'s words, and but for `SLOW_MOTION` the rows of
# `benchmarks/miniature_training.py`.
MOTION_FLAGS = (
    "--num_frames_range", "16", "--optimizer", "muon", "--learning_rate", "2e-3", "--lr_scheduler", "cosine",
    "--timestep_bias_strategy", "later", "--timestep_bias_portion", "0.15", "--timestep_bias_multiplier", "3",
    "--use_ema", "--ema_decay", "0.998",
)  # fmt: skip

# A clip that begins still in sampling otherwise often stays still, whatever its caption says of the camera.
SLOW_MOTION = ("--slow_motion_prob", "0.6")
# The more so with a picture: what it shows stands still from the first step on.
STANDSTILL = ("--slow_motion_prob", "0.7", "--standstill_prob", "0.5")
RETENTION_FLAGS = ("--optimizer", "muon", "--learning_rate", "1e-3")
# What is seen is settled where there is more noise than signal, how it looks where there is less.
NOISY_TIMESTEPS = (
    "--timestep_bias_strategy", "later", "--timestep_bias_portion", "0.5", "--timestep_bias_multiplier", "3",
)  # fmt: skip


class TinyFamily:
    """The stages, in order; each reads what the earlier ones wrote into `run_dir`."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.run_dir: Path = args.run_dir
        self.device = torch.device(args.device)
        self.minutes = MINUTES | args.minutes

    def render(self) -> None:
        self.clips()

    def clips(self) -> tuple[np.ndarray, list[Scene]]:
        """The training clips, uint8 (clips, 16, 128, 128, 3), and their scenes; rendered where they are missing."""
        return self.rendered("clips.npy", TRAINING_SEED)

    def picture_clips(self) -> tuple[np.ndarray, list[Scene]]:
        """Clips whose first frame does not tell where camera and boat will go: a branch that learns from others reads
        it there, and does not do what a text wants of another picture."""
        return self.rendered("picture_clips.npy", PICTURES_SEED, begin_anywhere=True)

    def rendered(self, name: str, seed: int, begin_anywhere: bool = False) -> tuple[np.ndarray, list[Scene]]:
        """As many clips as `--clips` says in the file `name`, and their scenes; what is missing is rendered."""
        try:
            return render_dataset(
                self.run_dir / name,
                self.args.clips,
                seed=seed,
                fps=FPS,
                size=SIZE,
                fine_motifs=False,
                workers=self.args.workers,
                begin_anywhere=begin_anywhere,
            )
        except ValueError as error:  # another number of clips
            raise SystemExit(f"train_tiny: {error}") from None

    def captions(self, scenes: list[Scene], seed: int = TRAINING_SEED) -> list[list[str]]:
        """Captions of each clip, half of them English, half Chinese. (Stream 0 is the scene's own.)"""
        return [
            [
                draw_caption(scene, np.random.default_rng((seed, index, 1 + k)), LANGUAGES[k % 2])
                for k in range(CAPTIONS_PER_CLIP)
            ]
            for index, scene in enumerate(scenes)
        ]

    def clip(self) -> None:
        frames, scenes = self.clips()
        directory = self.run_dir / "clip"
        tokenizer_folder = directory / "model"
        if not (tokenizer_folder / "tokenizer.json").exists():
            texts = [text for texts in self.captions(scenes) for text in texts]
            train_tokenizer(texts).save_pretrained(tokenizer_folder)
        tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
        clip = train_clip(
            frames,
            scenes,
            tokenizer,
            directory,
            self.minutes["clip"],
            self.device,
            self.args.batch_scale * 32,
            self.args.mixed_precision,
        )
        clip.save_pretrained(directory / "model")
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": SIZE}, crop_size=SIZE, image_mean=[0.5] * 3, image_std=[0.5] * 3
        )
        processor.save_pretrained(directory / "model")

    def text(self) -> None:
        """The text encoder by itself: left and right of what moves take more captions than there are clips."""
        folder = self.run_dir / "clip" / "model"
        text_model = train_text(
            CLIPTextModel.from_pretrained(folder),
            CLIPTokenizer.from_pretrained(folder),
            self.run_dir / "text",
            self.minutes["text"],
            self.device,
            self.args.batch_scale * 128,
            self.args.mixed_precision,
            TRAINING_SEED,
        )
        text_model.save_pretrained(self.run_dir / "text" / "model")

    def vae(self) -> None:
        frames, _ = self.clips()
        vae = train_vae(
            frames.reshape(-1, SIZE, SIZE, 3),
            self.run_dir / "vae",
            self.minutes["vae"],
            self.device,
            self.args.batch_scale * 2 * SIZE**2,
            self.args.mixed_precision,
        )
        vae.save_pretrained(self.run_dir / "vae" / "model")

    def latents(self) -> None:
        """Encode every clip for the two UNet stages, unless that was done with the same autoencoder and clips."""
        frames, scenes = self.clips()
        self.write_cache(self.run_dir / "latents", frames, "clips.jsonl", lambda: self.captions(scenes))

    def moving_pictures(self) -> Path:
        """The latents of `picture_clips`, half of whose captions say what moves and leave to the picture what it
        shows, with the pixels of the first frames beside them."""
        folder = self.run_dir / "moving_pictures"
        frames, scenes = self.picture_clips()

        def texts() -> list[list[str]]:
            wordings = self.captions(scenes, PICTURES_SEED)
            for index, scene in enumerate(scenes):
                rng = np.random.default_rng((PICTURES_SEED, index, 1 + CAPTIONS_PER_CLIP))
                wordings[index][len(LANGUAGES) :] = [motion_caption(scene, rng, language) for language in LANGUAGES]
            return wordings

        self.write_cache(folder, frames, "picture_clips.jsonl", texts, with_first_frames=True)
        return folder

    def write_cache(
        self,
        folder: Path,
        frames: np.ndarray,
        scenes_file: str,
        texts: Callable[[], list[list[str]]],
        with_first_frames: bool = False,
    ) -> None:
        """Clips and captions as a latent cache, unless it is there, of the same autoencoder and clips."""
        vae_folder, made_of = self.run_dir / "vae" / "model", folder / "made_of.json"
        vae_hash = hash_file(vae_folder / "diffusion_pytorch_model.safetensors")
        key = {"vae": vae_hash, "clips": hash_file(self.run_dir / scenes_file)}
        if made_of.exists() and json.loads(made_of.read_text()) == key:
            return
        folder.mkdir(exist_ok=True)
        made_of.unlink(missing_ok=True)
        vae = AutoencoderKL.from_pretrained(vae_folder).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.args.mixed_precision == "bf16"):
            encoded = [encode_clip(vae, clip) for clip in tqdm(frames, desc=folder.name, unit="clip")]
        shard = write_shard(folder, 0, torch.stack(encoded))
        if with_first_frames:
            first_frames = torch.from_numpy(frames[:, :1].copy())
            write_first_frames(shard, first_frames.permute(0, 1, 4, 2, 3))  # channels before height
        with open(folder / "captions.jsonl", "w", encoding="utf-8") as file:
            for wordings in texts():
                file.write(json.dumps({"text": wordings[0], "texts": wordings[1:]}, ensure_ascii=False) + "\n")
        made_of.write_text(json.dumps(key))

    def unet(self) -> None:
        from safetensors.torch import load_file

        _, scenes = self.clips()
        latents = load_file(self.run_dir / "latents" / "latents-00000.safetensors")["latents"]
        texts = [[row["text"], *row["texts"]] for row in read_lines(self.run_dir / "latents" / "captions.jsonl")]
        encode = text_encoder(self.run_dir / "text" / "model", self.run_dir / "clip" / "model", self.device)
        states = torch.stack([encode(wordings).half().cpu() for wordings in texts])

        def draw_texts(clips: list[int], seed: int) -> torch.Tensor:
            wordings = np.random.default_rng(seed).integers(CAPTIONS_PER_CLIP, size=len(clips))
            return states[clips, wordings.tolist()]

        unet = train_image_unet(
            latents,
            attribute_labels(scenes, self.device),
            draw_texts,
            encode([""]),
            self.run_dir / "unet",
            self.minutes["unet"],
            self.device,
            self.args.batch_scale * 32,
            self.args.mixed_precision,
            self.args.compile,
        )
        unet.save_pretrained(self.run_dir / "unet" / "model")

    def motion(self) -> None:
        """The published training script on the cached latents, with the published flags."""
        base, output = self.run_dir / "base", self.run_dir / "motion"
        self.save_base(base)
        command = [
            sys.executable, str(TRAINING / "train_motion.py"), "--pretrained_model_name_or_path", str(base),
            "--train_data_dir", str(self.run_dir / "latents"), "--output_dir", str(output),
            *MOTION_FLAGS, *SLOW_MOTION,
            "--train_batch_size", str(self.args.batch_scale * 4), "--lr_warmup_steps", "100",
            "--checkpointing_steps", "100", "--checkpoints_total_limit", "2",
            "--max_train_steps", str(self.args.motion_steps), "--mixed_precision", self.args.mixed_precision,
        ]  # fmt: skip
        if self.args.compile:
            command += ["--torch_compile"]
        run_script(command, output, self.minutes["motion"], self.device)

    def pictures(self) -> None:
        """A branch that knows a picture again in a single frame: with a clip for every frame of a batch it is found in
        minutes, while 800 steps of whole clips did not find it (each has 4 clips, and as many steps of noise)."""
        self.save_base(self.run_dir / "base")
        self.train_branch(
            "pictures", "--num_frames_range", "1", "--train_batch_size", str(self.args.batch_scale * 32),
            "--lr_scheduler", "constant_with_warmup", "--lr_warmup_steps", "50", *NOISY_TIMESTEPS,
            "--max_train_steps", str(self.args.picture_steps),
        )  # fmt: skip

    def retention(self) -> None:
        """The branch goes on with whole clips, in which all but the first frame move away from the picture."""
        output = self.run_dir / "retention"
        pictures, prompts = self.held_out_pictures(output / "held_out")
        self.train_branch(
            "retention", "--image_retention_name_or_path", str(self.run_dir / "pictures" / "image_retention"),
            "--num_frames_range", "16", "--train_batch_size", str(self.args.batch_scale * 4),
            "--gradient_accumulation_steps", "2", "--first_frame_weight", "8", *STANDSTILL, *NOISY_TIMESTEPS,
            "--lr_scheduler", "cosine", "--lr_warmup_steps", "50",
            "--use_ema", "--ema_decay", "0.998", "--max_train_steps", str(self.args.retention_steps),
            "--validation_steps", "500", "--validation_images", *map(str, pictures), "--validation_prompts", *prompts,
        )  # fmt: skip

    def train_branch(self, stage: str, *flags: str) -> None:
        """The published training script for the image retention branch; the text-to-video model stays as it is."""
        output = self.run_dir / stage
        command = [
            sys.executable, str(TRAINING / "train_image_retention.py"),
            "--pretrained_model_name_or_path", str(self.run_dir / "base"),
            "--motion_adapter_name_or_path", str(self.run_dir / "motion" / "motion_adapter"), "--freeze_motion",
            "--train_data_dir", str(self.moving_pictures()), "--output_dir", str(output), *RETENTION_FLAGS,
            "--checkpointing_steps", "100", "--checkpoints_total_limit", "2",
            "--mixed_precision", self.args.mixed_precision, *flags,
        ]  # fmt: skip
        if self.args.compile:
            command += ["--torch_compile"]
        run_script(command, output, self.minutes[stage], self.device)

    def held_out_pictures(self, folder: Path) -> tuple[list[Path], list[str]]:
        """First frames of scenes that nothing is trained on, as files, and a caption of each."""
        folder.mkdir(parents=True, exist_ok=True)
        scenes = [scene_of(index, HELD_OUT_SEED, fine_motifs=False) for index in range(VALIDATION_PICTURES)]
        paths = [folder / f"{index}.png" for index in range(len(scenes))]
        for scene, path in zip(scenes, paths, strict=True):
            Image.fromarray(render_clip(scene, [0.0], SIZE, SIZE)[0]).save(path)
        return paths, [draw_caption(scene, np.random.default_rng(HELD_OUT_SEED), "en") for scene in scenes]

    def save_base(self, base: Path) -> None:
        """The image model as a folder in Stable Diffusion's layout, which the motion stage trains on."""
        CLIPTextModel.from_pretrained(self.run_dir / "text" / "model").save_pretrained(base / "text_encoder")
        CLIPTokenizer.from_pretrained(self.run_dir / "clip" / "model").save_pretrained(base / "tokenizer")
        AutoencoderKL.from_pretrained(self.run_dir / "vae" / "model").save_pretrained(base / "vae")
        UNet2DConditionModel.from_pretrained(self.run_dir / "unet" / "model").save_pretrained(base / "unet")
        build_scheduler().save_pretrained(base / "scheduler")

    def export(self) -> None:
        """Half-precision weights into the package: a pipeline folder with its branch, if that is trained, the whole
        CLIP beside it, and the model card. What was there goes: it belonged to other weights."""
        from motion_adapter.publish import export_pipeline, save_component
        from pipeline_landscape_video import ImageRetention
        from pipeline_landscape_video.pipeline import LandscapeVideoPipeline

        pipe = LandscapeVideoPipeline(
            vae=AutoencoderKL.from_pretrained(self.run_dir / "vae" / "model"),
            text_encoder=CLIPTextModel.from_pretrained(self.run_dir / "text" / "model"),
            tokenizer=CLIPTokenizer.from_pretrained(self.run_dir / "clip" / "model"),
            unet=UNet2DConditionModel.from_pretrained(self.run_dir / "unet" / "model"),
            motion_adapter=MotionAdapter.from_pretrained(self.run_dir / "motion" / "motion_adapter"),
            scheduler=build_scheduler(),
        )
        _, scenes = self.clips()
        words = sorted(
            {
                word
                for wordings in self.captions(scenes)
                for k, text in enumerate(wordings)
                for word in words_of(text, LANGUAGES[k % 2])
                if word.isalpha()
            }
        )
        clip_folder, branch = self.run_dir / "clip" / "model", self.run_dir / "retention" / "image_retention"
        with write_directory(self.args.export_dir) as target:
            export_pipeline(pipe, target, dtype=torch.float16, include_code=False, overwrite=True)
            clip = CLIPModel.from_pretrained(clip_folder).half()
            clip.save_pretrained(target / "clip")
            config = json.loads((target / "clip" / "config.json").read_text())
            (target / "clip" / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
            CLIPTokenizer.from_pretrained(clip_folder).save_pretrained(target / "clip")
            CLIPImageProcessorPil.from_pretrained(clip_folder).save_pretrained(target / "clip")
            listed = json.dumps(words, ensure_ascii=False, indent=0) + "\n"
            (target / "words.json").write_text(listed, encoding="utf-8")
            if branch.is_dir():
                (target / "image_retention").mkdir()
                save_component(ImageRetention.from_pretrained(branch), target / "image_retention", torch.float16)
            write_model_card(target, self.run_dir, self.args.clips, TRAINING_SEED, self.device)
        weights = sum(file.stat().st_size for file in self.args.export_dir.rglob("*.safetensors"))
        logger.info("%s: all weights %.1f MB", self.args.export_dir, weights / 1e6)


STAGES = ("render", "clip", "text", "vae", "latents", "unet", "motion", "pictures", "retention", "export")
# Where each leaves what others read, and what those are.
RESULTS = {
    "clip": "clip/model",
    "text": "text/model",
    "vae": "vae/model",
    "latents": "latents/made_of.json",
    "unet": "unet/model",
    "motion": "motion/motion_adapter",
    "pictures": "pictures/image_retention",
}
NEEDS = {
    "text": ("clip",),
    "latents": ("vae",),
    "unet": ("clip", "text", "latents"),
    "motion": ("clip", "text", "vae", "latents", "unet"),
    "pictures": ("clip", "text", "vae", "unet", "motion"),
    "retention": ("vae", "motion", "pictures"),
    "export": ("clip", "text", "vae", "unet", "motion"),
}


def text_encoder(folder: Path, tokenizer_folder: Path, device: torch.device) -> Callable[[list[str]], torch.Tensor]:
    """From texts to the states that the UNet attends to, (texts, 77, dim)."""
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    model = CLIPTextModel.from_pretrained(folder).to(device).eval()

    @torch.no_grad()
    def encode(texts: list[str]) -> torch.Tensor:
        tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
        return model(tokens.to(device))[0]

    return encode


@torch.no_grad()
def encode_clip(vae: AutoencoderKL, frames: np.ndarray) -> torch.Tensor:
    """Scaled latents, float16 (num_frames, channels, h, w), of uint8 (num_frames, height, width, 3)."""
    pixels = torch.from_numpy(frames.copy()).to(vae.device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return (vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor).half().cpu()


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def parse_minutes(text: str) -> tuple[str, float]:
    stage, _, minutes = text.partition("=")
    if stage not in MINUTES:
        raise argparse.ArgumentTypeError(f"{text!r}: stages with minutes are {', '.join(MINUTES)}, as in vae=40")
    return stage, float(minutes)


def computes_bfloat16_fast(device: str) -> bool:
    return device.startswith("cuda") or torch.cpu.get_capabilities().get("amx_bf16", False)


def check_stages(run_dir: Path, stages: Sequence[str]) -> None:
    """Raise a ValueError for a stage that lacks what another would make, or a package."""
    for stage in stages:
        missing = [one for one in NEEDS.get(stage, ()) if one not in stages and not (run_dir / RESULTS[one]).exists()]
        if missing:
            raise ValueError(
                f"the stage {stage} needs {run_dir / RESULTS[missing[0]]}, which is not there: `--stages "
                f"{' '.join([*missing, *stages])}` makes it."
            )
    if "retention" in stages and find_spec("skimage") is None:
        raise ValueError("the stage retention needs scikit-image, which `pip install '.[train]'` brings.")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run_dir", type=Path, default=Path("runs/shanshui"), help="clips, logs and checkpoints")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE", help=" ".join(STAGES))
    defaults = " ".join(f"{stage}={minutes:g}" for stage, minutes in MINUTES.items())
    parser.add_argument("--minutes", nargs="+", type=parse_minutes, default=[], metavar="STAGE=N", help=defaults)
    parser.add_argument(
        "--clips", type=int, default=3600, help="rendered for training, and as many again for the branch"
    )
    parser.add_argument("--workers", type=int, help="rendering processes; one per core")
    parser.add_argument(
        "--motion_steps", type=int, default=6000, help="over which the adapter's learning rate falls to zero; its last"
    )
    parser.add_argument(
        "--picture_steps", type=int, default=800, help="of the image retention branch on single frames"
    )
    parser.add_argument("--retention_steps", type=int, default=6000, help="as --motion_steps, of the branch on clips")
    parser.add_argument("--batch_scale", type=int, default=1, help="multiplies every batch: 1 for a CPU, 8 for a GPU")
    parser.add_argument(
        "--mixed_precision",
        choices=("no", "bf16"),
        help="of training; bf16 where a GPU or a CPU with AMX units is found",
    )
    parser.add_argument(
        "--compile",
        action="store_true",
        help="UNets and branch: some minutes once, then a quarter more steps",
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--export_dir", type=Path, help="where the finished family goes; RUN_DIR/shanshui_tiny")
    args = parser.parse_args()
    args.minutes = dict(args.minutes)
    args.export_dir = args.export_dir or args.run_dir / "shanshui_tiny"
    args.mixed_precision = args.mixed_precision or ("bf16" if computes_bfloat16_fast(args.device) else "no")
    if args.export_dir.exists() and not (args.export_dir / "model_index.json").is_file():
        parser.error(f"--export_dir {args.export_dir} is there, and is no pipeline that could be replaced")
    try:
        check_stages(args.run_dir, [stage for stage in STAGES if stage in args.stages])
    except ValueError as error:
        parser.error(str(error))
    return args


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    args = parse_args()
    args.run_dir.mkdir(parents=True, exist_ok=True)
    family = TinyFamily(args)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as Ctrl-C does: a script is told
    try:
        for stage in STAGES:
            if stage in args.stages:
                logger.info("stage %s", stage)
                getattr(family, stage)()
    except KeyboardInterrupt:
        logger.warning("stopped; the same command goes on where it was")
        sys.exit(EXIT_STOPPED)
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
