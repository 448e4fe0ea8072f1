"""Refuse wrong weights that loaders accept, and name them."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from motion_adapter.weights_files import load_adapter, read_header, read_metadata, save_weights


WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def adapter(tiny_components, tmp_path) -> Path:
    tiny_components()["motion_adapter"].save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def change_weights(file: Path, change) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def name_twice(file: Path, name: str) -> None:
    """Write a header that names a tensor twice; the second time with the bytes of another one of its shape."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = content[8 : 8 + length].decode()
    entry = json.dumps({name: json.loads(header)[name]})[1:-1]
    header = header.rstrip()[:-1] + "," + entry + "}"
    file.write_bytes(struct.pack("<Q", len(header)) + header.encode() + content[8 + length :])


def first_name(file: Path) -> str:
    return next(name for name in load_file(file) if name.endswith("proj_in.weight"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w, n: w[n][0].fill_(torch.nan), "not finite in {name}"),
        (lambda w, n: w[n][0].fill_(torch.inf), "not finite in {name}"),
        (lambda w, n: w.pop(n), "1 missing: {name}"),
        (lambda w, n: w.update({"extra": torch.ones(1)}), "1 unknown: extra"),
        (lambda w, n: w.update({n: torch.ones(3)}), r"{name} \(3,\), not \("),
        (lambda w, n: w.update({n: w[n].to(torch.float64)}), "{name} must be in BF16 or F16 or F32, got F64"),
        (lambda w, n: w.update({n: w[n].to(torch.int64)}), "{name} must be in .*, got I64"),
    ],
)
def test_weights_that_are_not_what_the_config_says_are_named(adapter, change, message):
    load_adapter(adapter)
    name = first_name(adapter / WEIGHTS)
    change_weights(adapter / WEIGHTS, lambda weights: change(weights, name))
    with pytest.raises(ValueError, match=message.format(name=name)):
        load_adapter(adapter)


def test_a_name_that_stands_twice_in_the_header_is_refused(adapter):
    name = first_name(adapter / WEIGHTS)
    name_twice(adapter / WEIGHTS, name)
    with pytest.raises(ValueError, match=f"{WEIGHTS}: not a complete safetensors file: {name} is in its header twice"):
        load_adapter(adapter)
    with pytest.raises(ValueError, match="twice"):
        read_header(adapter / WEIGHTS)


def test_a_file_cut_short_is_refused(adapter):
    content = (adapter / WEIGHTS).read_bytes()
    for length in (0, 4, 100, len(content) - 1):
        (adapter / WEIGHTS).write_bytes(content[:length])
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            load_adapter(adapter)


def test_what_is_no_adapter_is_not_loaded_as_one(adapter):
    config = json.loads((adapter / "config.json").read_text())
    (adapter / "config.json").write_text(json.dumps(config | {"_class_name": "UNet2DModel"}))
    with pytest.raises(ValueError, match="not a motion adapter: its config.json is for UNet2DModel"):
        load_adapter(adapter)


def test_a_file_depends_on_weights_and_metadata_only(tmp_path):
    metadata = {"format": "pt", "name": "山水", "config": json.dumps({"a": [1, 'b"']})}
    files = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for file in files:
        save_weights({"weight": torch.ones(2, 3)}, file, metadata)
    assert len({file.read_bytes() for file in files}) == 1
    assert read_metadata(files[0]) == metadata and (load_file(files[0])["weight"] == 1).all()
