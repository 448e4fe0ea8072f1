"""Check the measurements and the autoencoder on held-out rendered clips, whose content is known."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from diffusers import AutoencoderKL

from landscape_video.evaluation.metrics.intervals import Interval, balanced_accuracy, bootstrap, mean, ratio_of_means
from landscape_video.evaluation.metrics.motion_metrics import measure_flow
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier, sampled_frames
from shanshui.measuring.classifier_training import MOTIFS, reconstruct
from shanshui.measuring.predictions import Labels, classify_clips, predict
from shanshui.renderer.scene import Scene


VALID_FROM = 0.9  # share of held-out rendered clips that a measurement must be right about to count
RECONSTRUCTED, RECONSTRUCTED_WHOLE = 80, 24  # clips: a few frames of the first ones, and all frames


@dataclass(frozen=True)
class HeldOutResults:
    """How often the measurements are right on held-out rendered clips, and how faithful the autoencoder is.

    Args:
        held_out: Accuracy on the clips.
        reconstructed: Accuracy on reconstructions of the clips.
        ssim, psnr: Fidelity of the reconstructed frames; PSNR in dB.
        flicker: Flicker of the reconstructed clips, relative to the clips.
    """

    held_out: dict[str, Interval]
    reconstructed: dict[str, Interval]
    ssim: Interval
    psnr: Interval
    flicker: Interval

    @property
    def valid(self) -> tuple[str, ...]:
        """The measurements that are right often enough to count."""
        return tuple(name for name, figure in self.held_out.items() if figure.value >= VALID_FROM)


def check_measurements(
    classifier: SceneClassifier, vae: AutoencoderKL, clips: np.ndarray, scenes: Sequence[Scene]
) -> HeldOutResults:
    """Check classifier and camera on clips that nothing was trained on, and how well the autoencoder keeps them."""
    seen, labels = predict(clips), Labels.of(scenes)
    held_out = accuracies(classifier, clips, labels) | {"camera": bootstrap(mean, seen.cameras == labels.cameras)}
    rebuilt = [reconstruct(vae, sampled_frames(clip)) for clip in clips[:RECONSTRUCTED]]
    frames = clips[:, clips.shape[1] // 2]
    fidelity = ssim_and_psnr(frames, reconstruct(vae, frames))
    whole = clips[:RECONSTRUCTED_WHOLE]
    rebuilt_flickers = [measure_flow(reconstruct(vae, clip)).unexplained_flicker for clip in whole]
    return HeldOutResults(
        held_out,
        accuracies(classifier, rebuilt, Labels.of(scenes[: len(rebuilt)])),
        ssim=bootstrap(mean, fidelity[:, 0]),
        psnr=bootstrap(mean, fidelity[:, 1]),
        flicker=bootstrap(ratio_of_means, np.array(rebuilt_flickers), seen.flickers[: len(whole)]),
    )


def accuracies(classifier: SceneClassifier, clips: Sequence[np.ndarray], labels: Labels) -> dict[str, Interval]:
    """Accuracy of the palette, and balanced accuracy of each motif's presence."""
    probabilities = classify_clips(classifier, clips)
    found = {"palette": bootstrap(mean, probabilities["palette"].argmax(1) == labels.attributes["palette"])}
    for name in MOTIFS:
        found[name] = bootstrap(balanced_accuracy, labels.asks(name), probabilities[name][:, 0] < 0.5)
    return found


def ssim_and_psnr(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Structural similarity and peak signal-to-noise ratio (dB) of uint8 (count, height, width, 3): (count, 2)."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    return np.array(
        [
            (
                structural_similarity(frame, other, channel_axis=2, data_range=255),
                peak_signal_noise_ratio(frame, other, data_range=255),
            )
            for frame, other in zip(frames, others, strict=True)
        ]
    )
