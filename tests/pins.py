"""Compare what two checkouts compute, bit for bit: frames, trained weights and exported models.

    python tests/pins.py compare --before DIR            # run the cases on DIR, then on this checkout, and compare
    python tests/pins.py record --to FILE.json           # run the cases on this checkout and store their hashes
    python tests/pins.py compare --before-results FILE.json

Hashes mean something on one machine with one set of packages only; `compare` refuses others. `--only CASE ...` runs
some of the cases. Every command starts in a process of its own, with one thread, in an empty folder, without a network
and with a home folder of its own. The code of the checkout is found by PYTHONPATH, so installed copies do not matter;
`pinned_launch.py` stops a process that would import ours from elsewhere. `pinned_calls.py` has the cases that call the
pipelines in Python. Delete all three scripts when the pinned behavior may change again.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from safetensors import deserialize


HERE = Path(__file__).resolve()
LAUNCH, CALLS = HERE.with_name("pinned_launch.py"), HERE.with_name("pinned_calls.py")
KEPT_VARIABLES = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
VERSIONED = ("torch", "torchvision", "diffusers", "transformers", "peft", "accelerate", "numpy", "opencv-python", "av")
PROMPT = "mist drifting over layered mountains, a boat on a calm lake"
# Four steps divide the 1000 timesteps of the schedule. Other numbers are stepped along their own list now, on purpose.
SHORT = ("--num-frames", "4", "--steps", "4", "--seed", "7", "--flow", "dis")
Hashes = dict[str, str]


class Checkout:
    """A checkout, and a scratch folder with a subfolder for each case, in which its commands run."""

    def __init__(self, root: Path, scratch: Path) -> None:
        self.root = root.resolve()
        self.painting = self.root / "examples" / "painting.png"
        self.scratch = scratch
        paths = [self.root, scratch / "metadata", scratch / "links"]
        for folder in (*paths[1:], scratch / "home"):
            folder.mkdir()
        if (self.root / "training" / "shanshui" / "__init__.py").is_file():  # the renderer as an importable package
            (scratch / "links" / "shanshui").symlink_to(self.root / "training" / "shanshui")
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self.environment = kept | threads | {
            "OPENCV_FOR_THREADS_NUM": "1",
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",  # a checkout under comparison stays as it is
            "HOME": str(scratch / "home"),
            "HF_HUB_OFFLINE": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "ACCELERATE_USE_CPU": "true",
        }  # fmt: skip
        # `importlib.metadata.version("landscape-video")` must work as if the checkout were installed.
        egg_info = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", str(scratch / "metadata")]
        subprocess.run(egg_info, cwd=self.root, env=self.environment | {"PYTHONPATH": ""}, check=True)

    def run(self, case: str, target: str | Path, *arguments: str | Path) -> Path:
        """Run a script (a path below the root, or an absolute one) or "-m MODULE" in the folder of the case.

        Returns:
            The folder of the case.

        Raises:
            subprocess.CalledProcessError: The command failed; `output` holds all that it printed.
        """
        folder = self.scratch / case
        folder.mkdir(exist_ok=True)
        environment = dict(self.environment)
        if target != "-m":  # a script finds the files beside it first, as `python SCRIPT` has it
            target = self.root / target
            environment["PYTHONPATH"] = os.pathsep.join([str(target.parent), environment["PYTHONPATH"]])
        command = [sys.executable, "-P", LAUNCH, self.root, target, *arguments]
        subprocess.run(
            list(map(str, command)),
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=True,
        )
        return folder

    def run_cli(self, case: str, *arguments: str | Path) -> Path:
        """Run a command of `landscape-video`, by the name its package has in this checkout."""
        renamed = (self.root / "landscape_video" / "__main__.py").is_file()
        return self.run(case, "-m", "landscape_video" if renamed else "landscape_cli", *arguments)

    def clips(self) -> str:
        """Render the eight clips, once; returns their folder as seen from the folder of a case."""
        if not (self.scratch / "render").is_dir():
            rendering = ("--output", "clips", "--clips", "8", "--frames", "16", "--seed", "3", "--workers", "0")
            self.run("render", "training/shanshui/render.py", *rendering)
        return "../render/clips"


# Hashes


def hash_array(array: np.ndarray) -> str:
    """Hash of shape, dtype and values."""
    header = f"{array.shape} {array.dtype}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def hash_images(folder: Path) -> Hashes:
    """Hashes of the decoded PNG files, by file name."""
    return {file.name: hash_array(np.asarray(Image.open(file))) for file in sorted(folder.glob("*.png"))}


def hash_video(file: Path) -> Hashes:
    """Hashes of the decoded frames, by number and timestamp in seconds."""
    with av.open(file) as container:
        return {
            f"{file.name} frame {index} at {frame.time:.6f} s": hash_array(frame.to_ndarray(format="rgb24"))
            for index, frame in enumerate(container.decode(video=0))
        }


def hash_tensors(folder: Path) -> Hashes:
    """Hashes of all tensors in the safetensors files below a folder, by file and name."""
    hashes = {}
    for file in sorted(folder.rglob("*.safetensors")):
        for name, tensor in deserialize(file.read_bytes()):
            header = f"{tensor['shape']} {tensor['dtype']}".encode()
            digest = hashlib.sha256(header + bytes(tensor["data"])).hexdigest()[:16]
            hashes[f"{folder.name}/{file.relative_to(folder)}: {name}"] = digest
    if not hashes:
        raise FileNotFoundError(f"{folder}: no safetensors files.")
    return hashes


def list_files(folder: Path) -> Hashes:
    """Hash of each config below a folder, "file" for all others (records of training hold times): not compared."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {
        str(file.relative_to(folder)): (
            hashlib.sha256(file.read_bytes()).hexdigest()[:16]
            if file.name.endswith(("config.json", "model_index.json"))
            else "file"
        )
        for file in files
    }


