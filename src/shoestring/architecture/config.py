"""What a language model is, before any weight exists: one frozen configuration that every room reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, ValidationInfo, field_validator, model_serializer, model_validator

from shoestring.architecture.flat import Flat
from shoestring.architecture.layer import Layer
from shoestring.architecture.norm import Norm, RMSNorm
from shoestring.architecture.settings import LAYERS, Count, Settings
from shoestring.architecture.slot import Slot


class ModelConfig(Settings):
    """A decoder-only language model. Widths are in elements, `context` in tokens.

    It takes the flat spelling (`Flat`) as well, and is written in it where that says the same.
    """

    vocabulary: Count
    """Rows of the embedding."""
    width: Count
    """Of the residual stream."""
    context: Count = 1024
    """Tokens that it attends over at the most."""
    layers: Annotated[tuple[Layer, ...], Field(min_length=1, max_length=LAYERS)]
    """One after the other; each brings its own settings."""
    final_norm: Norm = RMSNorm()
    """Before the head."""
    learned_positions: bool = False
    """A vector learned for each position is added to the embedding."""
    tied: bool = True
    """The head is the embedding's transpose."""

    if TYPE_CHECKING:

        def __init__(self, **settings: Any) -> None: ...  # the flat spelling too

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, values: object) -> object:
        """Take the flat spelling."""
        if isinstance(values, Mapping) and not isinstance(values.get("layers"), list | tuple):
            return Flat.model_validate(dict(values)).unfolded()
        return values

    @field_validator("layers")
    @classmethod
    def _resolve(cls, layers: tuple[Layer, ...], info: ValidationInfo) -> tuple[Layer, ...]:
        """Fill in what follows from the width; equal layers are one object, so that counting them is cheap."""
        width = info.data.get("width")
        if width is None:  # it was refused itself
            return layers
        each, first = {id(layer): layer.resolved(width) for layer in layers}, dict[Layer, Layer]()
        each = {key: first.setdefault(layer, layer) for key, layer in each.items()}
        return tuple(each[id(layer)] for layer in layers)

    @model_serializer(mode="wrap")
    def _fold(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self) if self.flat is None else self.flat.model_dump(mode="json")
        return found

    @cached_property
    def flat(self) -> Flat | None:
        """The flat spelling, None when its layers differ in more than the kind of their mixers."""
        return _flat(self)

    def with_(self, **settings: Any) -> Self:
        """The same with some settings replaced, of the flat spelling where there is one.

        Widths that followed from others stay; name them too (0: let it follow).
        """
        given = dict(self) if self.flat is None else dict(self.flat)
        return type(self)(**{**given, **settings})

    @cached_property
    def distinct(self) -> tuple[tuple[Layer, int], ...]:
        """Different layers, and how many there are of each."""
        found: dict[int, tuple[Layer, int]] = {}
        for layer in self.layers:
            found[id(layer)] = (layer, found.get(id(layer), (layer, 0))[1] + 1)
        return tuple(found.values())

    @property
    def outer(self) -> tuple[Slot, ...]:
        """The parameters outside the layers."""
        positions = Slot("positions", (self.context, self.width), ("positions", "width"))
        return (
            Slot("embedding", (self.vocabulary, self.width), ("vocabulary", "width")),
            *([positions] if self.learned_positions else []),
            self.final_norm.slot("final_norm", self.width),
            Slot(
                "head",
                (self.vocabulary, self.width),
                ("vocabulary", "width"),
                reads="final",
                fed_by="final_norm",
                shares="embedding" if self.tied else "",
            ),
        )

    def slots(self) -> Iterator[Slot]:
        """All parameters by the names of their modules: the embedding, each block's in order of computation, the head."""
        embedding, *rest = self.outer
        yield embedding
        for number, layer in enumerate(self.layers):
            yield from (slot.inside(f"blocks.{number}") for slot in layer.slots(self.width))
        yield from rest

    def matrices(self) -> Iterator[Slot]:
        """The matrices of the blocks: what pruning, quantization and adapters work on."""
        return (slot for slot in self.slots() if slot.reads and slot.name != "head")


def _flat(config: ModelConfig) -> Flat | None:
    """The flat spelling of a model, None when its layers can't be flat so."""
    kinds = tuple(layer.mixer.kind for layer in config.layers)
    position = "learned" if config.learned_positions else "none"
    flat: dict[str, Any] = {
        "vocabulary": config.vocabulary,
        "width": config.width,
        "context": config.context,
        "tied": config.tied,
    }
    flat |= {"layers": len(kinds), "mixer": kinds[0] if len(set(kinds)) == 1 else kinds, "position": position}
    # Backwards, so that of layers that differ the first is tried.
    for layer in {id(layer): layer for layer in reversed(config.layers)}.values():
        for part in (layer.norm, *layer.parts.values()):
            flat |= part.flat()
    try:
        found = Flat(**flat)
    except ValueError:
        return None
    return found if ModelConfig(**found.unfolded()) == config else None
