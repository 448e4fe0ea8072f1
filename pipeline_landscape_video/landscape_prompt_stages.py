"""Match prompts and images to clips and prompt stages."""

from collections.abc import Iterable
from typing import Any

import torch


def list_stages(prompt: str | list[str] | None, prompts: list[str | list[str]] | None) -> list[str | list[str] | None]:
    """
    Return the text of each prompt stage; `None` means that a single stage has no text.

    Raises:
        ValueError: Both arguments are given, or a stage has no text.
    """
    if prompts is None:
        if not isinstance(prompt, str | dict | list | None):
            raise ValueError(f"`prompt` must be a string, a dictionary or a list, got {prompt!r}.")
        return [prompt]
    if prompt is not None:
        raise ValueError("`prompt` must be None when `prompts` is given, got both; pass one of them.")
    if isinstance(prompts, str) or len(prompts) == 0:
        raise ValueError(f"`prompts` must be a list with the text of each stage, got {prompts!r}.")
    for text in prompts:
        if not isinstance(text, str | dict | list):
            raise ValueError(
                f"`prompts` must hold a string per stage, or a list with a string per clip, got {text!r} for a stage."
            )
    return list(prompts)


def common_length(
    texts: list[str | list[str] | None], images: torch.Tensor | None, negative_prompt: str | list[str] | None
) -> int:
    """
    Return the number of clips that these arguments describe.

    Raises:
        ValueError: Two lists differ in length, and neither has the length 1.
    """
    if not isinstance(negative_prompt, str | dict | list | None):
        raise ValueError(f"`negative_prompt` must be a string, a dictionary or a list, got {negative_prompt!r}.")
    lengths = {len(text) for text in (*texts, negative_prompt) if isinstance(text, list)}
    lengths |= set() if images is None else {len(images)}
    longest = max(lengths, default=1)
    if not lengths <= {1, longest}:
        raise ValueError(
            "prompts and images must have one entry for all clips or one per clip, got lists of"
            f" {', '.join(map(str, sorted(lengths)))}."
        )
    return longest


def check_stages(
    texts: list[str | list[str] | None],
    image: Any,
    retention_scale: float,
    latents: torch.Tensor | None,
    match_colors_of_latents: bool,
    closed_loop: bool = False,
) -> None:
    """
    Check the arguments of a call with prompt stages against each other.

    Args:
        texts: Text of each stage, see `list_stages`.
        image: Image of the first stage, or `None`.
        retention_scale: Factor of the branch's residuals.
        latents: Initial latents, or `None`.
        match_colors_of_latents: Whether colors are to be matched although latents are returned.
        closed_loop: Whether the clip ends where it begins.

    Raises:
        ValueError: Two arguments contradict each other.
    """
    if texts == [None] and image is None:
        raise ValueError("`prompt` or `image` must be given, got neither.")
    if texts == [None] and retention_scale == 0:
        raise ValueError("`retention_scale` must not be 0 without a `prompt`: the `image` would not be seen.")
    if len(texts) > 1 and retention_scale == 0:
        raise ValueError(
            "`retention_scale` must not be 0 with several stages: a stage would not see the end of the previous one."
        )
    if len(texts) > 1 and latents is not None:
        raise ValueError(f"`latents` must be None with several stages, got {len(texts)} `prompts`.")
    if len(texts) > 1 and closed_loop:
        raise ValueError(f"`closed_loop` must be False with several stages, got {len(texts)} `prompts`.")
    if match_colors_of_latents:
        raise ValueError("`match_stage_colors` needs frames, got `output_type='latent'`.")


def stack_images(
    images: torch.Tensor | None, terms: Iterable[tuple[bool, bool]], shape: tuple[int, ...]
) -> torch.Tensor:
    """
    Return the image of each guidance term and clip, `(terms * batch, 3, height, width)` in [-1, 1].

    Args:
        images: Images, `(1 or batch, 3, height, width)` in [-1, 1], or `None`.
        terms: (sees the text, sees the image) of each guidance term. A term that sees no image gets the null image,
            which is white.
        shape: `(batch, 3, height, width)`.
    """
    white = torch.ones(shape) if images is None else torch.ones_like(images).expand(shape)
    return torch.cat([images.expand(shape) if has_image else white for _, has_image in terms])
