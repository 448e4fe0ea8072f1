"""Training scripts in an install without extras: --help works, and a run names the missing extra in one line."""

import json
import subprocess
import sys
from pathlib import Path

from video_files import make_video_folder


ROOT = Path(__file__).parents[2]
TRAINING = ROOT / "training"
SCRIPTS = sorted(
    str(path.relative_to(TRAINING))
    for path in (*TRAINING.glob("*.py"), *(TRAINING / "shanshui").glob("*.py"))
    if path.name != "__init__.py"
)
# Everything that only extras install; packages that others need anyway, such as tokenizers, are in the base install.
EXTRAS = ("imagehash", "skimage", "ray", "scipy", "torchmetrics", "tensorboard", "wandb", "bitsandbytes", "deepspeed")
# Runs scripts one after the other in a process that cannot find the extras, as if nobody had installed them.
PROGRAM = """
import json, runpy, sys
from importlib.machinery import PathFinder

extras, calls = json.loads(sys.argv[1])

class WithoutExtras(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in extras else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutExtras
for script, *arguments in calls:
    sys.argv = [script, *arguments]
    code = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as exit:
        code = exit.code or 0
    print(f"exit code of {script}: {code}", file=sys.stderr, flush=True)
"""


def run_without_extras(*calls: tuple[str, ...]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([EXTRAS, calls])],
        cwd=TRAINING,  # scripts import their siblings from there
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_every_script_has_help():
    result = run_without_extras(*((script, "--help") for script in SCRIPTS))
    assert "Traceback" not in result.stderr, result.stderr
    assert result.stderr.splitlines() == [f"exit code of {script}: 0" for script in SCRIPTS]
    for script in SCRIPTS:
        assert f"usage: {Path(script).name}" in result.stdout


def test_a_run_names_the_extra(tmp_path):
    videos = make_video_folder(tmp_path / "videos", [8])
    result = run_without_extras(("prepare_dataset.py", str(videos), "--output_dir", str(tmp_path / "clips")))
    message, code = result.stderr.splitlines()
    assert message.endswith(": The preparation needs ImageHash, which is not installed: pip install '.[train]'.")
    assert code == "exit code of prepare_dataset.py: 1" and not list(tmp_path.glob("clips*"))
