"""Guide noise predictions by a text, or by a text and an image."""

from collections.abc import Callable

import torch
from diffusers import AnimateDiffPipeline


GUIDANCE_ORDERS = ("text_first", "picture_first")

NoisePredictor = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]  # as in landscape_denoising.py


def guide_by_text(predict_noise: NoisePredictor, pipe: AnimateDiffPipeline) -> NoisePredictor:
    """
    CFG Eq. 6: classifier-free guidance by a text, `f(0) + s [f(c) - f(0)]`, with s = 1 + w.

    Args:
        predict_noise: Predictor of a doubled batch, the unconditional half first; of a single one without guidance.
        pipe: Pipeline whose `do_classifier_free_guidance` and `guidance_scale` are read in every step, because a
            callback may change them.

    Returns:
        Predictor of the single batch.
    """

    def predict_guided_noise(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        if not pipe.do_classifier_free_guidance:
            return predict_noise(latents, timestep, step)
        noise_uncond, noise_text = predict_noise(torch.cat([latents] * 2), timestep, step).chunk(2)
        return noise_uncond + pipe.guidance_scale * (noise_text - noise_uncond)

    return predict_guided_noise


def guide_by_text_and_image(predict_noise: NoisePredictor, coefficients: list[float]) -> NoisePredictor:
    """
    Return the sum of the predictions of all guidance terms, each times its coefficient.

    Args:
        predict_noise: Predictor of a batch that repeats the latents once per guidance term.
        coefficients: Coefficient of each term, see `guidance_terms`.

    Returns:
        Predictor of the single batch.
    """

    def predict_guided_noise(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        noise_pred = predict_noise(torch.cat([latents] * len(coefficients)), timestep, step)
        # In float32: large coefficients of opposite signs would lose the last digits of float16.
        terms = noise_pred.float().chunk(len(coefficients))
        return sum(coefficient * term for coefficient, term in zip(coefficients, terms, strict=True)).to(latents.dtype)

    return predict_guided_noise


def predict_with_images(
    pipe: AnimateDiffPipeline,
    embeds_of_frames: Callable[[], torch.Tensor],
    images: torch.Tensor,
    coefficients: list[float],
    retention_scale: float,
) -> NoisePredictor:
    """
    Return the predictor of guided noise: all guidance terms in one batch, through retention branch and UNet.

    Args:
        pipe: Image-to-video pipeline.
        embeds_of_frames: Function that returns the prompt embeddings, `(terms * batch * num_frames, tokens, dim)`; it
            is called in every step.
        images: Image of each term and clip, `(terms * batch, 3, height, width)` in [-1, 1].
        coefficients: Coefficient of each guidance term.
        retention_scale: Factor of the branch's residuals.
    """

    def predict_noise(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        latents = pipe.scheduler.scale_model_input(latents, timestep)
        prompt_embeds, residuals = embeds_of_frames(), {}
        if retention_scale != 0:
            down, mid = pipe.image_retention(latents, timestep, prompt_embeds, images, retention_scale)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        return pipe.unet(
            latents,
            timestep,
            encoder_hidden_states=prompt_embeds,
            cross_attention_kwargs=pipe.cross_attention_kwargs,
            **residuals,
        ).sample

    return guide_by_text_and_image(predict_noise, coefficients)


def guidance_terms(
    guidance_scale: float,
    image_guidance_scale: float,
    has_text: bool,
    has_image: bool,
    guidance_order: str = "text_first",
) -> dict[tuple[bool, bool], float]:
    """
    DreamVideo Eq. 5 and InstructPix2Pix Eq. 3: coefficients of the guidance terms.

    With the prediction f, the text c_t and the image c_i:

        f(0,0) + s_t [f(c_t,0) - f(0,0)] + s_i [f(c_t,c_i) - f(c_t,0)]    text first (DreamVideo Eq. 5)
        f(0,0) + s_i [f(0,c_i) - f(0,0)] + s_t [f(c_t,c_i) - f(0,c_i)]    image first (InstructPix2Pix Eq. 3)

    Without an image, c_i is the null image, and without a text, c_t is the null text. Equal terms are merged, and a
    term with coefficient 0 is dropped.

    Args:
        guidance_scale: Guidance scale s_t of the text.
        image_guidance_scale: Guidance scale s_i of the image.
        has_text: Whether there is a text.
        has_image: Whether there is an image.
        guidance_order: One of `GUIDANCE_ORDERS`.

    Returns:
        Coefficients by (sees the text, sees the image).
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
