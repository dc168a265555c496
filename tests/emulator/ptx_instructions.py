"""One PTX instruction at a time, as a C statement.

A value of a PTX type is written as a C expression by Translator.value(), and put into a register by Translator.put(); both convert
bits between registers of different kinds as PTX does. Functions named op_<mnemonic> do the rest; what has none, or a form
that is not written out here, is Unknown.
"""
import re

SIZE = {"pred": 1}
C_TYPE = {"pred": "bool"}
for _bits in (8, 16, 32, 64):
    for _kind, _prefix in (("b", "u"), ("u", "u"), ("s", "")):
        SIZE[f"{_kind}{_bits}"] = _bits // 8
        C_TYPE[f"{_kind}{_bits}"] = f"{_prefix}int{_bits}_t"
for _name, _bytes, _type in (("f16", 2, "uint16_t"), ("bf16", 2, "uint16_t"), ("f16x2", 4, "uint32_t"),
                             ("bf16x2", 4, "uint32_t"), ("f32", 4, "float"), ("f64", 8, "double")):
    SIZE[_name] = _bytes
    C_TYPE[_name] = _type
# What holds a register of each kind: floats as such, everything else as unsigned bits.
REGISTER = {k: v if k in ("pred", "f32", "f64") else "u" * (not v.startswith("u")) + v for k, v in C_TYPE.items()}

SPECIAL = {f"%{ptx}.{axis}": f"t->{c}[{i}]" for ptx, c in (("tid", "tid"), ("ctaid", "block->id"), ("ntid", "block->threads"),
                                                          ("nctaid", "block->grid")) for i, axis in enumerate("xyz")}
SPECIAL.update({"%laneid": "t->lane", "WARP_SZ": "32"})


class Unknown(Exception):
    pass


def c_name(name):
    return re.sub(r"\W", "_", name.lstrip("%$"))


def split_operands(text):
    """At commas outside of braces and brackets."""
    out, depth, part = [], 0, ""
    for ch in text:
        depth += (ch in "{[") - (ch in "}]")
        if ch == "," and depth == 0:
            out.append(part.strip())
            part = ""
        else:
            part += ch
    if part.strip():
        out.append(part.strip())
    return out


