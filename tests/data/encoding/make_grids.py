#!/usr/bin/env python3
"""Makes kernels/encoding_grids.c from the grids of the gguf package (made with gguf 0.19.0). Run at the top of the tree."""
import numpy as np
from gguf import quants

GRIDS = [("IQ2_XXS", "iq2_xxs", 2), ("IQ2_XS", "iq2_xs", 2), ("IQ2_S", "iq2_s", 2), ("IQ3_XXS", "iq3_xxs", 4),
         ("IQ3_S", "iq3_s", 4), ("IQ1_S", "iq1", 2)]

lines = ['#include "kernels/encoding_run.h"', "", "// Written by tests/data/encoding/make_grids.py.", ""]
for kind, name, bits in GRIDS:
    table = getattr(quants, kind)
    table.init_grid()
    points = table.grid[0, 0]
    levels = np.searchsorted(np.unique(points), points).astype(np.uint32)
    packed = (levels << (bits * np.arange(points.shape[1], dtype=np.uint32))).sum(axis=1)
    lines.append(f"const uint16_t tsr_grid_{name}[{len(packed)}] = {{")
    lines += ["    " + ", ".join(f"0x{v:04X}" for v in packed[i:i + 12]) + "," for i in range(0, len(packed), 12)]
    lines += ["};", ""]
with open("kernels/encoding_grids.c", "w") as out:
    out.write("\n".join(lines).rstrip() + "\n")
