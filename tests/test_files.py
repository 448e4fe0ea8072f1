"""Replace texts and JSON files as a whole."""

import json

import pytest

from landscape_video.files import read_json_lines, write_json, write_text


def test_json_is_replaced_as_a_whole(tmp_path):
    write_json(tmp_path / "status.json", {"status": "running"})
    with pytest.raises(TypeError):
        write_json(tmp_path / "status.json", {"status": object()})
    assert json.loads((tmp_path / "status.json").read_text()) == {"status": "running"}
    assert [path.name for path in tmp_path.iterdir()] == ["status.json"]


def test_json_keeps_letters_readable_and_names_that_are_not_utf_8(tmp_path):
    value = {"prompt": "山水", "file": b"clip-\xff.mp4".decode("utf-8", "surrogateescape")}
    write_json(tmp_path / "outcome.json", value)
    text = (tmp_path / "outcome.json").read_text(encoding="utf-8")
    assert "山水" in text and "\\udcff" in text and json.loads(text) == value


def test_text_is_utf_8(tmp_path):
    write_text(tmp_path / "results.md", "山水\n")
    assert (tmp_path / "results.md").read_bytes() == "山水\n".encode()


def test_lines_that_are_not_whole_objects_are_left_out(tmp_path):
    path = tmp_path / "log.jsonl"
    assert read_json_lines(path) == []
    path.write_text('{"step": 1, "prompt": "雾"}\n[2]\n\n{"step": 3}\n{"step": 4', encoding="utf-8")
    assert read_json_lines(path) == [{"step": 1, "prompt": "雾"}, {"step": 3}]
