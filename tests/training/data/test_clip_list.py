"""Tables and archives made by others: each bad row or member is rejected by itself, and nothing is written."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from landscape_video.training.data.caption_tables import MAX_CAPTION, RejectedClip, add_trigger_word, clean_caption
from landscape_video.training.data.clip_list import MAX_MEMBER, list_clips
from pipeline_landscape_video.video_io import VideoError, iterate_video


def listed(location: Path, **arguments) -> tuple[list[list[str]], dict[str, str]]:
    """The captions of what can be used, and what cannot by its last words."""
    rejected: list[RejectedClip] = []
    clips = list_clips(location, rejected, **arguments)
    return [clip.captions for clip in clips], {clip.removeprefix(str(location) + "/"): why for clip, why in rejected}


# Tables

GOOD = b'{"file_name": "0.mp4", "text": "a"}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a"}', "`file_name` is missing"),
        (b'{"file_name": 5, "text": "a"}', "`file_name` is missing or not a text"),
        (b'{"file_name": "0.mp4"}', "`text` is missing"),
        (b'{"file_name": "0.mp4", "text": "  "}', "every caption"),
        (b'{"file_name": "0.mp4", "text": "a", "texts": "b"}', "`texts` is not a list"),
        (b'{"file_name": "0.mp4", "text": 5}', "every caption"),
        (b'{"file_name": "0.mp4", "text": null}', "every caption"),
        (b'{"file_name": "../0.mp4", "text": "a"}', "'../0.mp4' is outside"),
        (b'{"file_name": "a/../../0.mp4", "text": "a"}', "is outside"),
        (b'{"file_name": "/etc/passwd", "text": "a"}', "'/etc/passwd' is outside"),
        (b'{"file_name": "a\\u0000.mp4", "text": "a"}', "is not a file name"),
        (b'["0.mp4", "a"]', "must be an object"),
        (b'{"file_name": "0.mp4", "text"', "not JSON"),
        (b"[" * 100_000, "not JSON: nested too deeply"),
        ('{"file_name": "0.mp4", "text": "café"}'.encode("latin-1"), "must be UTF-8, got byte 0xe9"),
        (b'{"file_name": "0.mp4", "text": "\\ud800"}', "must be UTF-8, got a lone surrogate 0xd800"),
        (b'{"file_name": "0.mp4", "text": "a\x00b"}', "not JSON: Invalid control character"),
        (b'{"file_name": "0.mp4", "text": "a\\u0000b"}', "control character '\\x00'"),
        (
            json.dumps({"file_name": "0.mp4", "text": "mist " * 40_000}).encode(),
            "at most 10000 characters, got 199999",
        ),
    ],
)
def test_a_bad_line_is_rejected_and_the_rest_is_read(tmp_path, line, reason):
    (tmp_path / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\n".join([GOOD, line, GOOD]) + b"\n\n")
    captions, rejected = listed(tmp_path)
    assert captions == [["a"], ["a"]] and list(rejected) == ["metadata.jsonl, line 2"]
    assert reason in rejected["metadata.jsonl, line 2"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0.mp4,café".encode("latin-1"), "must be UTF-8, got byte 0xe9"),
        (b"0.mp4,a\x00b", "control character"),
        (b"0.mp4," + b"mist " * 40_000, "at most 10000 characters, got 199999"),
        (b"0.mp4," + b"m" * (2**24 + 1), "not CSV: field larger"),
        (b"0.mp4", "must have as many fields as the header"),
        (b"0.mp4,a,b", "must have as many fields as the header"),
        (b'0.mp4,"a"b', "not CSV"),
        (b"../0.mp4,a", "is outside"),
        (b",a", "`file_name` is missing"),
    ],
)
def test_a_bad_row_of_a_csv_file_is_rejected_and_the_rest_is_read(tmp_path, line, reason):
    (tmp_path / "metadata.csv").write_bytes(b"\xef\xbb\xbffile_name,text\n0.mp4,a\n" + line + b"\n0.mp4,a\n")
    captions, rejected = listed(tmp_path)
    assert captions == [["a"], ["a"]] and list(rejected) == ["metadata.csv, line 3"]
    assert reason in rejected["metadata.csv, line 3"]


def test_links_may_not_lead_out_of_the_folder_but_into_the_given_root(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere.mp4").write_bytes(b"")
    os.symlink(tmp_path / "elsewhere.mp4", tmp_path / "data" / "link.mp4")
    (tmp_path / "data" / "metadata.jsonl").write_text('{"file_name": "link.mp4", "text": "a"}')
    captions, rejected = listed(tmp_path / "data")
    assert captions == [] and "'link.mp4' is outside" in rejected["metadata.jsonl, line 1"]
    assert listed(tmp_path / "data", root=tmp_path) == ([["a"]], {})


def test_captions_lose_byte_order_marks_and_keep_languages():
    assert clean_caption("\ufeff a boat\n") == "a boat" and clean_caption("雨，\n舟") == "雨，\n舟"
    assert len(clean_caption("m" * MAX_CAPTION)) == MAX_CAPTION


def test_a_trigger_word_stands_before_every_caption_once():
    assert add_trigger_word([["mist", "lpv, rain"], ["舟"]], "lpv") == [["lpv, mist", "lpv, rain"], ["lpv, 舟"]]


# Archives


def make_shard(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A shard with one good sample, `good.mp4`, before and after the given members."""
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        good = [(member("good.mp4"), b"video"), (member("good.txt"), b"a")]
        also = [(member("also.mp4"), b"video"), (member("also.txt"), b"b")]
        for info, data in [*good, *members, *also]:
            info.size = len(data) if info.isfile() else 0
            archive.addfile(info, io.BytesIO(data))
    return path