def read_log(file: Path) -> Hashes:
    """The numbers of a training log without those that are times: reported, but not compared."""
    lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {
        f"{file.name} line {number}: {name}": str(value)
        for number, line in enumerate(lines, start=1)
        for name, value in line.items()
        if "second" not in name
    }


# Cases that start commands: each returns what must be equal, and what is only reported


def render(checkout: Checkout) -> tuple[Hashes, Hashes]:
    clips = checkout.scratch / "render" / checkout.clips()
    captions = (clips / "metadata.jsonl").read_bytes()
    hashes = {"captions": hashlib.sha256(captions).hexdigest()[:16]}
    for file in sorted(clips.glob("*.mp4")):
        hashes |= hash_video(file)
    return hashes, {}


def generate(checkout: Checkout) -> tuple[Hashes, Hashes]:
    folder = checkout.run_cli("generate", "generate", PROMPT, *SHORT, "--output", "clip")
    return hash_images(folder / "clip"), {}


def animate(checkout: Checkout) -> tuple[Hashes, Hashes]:
    folder = checkout.run_cli("animate", "animate", checkout.painting, PROMPT, *SHORT, "--output", "clip")
    return hash_images(folder / "clip"), {}


def interpolate(checkout: Checkout) -> tuple[Hashes, Hashes]:
    clip = f"{checkout.clips()}/clip_000000.mp4"
    folder = checkout.run_cli("interpolate", "interpolate", clip, "smooth.mp4", "--times", "2", "--flow", "dis")
    return hash_video(folder / "smooth.mp4"), {}


def training_flags(checkout: Checkout) -> tuple[str, ...]:
    return (
        "--pretrained_model_name_or_path", "shanshui-tiny", "--train_data_dir", checkout.clips(), "--resolution",
        "128", "--sample_stride", "1", "--cache_dir", "cache", "--output_dir", "run",
        "--validation_inference_steps", "2",
    )  # fmt: skip


def hash_validation(run: Path) -> Hashes:
    return {name: digest for file in sorted(run.glob("validation/*.mp4")) for name, digest in hash_video(file).items()}


def report_run(run: Path) -> Hashes:
    return list_files(run) | read_log(run / "log.jsonl") | read_log(run / "validation.jsonl")


