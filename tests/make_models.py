"""Writes small random models of shapes that are easily got wrong, with references of an independent implementation.

    make_models.py OUT [NAME ...]

For tests/data/models/own_*, made with torch 2.15 and transformers 5.23; not needed to run the tests. Weights are random,
rounded to the type they are stored in; references are computed in f32 from them, without a cache. What is in a folder:
README.md there. More shapes: a line more in MODELS, and test_models - OUT/.
"""
import copy
import json
import math
import os
import random
import shutil
import sys
import zlib

import torch
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

LENGTHS = (5, 40, 150)
N_NEW = 16
COMMON = {"num_hidden_layers": 2, "vocab_size": 512, "max_position_embeddings": 256, "bos_token_id": 505,
          "eos_token_id": 506}


def yarn(**more):
    return {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64, **more}


def heads(n, n_kv, dim, **more):
    return {"num_attention_heads": n, "num_key_value_heads": n_kv, "hidden_size": dim, **more}


MODELS = {
    "own_stablelm_10": ("stablelm", heads(10, 5, 80, intermediate_size=99, qk_layernorm=True, use_qkv_bias=False,
                                          use_parallel_residual=True, vocab_size=517)),
    "own_phi_10": ("phi", heads(10, 5, 80, intermediate_size=99, tie_word_embeddings=True, hidden_act="gelu")),
    "own_deepseek_10": ("deepseek_v2", heads(
        10, 10, 60, intermediate_size=67, num_hidden_layers=3, kv_lora_rank=20, q_lora_rank=28, qk_nope_head_dim=10,
        qk_rope_head_dim=6, v_head_dim=14, head_dim=6, n_routed_experts=6, num_experts_per_tok=3, n_shared_experts=1,
        moe_intermediate_size=30, n_group=3, topk_group=2, topk_method="group_limited_greedy", routed_scaling_factor=1.7,
        first_k_dense_replace=2, rope_parameters=yarn(mscale=0.707, mscale_all_dim=0.707))),
    "own_mixtral_5": ("mixtral", heads(5, 1, 60, intermediate_size=56, num_local_experts=5, num_experts_per_tok=3)),
    "own_gpt_oss_5": ("gpt_oss", heads(5, 1, 60, head_dim=20, intermediate_size=49, num_local_experts=5,
                                       num_experts_per_tok=3, sliding_window=19, rope_parameters=yarn(truncate=False))),
    "own_opt_350_5": ("opt", heads(5, 5, 60, ffn_dim=99, word_embed_proj_dim=36, do_layer_norm_before=False, vocab_size=517)),
    "own_opt_plain_7": ("opt", heads(7, 7, 56, ffn_dim=67, word_embed_proj_dim=56, layer_norm_elementwise_affine=False,
                                     _remove_final_layer_norm=True, enable_bias=False)),
    "own_bloom_7": ("bloom", heads(7, 7, 56, apply_residual_connection_post_layernorm=True)),
    "own_mpt_10": ("mpt", {"n_heads": 10, "d_model": 60, "max_seq_len": 256, "attn_config": {"clip_qkv": 0.8}}),
    "own_olmo_5": ("olmo", heads(5, 1, 60, intermediate_size=67, clip_qkv=0.9)),
    "own_gemma3_images_7": ("gemma3", {
        "text_config": {**COMMON, **heads(7, 7, 63, head_dim=10, intermediate_size=67, sliding_window=19, query_pre_attn_scalar=12,
                                          num_hidden_layers=3, layer_types=["sliding_attention", "full_attention", "sliding_attention"])},
        "vision_config": {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
                          "image_size": 28, "patch_size": 14}, "mm_tokens_per_image": 4}),
    "own_gptq8_act_7": ("llama", heads(7, 1, 224, intermediate_size=160, num_hidden_layers=1,
                                         gptq={"bits": 8, "group_size": 32})),
}


