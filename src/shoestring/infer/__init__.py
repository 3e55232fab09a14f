"""How a model answers: sampling, batched and cached generation, the engine behind the server, and what decoding costs."""

from shoestring.infer.generate import generate
from shoestring.infer.sampling import GREEDY, Sampling

__all__ = ["GREEDY", "Sampling", "generate"]
