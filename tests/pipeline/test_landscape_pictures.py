"""Images of any kind become frames without distortion; colors carry over from clip to clip."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from pipeline_landscape_video.landscape_pictures import fit_image, images_to_tensor, match_colors, upright_rgb
from retention_models import painting


def pixel(image, x=0, y=0):
    return tuple(int(value) for value in upright_rgb(image).getpixel((x, y)))


# Modes, depths, orientation


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 100, (100, 100, 100)),
        ("LA", (100, 255), (100, 100, 100)),
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 100, 200, 128), (127, 177, 227)),
        ("CMYK", (0, 0, 0, 0), (255, 255, 255)),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0)),
        ("YCbCr", (100, 128, 128), (100, 100, 100)),
    ],
)
def test_modes(mode, color, expected):
    found = pixel(Image.new(mode, (8, 8), color))
    assert max(abs(ours - theirs) for ours, theirs in zip(found, expected, strict=True)) <= 1


@pytest.mark.parametrize("values", [np.uint16, np.int32])
def test_sixteen_bits_are_scaled_and_not_cut(values):
    ramp = np.linspace(0, 65535, 256).round().astype(values).reshape(16, 16)
    buffer = io.BytesIO()
    Image.fromarray(ramp).save(buffer, "TIFF")
    image = Image.open(buffer)
    assert image.mode.startswith("I")
    gray = np.asarray(upright_rgb(image))[..., 0].ravel()
    assert abs(gray.astype(int) - np.arange(256)).max() <= 1


def test_a_palette_with_a_transparent_color():
    image = painting().convert("P")
    image.info["transparency"] = image.getpixel((0, 0))
    assert pixel(image) == (255, 255, 255)


def test_exif_orientation():
    left = Image.new("RGB", (16, 8), "white")
    left.paste((255, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    buffer = io.BytesIO()
    left.save(buffer, "PNG", exif=exif)
    upright = upright_rgb(Image.open(buffer))
    assert upright.size == (8, 16)
    assert upright.getpixel((4, 2)) == (255, 0, 0)
    assert upright.getpixel((4, 14)) == (255, 255, 255)


def test_a_color_profile_counts_and_a_broken_one_does_not(caplog):
    image = Image.new("RGB", (8, 8), (100, 150, 200))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.info["icc_profile"] = profile
    assert max(abs(a - b) for a, b in zip(pixel(image), (100, 150, 200), strict=True)) <= 1
    # The same profile with its red and blue primaries exchanged.
    image.info["icc_profile"] = profile.replace(b"rXYZ", b"tXYZ").replace(b"bXYZ", b"rXYZ").replace(b"tXYZ", b"bXYZ")
    exchanged = pixel(image)
    assert exchanged[0] > exchanged[2]
    image.info["icc_profile"] = b"no profile"
    assert pixel(image) == (100, 150, 200)
    assert "color profile of the image is ignored" in caplog.text


# Size and shape


def test_crop_cuts_and_pad_shows_all_and_neither_distorts():
    image = Image.new("RGB", (128, 64), "white")
    image.paste((255, 0, 0), (0, 0, 32, 64))  # the left quarter
    image.paste((0, 0, 255), (32, 0, 96, 64))
    cut = fit_image(image, 64, 64)
    assert torch.equal(cut[2], torch.ones(64, 64))
    assert cut[0, :, 2:62].max() == 0  # only the blue square in the middle
    whole = fit_image(image, 64, 64, "pad")
    assert torch.equal(whole[:, :14], torch.ones(3, 14, 64))  # paper above; the image has half the height
    assert torch.equal(whole[:, 50:], torch.ones(3, 14, 64))
    assert whole[0, 32, 2:14].min() > 0.99 and whole[2, 32, 2:14].max() < 0.01
    assert whole[2, 32, 18:46].min() > 0.99 and whole[0, 32, 18:46].max() < 0.01


def test_an_image_of_the_right_size_stays_as_it_is():
    image = painting(1)
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    assert torch.equal(fit_image(image, 64, 64), expected)
    assert torch.equal(fit_image(image, 64, 64, "pad"), expected)
    assert torch.equal(images_to_tensor(image, 64, 64)[0], expected * 2 - 1)
    assert torch.equal(images_to_tensor([image] * 2, 64, 64)[1], expected * 2 - 1)
    assert torch.equal(images_to_tensor(expected, 64, 64)[0], expected * 2 - 1)
    assert torch.equal(images_to_tensor(expected.permute(1, 2, 0).numpy()[None], 64, 64)[0], expected * 2 - 1)


# Colors


def test_colors_of_a_shifted_clip_come_back_and_its_changes_stay():
    image = torch.from_numpy(np.array(painting(2))).permute(2, 0, 1) / 255 * 0.5 + 0.25
    change = torch.linspace(0, 0.02, 5).view(5, 1, 1, 1)
    clip = image * 0.8 + 0.1 + change
    matched = match_colors(clip, image)
    assert matched.shape == clip.shape
    assert (matched[0] - image).abs().max() < 0.03
    assert (clip[0] - image).abs().max() > 0.05
    assert ((matched[-1] - matched[0]).mean() - 0.025).abs() < 0.005  # 0.02 / 0.8


def test_a_clip_of_one_color_takes_the_mean():
    matched = match_colors(torch.full((2, 3, 16, 16), 0.5), torch.full((3, 16, 16), 0.25))
    torch.testing.assert_close(matched, torch.full((2, 3, 16, 16), 0.25), atol=2e-3, rtol=0)


# What is rejected


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.new("RGB", (7, 64)), "the image must have at least 8 x 8 pixels, got 7 x 64"),
        (Image.new("F", (16, 16)), "the image must be RGB, gray or CMYK, got mode F"),
        (Image.new("LAB", (16, 16)), "got mode LAB"),
        (Image.new("I", (16, 16), -1), "must have 16 bits, got values from -1 to -1"),
        (np.zeros((32, 64, 3), np.float32), r"must have the shape \(batch, 3, 64, 64\), got \(1, 3, 32, 64\)"),
        (np.zeros((64, 64, 3), np.uint8), r"`image` must be in \[0, 1\], got torch.uint8 from 0 to 0"),
        (torch.full((3, 64, 64), 1.5), r"got torch.float32 from 1.5 to 1.5"),
    ],
)
def test_wrong_images(image, message):
    with pytest.raises(ValueError, match=message):
        images_to_tensor(image, 64, 64)


def test_a_scroll_that_would_become_a_line_is_not_padded():
    scroll = painting(0, (1600, 40))
    assert fit_image(scroll, 64, 64).shape == (3, 64, 64)
    with pytest.raises(ValueError, match="1600 x 40 pixels is too long to be shown whole in 64 x 64; crop it"):
        fit_image(scroll, 64, 64, "pad")
    scroll.getexif()[0x0112] = 6  # rotated by EXIF: upright it is as long as the frame
    assert fit_image(scroll, 512, 16, "pad").shape == (3, 512, 16)


def test_no_images_and_other_objects():
    for image in ([], [painting(), None], "painting.png"):
        with pytest.raises(TypeError, match="must be a PIL image, a list of them, or a tensor"):
            images_to_tensor(image, 64, 64)
