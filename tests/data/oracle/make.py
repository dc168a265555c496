#!/usr/bin/env python3
"""Makes tests/data/oracle/golden.txt: logits of tiny models, by another implementation than tests/support/oracle.c.

    make.py path/to/tiny_gguf > golden.txt

Needs the Python packages gguf and numpy (made with gguf 0.19.0 and numpy 2.4). The files are read and decoded by the
gguf package; the rest is float64, a whole sequence at a time. Where a scaling has two equivalent statements, the other
one than in oracle*.c is used: positions divided (linear), inverse frequencies blended (YaRN), and Llama 3's factors
worked out from the preset's numbers instead of read from the file.

Lines:
    model PRESET SEED ENCODING APPROXIMATION     ENCODING "-": the preset's own
    ids N ID ...
    at POSITION BEST MARGIN LOG_MASS             the best id, its distance to the second, log(sum(exp(logits)))
    logit POSITION ID VALUE
    greedy N_PROMPT N ID ...                     the continuation of the first N_PROMPT ids
"""
import math
import subprocess
import sys
import tempfile

import gguf
import numpy as np
from gguf.quants import dequantize

N_IDS = 96
POSITIONS = (0, 1, 40, 95)
EXACT = [(name, 1, "-") for name in
         ("9/3", "8/8", "7/1", "2/1", "biases", "qwen2", "wide", "odd", "linear", "yarn", "llama3", "k-quants")]
ENCODED = [("k-quants", 2, e) for e in
           ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "F16", "BF16")]
CASES = ([(*case, "exact") for case in EXACT + ENCODED] +
         [("9/3", 1, "-", a) for a in ("int8", "f16", "bf16", "int8+f16")] + [("odd", 1, "-", "int8")])