def train_motion(checkout: Checkout) -> tuple[Hashes, Hashes]:
    """The paper's objective with the flags' defaults, an average of the weights, and two validation clips."""
    flags = ("--max_train_steps", "10", "--num_frames_range", "8", "--use_ema", "--validation_steps", "5")
    run = checkout.run("train_motion", "training/train_motion.py", *training_flags(checkout), *flags) / "run"
    hashes = hash_tensors(run / "motion_adapter") | hash_tensors(run / "noise_adapter")
    return hashes | hash_validation(run), report_run(run)


def train_motion_resumed(checkout: Checkout) -> tuple[Hashes, Hashes]:
    """Other choices of objective and optimizer, without the cache; then the last steps again from a checkpoint."""
    flags = (
        "--max_train_steps", "4", "--num_frames_range", "8", "12", "--train_batch_size", "2", "--no_cache",
        "--gradient_accumulation_steps", "2", "--gradient_checkpointing", "--optimizer", "muon", "--learning_rate",
        "1e-3", "--lr_scheduler", "cosine", "--snr_gamma", "5", "--slow_motion_prob", "0.5", "--negatives", "eq10",
        "--timestep_bias_strategy", "later", "--sparse_causal_mode", "first_previous", "--checkpointing_steps", "2",
    )  # fmt: skip
    start = ("training/train_motion.py", *training_flags(checkout), *flags)
    run = checkout.run("train_motion_resumed", *start) / "run"
    hashes = {f"in one go: {name}": digest for name, digest in hash_tensors(run / "motion_adapter").items()}
    checkout.run("train_motion_resumed", *start, "--resume_from_checkpoint", "run/checkpoint-2")
    hashes |= {f"resumed: {name}": digest for name, digest in hash_tensors(run / "motion_adapter").items()}
    return hashes, list_files(run) | read_log(run / "log.jsonl")


def train_image_retention(checkout: Checkout) -> tuple[Hashes, Hashes]:
    flags = (
        "--max_train_steps", "5", "--num_frames_range", "8", "--train_batch_size", "2", "--use_ema",
        "--validation_steps", "5", "--validation_images", checkout.painting,
        "--validation_prompts", PROMPT,
    )  # fmt: skip
    start = ("training/train_image_retention.py", *training_flags(checkout), *flags)
    run = checkout.run("train_image_retention", *start) / "run"
    hashes = hash_tensors(run / "image_retention") | hash_tensors(run / "motion_adapter")
    return hashes | hash_validation(run), report_run(run)


def call_in_python(checkout: Checkout, case: str, file: str | Path | None = None) -> tuple[Hashes, Hashes]:
    """A case of `pinned_calls.py`: the arrays that it wrote, and what it exported, if anything."""
    folder = checkout.run(case, CALLS, case, *([] if file is None else [file]))
    with np.load(folder / "arrays.npz") as arrays:
        hashes = {name: hash_array(arrays[name]) for name in arrays.files}
    exported = folder / "exported"
    return (hashes | hash_tensors(exported), list_files(exported)) if exported.is_dir() else (hashes, {})


CASES: dict[str, Callable[[Checkout], tuple[Hashes, Hashes]]] = {
    "render": render,
    "generate": generate,
    "animate": animate,
    "interpolate": interpolate,
    "text_pipeline": lambda checkout: call_in_python(checkout, "text_pipeline"),
    "image_pipeline": lambda checkout: call_in_python(checkout, "image_pipeline", checkout.painting),
    "sofp": lambda checkout: call_in_python(checkout, "sofp", f"{checkout.clips()}/clip_000001.mp4"),
    "hub_export": lambda checkout: call_in_python(checkout, "hub_export", checkout.painting),
    "train_motion": train_motion,
    "train_motion_resumed": train_motion_resumed,
    "train_image_retention": train_image_retention,
}


# Recording and comparing


def describe_machine() -> dict[str, str]:
    """What else than code decides which bits come out."""
    processors = Path("/proc/cpuinfo")
    models = (
        [line for line in processors.read_text().splitlines() if "model name" in line] if processors.exists() else []
    )
    machine = {"python": platform.python_version(), "cpu": (models or [platform.processor()])[0].partition(": ")[2]}
    return machine | {package: version(package) for package in VERSIONED}


