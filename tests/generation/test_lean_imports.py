"""Start-up: the program imports no package that its command does not use, and they can be imported afterwards."""

import subprocess
import sys

import pytest


SCRIPT = """
import sys
from landscape_video.generation.lean_imports import plan_lean_imports
plan_lean_imports(sys.argv[1:])
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.settings import ModelSettings
pipe = load_pipeline(ModelSettings(device="cpu"))
print(*(name for name in ("scipy", "torchvision", "peft", "accelerate") if name in sys.modules))
import torchvision
assert pipe.get_flow_estimator("dis") is not None and torchvision.ops
"""


@pytest.mark.parametrize(
    ("arguments", "loaded"),
    [
        (["generate", "mist"], set()),
        (["generate", "mist", "--preset=draft"], {"peft", "accelerate"}),
    ],
)
def test_only_what_a_command_uses_is_imported(arguments, loaded):
    result = subprocess.run([sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    found = set(result.stdout.split())
    assert found & {"peft", "accelerate"} == loaded and "scipy" not in found - loaded
