"""Writes the GGUF files that the format's converters would write for the Hugging Face folders of tests/data/models.

    gguf_from_folder.py TEST_MODELS FOLDERS OUT

Converts every folder of FOLDERS that the format defines into OUT and runs TEST_MODELS on them.

Names, fused layouts, permutations and metadata keys follow github.com/ggml-org/llama.cpp (gguf-py/gguf/constants.py and
the conversion scripts), for the families that the format defines. Weights keep their type; vectors become f32.
"""
import glob
import json
import os
import struct
import subprocess
import sys

F32, F16, BF16 = 0, 1, 30
TYPES = {"F32": F32, "F16": F16, "BF16": BF16}
SIZES = {F32: 4, F16: 2, BF16: 2}
NAMES = {
    "llama": "llama", "mistral": "llama", "mixtral": "llama", "qwen2": "qwen2", "qwen2_moe": "qwen2moe",
    "qwen3": "qwen3", "qwen3_moe": "qwen3moe", "gemma": "gemma", "gemma2": "gemma2", "gemma3_text": "gemma3",
    "phi": "phi2", "phi3": "phi3", "falcon": "falcon", "gpt2": "gpt2", "gpt_neox": "gptneox",
    "starcoder2": "starcoder2", "stablelm": "stablelm", "olmo2": "olmo2", "bloom": "bloom", "mpt": "mpt",
    "cohere": "command-r", "granite": "granite", "deepseek_v2": "deepseek2", "gpt_oss": "gpt-oss",
}


