#!/usr/bin/env python3
"""Makes tests/data/encoding/*.bin: random groups of each encoding and what the gguf package decodes them to.

A file: u32 n_elems, u32 n_bytes, the encoded bytes, then n_elems little-endian f32. Needs the Python packages
gguf and numpy (made with gguf 0.19.0). Run in this folder.
"""
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

# Where each encoding has its halves (scale, minimum); everything else in a group may be any bits at all.
HALVES = {
    "F16": [0], "BF16": [], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ1_S": [0], "IQ1_M": [], "IQ2_XXS": [0], "IQ2_XS": [0], "IQ2_S": [0], "IQ3_XXS": [0], "IQ3_S": [0], "IQ4_NL": [0],
    "IQ4_XS": [0], "TQ1_0": [52], "TQ2_0": [64], "MXFP4": [],
    "NVFP4": [],
}

rng = np.random.default_rng(20240817)
for name, halves in HALVES.items():
    elems, size = GGML_QUANT_SIZES[Type[name]]
    n = 256 if elems == 1 else 16 if elems <= 64 else 3
    groups = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in halves:
        half = (rng.standard_normal(n) * 10.0 ** rng.integers(-6, 2, n)).astype(np.float16)
        groups[:, at:at + 2] = half.view(np.uint8).reshape(n, 2)
    if name == "BF16":
        groups[:, 1] &= 0xBF  # no infinity, no NaN
    if name == "IQ1_M":
        groups[:, 55] &= 0xBF  # the same of the half whose bits are spread
    if name == "MXFP4":
        groups[:, 0] = rng.integers(1, 250, n)
    values = dequantize(groups.reshape(1, -1), Type[name]).astype("<f4").ravel()
    assert values.size == n * elems and np.isfinite(values).all()
    with open(name + ".bin", "wb") as out:
        out.write(np.array([values.size, groups.size], dtype="<u4").tobytes())
        out.write(groups.tobytes())
        out.write(values.tobytes())
