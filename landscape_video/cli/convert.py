"""`landscape-video convert`: convert motion modules between AnimateDiff's files and diffusers' folders."""

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from landscape_video.files import write_directory


SparseCausalMode = Literal["previous", "current_previous", "first_previous", "full"]
MotionNorm = Literal["clip", "frame"]


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            show_default=False,
            help="An AnimateDiff file (.safetensors, .ckpt, .pt, .pth, .bin), or the folder of a motion adapter.",
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            show_default=False,
            help="New folder for a file, new .safetensors file for a folder.",
        ),
    ],
    sparse_causal_mode: Annotated[
        SparseCausalMode | None,
        typer.Option(
            help="Frames that the second attention was trained to see.",
            show_default="the mode stored in our own files, else full as in AnimateDiff",
        ),
    ] = None,
    motion_norm: Annotated[
        MotionNorm | None,
        typer.Option(
            help="Frames over which the motion modules' norm was trained: all of a clip, or each.",
            show_default="the norm stored in our own files, else frame as in AnimateDiff",
        ),
    ] = None,
    max_frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="Maximum frames of a clip, for a file without position tables.",
            show_default="the file's own",
        ),
    ] = None,
    drop_image_layers: Annotated[
        bool,
        typer.Option(
            "--drop-image-layers", help="Accept the checkpoint of a whole UNet and take only its motion modules."
        ),
    ] = False,
) -> None:
    """Convert motion modules from AnimateDiff's layout, or to it, without loss.

    From AnimateDiff (or ConCLVD) to a folder for `--motion-adapter` and `MotionAdapter.from_pretrained`:

        $ landscape-video convert mm_sd_v15_v2.ckpt animatediff-v2

    To one file for ComfyUI and WebUI, whose header says how it was trained:

        $ landscape-video convert my-adapter my-adapter.safetensors

    Pickled files are read as tensors only; no code in them can run. Unknown names in a file are an error.
    """
    check_target(target)
    if source.is_dir():
        for_files = {
            "sparse_causal_mode": sparse_causal_mode,
            "motion_norm": motion_norm,
            "max_frames": max_frames,
        }
        for name, value in {**for_files, "drop_image_layers": drop_image_layers}.items():
            if value:
                raise ValueError(f"`{name}` is for files of AnimateDiff, but {source} is a folder; leave it out.")
        if target.suffix != ".safetensors":
            raise ValueError(f"{target}: the target for a folder must end in .safetensors.")
    elif not source.is_file():
        raise ValueError(f"{source}: no such file or folder.")
    elif target.suffix:
        raise ValueError(f"{target}: the target for a file must be a folder, a name without a suffix.")

    from motion_adapter.convert import load_animatediff, save_animatediff
    from motion_adapter.other_programs import trained_as
    from motion_adapter.weights_files import load_adapter, save_adapter
    from pipeline_landscape_video.quiet_loading import less_chatter

    with less_chatter():
        if source.is_dir():
            adapter = load_adapter(source)
            save_animatediff(adapter, target)
        else:
            adapter = load_animatediff(
                source,
                sparse_causal_mode,
                max_frames,
                drop_image_layers=drop_image_layers,
                motion_norm=motion_norm,
            )
            with write_directory(target, overwrite=False) as folder:
                save_adapter(adapter, folder)
    config = adapter.config
    typer.echo(f"warning: {trained_as(config)}", err=True)
    typer.echo(
        f"{target}: {adapter.num_parameters() / 1e6:.1f} M parameters in {adapter.dtype}, clips of up to "
        f"{config.motion_max_seq_length} frames, attention {config.get('sparse_causal_mode', 'full')}, "
        f"norm {config.get('motion_norm', 'clip')}"
    )


def check_target(target: Path) -> None:
    """Raise `ValueError` for a target that exists, or whose folder is missing or not writable."""
    folder = target.absolute().parent
    if target.exists():
        raise ValueError(f"{target}: exists already; remove it, or choose another name.")
    if not folder.is_dir():
        raise ValueError(f"{target}: the folder {target.parent} does not exist.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{target}: the folder {target.parent} is not writable.")
