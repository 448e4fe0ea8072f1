"""Masks from arrays, folders of images and videos, and masks that do not fit."""

import numpy as np
import pytest
import torch

from landscape_video.generation.masks import background_of, check_masks, read_masks, shrink_mask
from pipeline_landscape_video.video_io import write_video


MASK = np.zeros((3, 16, 24), bool)
MASK[:, 4:12, 8:16] = True


def write_npy(path, array=MASK):
    np.save(path, array)
    return path


def write_npz(path):
    np.savez(path, boat=MASK, sky=255 * (~MASK).astype(np.uint8))
    return path


def write_folder(path):
    write_video(path, np.repeat(255 * MASK[..., None].astype(np.uint8), 3, axis=-1), fps=8)
    return path


@pytest.mark.parametrize(
    "write, name",
    [(write_npy, "mask.npy"), (write_npz, "masks.npz"), (write_folder, "masks"), (write_folder, "m.mp4")],
)
def test_masks_are_read(write, name, tmp_path):
    masks = read_masks([write(tmp_path / name)], ["boat"])
    assert masks.shape == (1, 3, 16, 24)
    assert np.abs(masks[0] - MASK).mean() < (0.05 if name.endswith("mp4") else 1e-6)


def test_the_background_is_the_complement_of_all_objects(tmp_path):
    other = np.zeros_like(MASK)
    other[:, :2] = True
    masks = read_masks([write_npy(tmp_path / "a.npy"), write_npy(tmp_path / "b.npy", other)])
    assert masks.shape == (2, 3, 16, 24)
    background = background_of(torch.from_numpy(masks))
    assert background.shape == (3, 1, 16, 24)
    assert np.array_equal(background[:, 0].numpy() == 0, MASK | other)
    assert float(shrink_mask(background, 2, 3).mean()) == pytest.approx(float(background.mean()))


def test_masks_that_do_not_fit(tmp_path):
    short = write_npy(tmp_path / "short.npy", MASK[:2])
    with pytest.raises(
        ValueError, match="`masks` must agree in frames and size, got 3 frames of 24 x 16, and 2 frames"
    ):
        read_masks([write_npy(tmp_path / "a.npy"), short])
    with pytest.raises(ValueError, match="`masks` must have 3 frames of 24 x 16, as the clip has, got 2 frames"):
        check_masks(read_masks([short]), 3, 16, 24)
    with pytest.raises(ValueError, match="`masks` must have 3 frames of 32 x 32"):
        check_masks(MASK[None].astype(np.float32), 3, 32, 32)
    with pytest.raises(ValueError, match="`objects` must be among boat, sky .* got bird"):
        read_masks([write_npz(tmp_path / "m.npz")], ["bird"])
    with pytest.raises(ValueError, match="`masks` must be existing files or folders"):
        read_masks([tmp_path / "none.npy"])
    with pytest.raises(ValueError, match="`masks` must be a video, a folder"):
        read_masks([tmp_path / "none.mp4"])
    with pytest.raises(ValueError, match="`masks` must be from 0 to 1"):
        read_masks([write_npy(tmp_path / "a.npy", 2.5 * MASK)])
    with pytest.raises(ValueError, match="`masks` must be arrays"):
        read_masks([write_npy(tmp_path / "a.npy", MASK[0])])
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(ValueError, match="`masks` must be NumPy arrays"):
        read_masks([tmp_path / "text.npy"])
