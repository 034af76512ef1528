"""Randomness that any process can recompute.

Several processes make the requests of one run. Each must get the same length and the same prompt
for request number ``index`` without talking to the others, so nothing here has a state: what is
drawn depends on (seed, stream, index) alone. A stream is a name that keeps draws for different
purposes independent of each other.
"""

from __future__ import annotations

import struct
from hashlib import shake_128


def octets(seed: int, stream: str, index: int, n: int) -> bytes:
    """``n`` uniform bytes; a longer draw begins with the shorter one."""
    return shake_128(f"{seed}/{stream}/{index}".encode()).digest(n)


def uniforms(seed: int, stream: str, index: int) -> tuple[float, float]:
    """Two independent numbers in the open interval (0, 1)."""
    a, b = struct.unpack("<QQ", octets(seed, stream, index, 16))
    # 53 bits, shifted by half a step: never 0 (a logarithm follows) and never 1.
    return ((a >> 11) + 0.5) / 2**53, ((b >> 11) + 0.5) / 2**53