class Translator:
    def __init__(self, kernel, places):
        self.kernel = kernel
        self.places = places
        self.registers = {}  # name -> kind

    def place(self):
        return f"first_place + {self.places.number()}"

    # ---- operands --------------------------------------------------------------------------------------------------

    def value(self, operand, kind):
        """A C expression of type C_TYPE[kind]."""
        operand = operand.strip()
        c_type = C_TYPE[kind]
        if operand.startswith("!"):
            return "!" + self.value(operand[1:], kind)
        if operand in SPECIAL:
            return f"({c_type}){SPECIAL[operand]}"
        if operand == "%lanemask_lt":
            return "((1u << t->lane) - 1)"
        m = re.fullmatch(r"0[fF]([0-9a-fA-F]{8})", operand)
        if m:
            return f"ptx_f32(0x{m.group(1)}u)"
        m = re.fullmatch(r"0[dD]([0-9a-fA-F]{16})", operand)
        if m:
            return f"ptx_f64(0x{m.group(1)}ull)"
        if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)U?", operand):
            number = operand.rstrip("U")
            return f"(({c_type}){number}{'ll' if number.startswith('-') else 'ull'})"
        if operand in self.kernel.shared:
            return f"(({c_type}){self.kernel.shared[operand]})"
        if any(operand == name for name, _, _ in self.kernel.parameters):  # an address in their space
            return f"(({c_type}){self.kernel.parameter_offset(operand)})"
        if operand not in self.registers:
            raise Unknown(f"operand {operand}")
        held = self.registers[operand]
        name = c_name(operand)
        if kind in ("f32", "f64"):
            return name if held == kind else f"ptx_{kind}({name})"
        if held in ("f32", "f64"):
            return f"({c_type})ptx_bits_{held}({name})"
        return f"({c_type}){name}"

    def put(self, target, kind, expression):
        """The statement that puts an expression of type C_TYPE[kind] into a register."""
        target = target.strip()
        if target == "_":
            return f"(void)({expression});"
        if target not in self.registers:
            raise Unknown(f"register {target}")
        held = self.registers[target]
        name = c_name(target)
        if held == kind or (held == "pred"):
            return f"{name} = {expression};"
        if held in ("f32", "f64"):
            return f"{name} = ptx_{held}({expression});"
        if kind in ("f32", "f64"):
            return f"{name} = ptx_bits_{kind}({expression});"
        # Sign-extended when the value is signed and the register wider.
        return f"{name} = ({REGISTER[held]})({C_TYPE[kind]})({expression});"

    def address(self, operand):
        m = re.fullmatch(r"\[\s*([^+\]]+?)\s*(?:\+\s*(-?\w+))?\s*\]", operand.strip())
        if m is None:
            raise Unknown(f"address {operand}")
        return m.group(1), m.group(2) or "0"

    def at(self, operand, space, n_bytes, access):
        """Where an access goes, after the engine has looked at it: a pointer."""
        base, offset = self.address(operand)
        place = self.place()
        if space == "shared":
            return f"simt_shared(t, {self.value(base, 'u32')} + (uint32_t)({offset}), {n_bytes}, {access}, {place})"
        entry = "simt_global" if space == "global" else "simt_generic"
        return f"{entry}(t, {self.value(base, 'u64')} + (uint64_t)(int64_t)({offset}), {n_bytes}, {access}, {place})"

    # ---- statements ------------------------------------------------------------------------------------------------

    def instruction(self, text):
        guard = ""
        m = re.match(r"@(!?)(%?\w+)\s+(.*)", text, re.S)
        if m:
            guard, text = f"if ({m.group(1)}{c_name(m.group(2))}) ", m.group(3)
        m = re.match(r"([a-z]\w*)((?:\.[\w:]+)*)\s*(.*)$", text, re.S)
        if m is None:
            raise Unknown(text)
        form = [part for part in m.group(2).split(".") if part]
        handler = getattr(self, "op_" + m.group(1), None)
        if handler is None:
            raise Unknown(f"instruction {m.group(1)}{m.group(2)}")
        try:
            return guard + "{ " + handler(form, split_operands(m.group(3))) + " }"
        except (IndexError, KeyError, ValueError) as error:
            raise Unknown(f"instruction {text} ({error!r})") from error

    def op_bra(self, form, ops):
        return f"goto {c_name(ops[0])};"

    def op_ret(self, form, ops):
        return "return;"

    op_exit = op_ret

    def op_trap(self, form, ops):
        return f'simt_fail(t, {self.place()}, "trap");'

    # ---- memory ----------------------------------------------------------------------------------------------------

    def space(self, form):
        for part in form:
            if part.split("::")[0] in ("param", "shared", "global", "local", "const"):
                return part.split("::")[0]
        return "generic"

    def transfer(self, form, ops, is_load):
        kind, space = form[-1], self.space(form)
        width = next((int(part[1]) for part in form if part in ("v2", "v4", "v8")), 1)
        memory, register = (ops[1], ops[0]) if is_load else (ops[0], ops[1])
        registers = split_operands(register.strip()[1:-1]) if width > 1 else [register]
        n_bytes = SIZE[kind] * width
        if space == "param" and is_load:
            base, offset = self.address(memory)
            where = f"parameters + {self.value(base, 'u64')} + ({offset})"
        elif space in ("shared", "global", "generic"):
            where = self.at(memory, space, n_bytes, "SIMT_READ" if is_load else "SIMT_WRITE")
        else:
            raise Unknown(f"{'load from' if is_load else 'store to'} {space} memory")
        out = f"{'const ' if is_load else ''}char *at = {where}; "
        for i, r in enumerate(registers):
            if is_load:
                out += f"{C_TYPE[kind]} v{i}; memcpy(&v{i}, at + {i * SIZE[kind]}, {SIZE[kind]}); " + self.put(r, kind, f"v{i}") + " "
            else:
                out += f"const {C_TYPE[kind]} v{i} = {self.value(r, kind)}; memcpy(at + {i * SIZE[kind]}, &v{i}, {SIZE[kind]}); "
        return out

    def op_ld(self, form, ops):
        return self.transfer(form, ops, True)

    def op_st(self, form, ops):
        return self.transfer(form, ops, False)

    def op_cvta(self, form, ops):
        space = self.space(form)
        if space == "global":
            return self.put(ops[0], "u64", self.value(ops[1], "u64"))
        if space != "shared":
            raise Unknown(f"address of {space} memory")
        sign = "-" if "to" in form else "+"
        return self.put(ops[0], "u64", f"{self.value(ops[1], 'u64')} {sign} simt_shared_base()")

    def op_mov(self, form, ops):
        kind = form[-1]
        if ops[1].startswith("{"):
            parts = split_operands(ops[1][1:-1])
            n_bits = SIZE[kind] * 8 // len(parts)
            whole = " | ".join(f"(uint64_t){self.value(p, f'u{n_bits}')} << {n_bits * i}" for i, p in enumerate(parts))
            return self.put(ops[0], f"b{SIZE[kind] * 8}", f"({C_TYPE[f'b{SIZE[kind] * 8}']})({whole})")
        if ops[0].startswith("{"):
            parts = split_operands(ops[0][1:-1])
            n_bits = SIZE[kind] * 8 // len(parts)
            whole = self.value(ops[1], f"b{SIZE[kind] * 8}")
            return f"const uint64_t whole = {whole}; " + " ".join(
                self.put(p, f"u{n_bits}", f"(uint{n_bits}_t)(whole >> {n_bits * i})") for i, p in enumerate(parts))
        return self.put(ops[0], kind, self.value(ops[1], kind))

    def op_membar(self, form, ops):
        return ";"  # one thread runs at a time

    op_fence = op_membar

    def op_prefetch(self, form, ops):
        return ";"

    def op_atom(self, form, ops, target=True):
        kind, space = form[-1], self.space(form)
        what = next(part for part in form if part in ("add", "min", "max", "and", "or", "xor", "exch", "cas", "inc"))
        result, memory, operands = (ops[0], ops[1], ops[2:]) if target else ("_", ops[0], ops[1:])
        if kind not in ("u32", "s32", "b32", "u64", "s64", "b64", "f32", "f64") or (
                kind in ("f32", "f64") and what not in ("add", "exch")):
            raise Unknown(f"atomic {what} of {kind}")
        where = self.at(memory, space, SIZE[kind], "SIMT_ATOMIC")
        c_type = C_TYPE[kind]
        a = self.value(operands[0], kind)
        new = {"add": f"old + {a}", "min": f"old < {a} ? old : {a}", "max": f"old > {a} ? old : {a}", "exch": a,
               "and": f"old & {a}", "or": f"old | {a}", "xor": f"old ^ {a}", "inc": f"old >= {a} ? 0 : old + 1"}
        if what == "cas":
            new["cas"] = f"old == {a} ? {self.value(operands[1], kind)} : old"
        return (f"char *at = {where}; {c_type} old; memcpy(&old, at, {SIZE[kind]}); "
                f"const {c_type} new = {new[what]}; memcpy(at, &new, {SIZE[kind]}); " + self.put(result, kind, "old"))

    def op_red(self, form, ops):
        return self.op_atom(form, ops, False)

    def op_cp(self, form, ops):
        if form[0] != "async":
            raise Unknown("instruction cp." + ".".join(form))
        if form[1] == "commit_group":
            return "simt_copies_commit(t);"
        if form[1] == "wait_group":
            return f"simt_copies_wait(t, {ops[0]});"
        if form[1] == "wait_all":
            return "simt_copies_commit(t); simt_copies_wait(t, 0);"
        if form[1] not in ("ca", "cg") or "mbarrier" in form:
            raise Unknown("instruction cp." + ".".join(form))
        to, to_offset = self.address(ops[0])
        source, source_offset = self.address(ops[1])
        given = self.value(ops[3], "u32") if len(ops) > 3 else ops[2]
        return (f"simt_copy_async(t, {self.value(to, 'u32')} + (uint32_t)({to_offset}), "
                f"{self.value(source, 'u64')} + (uint64_t)(int64_t)({source_offset}), {ops[2]}, {given}, {self.place()});")

    # ---- together --------------------------------------------------------------------------------------------------

    def op_bar(self, form, ops):
        if form[0] == "warp":
            return f"simt_warp_sync(t, {self.value(ops[0], 'u32')}, {self.place()});"
        if form[0] != "sync" or ops != ["0"]:
            raise Unknown("barrier bar." + ".".join(form) + " " + ", ".join(ops))
        return f"simt_barrier(t, {self.place()});"

    def op_barrier(self, form, ops):
        return self.op_bar([part for part in form if part != "cta"], ops)

    def op_shfl(self, form, ops):
        value, lane, clamp, mask = (self.value(op, "b32") for op in ops[1:5])
        mode = {"up": "SIMT_UP", "down": "SIMT_DOWN", "bfly": "SIMT_BUTTERFLY", "idx": "SIMT_INDEX"}[form[1]]
        targets = ops[0].split("|")
        out = f"bool within; const uint32_t got = simt_shuffle(t, {mode}, {value}, {lane}, {clamp}, {mask}, &within, {self.place()}); "
        out += self.put(targets[0], "b32", "got")
        return out + (" " + self.put(targets[1], "pred", "within") if len(targets) > 1 else "")

    def op_vote(self, form, ops):
        mask = self.value(ops[2], "b32")
        out = f"const uint32_t mask = {mask}; const uint32_t votes = simt_vote(t, {self.value(ops[1], 'pred')}, mask, {self.place()}); "
        return out + {"ballot": lambda: self.put(ops[0], "b32", "votes"), "any": lambda: self.put(ops[0], "pred", "votes != 0"),
                      "all": lambda: self.put(ops[0], "pred", "votes == mask")}[form[1]]()

    def op_redux(self, form, ops):
        what = {"add": "SIMT_ADD", "min": "SIMT_LEAST", "max": "SIMT_LARGEST"}[form[1]]
        signed = "true" if form[-1][0] == "s" else "false"
        return self.put(ops[0], "u32", f"simt_reduce(t, {what}, {signed}, {self.value(ops[1], 'u32')}, "
                        f"{self.value(ops[2], 'b32')}, {self.place()})")

    def op_activemask(self, form, ops):
        raise Unknown("instruction activemask: which lanes run together is not defined")

    def op_mma(self, form, ops):
        shape, kinds = form[form.index("aligned") + 1], form[-4:]
        known = {("m16n8k16", "f32", "bf16", "bf16", "f32"): ("SIMT_MMA_BF16", 4, 2, "f32"),
                 ("m16n8k16", "f32", "f16", "f16", "f32"): ("SIMT_MMA_F16", 4, 2, "f32"),
                 ("m16n8k32", "s32", "s8", "s8", "s32"): ("SIMT_MMA_S8", 4, 2, "s32")}
        key = (shape, *kinds)
        if key not in known or form[form.index("aligned") + 2:-4] != ["row", "col"]:
            raise Unknown("instruction mma." + ".".join(form))
        what, n_a, n_b, sums = known[key]
        d, a, b, c = (split_operands(op[1:-1]) for op in ops)
        if (len(d), len(a), len(b), len(c)) != (4, n_a, n_b, 4):
            raise Unknown("fragments of mma." + ".".join(form))
        out = "simt_mma_lane m = {.a = {" + ", ".join(self.value(r, "b32") for r in a) + "}, .b = {" + ", ".join(
            self.value(r, "b32") for r in b) + "}, .c = {" + ", ".join(self.value(r, "b32") for r in c) + "}}; "
        return out + f"simt_mma(t, {what}, &m, {self.place()}); " + " ".join(
            self.put(r, "b32", f"m.d[{i}]") for i, r in enumerate(d))

    def op_ldmatrix(self, form, ops):
        if "m8n8" not in form or form[-1] != "b16":
            raise Unknown("instruction ldmatrix." + ".".join(form))
        n = next(int(part[1]) for part in form if part in ("x1", "x2", "x4"))
        registers = split_operands(ops[0][1:-1])
        base, offset = self.address(ops[1])
        out = (f"uint32_t rows[4]; simt_load_matrices(t, rows, {n}, {'true' if 'trans' in form else 'false'}, "
               f"{self.value(base, 'u32')} + (uint32_t)({offset}), {self.place()}); ")
        return out + " ".join(self.put(r, "b32", f"rows[{i}]") for i, r in enumerate(registers[:n]))

    # ---- arithmetic ------------------------------------------------------------------------------------------------

    def rounded(self, form, kind, name, ops):
        """A float operation rounded to nearest even, or another way by a function of ptx_values.h."""
        rounding = next((part for part in form if part in ("rn", "rz", "rm", "rp")), "rn")
        arguments = ", ".join(self.value(op, kind) for op in ops)
        if "ftz" in form or "sat" in form:
            raise Unknown(f"{name}." + ".".join(form))
        if rounding == "rn":
            return None
        if (name, rounding, kind) != ("fma", "rm", "f32"):
            raise Unknown(f"{name}." + ".".join(form))
        return f"ptx_fma_down({arguments})"

    def arithmetic(self, name, symbol, form, ops):
        kind = form[-1]
        a, b = self.value(ops[1], kind), self.value(ops[2], kind)
        if kind in ("f32", "f64"):
            special = self.rounded(form, kind, name, ops[1:3])
            return self.put(ops[0], kind, special or f"{a} {symbol} {b}")
        if kind in ("f16", "bf16", "f16x2", "bf16x2"):
            raise Unknown(f"arithmetic in {kind}: compute in f32")
        if "sat" in form or "cc" in form:
            raise Unknown(f"{name}." + ".".join(form))
        if symbol in "+-*":  # these wrap: in unsigned numbers
            kind = kind.replace("s", "u")
            a, b = self.value(ops[1], kind), self.value(ops[2], kind)
        return self.put(ops[0], kind, f"({C_TYPE[kind]})({a} {symbol} {b})")

    def op_add(self, form, ops):
        return self.arithmetic("add", "+", form, ops)

    def op_sub(self, form, ops):
        return self.arithmetic("sub", "-", form, ops)

    def product(self, form, ops):
        """The expression of mul.wide, mul.hi or mul.lo, and its kind."""
        kind = form[-1]
        a, b = self.value(ops[1], kind), self.value(ops[2], kind)
        n_bits = SIZE[kind] * 8
        if "wide" in form:
            wide = f"{kind[0]}{2 * n_bits}"
            return f"({C_TYPE[wide]}){a} * ({C_TYPE[wide]}){b}", wide
        if "hi" in form:
            wide = {16: "int32_t", 32: "int64_t", 64: "__int128"}[n_bits]
            wide = ("unsigned " if n_bits == 64 else "u") * (kind[0] != "s") + wide
            return f"({C_TYPE[kind]})((({wide}){a} * ({wide}){b}) >> {n_bits})", kind
        kind = f"u{n_bits}"
        a, b = self.value(ops[1], kind), self.value(ops[2], kind)
        return f"({C_TYPE[kind]})((uint64_t){a} * (uint64_t){b})", kind

    def op_mul(self, form, ops):
        if form[-1] in ("f32", "f64", "f16", "bf16", "f16x2", "bf16x2"):
            return self.arithmetic("mul", "*", form, ops)
        expression, kind = self.product(form, ops)
        return self.put(ops[0], kind, expression)

    def op_mad(self, form, ops):
        expression, kind = self.product(form, ops)
        unsigned = f"u{SIZE[kind] * 8}"
        return self.put(ops[0], unsigned, f"({C_TYPE[unsigned]})(({C_TYPE[unsigned]})({expression}) + {self.value(ops[3], unsigned)})")

    def op_fma(self, form, ops):
        kind = form[-1]
        if kind not in ("f32", "f64"):
            raise Unknown(f"arithmetic in {kind}: compute in f32")
        special = self.rounded(form, kind, "fma", ops[1:4])
        arguments = ", ".join(self.value(op, kind) for op in ops[1:4])
        return self.put(ops[0], kind, special or f"{'fmaf' if kind == 'f32' else 'fma'}({arguments})")

    def op_div(self, form, ops):
        kind = form[-1]
        if kind in ("f32", "f64"):
            plain = [part for part in form if part not in ("full", "approx")]
            return self.arithmetic("div", "/", plain, ops)
        a, b = self.value(ops[1], kind), self.value(ops[2], kind)
        return f'if ({b} == 0) {{ simt_fail(t, {self.place()}, "division by zero"); }} ' + self.put(ops[0], kind, f"{a} / {b}")

    def op_rem(self, form, ops):
        kind = form[-1]
        a, b = self.value(ops[1], kind), self.value(ops[2], kind)
        return f'if ({b} == 0) {{ simt_fail(t, {self.place()}, "division by zero"); }} ' + self.put(ops[0], kind, f"{a} % {b}")

    def extreme(self, symbol, name, form, ops):
        kind = form[-1]
        a, b = self.value(ops[1], kind), self.value(ops[2], kind)
        if kind in ("f32", "f64"):
            if "ftz" in form or "NaN" in form:
                raise Unknown(f"{name}." + ".".join(form))
            return self.put(ops[0], kind, f"f{name}{'f' if kind == 'f32' else ''}({a}, {b})")
        return self.put(ops[0], kind, f"{a} {symbol} {b} ? {a} : {b}")

    def op_min(self, form, ops):
        return self.extreme("<", "min", form, ops)

    def op_max(self, form, ops):
        return self.extreme(">", "max", form, ops)

    def bitwise(self, symbol, form, ops):
        return self.put(ops[0], form[-1], f"{self.value(ops[1], form[-1])} {symbol} {self.value(ops[2], form[-1])}")

    def op_and(self, form, ops):
        return self.bitwise("&", form, ops)

    def op_or(self, form, ops):
        return self.bitwise("|", form, ops)

    def op_xor(self, form, ops):
        return self.bitwise("^", form, ops)

    def op_not(self, form, ops):
        sign = "!" if form[-1] == "pred" else "~"
        return self.put(ops[0], form[-1], f"{sign}{self.value(ops[1], form[-1])}")

    def op_neg(self, form, ops):
        kind = form[-1].replace("s", "u") if form[-1][0] == "s" else form[-1]
        return self.put(ops[0], kind, f"-{self.value(ops[1], kind)}")

    def op_abs(self, form, ops):
        kind = form[-1]
        a = self.value(ops[1], kind)
        return self.put(ops[0], kind, f"{'fabsf' if kind == 'f32' else 'fabs'}({a})" if kind[0] == "f" else f"{a} < 0 ? -{a} : {a}")

    def op_copysign(self, form, ops):
        name = "copysignf" if form[-1] == "f32" else "copysign"
        return self.put(ops[0], form[-1], f"{name}({self.value(ops[2], form[-1])}, {self.value(ops[1], form[-1])})")

    def op_shl(self, form, ops):
        n_bits, n = SIZE[form[-1]] * 8, self.value(ops[2], "u32")
        kind = f"u{n_bits}"
        return self.put(ops[0], kind, f"{n} >= {n_bits} ? 0 : ({C_TYPE[kind]})((uint64_t){self.value(ops[1], kind)} << {n})")

    def op_shr(self, form, ops):
        kind, n = form[-1], self.value(ops[2], "u32")
        n_bits = SIZE[kind] * 8
        if kind[0] == "s":
            return self.put(ops[0], kind, f"{self.value(ops[1], kind)} >> ({n} >= {n_bits} ? {n_bits - 1} : {n})")
        kind = f"u{n_bits}"
        return self.put(ops[0], kind, f"{n} >= {n_bits} ? 0 : {self.value(ops[1], kind)} >> {n}")

    def op_shf(self, form, ops):
        low, high, n = (self.value(op, "u32") for op in ops[1:4])
        n = f"({n} & 31)" if "wrap" in form else f"({n} > 32 ? 32 : {n})"
        whole = f"((uint64_t){high} << 32 | {low})"
        return self.put(ops[0], "u32", f"(uint32_t)({whole} >> {n})" if "r" in form else f"(uint32_t)(({whole} << {n}) >> 32)")

    def op_bfe(self, form, ops):
        return self.put(ops[0], form[-1], f"ptx_field_{form[-1]}({self.value(ops[1], form[-1])}, {self.value(ops[2], 'u32')}, "
                        f"{self.value(ops[3], 'u32')})")

    def op_bfi(self, form, ops):
        kind = f"u{SIZE[form[-1]] * 8}"
        return self.put(ops[0], kind, f"ptx_insert_{kind}({self.value(ops[1], kind)}, {self.value(ops[2], kind)}, "
                        f"{self.value(ops[3], 'u32')}, {self.value(ops[4], 'u32')})")

    def op_lop3(self, form, ops):
        a, b, c = (self.value(op, "b32") for op in ops[1:4])
        return self.put(ops[0], "b32", f"ptx_lop3({a}, {b}, {c}, {ops[4]})")

    def op_prmt(self, form, ops):
        if form != ["b32"]:
            raise Unknown("instruction prmt." + ".".join(form))
        return self.put(ops[0], "b32", "ptx_permute(" + ", ".join(self.value(op, "b32") for op in ops[1:4]) + ")")

    def op_popc(self, form, ops):
        return self.put(ops[0], "u32", f"(uint32_t)__builtin_popcountll({self.value(ops[1], form[-1])})")

    def op_clz(self, form, ops):
        n_bits = SIZE[form[-1]] * 8
        a = self.value(ops[1], form[-1])
        return self.put(ops[0], "u32", f"{a} == 0 ? {n_bits} : (uint32_t)__builtin_clzll({a}) - {64 - n_bits}")

    def op_bfind(self, form, ops):
        if form[-1] != "u32":
            raise Unknown("instruction bfind." + ".".join(form))
        a = self.value(ops[1], "u32")
        place = f"(uint32_t)__builtin_clz({a})" if "shiftamt" in form else f"31 - (uint32_t)__builtin_clz({a})"
        return self.put(ops[0], "u32", f"{a} == 0 ? 0xFFFFFFFFu : {place}")

    def op_brev(self, form, ops):
        if form[-1] != "b32":
            raise Unknown("instruction brev." + ".".join(form))
        return self.put(ops[0], "b32", f"ptx_reverse({self.value(ops[1], 'b32')})")

    def op_dp4a(self, form, ops):
        signs = "_".join(form)
        return self.put(ops[0], "u32", f"ptx_dp4a_{signs}({self.value(ops[1], 'u32')}, {self.value(ops[2], 'u32')}, "
                        f"{self.value(ops[3], 'u32')})")

    # ---- comparisons and conversions ---------------------------------------------------------------------------------

    def op_setp(self, form, ops):
        kind, what = form[-1], form[0]
        is_float = kind in ("f32", "f64")
        a, b = self.value(ops[1], kind), self.value(ops[2], kind)
        if "ftz" in form:
            raise Unknown("instruction setp." + ".".join(form))
        or_nan = is_float and what in ("equ", "neu", "ltu", "leu", "gtu", "geu")
        symbol = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "lo": "<", "ls": "<=", "hi": ">",
                  "hs": ">="}
        if what in ("num", "nan"):
            result = f"{'!' if what == 'num' else ''}(isnan({a}) || isnan({b}))"
        else:
            result = f"({a} {symbol[what[:2] if or_nan else what]} {b})"
            if or_nan:
                result = f"({result} || isnan({a}) || isnan({b}))"
            elif is_float and what == "ne":
                result = f"({result} && !isnan({a}) && !isnan({b}))"
        joined = next((part for part in form[1:-1] if part in ("and", "or", "xor")), None)
        if joined:
            result = f"({result} {dict(zip(('and', 'or', 'xor'), '&|^'))[joined]} {self.value(ops[3], 'pred')})"
        targets = ops[0].split("|")
        out = f"const bool is = {result}; " + self.put(targets[0], "pred", "is")
        return out + (" " + self.put(targets[1], "pred", "!is") if len(targets) > 1 else "")

    def op_selp(self, form, ops):
        kind = form[-1]
        return self.put(ops[0], kind, f"{self.value(ops[3], 'pred')} ? {self.value(ops[1], kind)} : {self.value(ops[2], kind)}")

    def approximate(self, name, form, ops):
        kind = form[-1]
        if kind != "f32" and not (name in ("sqrt", "rcp") and "rn" in form):
            raise Unknown(f"instruction {name}." + ".".join(form))
        f = "f" if kind == "f32" else ""
        a = self.value(ops[1], kind)
        if "ftz" in form:
            a = f"ptx_flush({a})"
        result = {"ex2": f"exp2f({a})", "lg2": f"log2f({a})", "rsqrt": f"1.0f / sqrtf({a})", "rcp": f"1 / {a}",
                  "sqrt": f"sqrt{f}({a})", "sin": f"sinf({a})", "cos": f"cosf({a})", "tanh": f"tanhf({a})"}[name]
        return self.put(ops[0], kind, f"ptx_flush({result})" if "ftz" in form else result)

    def op_ex2(self, form, ops):
        return self.approximate("ex2", form, ops)

    def op_lg2(self, form, ops):
        return self.approximate("lg2", form, ops)

    def op_rsqrt(self, form, ops):
        return self.approximate("rsqrt", form, ops)

    def op_rcp(self, form, ops):
        return self.approximate("rcp", form, ops)

    def op_sqrt(self, form, ops):
        return self.approximate("sqrt", form, ops)

    def op_cvt(self, form, ops):
        to, source = form[-2], form[-1]
        round_int = {"rzi": "trunc", "rni": "nearbyint", "rmi": "floor", "rpi": "ceil"}
        rounding = next((part for part in form if part in round_int), None)
        if "ftz" in form or any(part in form for part in ("rz", "rm", "rp", "rna")):
            raise Unknown("instruction cvt." + ".".join(form))
        if to in ("f16x2", "bf16x2") and source == "f32":
            half = to[:-2]
            return self.put(ops[0], "b32", f"(uint32_t)ptx_to_{half}({self.value(ops[1], 'f32')}) << 16 | "
                            f"ptx_to_{half}({self.value(ops[2], 'f32')})")
        if to in ("f16", "bf16") and source == "f32":
            return self.put(ops[0], "b16", f"ptx_to_{to}({self.value(ops[1], 'f32')})")
        if source in ("f16", "bf16") and to == "f32":
            return self.put(ops[0], "f32", f"ptx_from_{source}({self.value(ops[1], 'b16')})")
        if "f16" in to + source or "e4m3" in to + source or "e5m2" in to + source:
            raise Unknown("instruction cvt." + ".".join(form))
        a = self.value(ops[1], source)
        if source in ("f32", "f64") and to[0] in "us":
            return self.put(ops[0], to, f"ptx_round_to_{to}({round_int[rounding]}((double){a}))")
        if rounding:
            return self.put(ops[0], to, f"{round_int[rounding]}{'f' if to == 'f32' else ''}({a})")
        if "sat" in form:
            if (to, source) != ("f32", "f32"):
                raise Unknown("instruction cvt." + ".".join(form))
            return self.put(ops[0], "f32", f"ptx_saturate({a})")
        return self.put(ops[0], to, f"({C_TYPE[to]}){a}")
