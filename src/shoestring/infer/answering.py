"""How a model shall answer, as a part of a run's state: settings of the engine that steps extend and others read.

    steps: [..., speculate: {drafter: ngram}, speed]

`speed` measures what such a step gains; leave it out, or name it as a factor of `compose`, to see what it is worth.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from shoestring import artifact
from shoestring.choice import OneOf
from shoestring.files import read_object, to_json
from shoestring.infer.drafters import DRAFTERS
from shoestring.measure import Hardware, predicted_usage
from shoestring.technique import Prediction, Sketch, State, Task, Technique, Watch, configure

FILE = "answering.json"

DrafterName = Annotated[str, OneOf(DRAFTERS)]
Guesses = Annotated[int, Field(gt=0, le=64)]


class Answering(BaseModel):
    """Settings of the engine."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    drafter: DrafterName = "none"
    """What guesses the next tokens."""
    guesses: Guesses = 4
    """Of a row at a time, at the most."""

    @classmethod
    def of(cls, state: State) -> Answering:
        """What the steps so far have set.

        Raises:
            FileError, SettingError: the part is damaged.
        """
        place = state.get("answering")
        return cls() if place is None else configure(cls, read_object(place / FILE), str(place / FILE))


class Speculate(Technique):
    """Let answers be guessed ahead, so that a step of the model checks several tokens at a time; what is said stays the same.

    A drafter names the tokens that may come next; the model reads them all in one pass and takes those that it would have
    chosen itself, each place with its own random number, and one more. The text is that of plain decoding; a step costs
    little more than before while reading the weights takes most of its time.
    """

    name: ClassVar[str] = "speculate"
    room: ClassVar[str] = "infer"
    row: ClassVar[str] = "Y3"
    paper: ClassVar[str] = "2211.17192"
    saves: ClassVar[tuple[str, ...]] = ("computation", "energy", "money")
    uses: ClassVar[tuple[str, ...]] = ("answering",)
    gives: ClassVar[str] = "answering"

    drafter: DrafterName = "ngram"
    """What guesses the next tokens."""
    guesses: Guesses = 4
    """Of a row at a time, at the most."""

    def predict(self, sketch: Sketch, hardware: Hardware) -> Prediction:
        """Writing a file."""
        return Prediction(predicted_usage(seconds=0.01, hardware=hardware, method="a file is written"), sketch)

    def apply(self, state: State, task: Task, watch: Watch) -> State:
        wanted = Answering.of(state).model_copy(update=dict(self))
        with artifact.writing(task.out, self.gives) as folder:
            artifact.write_whole(folder / FILE, to_json(wanted.model_dump(mode="json")) + "\n")
        return {**state, self.gives: task.out}


def halved(source: str | Path, device: str) -> bool:
    """Whether a model answers best in bfloat16: on a GPU, and with 4-bit layers, whose product on a CPU is in it."""
    from shoestring import model

    return device == "cuda" or 4 in model.packed_bits(source)
