"""List the code that goes to the Hub, and tell its revision."""

import re

from motion_adapter.code_files import code_files, code_revision


def test_the_image_to_video_pipeline_comes_on_top_of_the_other():
    text, image = ({file.name for file in code_files(image_to_video)} for image_to_video in (False, True))
    assert "pipeline.py" in text < image and "pipeline_image_to_video.py" in image - text
    assert all(name.startswith(("pipeline", "landscape_")) for name in image)


def test_code_revision_names_version_code_and_commit():
    commit = r"(, commit [0-9a-f]{40}( with changes)?)?"
    assert re.fullmatch(rf"landscape-video [\w. ]+, code sha256 [0-9a-f]{{16}}{commit}", code_revision())
    assert code_revision() == code_revision()
