"""What a training run is made of: what never changes, what stands around it, and what changes and is therefore saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from shoestring.measure import Meter
from shoestring.progress import Progress, silent
from shoestring.train.callbacks import Callback
from shoestring.train.loss import Objective
from shoestring.train.optimizers import trainable
from shoestring.train.parallel.layout import like
from shoestring.train.parallel.ranks import rank
from shoestring.train.schedule import Plan, Span
from shoestring.train.settings import Training

if TYPE_CHECKING:
    from torch.distributed.checkpoint.stateful import Stateful
    from torch.distributed.device_mesh import DeviceMesh


@dataclass(frozen=True, slots=True)
class Job:
    """What never changes while a run goes on."""

    objective: Objective
    plan: Plan
    settings: Training
    device: torch.device
    mesh: DeviceMesh | None = None


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around a run; none of it changes the result, save that a limit of time ends it sooner.

    Attributes:
        scratch: a folder for restart points; a run that finds one of its own there goes on from it, bit for bit.
        progress: a bar of our own when not given, where standard error is a terminal.
        meter: is given the operations; its hardware gives MFU, joules and money of the progress line.
        callbacks: hung into each step.
        time_limit: seconds, those of a killed run's earlier processes included. When the steps would not fit, the rest of the
            schedule is shortened so that training ends inside it.
        mesh: the ranks that train together (`parallel.layout`); None for one alone.
        flops: operations of one step; a Transformer's training cost when not given.
    """

    scratch: Path | None = None
    meter: Meter | None = None
    progress: Progress | None = None
    note: Callable[[str], None] = silent
    callbacks: tuple[Callback, ...] = ()
    time_limit: float | None = None
    flops: float | None = None
    mesh: DeviceMesh | None = None


@dataclass
class Cursor:
    """Where a run stands, between two steps."""

    span: Span
    step: int = 0
    """Steps done."""
    launched: int = 0
    """Steps given to the device; a few more than are done while a GPU works."""
    tokens: int = 0
    """Tokens read."""
    elapsed: float = 0.0
    """Seconds spent, in all processes together."""
    log: list[dict[str, Any]] = field(default_factory=list)
    since: list[dict[str, float]] = field(default_factory=list)
    """Loss and figures of the steps since the last record of the log."""

    def state_dict(self) -> dict[str, Any]:
        return asdict(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, Span(**value) if name == "span" else value)


@dataclass(frozen=True, slots=True)
class Parts:
    """All that changes. Whoever keeps more state, such as a stepper's scale, adds it to `more`, and it is saved with the rest."""

    model: nn.Module
    learned: Mapping[str, nn.Parameter]
    """The parameters of the model that learn, by name."""
    optimizer: torch.optim.Optimizer
    cursor: Cursor
    callbacks: tuple[Callback, ...] = ()
    more: dict[str, Stateful] = field(default_factory=dict)

    def stateful(self) -> dict[str, Stateful]:
        """What a restart point holds, by name. Each state is flat: names of tensors and of plain values."""
        return {
            "model": Weights(self.model),
            "optimizer": Moments(self.learned, self.optimizer),
            "cursor": self.cursor,
            "random": Generators(next(iter(self.learned.values())).device),
            **{f"callback.{number}": each for number, each in enumerate(self.callbacks)},
            **self.more,
        }


@dataclass(frozen=True, slots=True)
class Weights:
    """What training may change of a model: trainable parameters and saved buffers. Frozen weights are the caller's."""

    model: nn.Module

    def state_dict(self) -> dict[str, Any]:
        buffers = {name for name, _ in self.model.named_buffers()} & set(self.model.state_dict())
        return {**trainable(self.model), **{name: b for name, b in self.model.named_buffers() if name in buffers}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        with torch.no_grad():
            for name, tensor in self.state_dict().items():
                tensor.copy_(like(state[name], tensor))


@dataclass(frozen=True, slots=True)
class Moments:
    """An optimizer's state by the names of the parameters, so that it does not depend on how it numbers them."""

    learned: Mapping[str, nn.Parameter]
    optimizer: torch.optim.Optimizer

    def state_dict(self) -> dict[str, Any]:
        state = self.optimizer.state_dict()["state"]
        kept = {name: state[number] for number, name in enumerate(self._names()) if number in state}
        return {f"{name}/{key}": value for name, values in kept.items() for key, value in values.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        found: dict[str, dict[str, Any]] = {}
        for place, value in state.items():
            name, key = place.rsplit("/", 1)
            found.setdefault(name, {})[key] = like(value, self.learned[name]) if isinstance(value, Tensor) else value
        whole = self.optimizer.state_dict()
        whole["state"] = {number: found[name] for number, name in enumerate(self._names()) if name in found}
        self.optimizer.load_state_dict(whole)

    def _names(self) -> list[str]:
        """Parameters' names in the order in which the optimizer numbers them."""
        names = {id(parameter): name for name, parameter in self.learned.items()}
        return [names[id(parameter)] for group in self.optimizer.param_groups for parameter in group["params"]]


@dataclass(frozen=True, slots=True)
class Generators:
    """PyTorch's random generators on this rank, which dropout draws from."""

    device: torch.device

    def state_dict(self) -> dict[str, Any]:
        states: dict[str, Tensor] = {f"cpu.{rank()}": torch.get_rng_state()}
        return states if self.device.type == "cpu" else states | {f"cuda.{rank()}": torch.cuda.get_rng_state(self.device)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if f"cpu.{rank()}" in state:  # none where more ranks go on than there were
            torch.set_rng_state(state[f"cpu.{rank()}"])
        if self.device.type != "cpu" and f"cuda.{rank()}" in state:
            torch.cuda.set_rng_state(state[f"cuda.{rank()}"], self.device)