class Tensor:
    def __init__(self, kind, shape, data):
        self.kind, self.shape, self.data = kind, list(shape), data

    def row_bytes(self):
        n = SIZES[self.kind]
        for d in self.shape[1:]:
            n *= d
        return n

    def rows(self, numbers):
        n = self.row_bytes()
        data = b"".join(self.data[i * n:(i + 1) * n] for i in numbers)
        return Tensor(self.kind, [len(numbers)] + self.shape[1:], data)

    def turned(self):
        """[a, b] to [b, a]"""
        a, b = self.shape
        n = SIZES[self.kind]
        data = b"".join(self.data[(i * b + j) * n:(i * b + j + 1) * n] for j in range(b) for i in range(a))
        return Tensor(self.kind, [b, a], data)

    def floats(self):
        if self.kind == F32:
            return list(struct.unpack("<%df" % (len(self.data) // 4), self.data))
        if self.kind == F16:
            return list(struct.unpack("<%de" % (len(self.data) // 2), self.data))
        halves = struct.unpack("<%dH" % (len(self.data) // 2), self.data)
        return [struct.unpack("<f", struct.pack("<I", h << 16))[0] for h in halves]

    def as_f32(self, plus=0.0):
        values = [v + plus for v in self.floats()]
        return Tensor(F32, self.shape, struct.pack("<%df" % len(values), *values))


def joined(tensors):
    return Tensor(tensors[0].kind, [sum(t.shape[0] for t in tensors)] + tensors[0].shape[1:],
                  b"".join(t.data for t in tensors))


def stacked(tensors):
    return Tensor(tensors[0].kind, [len(tensors)] + tensors[0].shape, b"".join(t.data for t in tensors))


def read_folder(folder):
    tensors = {}
    for path in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        raw = open(path, "rb").read()
        n = struct.unpack("<Q", raw[:8])[0]
        for name, entry in json.loads(raw[8:8 + n]).items():
            if name != "__metadata__":
                a, b = entry["data_offsets"]
                tensors[name] = Tensor(TYPES[entry["dtype"]], entry["shape"], raw[8 + n + a:8 + n + b])
    return tensors


def permuted(t, n_heads):
    """Rows (i, i + d/2) of each head become neighbours (2i, 2i + 1)."""
    d = t.shape[0] // n_heads
    return t.rows([h * d + (r % 2) * (d // 2) + r // 2 for h in range(n_heads) for r in range(d)])


class Converter:
    def __init__(self, folder):
        self.config = json.load(open(os.path.join(folder, "config.json")))
        self.family = self.config["model_type"]
        self.arch = NAMES[self.family]
        self.hf = read_folder(folder)
        self.keys = []
        self.out = {}
        c = self.config
        self.n_layers = c.get("num_hidden_layers") or c.get("n_layer") or c.get("n_layers")
        self.dim = c.get("hidden_size") or c.get("n_embd") or c.get("d_model")
        self.n_heads = c.get("num_attention_heads") or c.get("n_head") or c.get("n_heads")
        self.n_kv = c.get("num_key_value_heads") or self.n_heads
        if self.family == "falcon":
            self.n_kv = (c.get("num_kv_heads") or self.n_heads) if c["new_decoder_architecture"] else (
                1 if c["multi_query"] else self.n_heads)
        self.head_dim = c.get("head_dim") or self.dim // self.n_heads
        self.ff = (c.get("intermediate_size") or c.get("n_inner") or c.get("ffn_dim") or 4 * self.dim)

    # ---- metadata ----

    def key(self, name, kind, value):
        self.keys.append((name.replace("{a}", self.arch), kind, value))

    def metadata(self):
        c = self.config
        self.key("general.architecture", "s", self.arch)
        self.key("{a}.block_count", "u", self.n_layers)
        self.key("{a}.embedding_length", "u", self.dim)
        self.key("{a}.feed_forward_length", "u", self.ff)
        self.key("{a}.context_length", "u", c.get("max_position_embeddings") or c.get("n_positions") or
                 c.get("max_seq_len") or 2048)
        self.key("{a}.attention.head_count", "u", self.n_heads)
        self.key("{a}.attention.head_count_kv", "u", self.n_kv)
        eps = next(c[k] for k in ("rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps", "norm_epsilon", "none")
                   if k in c or k == "none")
        rms = "rms_norm_eps" in c
        self.key("{a}.attention.layer_norm_rms_epsilon" if rms else "{a}.attention.layer_norm_epsilon", "f", eps)
        if self.family != "deepseek_v2":
            self.key("{a}.attention.key_length", "u", self.head_dim)
            self.key("{a}.attention.value_length", "u", self.head_dim)
        self.key("{a}.rope.freq_base", "f", c.get("rope_theta", 10000.0))
        partial = c.get("partial_rotary_factor", c.get("rotary_pct", 1.0))
        if self.family != "deepseek_v2":
            self.key("{a}.rope.dimension_count", "u", int(self.head_dim * partial))
        if c.get("sliding_window") and self.family not in ("qwen2", "qwen2_moe"):
            self.key("{a}.attention.sliding_window", "u", c["sliding_window"])
        scaling = c.get("rope_scaling") or {}
        kind = scaling.get("rope_type") or scaling.get("type")
        if kind in ("linear", "yarn"):
            self.key("{a}.rope.scaling.type", "s", kind)
            self.key("{a}.rope.scaling.factor", "f", scaling["factor"])
            if "original_max_position_embeddings" in scaling:
                self.key("{a}.rope.scaling.original_context_length", "u",
                         scaling["original_max_position_embeddings"])
        if kind == "longrope":
            self.longrope(scaling)
        if kind == "llama3":
            self.llama3_factors(scaling)
        own = getattr(self, "keys_" + self.family, None)
        if own:
            own()

    def longrope(self, scaling):
        import math
        c = self.config
        original = c["original_max_position_embeddings"]
        stretch = c["max_position_embeddings"] / original
        self.key("{a}.rope.scaling.original_context_length", "u", original)
        self.key("{a}.rope.scaling.attn_factor", "f",
                 1.0 if stretch <= 1 else math.sqrt(1 + math.log(stretch) / math.log(original)))
        self.key("{a}.rope.scaling.type", "s", "longrope")
        for name in ("long", "short"):
            factors = scaling[name + "_factor"]
            self.out["rope_factors_%s.weight" % name] = Tensor(F32, [len(factors)],
                                                               struct.pack("<%df" % len(factors), *factors))

    def llama3_factors(self, s):
        import math
        factors = []
        for i in range(self.head_dim // 2):
            frequency = self.config["rope_theta"] ** (-2.0 * i / self.head_dim)
            wave = 2 * math.pi / frequency
            old = s["original_max_position_embeddings"]
            if wave < old / s["high_freq_factor"]:
                factors.append(1.0)
            elif wave > old / s["low_freq_factor"]:
                factors.append(s["factor"])
            else:
                smooth = (old / wave - s["low_freq_factor"]) / (s["high_freq_factor"] - s["low_freq_factor"])
                factors.append(1 / ((1 - smooth) / s["factor"] + smooth))
        self.out["rope_freqs.weight"] = Tensor(F32, [len(factors)], struct.pack("<%df" % len(factors), *factors))

    def keys_mixtral(self):
        self.key("llama.expert_count", "u", self.config["num_local_experts"])
        self.key("llama.expert_used_count", "u", self.config["num_experts_per_tok"])

    def experts(self, n, width):
        self.key("{a}.expert_count", "u", n)
        self.key("{a}.expert_used_count", "u", self.config["num_experts_per_tok"])
        self.key("{a}.expert_feed_forward_length", "u", width)

    def keys_qwen2_moe(self):
        self.experts(self.config["num_experts"], self.config["moe_intermediate_size"])
        self.key("{a}.expert_shared_feed_forward_length", "u", self.config["shared_expert_intermediate_size"])

    def keys_qwen3_moe(self):
        self.experts(self.config["num_experts"], self.config["moe_intermediate_size"])

    def keys_gpt_oss(self):
        self.experts(self.config["num_local_experts"], self.ff)

    def keys_gemma3_text(self):
        self.key("{a}.attention.scale", "f", self.config["query_pre_attn_scalar"] ** -0.5)
        if self.family == "gemma3_text" and self.config.get("final_logit_softcapping"):
            self.key("{a}.final_logit_softcapping", "f", self.config["final_logit_softcapping"])

    def keys_gemma2(self):
        self.keys_gemma3_text()
        for name in ("attn_logit_softcapping", "final_logit_softcapping"):
            self.key("{a}." + name, "f", self.config[name] or 0.0)

    def keys_gpt_neox(self):
        self.key("{a}.use_parallel_residual", "b", self.config["use_parallel_residual"])

    def keys_stablelm(self):
        self.key("{a}.use_parallel_residual", "b", self.config["use_parallel_residual"])

    def keys_mpt(self):
        self.key("{a}.attention.max_alibi_bias", "f", float(self.config["attn_config"]["alibi_bias_max"]))
        if self.config["attn_config"].get("clip_qkv"):
            self.key("{a}.attention.clamp_kqv", "f", self.config["attn_config"]["clip_qkv"])

    def keys_cohere(self):
        self.key("{a}.logit_scale", "f", self.config["logit_scale"])

    def keys_granite(self):
        self.key("{a}.attention.scale", "f", self.config["attention_multiplier"])
        self.key("{a}.embedding_scale", "f", self.config["embedding_multiplier"])
        self.key("{a}.residual_scale", "f", self.config["residual_multiplier"])
        self.key("{a}.logit_scale", "f", self.config["logits_scaling"])

    def keys_deepseek_v2(self):
        c = self.config
        self.experts(c["n_routed_experts"], c["moe_intermediate_size"])
        self.key("{a}.expert_shared_count", "u", c["n_shared_experts"])
        self.key("{a}.expert_weights_scale", "f", c["routed_scaling_factor"])
        self.key("{a}.attention.kv_lora_rank", "u", c["kv_lora_rank"])
        if c["q_lora_rank"]:
            self.key("{a}.attention.q_lora_rank", "u", c["q_lora_rank"])
        if (c.get("rope_scaling") or {}).get("mscale_all_dim"):
            self.key("{a}.rope.scaling.yarn_log_multiplier", "f", 0.1 * c["rope_scaling"]["mscale_all_dim"])
        self.key("{a}.attention.key_length", "u", c["qk_nope_head_dim"] + c["qk_rope_head_dim"])
        self.key("{a}.attention.value_length", "u", c["v_head_dim"])
        self.key("{a}.rope.dimension_count", "u", c["qk_rope_head_dim"])

    # ---- tensors ----

    def qkv_by_head(self, t):
        """Groups [q .. k v] to [Q; K; V]."""
        g = self.n_heads // self.n_kv
        d = self.head_dim
        size = (g + 2) * d
        order = [k * size + r for k in range(self.n_kv) for r in range(g * d)]
        for part in (g, g + 1):
            order += [k * size + part * d + r for k in range(self.n_kv) for r in range(d)]
        return t.rows(order)

    def place(self, name, t):
        plus = 1.0 if self.family.startswith("gemma") and "norm" in name else 0.0
        self.out[name] = t.as_f32(plus) if len(t.shape) == 1 or "norm" in name else t

    def tensors(self):
        if self.arch in ("falcon", "bloom"):
            parts = {"word_embeddings": "token_embd", "word_embeddings_layernorm": "token_embd_norm",
                     "ln_f": "output_norm", "input_layernorm": "attn_norm", "ln_mlp": "attn_norm",
                     "lm_head": "output", "ln_attn": "attn_norm_2", "post_attention_layernorm": "ffn_norm",
                     "self_attention.query_key_value": "attn_qkv", "self_attention.dense": "attn_output",
                     "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down"}
        elif self.arch == "gptneox":
            parts = {"embed_in": "token_embd", "embed_out": "output", "final_layer_norm": "output_norm",
                     "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
                     "attention.query_key_value": "attn_qkv", "attention.dense": "attn_output",
                     "mlp.dense_h_to_4h": "ffn_up", "mlp.dense_4h_to_h": "ffn_down"}
        elif self.arch == "gpt2":
            parts = {"wte": "token_embd", "lm_head": "output", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm",
                     "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
                     "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
        elif self.arch == "mpt":
            parts = {"wte": "token_embd", "norm_f": "output_norm", "norm_1": "attn_norm", "norm_2": "ffn_norm",
                     "attn.Wqkv": "attn_qkv", "attn.out_proj": "attn_output", "ffn.up_proj": "ffn_up",
                     "ffn.down_proj": "ffn_down"}
        else:
            both = self.family in ("gemma2", "gemma3_text", "olmo2")
            late = "post_attention_norm" if both or self.arch == "gpt-oss" else "ffn_norm"
            parts = {"embed_tokens": "token_embd", "lm_head": "output", "norm": "output_norm",
                     "final_layernorm": "output_norm", "input_layernorm": "attn_norm",
                     "post_attention_layernorm": late, "pre_feedforward_layernorm": "ffn_norm",
                     "post_feedforward_layernorm": "post_ffw_norm", "self_attn.q_proj": "attn_q",
                     "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
                     "self_attn.dense": "attn_output", "self_attn.qkv_proj": "attn_qkv",
                     "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
                     "self_attn.sinks": "attn_sinks", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
                     "mlp.down_proj": "ffn_down", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down", "mlp.c_fc": "ffn_up",
                     "mlp.c_proj": "ffn_down", "mlp.gate_up_proj": "ffn_up", "mlp.gate": "ffn_gate_inp",
                     "mlp.router": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp",
                     "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
                     "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
                     "mlp.shared_expert.down_proj": "ffn_down_shexp",
                     "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
                     "mlp.shared_experts.up_proj": "ffn_up_shexp",
                     "mlp.shared_experts.down_proj": "ffn_down_shexp",
                     "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
                     "self_attn.kv_b_proj": "attn_kv_b", "self_attn.q_a_proj": "attn_q_a",
                     "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b"}
        experts = {}
        norms = {}
        for name, t in self.hf.items():
            words = name.split(".")
            layer = next((int(w) for w in words if w.isdigit()), None)
            end = words[-1] if words[-1] in ("weight", "bias") else ""
            rest = name[:-len(end) - 1] if end else name
            if layer is not None:
                rest = rest.split(".%d." % layer, 1)[1]
            else:
                rest = rest.split(".")[-1]
            if "experts." in rest and rest.split(".")[-2].isdigit():
                kind = {"w1": "gate", "w3": "up", "w2": "down"}.get(rest.split(".")[-1],
                                                                   rest.split(".")[-1].split("_")[0])
                experts.setdefault((layer, kind), {})[int(rest.split(".")[-2])] = t
                continue
            if "_layernorm.norms." in rest:
                norms.setdefault((layer, rest.split(".")[1][0]), {})[int(rest.split(".")[-1])] = t
                continue
            if rest.startswith("mlp.experts."):
                self.oss_experts(layer, rest.split(".")[-1], t)
                continue
            if layer is not None and rest not in parts or layer is None and rest not in parts:
                raise SystemExit("no name for " + name)
            gguf = ("blk.%d." % layer if layer is not None else "") + parts[rest] + "." + (end or "weight")
            if self.arch in ("falcon", "bloom", "gptneox") and "attn_qkv" in gguf:
                t = self.qkv_by_head(t)
            if self.arch == "falcon" and rest == "ln_mlp":
                gguf = "blk.%d.attn_norm.%s" % (layer, end)
            if self.arch == "falcon" and rest == "ln_attn":
                gguf = "blk.%d.attn_norm_2.%s" % (layer, end)
            if self.arch == "gpt2" and layer is not None and end == "weight" and len(t.shape) == 2:
                t = t.turned()
            if self.arch in ("llama", "granite"):
                if rest.endswith("q_proj"):
                    t = permuted(t, self.n_heads)
                if rest.endswith("k_proj"):
                    t = permuted(t, self.n_kv)
            self.place(gguf, t)
        for (layer, kind), some in norms.items():
            self.place("blk.%d.attn_%s_norm.weight" % (layer, kind), stacked([some[i] for i in sorted(some)]))
        for (layer, kind), some in experts.items():
            self.place("blk.%d.ffn_%s_exps.weight" % (layer, kind), stacked([some[i] for i in sorted(some)]))

    def oss_experts(self, layer, what, t):
        if what.startswith("down_proj"):
            if what == "down_proj":
                n = t.row_bytes()
                t = stacked([Tensor(t.kind, t.shape[1:], t.data[i * n:(i + 1) * n]).turned()
                             for i in range(t.shape[0])])
                self.out["blk.%d.ffn_down_exps.weight" % layer] = t
            else:
                self.out["blk.%d.ffn_down_exps.bias" % layer] = t.as_f32()
            return
        n = t.row_bytes()
        parts = [Tensor(t.kind, t.shape[1:], t.data[i * n:(i + 1) * n]) for i in range(t.shape[0])]
        for first, name in ((0, "gate"), (1, "up")):
            if what == "gate_up_proj":
                some = [p.turned() for p in parts]
                some = [p.rows(range(first, p.shape[0], 2)) for p in some]
                self.out["blk.%d.ffn_%s_exps.weight" % (layer, name)] = stacked(some)
            else:
                some = [p.rows(range(first, p.shape[0], 2)) for p in parts]
                self.out["blk.%d.ffn_%s_exps.bias" % (layer, name)] = stacked(some).as_f32()

    # ---- the file ----

    def vocabulary(self):
        """A byte-level one of as many tokens: only ids are used."""
        n = self.hf[next(k for k in self.hf if "embed" in k and "position" not in k or "wte" in k)].shape[0]
        self.key("tokenizer.ggml.model", "s", "gpt2")
        self.key("tokenizer.ggml.pre", "s", "gpt-2")
        letters = ([chr(b) for b in range(33, 127)] + [chr(b) for b in range(161, 173)] +
                   [chr(b) for b in range(174, 256)])
        letters += [chr(256 + i) for i in range(256 - len(letters))]
        self.key("tokenizer.ggml.tokens", "S", letters + ["[%d]" % i for i in range(n - 256)])
        self.key("tokenizer.ggml.merges", "S", [])
        self.key("tokenizer.ggml.eos_token_id", "u", n - 1)

    def save(self, path):
        def text(s):
            raw = s.encode()
            return struct.pack("<Q", len(raw)) + raw
        head = b"GGUF" + struct.pack("<IQQ", 3, len(self.out), len(self.keys))
        for name, kind, value in self.keys:
            head += text(name)
            head += {"s": lambda v: struct.pack("<I", 8) + text(v),
                     "u": lambda v: struct.pack("<II", 4, v),
                     "f": lambda v: struct.pack("<If", 6, v),
                     "b": lambda v: struct.pack("<I?", 7, v),
                     "S": lambda v: struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(text, v))}[kind](value)
        at = 0
        body = b""
        for name, t in self.out.items():
            head += text(name) + struct.pack("<I", len(t.shape))
            head += b"".join(struct.pack("<Q", d) for d in reversed(t.shape))
            head += struct.pack("<IQ", t.kind, at)
            body += t.data + bytes(-len(t.data) % 32)
            at = len(body)
        with open(path, "wb") as out:
            out.write(head + bytes(-len(head) % 32) + body)


def is_defined(folder):
    """The format has its family, and says all that the model needs."""
    if not os.path.exists(os.path.join(folder, "config.json")):
        return False
    config = json.load(open(os.path.join(folder, "config.json")))
    return (config["model_type"] in NAMES and "quantization_config" not in config and
            "rope_parameters" not in config and  # of the newer style, which the converter does not read
            not config.get("alibi") and  # of Falcon: no key says it
            not config.get("apply_residual_connection_post_layernorm"))  # of BLOOM likewise


def main():
    test, folders, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    models = []
    for name in sorted(os.listdir(folders)):
        folder = os.path.join(folders, name)
        if is_defined(folder):
            path = os.path.join(out, name + ".gguf")
            c = Converter(folder)
            c.metadata()
            c.tensors()
            c.vocabulary()
            c.save(path)
            models.append(name + "=" + path)
    sys.exit(subprocess.run([test, "-", folders + "/"] + models).returncode)


if __name__ == "__main__":
    main()