def member(name: str, **attributes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (member("../out.mp4"), "leads out"),
        (member("/tmp/out.mp4"), "leads out"),
        (member("a/../../out.mp4"), "leads out"),
        (member("..\\out.mp4"), "leads out"),
        (member("out.mp4", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "a link or a device"),
        (member("out.mp4", type=tarfile.LNKTYPE, linkname="good.mp4"), "a link or a device"),
        (member("out.mp4", type=tarfile.CHRTYPE), "a link or a device"),
        (member("out.mp4", type=tarfile.FIFOTYPE), "a link or a device"),
        (member("good.mp4"), "twice"),
        (member("out"), "no name with an extension"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else None,
)
def test_a_bad_member_is_rejected_and_the_rest_is_read(tmp_path, info, reason):
    make_shard(tmp_path / "a.tar", (info, b"x"))
    captions, rejected = listed(tmp_path)
    assert captions == [["a"], ["b"]] and len(rejected) == 1
    ((name, why),) = rejected.items()
    assert reason in why and Path(info.name.replace("\\", "\\\\")).name in name
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_archive_bombs_are_rejected_by_their_headers(tmp_path):
    # A sparse member: 8 bytes of archive that stand for a terabyte.
    header = bytearray(member("bomb.mp4").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = tarfile.itn(2**40, 12, tarfile.GNU_FORMAT)  # real size
    header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
    good = make_shard(tmp_path / "a.tar").read_bytes()
    (tmp_path / "a.tar").write_bytes(bytes(header) + good)
    captions, rejected = listed(tmp_path)
    assert captions == [["a"], ["b"]]
    assert rejected == {"a.tar: 'bomb.mp4'": f"is sparse: {2**40} bytes that are not in the archive."}

    huge = member("huge.mp4")
    huge.size = MAX_MEMBER + 1
    with (tmp_path / "a.tar").open("wb") as file:
        file.write(huge.tobuf())
        file.seek(-(-huge.size // 512) * 512, 1)  # a hole on disk, a gigabyte to a reader
        file.write(good)
    captions, rejected = listed(tmp_path)
    assert captions == [["a"], ["b"]] and f"got {MAX_MEMBER + 1}" in rejected["a.tar: 'huge.mp4'"]


def test_damaged_and_compressed_shards_are_rejected_beside_good_ones(tmp_path):
    whole = make_shard(tmp_path / "good.tar").read_bytes()
    with gzip.open(tmp_path / "zipped.tar", "wb") as file:
        file.write(whole)
    (tmp_path / "damaged.tar").write_bytes(whole[:1024] + b"\xff" * 512 + whole[1536:])
    (tmp_path / "short.tar").write_bytes(whole[:1800])
    (tmp_path / "unended.tar").write_bytes(whole[:4096])
    captions, rejected = listed(tmp_path)
    assert [caption for caption in captions if caption == ["b"]] == [["b"], ["b"]]  # of good.tar and unended.tar
    assert "uncompressed" in rejected["zipped.tar"] and "cut short at byte 1024" in rejected["damaged.tar"]
    assert "cannot be read to its end" in rejected["short.tar"] and "cut short at byte 4096" in rejected["unended.tar"]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"c.mp4": b"v"}, "neither a .txt nor a .json"),
        ({"c.txt": b"a"}, "must have one video, got 0"),
        ({"c.mp4": b"v", "c.mkv": b"v", "c.txt": b"a"}, "must have one video, got 2"),
        ({"c.mp4": b"v", "c.txt": "café".encode("latin-1")}, "c.txt must be UTF-8"),
        ({"c.mp4": b"v", "c.txt": b"a\x00b"}, "control character"),
        ({"c.mp4": b"v", "c.txt": b"mist " * 40_000}, "at most 10000 characters, got 199999"),
        ({"c.mp4": b"v", "c.txt": b"mist " * 400_000}, "c.txt must have at most 1048576 bytes"),
        ({"c.mp4": b"v", "c.json": b"{"}, "c.json: not JSON"),
        ({"c.mp4": b"v", "c.json": b"[" * 100_000}, "c.json: not JSON"),
        ({"c.mp4": b"v", "c.json": b"[]"}, "c.json: must be an object"),
        ({"c.mp4": b"v", "c.json": b"{}"}, "`text` is missing"),
    ],
)
def test_a_bad_sample_is_rejected_and_the_rest_is_read(tmp_path, members, reason):
    make_shard(tmp_path / "a.tar", *((member(name), data) for name, data in members.items()))
    captions, rejected = listed(tmp_path)
    assert captions == [["a"], ["b"]] and list(rejected) == ["a.tar: c"]
    assert reason in rejected["a.tar: c"]


def test_a_small_file_of_huge_frames_is_rejected_before_they_fill_the_memory(tmp_path):
    Image.new("P", (9000, 9000)).save(tmp_path / "bomb.gif", save_all=True)
    assert (tmp_path / "bomb.gif").stat().st_size < 1_000_000
    with pytest.raises(VideoError, match="bomb.gif: frames must have at most 67108864 pixels, got 9000 x 9000"):
        next(iterate_video(tmp_path / "bomb.gif"))
