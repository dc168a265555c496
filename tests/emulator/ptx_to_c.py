#!/usr/bin/env python3
"""ptx_to_c.py IN.ptx OUT.c - the kernels of a PTX module as C functions for the SIMT engine (simt.h).

Registers become local variables, labels become goto targets; memory accesses, barriers and what a warp does together
become calls of the engine, each with its place in the .cu file. What is not known stops the translation by name.
PTX is NVIDIA's, as the manual "Parallel Thread Execution ISA" describes it; only what nvcc makes of this tree's kernels,
and what stands in kernels/ptx.cuh, is understood.
"""
import os
import re
import sys

import ptx_instructions
from ptx_instructions import REGISTER, SIZE, Unknown, c_name, split_operands


class Kernel:
    """One .entry: its parameters, its shared memory, and the C text of its body."""

    def __init__(self, name):
        self.name = name
        self.parameters = []  # (name, offset, bytes)
        self.shared = {}  # name -> C expression of its offset in the block's shared memory
        self.shared_bytes = 0
        self.max_threads = 0
        self.lines = []

    def parameter_offset(self, name):
        return next(offset for n, offset, _ in self.parameters if n == name)


def round_up(n, alignment):
    return (n + alignment - 1) // alignment * alignment


class Places:
    """Source places: the line in the .cu file, however deep the inlined function of a header that an instruction came from."""

    def __init__(self, text):
        self.files = dict(re.findall(r'(?m)^\s*\.file\s+(\d+)\s+"([^"]*)"', text))
        self.callers = {}  # (file, line, column) of inlined code -> where it was called
        self.numbers = {}  # (file, line) -> number of the place
        self.now = ("?", 0)

    def loc(self, statement):
        m = re.match(r"\.loc\s+(\d+)\s+(\d+)\s+(\d+)(?:.*inlined_at\s+(\d+)\s+(\d+)\s+(\d+))?", statement)
        at = m.group(1, 2, 3)
        if m.group(4):
            self.callers[at] = m.group(4, 5, 6)
        for _ in range(20):  # a wrong chain must not hang the build
            if self.files.get(at[0], "").endswith(".cu") or at not in self.callers:
                break
            at = self.callers[at]
        self.now = (self.files.get(at[0], "?"), int(at[1]))

    def number(self):
        return self.numbers.setdefault(self.now, len(self.numbers))


def read_parameters(kernel, text):
    offset = 0
    for part in filter(None, (p.strip() for p in text.split(","))):
        m = re.fullmatch(r"\.param\s+(?:\.align\s+(\d+)\s+)?\.(\w+)\s+(?:\.ptr\s.*?)?([\w$]+)(?:\[(\d+)\])?", part, re.S)
        if m is None:
            raise Unknown(f"parameter: {part}")
        n_bytes = SIZE[m.group(2)] * int(m.group(4) or 1)
        offset = round_up(offset, int(m.group(1) or SIZE[m.group(2)]))
        kernel.parameters.append((m.group(3), offset, n_bytes))
        offset += n_bytes


SHARED = re.compile(r"\.shared\s+\.align\s+(\d+)\s+\.(\w+)\s+([\w$]+)((?:\[\d+\])*)\s*;")


def place_shared(kernel, body, module):
    """Static arrays one after another (those of the module too, where the kernel names them), the dynamic one behind."""
    for m in list(SHARED.finditer(module)) + list(SHARED.finditer(body)):
        if not re.search(r"(?<![\w$])" + re.escape(m.group(3)) + r"(?![\w$])", body):
            continue
        n_bytes = SIZE[m.group(2)]
        for n in re.findall(r"\[(\d+)\]", m.group(4)):
            n_bytes *= int(n)
        kernel.shared_bytes = round_up(kernel.shared_bytes, int(m.group(1)))
        kernel.shared[m.group(3)] = str(kernel.shared_bytes)
        kernel.shared_bytes += n_bytes
    for m in re.finditer(r"\.extern\s+\.shared\s+\.align\s+(\d+)\s+\.\w+\s+([\w$]+)\[\]", module):
        kernel.shared_bytes = round_up(kernel.shared_bytes, max(16, int(m.group(1))))
        kernel.shared[m.group(2)] = str(kernel.shared_bytes)


def statements(body):
    """The body cut into statements, labels ("name:") and braces."""
    out, text, i = [], "", 0
    while i < len(body):
        ch = body[i]
        if ch in "{}" and not text.strip():
            out.append(ch)
            text = ""
        elif ch == ";":
            out.append(text.strip())
            text = ""
        elif ch == ":" and re.fullmatch(r"\s*[$\w]+", text) and body[i + 1:i + 2] != ":":
            out.append(text.strip() + ":")
            text = ""
        else:
            text += ch
        i += 1
    return [s for s in out if s]


