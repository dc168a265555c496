/*
 * tests/support/tiny_model.h - whole model files of a few hundred kilobytes, made from a seed.
 *
 * The weights are random, but so scaled that such a model behaves like a real one where it matters
 * to tests: every part of a layer moves the logits, attention looks at some positions more than at
 * others, logits spread by 2 to 4 so that near ties are rare, and the continuation does not repeat
 * itself at once. The same seed gives the same file on every machine.
 *
 * The tokenizer is a byte-level BPE: three special tokens (<|endoftext|>, <|im_start|>, <|im_end|>:
 * ids 0, 1 and 2), the 256 bytes in order (ids 3 to 258), then merges. The end token is 2.
 *
 * As with tests/support/gguf_writer.h, whatever goes wrong fails the running test, and memory comes
 * from the C library.
 */
#ifndef TSR_TESTS_SUPPORT_TINY_MODEL_H
#define TSR_TESTS_SUPPORT_TINY_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/encoding.h"
#include "tests/support/gguf_writer.h"

typedef enum tiny_scaling {
    TINY_SCALING_NONE,
    TINY_SCALING_LINEAR,
    TINY_SCALING_YARN,
    TINY_SCALING_FACTORS /* Llama 3's: a tensor of factors, rope_freqs.weight */
} tiny_scaling;

typedef struct tiny_model {
    const char *name;
    const char *arch; /* "llama": rotary pairs (2i, 2i+1); "qwen2": pairs (i, i + head_dim/2) */
    int n_layers;
    int dim;
    int n_heads;
    int n_kv_heads;
    int head_dim;
    int ff;
    int vocab; /* at least 259 */
    int context;
    bool qkv_bias;
    bool other_bias; /* of the attention's output and the feed-forward's three matrices */
    bool tied;       /* no output.weight: the embedding is the head */
    tiny_scaling scaling;
    float scaling_factor;
    int original_context; /* before scaling */
    float rope_base;
    float norm_eps;
    /* A matrix whose rows are not whole groups falls back: K encodings to Q8_0, all to F16. */
    tsr_encoding encoding;
    tsr_encoding down_encoding; /* of attn_v and ffn_down: mixed files have these finer */
    tsr_encoding head_encoding; /* of the embedding and the head */
} tiny_model;

/*
 * name       heads    what else
 * "9/3"      9 and 3  SmolLM2 in small: Q4_1, tied Q8_0 head; ff 416 = 6.5 * 64, vocabulary 331
 * "8/8"      8 and 8  every head its own keys; Q8_0; separate head
 * "7/1"      7 and 1  one KV head; Q4_0; vocabulary 307
 * "2/1"      2 and 1  one layer, 64 columns: more ranks than there are units; F32
 * "biases"   6 and 2  all seven biases; F16
 * "qwen2"    14 and 2 arch qwen2: pairs by halves, biases on q, k, v; Q5_1; rope base 1e6
 * "wide"     4 and 2  head_dim 80, heads wider together (320) than dim (160); Q5_0
 * "odd"      5 and 5  head_dim 24, dim 200, ff 330: rows that no group fits; BF16
 * "linear"   4 and 2  positions divided by 4; F32
 * "yarn"     4 and 2  arch qwen2, YaRN by 4 from 512 positions; F32
 * "llama3"   4 and 2  rope factors; F32
 * "k-quants" 4 and 2  rows of 256; Q4_K with Q6_K
 */
const tiny_model *tiny_model_presets(int *n_presets);
const tiny_model *tiny_model_preset(const char *name); /* NULL if there is none */

/* Keys and tensors into a writer, where a test may still change them. */
void tiny_model_write(const tiny_model *model, uint64_t seed, gguf_writer *w);

/* The file. */
void tiny_model_save(const tiny_model *model, uint64_t seed, const char *path);

#endif
