"""Hash files, streams and texts as `sha256sum` does."""

import io

from motion_adapter.hashes import hash_chunks, hash_file, hash_json, hash_stream, hash_text


def test_one_content_has_one_hash(tmp_path):
    (tmp_path / "mist").write_bytes(b"mist")
    hashes = {hash_file(tmp_path / "mist"), hash_stream(io.BytesIO(b"mist")), hash_chunks([b"mi", b"st"])}
    assert hashes | {hash_text("mist")} == {hash_text("mist")}
    assert hash_text("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # sha256sum /dev/null


def test_the_order_of_keys_does_not_change_a_hash():
    assert hash_json({"a": 1, "b": [2]}) == hash_json({"b": [2], "a": 1}) != hash_json({"a": 1, "b": [3]})