def fill(model, family, seed):
    """Every weight at random, so large that mistakes show."""
    draw = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        r = torch.randn(p.shape, generator=draw)
        if p.dim() == 1 or "norm" in name:
            plain = name.endswith("bias") or "sinks" in name
            p.data = 0.1 * r if plain else (0.0 if family.startswith("gemma") else 1.0) + 0.2 * r
        elif name.endswith("_bias"):
            p.data = 0.1 * r
        elif "embed" in name:
            p.data = 0.5 * r
        else:
            p.data = r * (1.6 / math.sqrt(p.shape[-1]))
        p.data = p.data.bfloat16().float()


def packed(codes, bits):
    """Codes [n, m], 32 / bits rows to a word of 32 bits."""
    words = sum(codes[i::32 // bits].to(torch.int64) << (bits * i) for i in range(32 // bits))
    return words.to(torch.int32)


def gptq(model, bits, group_size, seed):
    """The linear weights in groups of columns that follow in no order; the model gets what the codes stand for."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, p in model.named_parameters():
        if "proj" not in name:
            p.data = p.data.half().float()
            tensors[name] = p.data.half()
            continue
        rows, cols = p.shape
        groups = (torch.arange(cols) // group_size)[torch.randperm(cols, generator=draw)]
        shape = (cols // group_size, rows)
        zeros = torch.randint(1, 2 ** bits - 1, shape, generator=draw)
        scales = ((0.5 + torch.rand(shape, generator=draw)) * p.abs().max() / 2 ** bits).half()
        codes = (p.data.t() / scales[groups].float() + zeros[groups]).round().clamp(0, 2 ** bits - 1).to(torch.int64)
        p.data = ((codes - zeros[groups]) * scales[groups].float()).t().contiguous()
        stem = name[:-len("weight")]
        along = torch.nn.functional.pad(zeros - 1, (0, -rows % (32 // bits)))
        tensors.update({stem + "qweight": packed(codes, bits).contiguous(), stem + "scales": scales,
                        stem + "qzeros": packed(along.t(), bits).t().contiguous(), stem + "g_idx": groups.to(torch.int32)})
    return tensors


def sequence(model, ids):
    """What the model makes of a prompt."""
    def run(some):
        return model(torch.tensor([some]), use_cache=False).logits[0]

    logits = run(ids)
    shares = torch.log_softmax(logits.double(), -1)
    top = logits.topk(5, -1)
    whole, margins = list(ids), []
    for _ in range(N_NEW):
        best = run(whole)[-1].topk(2)
        margins.append((best.values[0] - best.values[1]).item())
        whole.append(best.indices[0].item())
    logprobs = [shares[i, t].item() for i, t in enumerate(ids[1:])]
    return {"ids": ids, "last_logits": logits[-1].tolist(), "top5_ids": top.indices.tolist(),
            "top5_logits": [[round(x, 5) for x in row] for row in top.values.tolist()], "token_logprobs": logprobs,
            "logprob_sum": sum(logprobs), "greedy_ids": whole[len(ids):], "greedy_margins": margins}


def make(name, out):
    family, own = MODELS[name]
    keys = {**COMMON, **own}
    seed = zlib.crc32(name.encode())
    quantised = keys.pop("gptq", None)
    config = CONFIG_MAPPING[family](**keys)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager",
                                             experts_implementation="eager").float().eval()
    fill(model, family, seed)
    model.tie_weights()
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    if quantised:
        save_file(gptq(model, seed=seed, **quantised), os.path.join(out, "model.safetensors"))
        config.quantization_config = {"quant_method": "gptq", "desc_act": True, "sym": False, **quantised}
        config.save_pretrained(out)
    else:
        copy.deepcopy(model).to(torch.bfloat16).save_pretrained(out)
    pick = random.Random(seed)
    ids = [[pick.randrange(3, 505) for _ in range(n)] for n in LENGTHS]
    with open(os.path.join(out, "reference.json"), "w", encoding="utf-8") as file:
        json.dump({"sequences": [sequence(model, some) for some in ids]}, file)


def main():
    torch.set_num_threads(1)
    with torch.no_grad():
        for name in sys.argv[2:] or MODELS:
            make(name, os.path.join(sys.argv[1], name))


if __name__ == "__main__":
    main()