def record(root: Path, names: list[str]) -> dict[str, Any]:
    """Run cases on a checkout.

    Returns:
        "machine", "checkout", and "cases": for each its "seconds", and either the "failure" or the hashes that must be
        "equal" and those that are only "reported".
    """
    results: dict[str, Any] = {"checkout": str(root), "machine": describe_machine(), "cases": {}}
    with tempfile.TemporaryDirectory(prefix="pins-") as scratch:
        checkout = Checkout(root, Path(scratch))
        for name in names:
            start = time.monotonic()
            try:
                equal, reported = CASES[name](checkout)
                result = {"equal": equal, "reported": reported}
            except subprocess.CalledProcessError as error:
                result = {"failure": error.output[-3000:]}
            except OSError as error:  # an output is missing
                result = {"failure": str(error)}
            result["seconds"] = round(time.monotonic() - start, 1)
            results["cases"][name] = result
            outcome = "failed" if "failure" in result else f"{len(result['equal'])} hashes"
            print(f"{root.name}: {name}: {outcome}, {result['seconds']} s", file=sys.stderr, flush=True)
    return results


def differences(before: Hashes, after: Hashes) -> list[str]:
    """One line for each entry that was removed, added or changed."""
    return [
        f"{'+' if name not in before else '-' if name not in after else '!'} {name}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def compare(before: dict[str, Any], after: dict[str, Any], names: list[str]) -> bool:
    """Print a line for each case, and the first differences; returns whether all cases are equal.

    Raises:
        SystemExit: The results are of different machines.
    """
    changed = differences(before["machine"], after["machine"])
    if changed:
        sys.exit(f"The results are of different machines or packages: {', '.join(changed)}. Record them again.")
    all_equal = True
    for name in names:
        old, new = before["cases"].get(name), after["cases"].get(name)
        if old is None or "failure" in old or "failure" in new:
            all_equal = False
            problem = "was not recorded before" if old is None else (old | new)["failure"]
            print(f"{name:22} FAILED     {problem}")
            continue
        unequal = differences(old["equal"], new["equal"])
        all_equal = all_equal and not unequal
        count = len(old["equal"].keys() | new["equal"].keys())
        outcome = f"DIFFERENT  {len(unequal)} of {count} hashes" if unequal else f"equal      {count} hashes"
        print(f"{name:22} {outcome}, {new['seconds']} s")
        for line in unequal[:10]:
            print(f"    {line}")
        for line in differences(old["reported"], new["reported"]):
            print(f"    not compared: {line}")
    return all_equal


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Compare what two checkouts compute, bit for bit.",
        epilog="+ was added, - was removed, ! has changed. Lists of files, JSON files and logs are printed where they "
        "differ, but do not count: new leaf files of the pipelines and new entries of configs are expected. Exit "
        "code 1: something differs or failed.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run the cases on one checkout and store their hashes")
    recording.add_argument("--to", type=Path, required=True, metavar="FILE.json", help="file to write")
    comparing = commands.add_parser("compare", help="run the cases and compare them with those of an older checkout")
    source = comparing.add_mutually_exclusive_group(required=True)
    source.add_argument("--before", type=Path, metavar="DIR", help="the older checkout: runs the cases there, too")
    source.add_argument("--before-results", type=Path, metavar="FILE.json", help="what `record` stored for it")
    for command in (recording, comparing):
        command.add_argument(
            "--checkout", type=Path, default=HERE.parents[1], metavar="DIR", help="checkout to run (default: this one)"
        )
        command.add_argument("--only", nargs="+", choices=CASES, metavar="CASE", help=f"of {', '.join(CASES)}")
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    names = args.only or list(CASES)
    if args.command == "record":
        results = record(args.checkout.resolve(), names)
        args.to.write_text(json.dumps(results, indent=1), encoding="utf-8")
        return int(any("failure" in result for result in results["cases"].values()))
    if args.before is None:
        before = json.loads(args.before_results.read_text(encoding="utf-8"))
    else:
        before = record(args.before.resolve(), names)
    return int(not compare(before, record(args.checkout.resolve(), names), names))


if __name__ == "__main__":
    sys.exit(main())
