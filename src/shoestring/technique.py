"""What a technique is: its settings, what it reads and gives, what it will cost; and what passes between techniques.

A technique is a small frozen pydantic class, one entry of a recipe. It can do two things: `predict` from a `Sketch` what
it will cost and change, before anything exists, and `apply` itself to a `State`, whose parts are paths of artifacts.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from shoestring.artifact import checksum, manifest
from shoestring.errors import SettingError, nearest, shown, together
from shoestring.measure import Hardware, Meter, Usage
from shoestring.progress import Progress, silent

Settings = TypeVar("Settings", bound=BaseModel)
Mark = TypeVar("Mark")

Part = Literal["corpus", "instructions", "tokens", "plan", "checkpoint", "numbers", "text", "scores"]
PARTS: tuple[Part, ...] = get_args(Part)


class _Reference:
    """Marks a field that names an earlier step of the recipe."""


@dataclass(frozen=True, slots=True)
class Outside:
    """Marks a field that may name files or folders; `words` are the values that name none."""

    words: tuple[str, ...] = ()


class Plain:
    """Marks a field whose text never names a file."""


StepName = Annotated[str, _Reference()]
"""The type of a field that names an earlier step, such as `teacher`: its state is in `Work.earlier`."""

FileName = Annotated[str, Outside()]
"""The type of a field that may name a file or a folder of the user's: what is in it is part of the technique's identity."""

Word = Annotated[str, Plain()]
"""The type of a field for any other text. Each text of a technique is one of these three, or a Literal: a test sees to it."""


@dataclass(frozen=True, slots=True)
class State:
    """What a recipe has made so far: for each part, the folder of its newest artifact."""

    corpus: Path | None = None
    instructions: Path | None = None
    tokens: Path | None = None
    plan: Path | None = None
    checkpoint: Path | None = None
    numbers: Path | None = None
    text: Path | None = None
    scores: Path | None = None

    def with_(self, part: Part, path: Path) -> State:
        """The same with one part replaced."""
        return replace(self, **{part: path})

    def need(self, part: Part, who: str) -> Path:
        """The path of a part.

        Raises:
            SettingError: when no earlier step has made it.
        """
        path: Path | None = getattr(self, part)
        if path is None:
            raise SettingError(f"{who}: needs a {part}, and no step before it makes one; put such a step before it")
        return path


class ModelShape(Protocol):
    """What can be said of a model before it exists (`model.ModelConfig` answers it)."""

    @property
    def vocabulary(self) -> int:
        """Entries of the tokenizer."""

    @property
    def context(self) -> int:
        """Tokens it attends over."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits; None is 'no limit'. Seconds, bytes, joules, US dollars."""

    time: float | None = None
    memory: float | None = None
    energy: float | None = None
    money: float | None = None


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
    model: ModelShape | None = None
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
    remaining: Budget = field(default_factory=Budget)
    """What is left of the recipe's budget before this step."""
    rest: Callable[[Sketch], Usage] | None = None
    """What the steps after this one will use, for a sketch as this step would leave it."""

    def with_(self, **known: Any) -> Sketch:
        """The same with some entries replaced."""
        return replace(self, **known)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a technique will use, and the sketch after it."""

    usage: Usage
    sketch: Sketch


@dataclass(frozen=True, slots=True)
class Work:
    """Where and with what a technique applies itself.

    Attributes:
        out: the artifact's final place: fill it with `artifact.writing(work.out, kind, about)`.
        scratch: a folder that outlives a kill; a long step keeps its restart points there. Removed after success.
        hardware: what the machine is, and reached when calibrated.
        device: the PyTorch device to work on, "cpu" or "cuda".
        meter: the running meter; tell it `meter.count(flops=..., communication=...)`.
        seed: the recipe's seed; every random draw follows from it.
        sketch: what is known now, from the artifacts made so far, with what is left of the budget.
        earlier: the state after each earlier step, by step name.
        note: says one line to the person who watches.
        progress: shows a passing status, such as the loss, and the share done; the next call replaces it.
    """

    out: Path
    scratch: Path
    hardware: Hardware
    device: str
    meter: Meter
    seed: int = 0
    sketch: Sketch = field(default_factory=Sketch)
    earlier: Mapping[str, State] = field(default_factory=dict)
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
    reads: ClassVar[tuple[Part, ...]] = ()
    """Parts of the state it needs."""
    uses: ClassVar[tuple[Part, ...]] = ()
    """Parts it takes into account when they are there."""
    gives: ClassVar[Part]
    """The part of the state it replaces."""
    budgeted: ClassVar[bool] = False
    """Its result follows from the recipe's budget and the machine."""
    version: ClassVar[int] = 1
    """Raised whenever the same settings and inputs would give another result: stored results of before are then redone."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """What applying this will use on `hardware`, and the sketch after it."""
        raise NotImplementedError

    def apply(self, state: State, work: Work) -> State:
        """Make the artifact `work.out` from `state` and return the state with it."""
        raise NotImplementedError

    def observe(self, sketch: Sketch, state: State) -> Sketch:
        """The predicted sketch corrected by what was really made: the `about["facts"]` of the new artifact."""
        made: Path = getattr(state, self.gives)
        facts = {key: value for key, value in manifest(made).about.get("facts", {}).items() if value is not None}
        return sketch.with_(**facts)

    def seconds_left(self, work: Work) -> float | None:
        """What the budget's time leaves this step after what the later steps will use; None without a limit."""
        left = work.sketch.remaining.time
        if left is None:
            return None
        after = self.predict(work.sketch, work.hardware).sketch
        later = None if work.sketch.rest is None else work.sketch.rest(after).seconds.value
        return max(1.0, left - (later or 0.0))

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


