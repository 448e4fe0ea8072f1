from pathlib import Path

from setuptools import find_packages, setup


HERE = Path(__file__).parent

setup(
    name="landscape-video",
    version="0.1.0",
    description="Generate landscape-painting videos from text or an image: a diffusers pipeline with a small model",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    # Listed by name, so that stray folders of a checkout never end up in the wheel.
    packages=[
        "pipeline_landscape_video",
        "motion_adapter",
        *find_packages(include=["landscape_video", "landscape_video.*"]),
        "shanshui",
        "shanshui.renderer",
        "shanshui.stages",
        "shanshui.measuring",
    ],
    package_dir={"shanshui": "training/shanshui"},  # its scripts, benchmarks and tests import it from any folder
    package_data={
        "pipeline_landscape_video": ["shanshui_tiny/**"],
        "motion_adapter": ["hub_licenses.json", "model_card.md", "usage.py.jinja"],
        "landscape_video.evaluation": ["pages/*"],
        "landscape_video.web": ["files/*", "space/*"],
    },
    python_requires=">=3.11",  # required by diffusers, torch and transformers at these floors
    # Floors are the oldest versions with which the tests pass: tests/oldest.sh runs them there. Each has its reason.
    install_requires=[
        "accelerate>=1.10",  # older ones were not tried
        "av>=18.1",  # the first that writes rotated videos, which the tests read back
        "diffusers>=0.40",  # the first whose models load with `dtype`
        "einops>=0.8",  # supports numpy 2
        "huggingface_hub>=1.23",  # required by diffusers 0.40
        "Jinja2>=3.1",  # required by torch
        "numpy>=2.0",  # results of type promotion differ in 1.x
        "opencv-python>=4.11",  # 4.10.0.82 does not import with numpy 2
        "peft>=0.18",  # 0.17 does not import with transformers 5
        "Pillow>=11.3",  # the first that reads AVIF; gradio 6 needs Pillow below 13
        "safetensors>=0.8",  # required by diffusers 0.40
        "torch>=2.9",  # the first with torch.optim.Muon; ZeroGPU Spaces have 2.8 to 2.11
        "torchvision>=0.24",  # belongs to torch 2.9
        "tqdm>=4.66",  # required by huggingface_hub
        "transformers>=5.6",  # the first with CLIPImageProcessorPil; 4.x needs huggingface_hub below 1.0
        "typer>=0.28",  # the first with TyperException
    ],
    extras_require={
        "test": [
            "pytest>=9.2",
            "pytest-xdist>=3.8",
            "ruff>=0.17.5,<0.18",
            "mini-racer>=0.14.1",
            "nbclient>=0.10",
            "ipykernel>=6.29",
            "scikit-image>=0.25",
            "scipy>=1.17",
            "setuptools>=80",
            "tensorboard>=2.21",
            "torchmetrics>=1.9",
            "ImageHash>=4.3.2",
            "ray[data]>=2.60",
        ],
        "train": ["ImageHash>=4.3.2", "scikit-image>=0.25", "tokenizers>=0.22"],
        "distributed": ["ray[data]>=2.60"],
        "eval": ["scikit-image>=0.25"],
        "docs": ["mkdocs-material>=9.6", "mkdocstrings[python]>=1.0"],
        # Written with its floor: beside a newer Pillow, an unpinned gradio resolves to version 3.
        "web": ["gradio[mcp]>=6.31"],
        "test-web": ["gradio[mcp]>=6.31", "playwright>=1.55", "trackio>=0.40"],
    },
    entry_points={"console_scripts": ["landscape-video = landscape_video.cli.main:main"]},
)
