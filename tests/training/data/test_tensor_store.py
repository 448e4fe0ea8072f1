"""Named tensors on disk: read in parts, extended by several processes, safe from damaged files."""

import pickle

import torch

from landscape_video.training.data.tensor_store import TensorReader, TensorStore


def test_a_damaged_shard_is_written_again(tmp_path, caplog):
    store = TensorStore(tmp_path)
    store.write({"a": torch.arange(6.0).reshape(3, 2)})
    store.write({"b": torch.ones(2)})
    shard = store.shards["a"]
    shard.write_bytes(shard.read_bytes()[:-4])
    again = TensorStore(tmp_path)
    assert "a" not in again.shards and "b" in again.shards and f"Skipped the damaged file {shard}" in caplog.text
    again.write({"a": torch.arange(6.0).reshape(3, 2)})
    assert TensorStore(tmp_path).read("a").tolist() == [[0, 1], [2, 3], [4, 5]]
    assert not list(tmp_path.glob(".*"))


def test_parts_are_read_and_open_files_stay_behind_when_a_reader_travels(tmp_path):
    store = TensorStore(tmp_path)
    store.write({"a": torch.arange(24.0).reshape(2, 4, 3)})
    reader = TensorReader()
    for _ in range(2):  # the second time as in a worker process
        part = reader.read(store.shards["a"], "a", slice(1, 2), slice(2, 4))
        assert part.tolist() == [[[18, 19, 20], [21, 22, 23]]]
        reader = pickle.loads(pickle.dumps(reader))
