"""
Guidance by a text and a picture, and which texts and pictures belong to which clip and stage.
"""

import torch


GUIDANCE_ORDERS = ("text_first", "picture_first")


def guidance_branches(
    guidance_scale: float,
    image_guidance_scale: float,
    has_text: bool,
    has_image: bool,
    guidance_order: str = "text_first",
) -> dict[tuple[bool, bool], float]:
    """
    The coefficients of what a prediction f is guided by, by whether it sees the text c_t and the picture c_i:

        f(0,0) + s_t [f(c_t,0) - f(0,0)] + s_i [f(c_t,c_i) - f(c_t,0)]    text first (DreamVideo, Eq. 5)
        f(0,0) + s_i [f(0,c_i) - f(0,0)] + s_t [f(c_t,c_i) - f(0,c_i)]    picture first (InstructPix2Pix, Eq. 3)

    One that counts for nothing is left out. Without a picture, c_i is the null picture; without a text, c_t is the
    null text: equal predictions are one.
    """
    if not has_image:
        image_guidance_scale = 0.0
    if not has_text:
        guidance_scale = image_guidance_scale
    first, second, between = guidance_scale, image_guidance_scale, (has_text, False)
    if guidance_order == "picture_first":
        first, second, between = second, first, (False, has_image)
    coefficients: dict[tuple[bool, bool], float] = {}
    for sees, coefficient in (
        ((False, False), 1 - first),
        (between, first - second),
        ((has_text, has_image), second),
    ):
        coefficients[sees] = coefficients.get(sees, 0.0) + coefficient
    return {sees: coefficient for sees, coefficient in coefficients.items() if coefficient != 0}


def stack_pictures(
    pictures: torch.Tensor | None, branches: dict[tuple[bool, bool], float], shape: tuple[int, ...]
) -> torch.Tensor:
    """Pictures `(branches * batch, 3, height, width)`, white where a branch of the guidance sees none."""
    white = torch.ones(shape) if pictures is None else torch.ones_like(pictures).expand(shape)
    return torch.cat([pictures.expand(shape) if has_image else white for _, has_image in branches])


def list_stages(prompt: str | list[str] | None, prompts: list[str | list[str]] | None) -> list[str | list[str] | None]:
    """The text of each stage. Raises a `ValueError` for both arguments, or for stages without a text."""
    if prompts is None:
        if not isinstance(prompt, str | list | None):
            raise ValueError(f"`prompt` is {prompt!r}, must be a text or a list of them.")
        return [prompt]
    if prompt is not None:
        raise ValueError("there is a `prompt` besides the `prompts` of stages; give one of them.")
    if isinstance(prompts, str) or len(prompts) == 0:
        raise ValueError(f"`prompts` is {prompts!r}, must be a list with the text of each stage.")
    for text in prompts:
        if not isinstance(text, str | list):
            raise ValueError(f"`prompts` has {text!r}, must be a text for each stage, or a list of one for each clip.")
    return list(prompts)


def common_length(
    texts: list[str | list[str] | None], pictures: torch.Tensor | None, negative_prompt: str | list[str] | None
) -> int:
    """How many clips are made. Raises a `ValueError` for lists of different lengths, other than 1."""
    if not isinstance(negative_prompt, str | list | None):
        raise ValueError(f"`negative_prompt` is {negative_prompt!r}, must be a text or a list of them.")
    lengths = {len(text) for text in (*texts, negative_prompt) if isinstance(text, list)}
    lengths |= set() if pictures is None else {len(pictures)}
    longest = max(lengths, default=1)
    if not lengths <= {1, longest}:
        raise ValueError(
            f"prompts and pictures are lists of {', '.join(map(str, sorted(lengths)))}; there must be one for all"
            " clips or one for each."
        )
    return longest


def as_list(text: str | list[str], length: int) -> list[str]:
    """A text for each clip."""
    return [text] * length if isinstance(text, str) else list(text) * (length // len(text))
