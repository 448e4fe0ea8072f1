"""Weights in the layout of AnimateDiff's files."""

import torch


def animatediff_block(channels: int, frames: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """One motion module, as the classes of AnimateDiff's motion_module.py name and shape it."""

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    positions = random(1, frames, channels)
    block = {
        "norm.weight": random(channels),
        "norm.bias": random(channels),
        "proj_in.weight": random(channels, channels),
        "proj_in.bias": random(channels),
        "proj_out.weight": random(channels, channels),
        "proj_out.bias": random(channels),
    }
    transformer = {
        "ff_norm.weight": random(channels),
        "ff_norm.bias": random(channels),
        "ff.net.0.proj.weight": random(8 * channels, channels),
        "ff.net.0.proj.bias": random(8 * channels),
        "ff.net.2.weight": random(channels, 4 * channels),
        "ff.net.2.bias": random(channels),
    }
    for index in range(2):
        transformer |= {f"norms.{index}.weight": random(channels), f"norms.{index}.bias": random(channels)}
        attention = f"attention_blocks.{index}"
        transformer |= {f"{attention}.to_{name}.weight": random(channels, channels) for name in "qkv"}
        transformer |= {
            f"{attention}.to_out.0.weight": random(channels, channels),
            f"{attention}.to_out.0.bias": random(channels),
            f"{attention}.pos_encoder.pe": positions.clone(),
        }
    return block | {f"transformer_blocks.0.{name}": weight for name, weight in transformer.items()}


def animatediff_weights(frames: int = 24, mid_block: bool = False) -> dict[str, torch.Tensor]:
    """A file of AnimateDiff's in small: blocks of 32 and 64 channels, two motion modules down, three up."""
    generator = torch.Generator().manual_seed(0)
    modules = {f"down_blocks.{block}.motion_modules.{index}": 32 << block for block in (0, 1) for index in (0, 1)}
    modules |= {f"up_blocks.{block}.motion_modules.{index}": 64 >> block for block in (0, 1) for index in (0, 1, 2)}
    modules |= {"mid_block.motion_modules.0": 64} if mid_block else {}
    return {
        f"{module}.temporal_transformer.{name}": weight
        for module, channels in modules.items()
        for name, weight in animatediff_block(channels, frames, generator).items()
    }


def equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        weight.dtype == second[name].dtype and torch.equal(weight, second[name]) for name, weight in first.items()
    )
