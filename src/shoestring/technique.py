"""What a technique is: its settings, what it reads and gives, what it will cost; and what passes between techniques.

A technique is a small frozen pydantic class, one entry of a recipe. It can do two things: `predict` from a `Sketch` what
it will cost and change, before anything exists, and `apply` itself to a `State`, whose parts are paths of artifacts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from shoestring.architecture import ModelConfig
from shoestring.artifact import checksum, manifest
from shoestring.errors import SettingError
from shoestring.measure import Hardware, Kind, Meter, Usage, no_usage
from shoestring.progress import Progress, silent
from shoestring.settings import configure as configure

Mark = TypeVar("Mark")

State = Mapping[str, Path]
"""What a recipe has made so far: for each part that is there, one of `artifact.PARTS`, the folder of its newest artifact."""


def need(state: State, part: str, who: str) -> Path:
    """The path of a part.

    Raises:
        SettingError: when no earlier step has made it.
    """
    if part not in state:
        raise SettingError(f"{who}: needs a {part}, and no step before it makes one; put such a step before it")
    return state[part]


class _Reference:
    """Marks a field that names an earlier step of the recipe."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Marks a field that may name files or folders; `words` are the values that name none."""

    words: tuple[str, ...] = ()


class Plain:
    """Marks a field whose text never names a file."""


StepName = Annotated[str, _Reference()]
"""The type of a field that names an earlier step, such as `teacher`: its state is in `Task.earlier`."""

FileName = Annotated[str, Outside()]
"""The type of a field that may name a file or a folder of the user's: what is in it is part of the technique's identity."""

