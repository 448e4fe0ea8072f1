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
    },
    python_requires=">=3.11",  # required by diffusers, torch and transformers at these floors
    # Floors are the versions that the tests run on; older ones are untested.
    install_requires=[
        "accelerate>=1.15",
        "av>=18.1",
        "diffusers>=0.42.1",
        "einops>=0.8.2",
        "huggingface_hub>=2.4",
        "Jinja2>=3.1",
        "numpy>=2.4",
        "opencv-python>=5.0",
        "peft>=0.21",
        "Pillow>=13.0",
        "safetensors>=0.8",
        "torch>=2.15",
        "torchvision>=0.29",
        "tqdm>=4.70",
        "transformers>=5.23",
        "typer>=0.29",
    ],
    extras_require={
        "test": [
            "pytest>=9.2",
            "pytest-xdist>=3.8",
            "ruff>=0.17.5,<0.18",
            "mini-racer>=0.14.1",
            "scikit-image>=0.26",
            "scipy>=1.17",
            "setuptools>=80",
            "tensorboard>=2.21",
            "torchmetrics>=1.9",
            "ImageHash>=4.3.2",
            "ray[data]>=2.60",
        ],
        "train": ["ImageHash>=4.3.2", "scikit-image>=0.26", "tokenizers>=0.23"],
        "distributed": ["ray[data]>=2.60"],
        "eval": ["scikit-image>=0.26"],
    },
    entry_points={"console_scripts": ["landscape-video = landscape_video.cli.main:main"]},
)
