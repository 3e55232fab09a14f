"""What is simply there in decoding, for the catalogue. Greedy decoding and sampling stand in row Y3 as what token parallelism
must reproduce.
"""

from __future__ import annotations

from typing import Any

from shoestring.choice import Choice, Table
from shoestring.infer.drafters import DRAFTERS

TABLES: tuple[Table[Any], ...] = (
    DRAFTERS,
    Table(
        "Sampling.temperature",
        Choice("greedy", None, "Take the likeliest token (temperature 0)", row="Y3"),
        Choice("sampling", None, "Draw from the distribution, sharpened or flattened", row="Y3"),
    ),
    Table("Sampling.top_k", Choice("top-k", None, "Draw among the k likeliest tokens", "Y3", "1805.04833")),
    Table(
        "Sampling.top_p",
        Choice("top-p", None, "Draw among the likeliest tokens that reach a share p", row="Y3", paper="1904.09751"),
    ),
    Table(
        "Engine",
        Choice(
            "key-value cache",
            None,
            "Keep keys and values, so that a token costs one token's work",
            row="C3",
            paper="2211.05102",
            saves=("computation",),
        ),
        Choice(
            "continuous batching",
            None,
            "Answers join and leave the batch between two steps",
            row="C3",
            paper="Orca, OSDI 2022",
            saves=("computation", "energy", "money"),
        ),
    ),
)