Word = Annotated[str, Plain()]
"""The type of a field for any other text. Each text of a technique is one of these three, or a Literal: a test sees to it."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits; None is 'no limit'. Seconds, bytes, joules, US dollars."""

    time: float | None = None
    memory: float | None = None
    energy: float | None = None
    money: float | None = None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What lies before a step: what is left of the recipe's budget, and the steps after it (None: it is not known which)."""

    remaining: Budget = field(default_factory=Budget)
    later: tuple[Technique, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sketch:
    """What is known of a recipe's state before anything exists; None is 'not known yet'."""

    text_bytes: float | None = None
    """Bytes of UTF-8 text in the corpus."""
    documents: float | None = None
    vocabulary: int | None = None
    tokens: float | None = None
    """Tokens for training, the held-out ones left out."""
    heldout_tokens: float | None = None
    model: ModelConfig | None = None
    trained_tokens: float = 0.0
    """Tokens that the model has learned from."""
    bits_per_weight: float = 32.0
    """Of the linear layers' weights, scales and zeros counted in."""
    sparsity: float = 0.0
    """Share of the linear layers' weights that are zero."""
    disk_bytes: float | None = None
    """Of the newest checkpoint."""
    bits_per_byte: float | None = None
    """Quality expected of the newest checkpoint."""
    plan: BaseModel | None = None
    """What a plan step has decided (`train.TrainingPlan`)."""
    outlook: Outlook = field(default_factory=Outlook)
    """What lies before this step."""

    def with_(self, **known: Any) -> Sketch:
        """The same with some entries replaced."""
        return replace(self, **known)


NEEDS: dict[str, tuple[Callable[[Sketch], bool], str, str]] = {
    "unpacked": (lambda sketch: sketch.bits_per_weight >= 16, "weights that can be changed", "packs them"),
}
"""What a technique may need of the sketch: whether it holds, what it is, and what a step does after which it no longer does."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a technique will use, and the sketch after it."""

    usage: Usage
    sketch: Sketch


def usage_after(sketch: Sketch, hardware: Hardware) -> Usage:
    """What the steps after one will use together, for a sketch as that step would leave it."""
    total, outlook = no_usage(Kind.PREDICTED), sketch.outlook
    later = outlook.later or ()
    for number, technique in enumerate(later, start=1):
        prediction = technique.predict(sketch.with_(outlook=Outlook(outlook.remaining, later[number:])), hardware)
        total, sketch = total.then(prediction.usage), prediction.sketch
    return total


@dataclass(frozen=True, slots=True)
class Task:
    """Where and with what a technique applies itself: plain data, the same for every process that works on it.

    Attributes:
        out: the artifact's final place: fill it with `artifact.writing(task.out, kind, about)`.
        scratch: a folder that outlives a kill; a long step keeps its restart points there. Removed after success.
        hardware: what the machine is, and reached when calibrated.
        seed: the recipe's seed; every random draw follows from it.
        sketch: what is known now, from the artifacts made so far, with what is left of the budget.
        earlier: the state after each earlier step, by step name.
        seconds_left: what the budget's time leaves this step after what the later steps will use; None without a limit.
        ranks: processes that work on it together, where the technique is `shared`.
    """

    out: Path
    scratch: Path
    hardware: Hardware
    seed: int = 0
    sketch: Sketch = field(default_factory=Sketch)
    earlier: Mapping[str, State] = field(default_factory=dict)
    seconds_left: float | None = None
    ranks: int = 1

    @property
    def device(self) -> str:
        """The PyTorch device to work on, "cpu" or "cuda"."""
        return self.hardware.device


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on while a technique applies itself, in the process that drives it.

    Attributes:
        meter: the running meter; tell it `meter.count(flops=..., communication=...)`.
        note: says one line to the person who watches.
        progress: shows a passing status, such as the loss, and the share done; the next call replaces it.
    """

    meter: Meter
    note: Callable[[str], None] = print
    progress: Progress = silent


class Technique(BaseModel):
    """One entry of a recipe. Its fields are its settings, the docstring under each says what it means; its own what it does."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False, use_attribute_docstrings=True)

    name: ClassVar[str]
    """Its key in a recipe, lower case."""
    room: ClassVar[str]
    """The room it lives in."""
    row: ClassVar[str]
    """Its row in docs/taxonomy.md, such as "Q1"."""
    paper: ClassVar[str] = ""
    """arXiv number, or a citation."""
    saves: ClassVar[tuple[str, ...]] = ()
    """Resources it saves, of: computation, memory, energy, money, communication, storage, data."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Parts of the state it needs, of `artifact.PARTS`."""
    uses: ClassVar[tuple[str, ...]] = ()
    """Parts it takes into account when they are there."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What must hold of the sketch before it, of `NEEDS`."""
    gives: ClassVar[str]
    """The part of the state it replaces."""
    budgeted: ClassVar[bool] = False
    """Its result follows from the recipe's budget and the machine."""
    shared: ClassVar[bool] = False
    """Several processes can apply it together, when each is a rank of one process group."""
    version: ClassVar[int] = 1
    """Raised whenever the same settings and inputs would give another result: stored results of before are then redone."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """What applying this will use on `hardware`, and the sketch after it."""
        raise NotImplementedError

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        """Make the artifact `task.out` from `state` and return the state with it."""
        raise NotImplementedError

    def observe(self, sketch: Sketch, state: State) -> Sketch:
        """The predicted sketch corrected by what was really made: the `about["facts"]` of the new artifact."""
        facts = {key: value for key, value in manifest(state[self.gives]).about.get("facts", {}).items() if value is not None}
        return sketch.with_(**facts)

    def references(self) -> dict[str, str]:
        """The fields that name earlier steps, with those names."""
        return {key: names[0] for key, names, _ in self._marked(_Reference)}

    def outside(self) -> str:
        """What the result depends on beside settings and inputs: by default the contents of the files that fields name."""
        named = {
            key: [contents(Path(name)) for name in names if name not in mark.words] for key, names, mark in self._marked(Outside)
        }
        return json.dumps(named, sort_keys=True)

    def resolved(self, device: str) -> dict[str, Any]:
        """Settings that are not given and follow from more of the machine than its kind of device, such as a precision."""
        return {}

    def _marked(self, kind: type[Mark]) -> Iterator[tuple[str, list[str], Mark]]:
        """The fields that bear a mark and have a value: name, values, mark."""
        for key, info in type(self).model_fields.items():
            value = getattr(self, key)
            marks = [mark for mark in _marks(info) if isinstance(mark, kind)]
            if value and marks:
                yield key, [value] if isinstance(value, str) else list(value), marks[0]


def _marks(info: Any) -> list[Any]:
    """The markers of a pydantic field, those inside `X | None` and `tuple[X, ...]` included."""
    marks, kinds = list(info.metadata), [info.annotation]
    while kinds:
        kind = kinds.pop()
        marks.extend(getattr(kind, "__metadata__", ()))
        kinds.extend(get_args(kind))
    return marks


def contents(path: Path) -> str:
    """A digest of a file, or of all files of a folder with their names; "" when there is no such path."""
    path = path.expanduser() if str(path).startswith("~") else path
    if path.is_file():
        return checksum(path)
    parts = [(str(f.relative_to(path)), checksum(f)) for f in sorted(path.rglob("*")) if f.is_file()] if path.is_dir() else []
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest() if parts else ""
