"""How a model answers: sampling, batched and cached generation, the engine behind the server, and what decoding costs."""

from shoestring.infer.answers import generate
from shoestring.infer.choices import TABLES
from shoestring.infer.decoder import TooLong
from shoestring.infer.engine import Answer, Busy, Closed, Engine
from shoestring.infer.sample import Sample
from shoestring.infer.sampling import GREEDY, Sampling
from shoestring.infer.stops import stop_tokens
from shoestring.technique import Technique

__all__ = [
    "GREEDY",
    "TABLES",
    "TECHNIQUES",
    "Answer",
    "Busy",
    "Closed",
    "Engine",
    "Sample",
    "Sampling",
    "TooLong",
    "generate",
    "stop_tokens",
]

TECHNIQUES: tuple[type[Technique], ...] = (Sample,)
