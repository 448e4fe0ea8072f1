"""Run a script or a module in this process, after a check that our packages come from one checkout.

`pins.py` starts this script: `pinned_launch.py CHECKOUT SCRIPT [ARGUMENT ...]` or `CHECKOUT -m MODULE [ARGUMENT ...]`.
"""

import importlib.util
import runpy
import sys
from pathlib import Path


OUR_PACKAGES = (
    "pipeline_landscape_video",
    "motion_adapter",
    "landscape_video",
    "landscape_cli",
    "landscape_evaluation",
    "shanshui",
)


def check_origins(root: Path) -> None:
    """Exit with a message if a package of the checkout would come from elsewhere; hide those it does not have."""
    for name in OUR_PACKAGES:
        if not any((folder / name / "__init__.py").is_file() for folder in (root, root / "training")):
            sys.modules[name] = None  # importing it raises ModuleNotFoundError, even where a copy is installed
            continue
        origin = importlib.util.find_spec(name).origin
        if not Path(origin).resolve().is_relative_to(root):
            sys.exit(f"{name} would be imported from {origin}, outside {root}.")
    import pipeline_landscape_video

    if not Path(pipeline_landscape_video.__file__).resolve().is_relative_to(root):
        sys.exit(f"pipeline_landscape_video was imported from {pipeline_landscape_video.__file__}, outside {root}.")


if __name__ == "__main__":
    check_origins(Path(sys.argv[1]))
    if sys.argv[2] == "-m":
        del sys.argv[:3]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        del sys.argv[:2]
        runpy.run_path(sys.argv[0], run_name="__main__")
