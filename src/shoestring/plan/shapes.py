"""The ladder of model shapes to choose from: one for each width, its depth and heads following from it."""

from __future__ import annotations

from collections.abc import Iterator

from shoestring.architecture import ModelConfig


def shape(width: int, vocabulary: int, context: int, query_groups: int = 1) -> ModelConfig:
    """The model of a width: a layer per 64 of width and one more, heads of 64 (32 where 64 doesn't fit, 128 from width 2048).

    The ratio of width to depth hardly matters between 32 and 128 (arXiv 2001.08361, figure 5); small models are kept a little
    deeper, since a model of one layer can't even copy.

    Args:
        query_groups: query heads that share a key-value head, made smaller when it doesn't divide the heads.
    """
    size = 128 if width >= 2048 and width % 128 == 0 else 64 if width >= 128 and width % 64 == 0 else 32
    heads = width // size
    shared = min(query_groups, heads)
    while heads % shared:
        shared -= 1
    return ModelConfig(
        vocabulary=vocabulary,
        width=width,
        layers=max(2, -(-width // 64) + 1),
        heads=heads,
        kv_heads=heads // shared,
        head_size=size,
        context=context,
    )


def widths(smallest: int = 64, largest: int = 16384) -> Iterator[int]:
    """Widths of the ladder: steps of 32 up to 256, then of about an eighth, always multiples of 64."""
    width = 32
    while width <= largest:
        if width >= smallest:
            yield width
        width += 32 if width < 256 else max(64, width // 8 // 64 * 64)
