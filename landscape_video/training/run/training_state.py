"""Everything that changes while a motion adapter trains, saved and restored to the last bit, without pickle."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import nn

from landscape_video.training.run.deepspeed import are_moments_split, split_moments, whole_moments
from landscape_video.training.run.fsdp import split_like, whole


TENSORS = "training_state.safetensors"
VALUES = "training_state.json"


class TrainingState:
    """Weights that train, their moving average and the optimizer's moments, by name, and whole where FSDP or
    DeepSpeed splits them.

    Args:
        parameters: what trains, in the order of the optimizer's one parameter group.
        optimizer: any torch optimizer whose state is made of tensors.
        ema: the moving average of the first so many of `parameters`.
        scaler: the loss scaler of float16 training.
    """

    def __init__(
        self,
        parameters: list[tuple[str, nn.Parameter]],
        optimizer: torch.optim.Optimizer,
        ema: EMAModel | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.parameters = parameters
        self.optimizer = optimizer
        self.ema = ema
        self.scaler = scaler

    @torch.no_grad()
    def save(self, directory: Path | None, **values: Any) -> None:
        """Write the state, and `values` (anything that JSON holds) with it, into an existing directory.

        Where weights or moments are split, all processes have to call this, those that write nothing with None.

        Raises:
            ValueError: a weight is not finite; it would poison every run that resumes from here.
        """
        tensors = {}
        for name, tensor in self._tensors():
            tensor = whole(tensor)
            if name.startswith("weights/") and not torch.isfinite(tensor).all():
                name = name.removeprefix("weights/")
                raise ValueError(f"{name} is no longer finite, so this state is not saved: lower --learning_rate.")
            if directory is not None:
                tensors[name] = tensor.contiguous().cpu()
        if directory is None:
            return
        for name, parameter in self.parameters:
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if not isinstance(value, torch.Tensor):  # bitsandbytes counts its steps in plain numbers
                    values.setdefault("optimizer", {})[f"{key}/{name}"] = value
        if self.ema is not None:
            values["ema_steps"] = self.ema.optimization_step
        if self.scaler is not None:
            values["scaler"] = self.scaler.state_dict()
        save_file(tensors, directory / TENSORS)
        (directory / VALUES).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.parameters:
            yield f"weights/{name}", parameter.detach()
        for name, parameter in self.parameters:
            for key, value in whole_moments(self.optimizer, parameter).items():
                if isinstance(value, torch.Tensor):
                    yield f"optimizer/{key}/{name}", value.clone() if key.startswith("qmap") else value  # shared
        if self.ema is not None:
            for (name, _), average in zip(self.parameters, self.ema.shadow_params, strict=False):
                yield f"ema/{name}", average

    @torch.no_grad()
    def load(self, directory: Path) -> dict[str, Any]:
        """Restore the state of `save` and return its `values`.

        Raises:
            ValueError: when other parameters train now than did then, or only one of the two runs has an average.
        """
        values = read_values(directory)
        tensors = load_file(directory / TENSORS)
        self._check(set(tensors), directory)
        groups = self.optimizer.state_dict()["param_groups"]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for index, (name, parameter) in enumerate(self.parameters):
            parameter.copy_(split_like(tensors[f"weights/{name}"], parameter))
            moments[index] = {}
        positions = {name: index for index, (name, _) in enumerate(self.parameters)}
        for key, tensor in tensors.items():
            kind, _, rest = key.partition("/")
            if kind == "optimizer":
                moment, _, name = rest.partition("/")
                index = positions[name]
                moments[index][moment] = split_like(tensor, self.parameters[index][1])
        for key, value in values.get("optimizer", {}).items():
            moment, _, name = key.partition("/")
            moments[positions[name]][moment] = value
        if are_moments_split(self.parameters[0][1]):
            for index, (_, parameter) in enumerate(self.parameters):
                split_moments(self.optimizer, parameter, moments[index])
        else:
            self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        if self.ema is not None:
            for (name, _), average in zip(self.parameters, self.ema.shadow_params, strict=False):
                average.copy_(split_like(tensors[f"ema/{name}"], average))
            self.ema.optimization_step = values["ema_steps"]
        if self.scaler is not None and "scaler" in values:
            self.scaler.load_state_dict(values["scaler"])
        return values

    def _check(self, found: set[str], directory: Path) -> None:
        expected = {f"weights/{name}" for name, _ in self.parameters}
        if self.ema is not None:
            averaged = self.parameters[: len(self.ema.shadow_params)]
            expected |= {f"ema/{name}" for name, _ in averaged}
        found = {name for name in found if not name.startswith("optimizer/")}
        if different := sorted(expected ^ found):
            state = "now, but not then" if different[0] in expected else "then, but not now"
            raise ValueError(
                f"{directory} is of a run with other flags: {len(different)} tensors differ, the first is "
                f"{different[0]}, which trains {state}."
            )


def read_values(directory: Path) -> dict[str, Any]:
    """The values that `TrainingState.save` was given."""
    return json.loads((directory / VALUES).read_text(encoding="utf-8"))
