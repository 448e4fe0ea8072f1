"""`landscape-video convert`: motion modules from AnimateDiff's files to ours, and back."""

import os
from pathlib import Path
from typing import Annotated

import typer

from landscape_video.cli.common import SparseCausalMode
from landscape_video.files import write_directory


Source = Annotated[
    Path,
    typer.Argument(
        show_default=False,
        help="An AnimateDiff file (.safetensors, .ckpt, .pt, .pth, .bin), or the folder of a motion adapter.",
    ),
]
Target = Annotated[
    Path,
    typer.Argument(
        show_default=False,
        help="What to make: a new folder from a file, a new .safetensors file from a folder.",
    ),
]
Mode = Annotated[
    SparseCausalMode | None,
    typer.Option(
        help="Which frames the second attention was trained to see. Without it: what a file of ours says, else all of "
        "them, as AnimateDiff."
    ),
]
MaxFrames = Annotated[
    int | None,
    typer.Option(min=1, metavar="NUMBER", help="Most frames of a clip, for a file without position tables."),
]
DropImageLayers = Annotated[
    bool, typer.Option("--drop-image-layers", help="Accept a whole UNet's checkpoint; take its motion modules only.")
]


def convert(
    source: Source,
    target: Target,
    sparse_causal_mode: Mode = None,
    max_frames: MaxFrames = None,
    drop_image_layers: DropImageLayers = False,
) -> None:
    """Convert motion modules from AnimateDiff's layout, or to it, without loss.

    From AnimateDiff (or ConCLVD) to a folder for `--motion-adapter` and `MotionAdapter.from_pretrained`:

        $ landscape-video convert mm_sd_v15_v2.ckpt animatediff-v2

    To one file for ComfyUI and WebUI, which run it with plain attention:

        $ landscape-video convert my-adapter my-adapter.safetensors

    Pickled files are read as tensors only; nothing in them can run. Unknown names in a file are an error.
    """
    check_target(target)
    if source.is_dir():
        refused = {"--sparse-causal-mode": sparse_causal_mode, "--max-frames": max_frames}
        for option, value in {**refused, "--drop-image-layers": drop_image_layers or None}.items():
            if value is not None:
                raise ValueError(f"{option}: is for files of AnimateDiff, but {source} is a folder.")
        if target.suffix != ".safetensors":
            raise ValueError(f"{target}: the target for a folder has to end in .safetensors.")
    elif not source.is_file():
        raise ValueError(f"{source}: there is no such file or folder.")
    elif target.suffix:
        raise ValueError(f"{target}: the target for a file has to be a folder, a name without a suffix.")

    from motion_adapter.convert import load_animatediff, save_animatediff
    from motion_adapter.publish import load_adapter
    from pipeline_landscape_video.quiet_loading import less_chatter

    with less_chatter():
        if source.is_dir():
            adapter = load_adapter(source)
            save_animatediff(adapter, target)
            mode = adapter.config.get("sparse_causal_mode", "full")
            if mode != "full":
                typer.echo(f"warning: trained as {mode!r}; other programs run it with plain attention.", err=True)
        else:
            mode = sparse_causal_mode and sparse_causal_mode.value
            adapter = load_animatediff(source, mode, max_frames, drop_image_layers=drop_image_layers)
            with write_directory(target) as folder:
                adapter.save_pretrained(folder)
    config = adapter.config
    typer.echo(
        f"{target}: {adapter.num_parameters() / 1e6:.1f} M parameters in {adapter.dtype}, clips of up to "
        f"{config.motion_max_seq_length} frames, attention {config.get('sparse_causal_mode', 'full')}"
    )


def check_target(target: Path) -> None:
    """Raise `ValueError` for a target that is there, or whose folder is not."""
    if target.exists():
        raise ValueError(f"{target}: is there already; remove it, or choose another name.")
    if not target.absolute().parent.is_dir():
        raise ValueError(f"{target}: there is no folder {target.parent}.")
    if not os.access(target.absolute().parent, os.W_OK | os.X_OK):
        raise ValueError(f"{target}: the folder {target.parent} cannot be written to.")
