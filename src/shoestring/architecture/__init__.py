"""What a model is, declared once and free of PyTorch: settings of its parts, the slots of its parameters, its counts."""

from shoestring.architecture.attention import Attention
from shoestring.architecture.config import ModelConfig
from shoestring.architecture.feedforward import GELU, SwiGLU
from shoestring.architecture.flat import Flat
from shoestring.architecture.layer import Layer
from shoestring.architecture.norm import LayerNorm, RMSNorm
from shoestring.architecture.part import Part, StateShape
from shoestring.architecture.rope import Rope, RopeScaling
from shoestring.architecture.slot import Axis, Draw, Slot

__all__ = [
    "GELU",
    "Attention",
    "Axis",
    "Draw",
    "Flat",
    "Layer",
    "LayerNorm",
    "ModelConfig",
    "Part",
    "RMSNorm",
    "Rope",
    "RopeScaling",
    "Slot",
    "StateShape",
    "SwiGLU",
]
