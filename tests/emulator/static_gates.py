#!/usr/bin/env python3
"""What ptxas made of every kernel for sm_90, read from the cubins: registers, shared memory and instructions, as a table and held
to limits. Local memory and spills are none: the build refuses them, and no load or store of local memory is found here.

    static_gates.py OCCUPANCY FOLDER      the program of occupancy.c; where the cubins lie
"""
import collections
import re
import struct
import subprocess
import sys
from pathlib import Path

# SASS: the low twelve bits of each 16 bytes. HMMA and IMMA are tensor cores, LDGSTS is cp.async, LDSM ldmatrix.
OPCODES = {0x23C: "HMMA", 0x237: "IMMA", 0xFAE: "LDGSTS", 0x83B: "LDSM", 0x983: "LDL", 0x387: "STL", 0x981: "LDG", 0xB1D: "BAR"}
LDG_16_BYTES = 6  # of its bits 73 to 75
REGISTER_COUNT, FRAME_SIZE = 0x2F, 0x11  # of .nv.info
RESERVED_SHARED = 1024  # by the driver, in the section's size where a kernel has any
IN_FLIGHT = 20_000  # bytes an SM: 3.35 TB/s for 700 ns over 132 SMs is 17.8 KB


class Kernel:
    def __init__(self):
        self.registers = self.frame = self.shared = self.wide_loads = 0
        self.count = collections.Counter()


def read_cubin(path):
    """{name: Kernel}"""
    data = path.read_bytes()
    start, = struct.unpack_from("<Q", data, 40)
    n, names = struct.unpack_from("<HH", data, 60)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, start + 64 * i) for i in range(n)]

    def text(section, offset):
        at = headers[section][4] + offset
        return data[at:data.index(0, at)].decode()

    sections = {text(names, h[0]): h for h in headers}
    kernels = collections.defaultdict(Kernel)
    symbols = sections[".symtab"]
    for name, header in sections.items():
        if name.startswith(".text.") and not name.startswith(".text.$"):  # $: a division that kernels call
            kernel = kernels[name[6:]]
            for at in range(header[4], header[4] + header[5], 16):
                low, high = struct.unpack_from("<QQ", data, at)
                opcode = OPCODES.get(low & 0xFFF)
                kernel.count[opcode] += 1
                kernel.wide_loads += opcode == "LDG" and high >> 9 & 7 == LDG_16_BYTES
            shared = sections.get(".nv.shared." + name[6:])
            kernel.shared = max(0, shared[5] - RESERVED_SHARED) if shared else 0
    at = sections[".nv.info"][4]
    end = at + sections[".nv.info"][5]
    while at < end:
        form, attribute, size = struct.unpack_from("<BBH", data, at)
        if form == 4 and attribute in (REGISTER_COUNT, FRAME_SIZE):
            symbol, value = struct.unpack_from("<II", data, at + 4)
            name_at, = struct.unpack_from("<I", data, symbols[4] + 24 * symbol)
            name = text(symbols[6], name_at)
            if name in kernels:
                setattr(kernels[name], "registers" if attribute == REGISTER_COUNT else "frame", value)
        at += 4 + (size if form == 4 else 0)
    return kernels


def attention(dim, is_coded):
    """Threads, dynamic shared memory (as tsr_attention_plan has it), and the bytes of keys and values that a block has under way."""
    tokens = 32 if dim > 128 else 64
    elements = 2 * dim * tokens
    stage = elements + 4 * tokens if is_coded else 2 * elements
    return tokens * 2, tokens * dim * 2 + 2 * stage + (2 * elements if is_coded else 0), stage


def codes(tile_bytes):
    return 256, 0, 8 * 4 * 2 * tile_bytes  # warps, tiles, panels


TILES = {"4": 320, "5": 384, "6": 320, "7": 320, "8": 544, "9": 768}  # bytes of a tile of each tsr_format

