"""Tell paths from names on the Hub."""

from pathlib import Path

import pytest

from motion_adapter.sources import local_path
from pipeline_landscape_video import SHANSHUI_TINY


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("shanshui-tiny", SHANSHUI_TINY),
        ("me/mountains", None),
        ("mountains", Path("mountains")),  # nothing of ours is on the Hub without a user
        ("./mountains", Path("mountains")),
        ("/mountains", Path("/mountains")),
        ("~/mountains", Path("~/mountains").expanduser()),
        ("a/b/mountains", Path("a/b/mountains")),
        ("me\\mountains", Path("me\\mountains")),
    ],
)
def test_a_name_is_a_path_unless_it_can_be_on_the_hub(source, path):
    assert local_path(source) == path


def test_what_exists_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "me" / "mountains").mkdir(parents=True)
    assert local_path("me/mountains") == Path("me/mountains")
