"""The named choices of decoding, for the catalogue."""

from __future__ import annotations

from shoestring.technique import Choice

CHOICES: tuple[Choice, ...] = (
    Choice("infer", "Sampling.temperature", "greedy", "Take the likeliest token (temperature 0)", "Y3"),
    Choice("infer", "Sampling.temperature", "sampling", "Draw from the distribution, sharpened or flattened", "Y3"),
    Choice("infer", "Sampling.top_k", "top-k", "Draw among the k likeliest tokens", "Y3", "1805.04833"),
    Choice("infer", "Sampling.top_p", "top-p", "Draw among the likeliest tokens that reach a share p", "Y3", "1904.09751"),
    Choice(
        "infer",
        "Engine",
        "key-value cache",
        "Keep keys and values, so that a token costs one token's work; it grows in strides of 64",
        "C3",
        "2211.05102",
        ("computation",),
    ),
    Choice(
        "infer",
        "Engine",
        "continuous batching",
        "Answers join and leave the batch between two steps",
        "C3",
        "Orca, OSDI 2022",
        ("computation", "energy", "money"),
    ),
)
"""Greedy decoding and sampling stand in row Y3 as what token parallelism must reproduce."""