# name; threads, dynamic bytes, bytes under way; what must be there; most registers; fewest blocks an SM
RULES = [(rf"attend_(prompt|run)<{dim}, .*, {str(is_coded).lower()}>", attention(dim, is_coded), ("HMMA", "LDGSTS", "LDSM"), registers, blocks)
         for dim, registers, blocks in ((64, 168, 3), (128, 255, 2), (256, 255, 2)) for is_coded in (False, True)]
# Queries, two tiles of 32 tokens and scores; the rest is as attention_latent_cuda.cu has it.
RULES += [(r"attend_latent<.*", (128, 16 * 576 * 2 + 2 * 576 * 32 * 2 + 16 * 40 * 4, 576 * 32 * 2), ("HMMA", "LDGSTS", "LDSM"), 255, 2)]
RULES += [(rf"multiply_codes<\(tsr_format\){f}, .*", codes(n), ("IMMA", "wide"), 224, 2 if f in "467" else 1) for f, n in TILES.items()]
RULES += [(r"multiply_halves<\(tsr_format\)[12], .*", (256, 0, 8 * 4 * 1024), ("HMMA", "wide"), 128, 2),
          (r"multiply_halves<\(tsr_format\)3, .*", (256, 0, 8 * 4 * 576), ("HMMA",), 128, 2),
          (r".*", (256, 0, 0), (), 128, 1)]


def main():
    occupancy, folder = sys.argv[1:]
    cubins = sorted(Path(folder).glob("emulated_*_cuda/*.cubin"))
    kernels = {}
    for path in cubins:
        found = read_cubin(path)
        plain = subprocess.run(["c++filt", *found], capture_output=True, text=True, check=True).stdout.splitlines()
        kernels.update({(path.stem.split(".")[0], re.sub(r"^void |\(.*\)$", "", re.sub(r"\((?!tsr_format|tsr_kv_type).*", "", name))): kernel
                        for name, kernel in zip(plain, found.values())})
    rules = {name: next(rule for rule in RULES if re.fullmatch(rule[0], name[1])) for name in kernels}
    asked = "".join(f"{k.registers} {k.shared} {rules[name][1][1]} {rules[name][1][0]}\n" for name, k in kernels.items())
    answers = subprocess.run([occupancy], input=asked, capture_output=True, text=True, check=True).stdout.split()
    faults = [] if kernels else [f"no cubins in {folder}"]
    print(f"{'kernel':52}{'registers':>10}{'static':>8}{'dynamic':>9}{'threads':>8}{'blocks/SM':>10}{'in flight/SM':>13}  instructions")
    for (name, k), answer in zip(kernels.items(), answers):
        _, (threads, dynamic, flight), wanted, registers, blocks = rules[name]
        n_blocks = int(answer)
        k.count["wide"] = k.wide_loads
        words = " ".join(f"{n} {what}" for what, n in k.count.items() if what and what != "wide" and n)
        print(f"{name[1]:52}{k.registers:10}{k.shared:8}{dynamic:9}{threads:8}{n_blocks:10}{flight * n_blocks:13}  {words}")
        said = f"{name[0]}.cu, {name[1]}: "
        faults += [said + f"no {what}" for what in wanted if k.count[what] == 0]
        faults += [said + f"{k.count[what]} {what}, local memory" for what in ("LDL", "STL") if k.count[what]]
        if k.frame:
            faults.append(said + f"a stack of {k.frame} bytes")
        if k.registers > registers or k.registers == 0:
            faults.append(said + f"{k.registers} registers, not 1..{registers}")
        if n_blocks < blocks:
            faults.append(said + f"{n_blocks} blocks an SM, not {blocks}")
        if flight and flight * n_blocks < IN_FLIGHT:
            faults.append(said + f"{flight * n_blocks} bytes under way on an SM, not {IN_FLIGHT}")
    print("\n".join(faults) or f"{len(kernels)} kernels of {len(cubins)} files within their limits")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
