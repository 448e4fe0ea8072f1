"""The ComfyUI node pack, imported as ComfyUI does it: from its folder, under a name of its own."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType


PACK = Path(__file__).parents[2] / "comfyui_landscape_video"


def import_from_pack(name: str) -> ModuleType:
    """Import a module of the pack that needs no ComfyUI, such as `"vendored.sofp"`."""
    if PACK.name not in sys.modules:
        spec = importlib.util.spec_from_file_location(PACK.name, PACK / "__init__.py")
        sys.modules[PACK.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[PACK.name])
    return importlib.import_module(f"{PACK.name}.{name}")