def declare(kernel, translator, statement):
    """.reg .b32 %r<9>;  .reg .b32 temp, other;"""
    kind, names = re.match(r"\.reg\s+\.(\w+)\s+(.*)", statement, re.S).groups()
    for name in split_operands(names):
        m = re.fullmatch(r"(%?\w+)<(\d+)>", name)
        registers = [m.group(1) + str(i) for i in range(int(m.group(2)))] if m else [name]
        for r in registers:
            translator.registers[r] = kind
        kernel.lines.append(f"{REGISTER[kind]} " + ", ".join(c_name(r) for r in registers) + ";")


def translate_body(kernel, body, places):
    translator = ptx_instructions.Translator(kernel, places)
    body = SHARED.sub("", body)
    if re.search(r"\.local\s", body):
        raise Unknown("local memory: an array that is not in registers, or registers spilled")
    body = re.sub(r"\.pragma[^;]*;", "", body)
    # A .loc ends with its line; made a statement like the others.
    body = re.sub(r"(?m)^(\s*\.loc\s[^\n]*)$", r"\1;", body)
    for statement in statements(body):
        if statement in "{}":
            kernel.lines.append(statement)
        elif statement.endswith(":"):
            kernel.lines.append(c_name(statement[:-1]) + ":;")
        elif statement.startswith(".loc"):
            places.loc(statement)
        elif statement.startswith(".reg"):
            declare(kernel, translator, statement)
        elif statement.startswith("."):
            raise Unknown(f"directive: {statement}")
        else:
            kernel.lines.append(translator.instruction(statement))


ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*(?:\((.*?)\))?\s*((?:\.\w+[^\n{]*\n?)*)\{", re.S)


def read_kernel(text, m, places):
    kernel = Kernel(m.group(1))
    read_parameters(kernel, m.group(2) or "")
    limit = re.search(r"\.maxntid\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?", m.group(3))
    if limit:
        kernel.max_threads = int(limit.group(1)) * int(limit.group(2) or 1) * int(limit.group(3) or 1)
    end, depth = m.end(), 1
    while depth > 0:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    body = text[m.end():end - 1]
    place_shared(kernel, body, text[:text.index(".entry")])
    try:
        translate_body(kernel, body, places)
    except Unknown as unknown:
        raise SystemExit(f"{places.now[0]}:{places.now[1]}: kernel {kernel.name}: not understood: {unknown}")
    return kernel


def write_c(path, kernels, places):
    with open(path, "w") as out:
        out.write('#include "tests/emulator/ptx_values.h"\n\nstatic uint32_t first_place;\n\n')
        out.write("static const simt_place places[] = {\n")
        for file, line in places.numbers:
            out.write(f'    {{"{os.path.basename(file)}", {line}}},\n')
        out.write('    {"", 0}};\n')
        for i, k in enumerate(kernels):
            out.write(f"\n/* {k.name} */\nstatic void kernel_{i}(simt_thread *t, const char *parameters)\n{{\n")
            out.write("    (void)parameters;\n    " + "\n    ".join(k.lines) + "\n}\n")
        for i, k in enumerate(kernels):
            for what, column in (("offsets", 1), ("sizes", 2)):
                numbers = ", ".join(str(p[column]) for p in k.parameters) or "0"
                out.write(f"static const uint32_t {what}_{i}[] = {{{numbers}}};\n")
        out.write("\nstatic const simt_kernel kernels[] = {\n")
        for i, k in enumerate(kernels):
            out.write(f'    {{"{k.name}", kernel_{i}, {len(k.parameters)}, offsets_{i}, sizes_{i}, {k.shared_bytes}, '
                      f"{k.max_threads}}},\n")
        out.write(f"}};\n\n__attribute__((constructor)) static void announce(void)\n{{\n"
                  f"    first_place = simt_announce(kernels, {len(kernels)}, places, {len(places.numbers)});\n}}\n")


def main():
    with open(sys.argv[1]) as file:
        text = file.read()
    text = re.sub(r"//[^\n]*", "", re.sub(r"/\*.*?\*/", "", text, flags=re.S))
    places = Places(text)
    for m in re.finditer(r"(?m)^\s*(?:\.visible\s+|\.weak\s+)?\.(global|const)\s[^;]*;", text):
        raise SystemExit(f"{sys.argv[1]}: not understood: a table in device memory: {m.group(0).strip()[:120]}")
    if re.search(r"(?m)^\s*(?:\.visible\s+|\.weak\s+)?\.func\s", text):
        raise SystemExit(f"{sys.argv[1]}: not understood: a function that was not inlined")
    kernels = [read_kernel(text, m, places) for m in ENTRY.finditer(text)]
    if len(kernels) != len(re.findall(r"\.entry\s", text)) or not kernels:
        raise SystemExit(f"{sys.argv[1]}: {len(kernels)} kernels were found")
    write_c(sys.argv[2], kernels, places)


main()
