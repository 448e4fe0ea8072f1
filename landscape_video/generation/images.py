"""Read the image file that a clip begins with."""

import warnings
from pathlib import Path

from PIL import Image

from pipeline_landscape_video.landscape_pictures import check_image_size, upright_rgb


def read_image(path: str | Path) -> Image.Image:
    """The image in a file, upright and in sRGB, see `upright_rgb`.

    Raises:
        ValueError: The file is missing, damaged, or not an image that can be used; the message begins with its name.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # scans of paintings are large
            with Image.open(path) as image:
                check_image_size(image)
                return upright_rgb(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "no such file" if not Path(path).exists() else f"not a usable image: {error}"
        raise ValueError(f"{path}: {reason}") from error