def inverse_frequencies(name, base, head_dim, meta):
    """One angle a position for each pair, a divisor of positions, and what cosine and sine are multiplied by."""
    pairs = np.arange(head_dim // 2)
    wave = 2 * math.pi * base ** (2 * pairs / head_dim)             # positions to a full turn
    if name == "llama3":                                            # factor 8 from 64 positions, bands 1 and 4
        old, factor, low, high = 64, 8.0, 1.0, 4.0
        smooth = (old / wave - low) / (high - low)
        middle = (1 - smooth) * (2 * math.pi / wave) / factor + smooth * (2 * math.pi / wave)
        plain = 2 * math.pi / wave
        scaled = np.where(wave < old / high, plain, np.where(wave > old / low, plain / factor, middle))
        return plain / (plain / scaled).astype(np.float32), 1.0, 1.0  # a file holds the quotients, in 32 bits
    kind = meta("rope.scaling.type")
    if kind == "linear":
        return 2 * math.pi / wave, meta("rope.scaling.factor"), 1.0
    if kind == "yarn":
        factor, old = meta("rope.scaling.factor"), meta("rope.scaling.original_context_length")

        def pair_that_turns(times):
            return head_dim * math.log(old / (times * 2 * math.pi)) / (2 * math.log(base))

        low, high = max(math.floor(pair_that_turns(32)), 0), min(math.ceil(pair_that_turns(1)), head_dim - 1)
        keep = 1 - np.clip((pairs - low) / (high - low), 0, 1)
        plain = 2 * math.pi / wave
        return plain / factor * (1 - keep) + plain * keep, 1.0, 0.1 * math.log(factor) + 1
    assert kind is None
    return 2 * math.pi / wave, 1.0, 1.0


def rounded(x, n_bits, least):
    _, e = np.frexp(x)
    e = np.maximum(e - 1, least)
    return np.ldexp(np.rint(np.ldexp(x, n_bits - e)), e - n_bits)


class Tiny:
    def __init__(self, path, name, approximation):
        reader = gguf.GGUFReader(path)
        arch = reader.fields["general.architecture"].contents()

        def meta(key):
            field = reader.fields.get(f"{arch}.{key}")
            return None if field is None else field.contents()

        self.n_layers, self.eps = meta("block_count"), meta("attention.layer_norm_rms_epsilon")
        self.n_heads, self.n_kv_heads = meta("attention.head_count"), meta("attention.head_count_kv")
        self.head_dim = meta("attention.key_length") or meta("embedding_length") // self.n_heads
        self.interleaved = arch == "llama"
        self.rope = inverse_frequencies(name, meta("rope.freq_base"), self.head_dim, meta)
        self.weights, self.quantised = {}, {}
        for t in reader.tensors:
            shape = tuple(int(n) for n in t.shape[::-1])
            self.weights[t.name] = dequantize(t.data, t.tensor_type).astype(np.float64).reshape(shape)
            self.quantised[t.name] = gguf.GGML_QUANT_SIZES[t.tensor_type][0] > 1
        self.int8, self.kv = "int8" in approximation, approximation.split("+")[-1]

    def times(self, x, name):
        if self.int8 and self.quantised[name + ".weight"]:
            groups = x.reshape(len(x), -1, 32)
            scale = np.abs(groups).max(axis=2, keepdims=True) / 127
            x = (np.rint(groups / np.where(scale == 0, 1, scale)) * scale).reshape(x.shape)
        y = np.einsum("tc,rc->tr", x, self.weights[name + ".weight"])
        return y + self.weights[name + ".bias"] if name + ".bias" in self.weights else y

    def norm(self, x, name):
        return x * (np.square(x).mean(axis=1, keepdims=True) + self.eps) ** -0.5 * self.weights[name + ".weight"]

    def turned(self, x):
        """As complex numbers: a pair times e^(i angle)."""
        frequencies, divisor, gain = self.rope
        turn = gain * np.exp(1j * np.outer(np.arange(len(x)) / divisor, frequencies))[:, None, :]
        half = self.head_dim // 2
        out = np.empty_like(x)
        if self.interleaved:
            z = (x[:, :, 0::2] + 1j * x[:, :, 1::2]) * turn
            out[:, :, 0::2], out[:, :, 1::2] = z.real, z.imag
        else:
            z = (x[:, :, :half] + 1j * x[:, :, half:]) * turn
            out[:, :, :half], out[:, :, half:] = z.real, z.imag
        return out

    def stored(self, x):
        if self.kv == "f16":
            return x.astype(np.float16).astype(np.float64)
        return rounded(x, 7, -126) if self.kv == "bf16" else x

    def logits(self, ids):
        n = len(ids)
        x = self.weights["token_embd.weight"][ids]
        future = np.triu(np.ones((n, n), dtype=bool), 1)
        for layer in range(self.n_layers):
            b = f"blk.{layer}."
            y = self.norm(x, b + "attn_norm")
            q = self.turned(self.times(y, b + "attn_q").reshape(n, self.n_heads, self.head_dim))
            k = self.stored(self.turned(self.times(y, b + "attn_k").reshape(n, self.n_kv_heads, self.head_dim)))
            v = self.stored(self.times(y, b + "attn_v").reshape(n, self.n_kv_heads, self.head_dim))
            k, v = (np.repeat(a, self.n_heads // self.n_kv_heads, axis=1) for a in (k, v))
            scores = np.einsum("qhd,khd->hqk", q, k) * self.head_dim ** -0.5
            scores[:, future] = -np.inf
            p = np.exp(scores - scores.max(axis=2, keepdims=True))
            p /= p.sum(axis=2, keepdims=True)
            x = x + self.times(np.einsum("hqk,khd->qhd", p, v).reshape(n, -1), b + "attn_output")
            y = self.norm(x, b + "ffn_norm")
            gate = self.times(y, b + "ffn_gate")
            x = x + self.times(gate / (1 + np.exp(-gate)) * self.times(y, b + "ffn_up"), b + "ffn_down")
        head = "output" if "output.weight" in self.weights else "token_embd"
        return self.times(self.norm(x, "output_norm"), head)


def main():
    tiny_gguf = sys.argv[1]
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        for number, (name, seed, encoding, approximation) in enumerate(CASES):
            command = [tiny_gguf, name, str(seed), file.name] + ([encoding] if encoding != "-" else [])
            subprocess.run(command, check=True)
            model = Tiny(file.name, name, approximation)
            n_vocab = model.weights["token_embd.weight"].shape[0]
            random = np.random.default_rng(number)
            ids = random.integers(3, n_vocab, N_IDS)
            logits = model.logits(ids)
            print("model", name, seed, encoding, approximation)
            print("ids", N_IDS, *ids)
            for at in POSITIONS:
                row = logits[at]
                best, second = np.argsort(-row)[:2]
                mass = row.max() + math.log(np.exp(row - row.max()).sum())
                print("at", at, best, f"{row[best] - row[second]:.12g} {mass:.12g}")
                for i in random.choice(n_vocab, 4, replace=False):
                    print("logit", at, i, f"{row[i]:.12g}")
            if approximation == "exact" and encoding == "-":
                said = list(ids[:5])
                for _ in range(16):
                    said.append(int(model.logits(np.array(said))[-1].argmax()))
                print("greedy", 5, 16, *said[5:])
            margins = np.sort(logits, axis=1)
            margins = margins[:, -1] - margins[:, -2]
            top = logits.argmax(axis=1)
            print(f"{name} {encoding} {approximation}: logits spread by {logits.std():.2f}; margins: least "
                  f"{margins.min():.4f}, median {np.median(margins):.2f}; {len(set(top))} different best ids; "
                  f"repeats its input at {np.mean(top == ids):.2f}", file=sys.stderr)


if __name__ == "__main__":
    main()