LARGEST = 2**63 - 1
"""No whole number of a setting may be larger: beyond it no tensor, file or generator could take it."""


def configure(kind: type[Settings], settings: Mapping[str, Any], where: str) -> Settings:
    """Build a settings class from plain data, with a one-line error that names the key.

    Args:
        where: the dotted path that stands before the key in an error, such as "steps.gptq".

    Raises:
        SettingError: unknown key (the nearest valid one is named), a value that does not fit, or a number beyond all
            bounds. All are named at once.
    """
    wrong = [f"{where}{path}: {shown(value)} is {what}" for path, value, what in _boundless(dict(settings))]
    if not wrong:
        try:
            built = kind.model_validate(dict(settings))
        except ValidationError as error:
            wrong = _problems(error.errors(include_url=False), kind, where)
        except (OverflowError, RecursionError) as error:
            wrong = [f"{where}: a value is too large or nested too deep ({shown(str(error), quote=False)})"]
        else:  # a number may have come in as a text
            wrong = [f"{where}{path}: {shown(value)} is {what}" for path, value, what in _boundless(built.model_dump())]
    if wrong:
        raise SettingError(together(wrong))
    return built


_ALTERNATIVE = re.compile(r"(function-\w+|literal|tuple|list|dict)\[.*")
"""What pydantic puts in the path of a value that may be of several types, for each of them."""


def _problems(found: Sequence[ErrorDetails], kind: type[BaseModel], where: str) -> list[str]:
    """Pydantic's complaints as lines; of those about one value, the one about an unknown name says enough."""
    inside = [[str(part) for part in problem["loc"] if not _ALTERNATIVE.fullmatch(str(part))] for problem in found]
    paths = [shown(".".join([where, *parts]), quote=False) for parts in inside]
    named = {path for path, problem in zip(paths, found) if problem["type"] == "choice"}
    pairs = zip(paths, found)
    return [_problem(path, problem, kind) for path, problem in pairs if problem["type"] == "choice" or path not in named]


def _problem(path: str, problem: ErrorDetails, kind: type[BaseModel]) -> str:
    """One complaint as a line that names the key, the value and what is allowed."""
    if problem["type"] == "extra_forbidden":
        return f"{path}: no such setting; {nearest(str(problem['loc'][-1]), kind.model_fields)}"
    if problem["type"] == "missing":
        return f"{path}: must be given"
    if problem["type"] == "choice":
        return f"{path}: {problem['msg']}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{path}: {message[0].lower() + message[1:]}, got {shown(problem['input'])}"


def _boundless(value: Any, path: str = "") -> Iterator[tuple[str, Any, str]]:
    """Numbers in plain data that are beyond all bounds: where each stands, it, and what it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > LARGEST:
        yield path, value, "larger than any number here may be"
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, value, "not a finite number"
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _boundless(inner, f"{path}.{shown(str(key), quote=False)}")
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _boundless(inner, f"{path}.{number}")


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
