"""What the settings of a model are made of: frozen, without unknown keys, of bounded sizes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

LARGEST, LAYERS = 1 << 28, 10_000
"""No width, vocabulary or context is larger, and no model deeper: a size beyond is a slip, and would fill the memory."""

Count = Annotated[int, Field(gt=0, le=LARGEST)]
Derived = Annotated[int, Field(ge=0, le=LARGEST)]
"""A count that follows from others when it is 0."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """Frozen settings without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
