"""State of a training run: weights, moments, moving average and loss scaler, saved and restored bit for bit."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from landscape_video.training.objectives.sharded_weights import split_like, whole
from landscape_video.training.run.optimization import WeightAverage
from landscape_video.training.run.sharding import are_moments_split, split_moments, whole_moments


TENSORS = "training_state.safetensors"
VALUES = "training_state.json"


class TrainingState:
    """Everything that training changes, by name. What FSDP or DeepSpeed splits is gathered.

    Args:
        parameters: Trainable parameters by name, in the order of the optimizer's one parameter group.
        optimizer: Any torch optimizer whose state consists of tensors, also as accelerate wraps it.
        average: Moving average of some of `parameters`.
        scaler: Loss scaler of float16 training.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.parameters = parameters
        self.optimizer = optimizer
        self.average = average
        self.scaler = scaler

    @torch.no_grad()
    def save(self, directory: Path | None, **values: Any) -> None:
        """Write the state, and JSON `values` with it, into an existing directory.

        Where weights or moments are split, all processes must call this, those that do not write with None.

        Raises:
            ValueError: A weight is not finite, which would spoil every run that resumes from here.
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
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if not isinstance(value, torch.Tensor):  # bitsandbytes counts its steps in plain numbers
                    values.setdefault("optimizer", {})[f"{key}/{name}"] = value
        if self.average is not None:
            values["ema_steps"] = self.average.ema.optimization_step
        if self.scaler is not None:
            values["scaler"] = self.scaler.state_dict()
        save_file(tensors, directory / TENSORS)
        (directory / VALUES).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.parameters.items():
            yield f"weights/{name}", parameter.detach()
        for name, parameter in self.parameters.items():
            for key, value in whole_moments(self.optimizer, parameter).items():
                if isinstance(value, torch.Tensor):
                    yield f"optimizer/{key}/{name}", value.clone() if key.startswith("qmap") else value  # shared
        if self.average is not None:
            yield from ((f"ema/{name}", average) for name, average in self.average.averages().items())

    @torch.no_grad()
    def load(self, directory: Path) -> dict[str, Any]:
        """Restore the state that `save` wrote and return its `values`.

        Raises:
            ValueError: The trainable parameters differ from those of the checkpoint, or only one run has an EMA.
        """
        values = json.loads((directory / VALUES).read_text(encoding="utf-8"))
        tensors = load_file(directory / TENSORS)
        averages = {} if self.average is None else self.average.averages()
        self._check({*tensors}, averages, directory)
        moments: dict[str, dict[str, Any]] = {name: {} for name in self.parameters}
        plain = {f"optimizer/{key}": value for key, value in values.get("optimizer", {}).items()}
        for key, value in (tensors | plain).items():
            kind, _, rest = key.partition("/")
            if kind == "weights":
                self.parameters[rest].copy_(split_like(value, self.parameters[rest]))
            elif kind == "ema":
                averages[rest].copy_(split_like(value, averages[rest]))
            else:
                moment, _, name = rest.partition("/")
                moments[name][moment] = split_like(value, self.parameters[name])
        first = next(iter(self.parameters.values()))
        if are_moments_split(first):
            for name, parameter in self.parameters.items():
                split_moments(self.optimizer, parameter, moments[name])
        else:
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": dict(enumerate(moments.values())), "param_groups": groups})
        if self.average is not None:
            self.average.ema.optimization_step = values["ema_steps"]
        if self.scaler is not None and "scaler" in values:
            self.scaler.load_state_dict(values["scaler"])
        return values

    def _check(self, found: set[str], averages: dict[str, torch.Tensor], directory: Path) -> None:
        expected = {f"weights/{name}" for name in self.parameters} | {f"ema/{name}" for name in averages}
        found = {name for name in found if not name.startswith("optimizer/")}
        if different := sorted(expected ^ found):
            state = "now, but not then" if different[0] in expected else "then, but not now"
            raise ValueError(
                f"{directory} was written with other flags: {len(different)} tensors differ, the first is "
                f"{different[0]}, which trains {state}."
            )
