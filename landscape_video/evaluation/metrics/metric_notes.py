"""What the labels of metrics mean, in words for a reader who knows none of them."""

from dataclasses import dataclass


# By the beginning of a label, longer ones first where one begins with another.
_MEANINGS = {
    "CLIP-temp": "How alike neighbouring frames are: the mean cosine of their CLIP image embeddings. A still picture "
    "scores 1, so it means something only beside the dynamic degree.",
    "CLIP-text": "How well frames show what the prompt says: the mean of 100 times the cosine between the CLIP "
    "embeddings of frame and prompt.",
    "CLIP-SIM": "How well frames show what the prompt says, as CLIP-text; the name under which DreamVideo reports it.",
    "FVD": "Fréchet distance between two sets of clips, generated and reference: how far apart the means and spreads "
    "of their features lie. It falls with the number of clips, so compare equal numbers only.",
    "KVD": "Distance between two sets of clips by the maximum mean discrepancy of their features under a polynomial "
    "kernel. Around 0, also below it, where the two cannot be told apart.",
    "IS": "Inception score of a video classifier: high where each clip is clearly of one class and the clips together "
    "are of many.",
    "FFF-CLIP": "How faithful the first frame is to the picture that was given: cosine of their CLIP embeddings.",
    "FFF-SSIM": "How faithful the first frame is to the picture that was given: their structural similarity.",
    "dynamic degree": "How much moves: the mean length of the longest 5 % of optical flow vectors between "
    "neighbouring frames. Neither much nor little is better in itself; 0 is a still picture.",
    "flicker": "How much pixels change from frame to frame: the mean absolute difference. Motion raises it as well.",
    "flicker beyond flow": "How much pixels change from frame to frame where motion does not explain it: the mean "
    "absolute difference after each frame was warped along the optical flow.",
    "frame consistency": "How alike all frames of a clip are, not only neighbours: the mean cosine over every pair.",
    "diffusion loss": "How far predicted noise is from the true one on held-out clips: the mean squared "
    "error. It needs no painting, and tells models apart that were trained alike long before their clips do.",
    "camera accuracy": "The share of clips whose camera, fitted to optical flow, goes where the prompt says.",
    "training time": "Minutes that the training steps took, on the machine that the protocol names.",
    "PSNR": "How close interpolated frames come to the true ones that were held out: peak signal-to-noise ratio.",
    "SSIM": "How close interpolated frames come to the true ones that were held out: structural similarity.",
    "seconds per clip": "Wall-clock time for one clip, on the machine that the protocol names.",
    "peak memory": "The most memory held while a clip was made, in GiB (2^30 bytes).",
}
_FEATURES = (
    "In square brackets: whose features, or which weights, the number was computed on. Published figures of FVD and "
    "KVD are on I3D, of CLIP on OpenAI's ViT-L/14 or ViT-B/32; compare with them only where the brackets say the same."
)
_SHANSHUI_CLIP = (
    "The small CLIP that comes with this package, trained on rendered landscapes. It needs no download; its numbers "
    "compare systems on this page with each other, and with nothing that was published."
)


@dataclass(frozen=True)
class Note:
    """`label` as it stands on the page, and what it means."""

    label: str
    text: str


def explain(labels: list[str]) -> list[Note]:
    """A note for every label that is known, and for the brackets that occur in them."""
    notes = {}
    for label in labels:
        name = label.partition("[")[0].strip()
        for beginning in sorted(_MEANINGS, key=len, reverse=True):
            if name.lower().startswith(beginning.lower()):
                notes.setdefault(name, _MEANINGS[beginning])
                break
    brackets = dict.fromkeys(label[label.index("[") :] for label in labels if "[" in label)
    if brackets:
        notes["[…]"] = _FEATURES
    if "[shanshui-clip]" in brackets:
        notes["[shanshui-clip]"] = _SHANSHUI_CLIP
    return [Note(label, text) for label, text in notes.items()]
