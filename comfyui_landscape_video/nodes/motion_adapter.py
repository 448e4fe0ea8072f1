"""Load a motion adapter of landscape-video into AnimateDiff-Evolved."""

from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ..adapter_files import MOTION_NORMS, read_adapter_settings
from ..animatediff_evolved import apply_settings
from ..vendored.motion_attention import SPARSE_CAUSAL_MODES
from .common import CATEGORY, PREFIX, evolved_node


FROM_FILE = "from file"
FOLDER = "animatediff_models"  # of AnimateDiff-Evolved, below models/
LOADER = "ADE_LoadAnimateDiffModel"

if FOLDER not in folder_paths.folder_names_and_paths:  # AnimateDiff-Evolved may be loaded later, or be missing
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))


class LoadMotionAdapter(io.ComfyNode):
    """File to MOTION_MODEL of AnimateDiff-Evolved, with the attention and norm that the adapter was trained with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{PREFIX}LoadMotionAdapter",
            display_name="Load Motion Adapter (AnimateDiff-Evolved)",
            category=CATEGORY,
            description="Load a motion adapter for Apply AnimateDiff Model (Gen2) with exactly the attention and norm "
            "that it was trained with. AnimateDiff-Evolved's own loader runs full attention.",
            search_aliases=["animatediff", "motion model", "motion module"],
            inputs=[
                io.Combo.Input(
                    "adapter",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip="A .safetensors file in models/animatediff_models.",
                ),
                io.Combo.Input(
                    "sparse_causal_mode",
                    options=[FROM_FILE, *SPARSE_CAUSAL_MODES],
                    default=FROM_FILE,
                    tooltip="Frames that the second attention sees. Files of landscape-video say it; those of "
                    "AnimateDiff have full attention.",
                ),
                io.Combo.Input(
                    "motion_norm",
                    options=[FROM_FILE, *MOTION_NORMS],
                    default=FROM_FILE,
                    tooltip="Statistics of the group norm: over the clip, as in diffusers, or over each frame, as in "
                    "AnimateDiff. Files of landscape-video say it.",
                ),
                io.Custom("AD_SETTINGS").Input(
                    "ad_settings", optional=True, tooltip="AnimateDiff Settings of AnimateDiff-Evolved."
                ),
            ],
            outputs=[io.Custom("MOTION_MODEL_ADE").Output("motion_model", display_name="MOTION_MODEL")],
        )

    @classmethod
    def fingerprint_inputs(cls, adapter: str, **_: Any) -> float:
        path = folder_paths.get_full_path(FOLDER, adapter)
        return Path(path).stat().st_mtime if path else float("nan")

    @classmethod
    def execute(
        cls, adapter: str, sparse_causal_mode: str, motion_norm: str, ad_settings: Any = None
    ) -> io.NodeOutput:
        loader = evolved_node(LOADER)()
        chosen = {"sparse_causal_mode": sparse_causal_mode, "motion_norm": motion_norm}
        chosen = {name: value for name, value in chosen.items() if value != FROM_FILE}
        settings = read_adapter_settings(Path(folder_paths.get_full_path_or_raise(FOLDER, adapter)), **chosen)
        (motion_model,) = loader.load_motion_model(adapter, ad_settings)
        apply_settings(motion_model.model, settings)
        return io.NodeOutput(motion_model)
