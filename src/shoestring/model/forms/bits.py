"""Integers of 2 to 8 bits in int32 words, as compressed-tensors stores them.

Codes are signed, [-2^(b-1), 2^(b-1) - 1], stored with 2^(b-1) added, as a little-endian stream of bits along the inputs.

N outputs, K inputs, W words.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def pack(codes_NK: Tensor, bits: int) -> Tensor:
    """Signed codes, int8 (N, K), as int32 words (N, W) with W = ceil(K * bits / 32); element i begins at bit i * bits."""
    rows, count = codes_NK.shape
    words = -(-count * bits // 32)
    if bits == 4 and count % 8 == 0:  # the common case, ten times as fast as the general one below
        pairs = codes_NK.reshape(-1).view(torch.int16)
        return (((pairs & 0x0F) | ((pairs >> 4) & 0xF0)) ^ 0x88).to(torch.uint8).view(torch.int32).view(rows, words)
    fields = (codes_NK + (1 << (bits - 1))).to(torch.uint8)
    if 8 % bits == 0:
        per_byte = 8 // bits
        fields = F.pad(fields, (0, words * 4 * per_byte - count)).view(rows, words * 4, per_byte)
        octets = (fields << _shifts(0, 8, bits, fields.device)).sum(-1, dtype=torch.uint8)
    else:
        stream = ((fields[..., None] >> _shifts(0, bits, 1, fields.device)) & 1).reshape(rows, count * bits)
        stream = F.pad(stream, (0, words * 32 - count * bits)).view(rows, words * 4, 8)
        octets = (stream << _shifts(0, 8, 1, fields.device)).sum(-1, dtype=torch.uint8)
    return octets.contiguous().view(torch.int32)


def unpack(words_NW: Tensor, bits: int, count: int) -> Tensor:
    """The signed codes, int8 (N, count), that `pack` packed."""
    rows = words_NW.shape[0]
    octets = words_NW.contiguous().view(torch.uint8)
    if bits == 4:  # the common case, twice as fast as the general one below
        fields = torch.stack((octets & 15, octets >> 4), dim=-1).view(rows, -1)[:, :count]
    elif 8 % bits == 0:
        fields = (octets[..., None] >> _shifts(0, 8, bits, octets.device)) & ((1 << bits) - 1)
        fields = fields.view(rows, -1)[:, :count]
    else:
        stream = ((octets[..., None] >> _shifts(0, 8, 1, octets.device)) & 1).view(rows, -1)
        stream = stream[:, : count * bits].reshape(rows, count, bits)
        fields = (stream << _shifts(0, bits, 1, octets.device)).sum(-1, dtype=torch.uint8)
    # Unsigned subtraction wraps, and the wrapped byte read as signed is the code.
    return (fields - (1 << (bits - 1))).contiguous().view(torch.int8)


def _shifts(first: int, last: int, step: int, device: torch.device) -> Tensor:
    return torch.arange(first, last, step, dtype=torch.uint8, device=device)
