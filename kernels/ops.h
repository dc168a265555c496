/*
 * kernels/ops.h - the arithmetic of a decoder, one contract an op.
 *
 * Every op checks its operands here once and then calls the twin for the device. On failure nothing
 * is written. Rows are independent: what an op gives for a row is the same, bit for bit, whatever
 * other rows are in the call, however many threads work, and whichever instruction set is used.
 * Errors of all: ARG (shape, type or device mismatch; the message names op, operand and numbers),
 * DEVICE.
 *
 * Order of sums (docs/numerics.md tells why):
 *   product over quantised weights, int8 activations: an exact integer dot product a group of 32
 * columns (16 in Q8_WIDE), then in f32 acc = fma(dot, d_w * d_x, acc);  acc = fma(m_w, d_x *
 * sum(q_x), acc)      groups in ascending order product over f32 activations: acc = fma(w, x, acc),
 * columns in ascending order, w the exact f32 value a grained product (weight->grain_cols > 0)
 * starts acc = 0 for each grain and adds the grain's f32 sum to a double that holds 1.5 * 2^24, by
 * one fma with the factor 1 + 2^-52: that rounds the sum to a multiple of 2^-28 (the factor moves
 * it off ties, so the rounding does not depend on what is already there). Such sums are exact while
 * |sum| < 2^23, hence the same in any order and over any number of ranks.
 */
#ifndef TSR_KERNELS_OPS_H
#define TSR_KERNELS_OPS_H

#include "kernels/kv_drift.h"
#include "kernels/kv_layout.h"
#include "kernels/tensor.h"
#include "kernels/weight.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- scratch -----------------------------------------------------------------------------------
 */

/* The largest operands that a device will meet. */
typedef struct tsr_ops_limits {
    int64_t n_rows;        /* tokens a step */
    int64_t n_cols;        /* of any weight */
    int n_heads;           /* query heads on this rank */
    int head_dim;          /* the larger of key_dim and value_dim */
    int64_t context;       /* positions a sequence */
    int n_seqs;            /* sequences a step */
    int64_t n_expert_rows; /* rows that experts compute at once (tsr_matmul_experts) */
} tsr_ops_limits;

/* What tsr_device_reserve_scratch() must be given for ops within these limits. */
size_t tsr_ops_scratch_bytes(tsr_device_kind kind, int n_threads, const tsr_ops_limits *limits);

/* ---- around the layers -------------------------------------------------------------------------
 */

/*
 * sums[i, :] = row (ids[i] - first_id) of `table`, or zeros when that row is not here (another rank
 * has it); with `add`, that row is added to sums instead.
 *   sums f64 [n, dim];  ids i32 [1, n];  table [own rows, dim], grain_cols not read
 */
TSR_MUST_CHECK tsr_status tsr_embed(tsr_device *dev, tsr_tensor sums, tsr_tensor ids,
                                    const tsr_weight *table, int64_t first_id, bool add);

enum {
    TSR_MAX_PARTS = 4
};

/* x = (f32)(sum of parts[0 .. n_parts)) + bias.  x f32 [n, dim];  parts f64 [n, dim] each, 1 <=
 * n_parts <= TSR_MAX_PARTS;  bias f32 [1, dim] or absent */
TSR_MUST_CHECK tsr_status tsr_narrow(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts,
                                     int n_parts, tsr_tensor bias);

/* x = x + ((f32)(sum of parts) + bias).  As above;  bias f32 [1, dim] or absent: x + (f32)(sum of
 * parts) */
TSR_MUST_CHECK tsr_status tsr_add_sums(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts,
                                       int n_parts, tsr_tensor bias);

/* x = x + factor * y, the product rounded first.  f32 [n, dim] both */
TSR_MUST_CHECK tsr_status tsr_add_scaled(tsr_device *dev, tsr_tensor x, tsr_tensor y, float factor);

/* x = factor * x; then, with cap > 0, x = cap * tanh(x / cap).  f32 */
TSR_MUST_CHECK tsr_status tsr_scale(tsr_device *dev, tsr_tensor x, float factor, float cap);

/* Each x below -limit becomes -limit, each above limit becomes limit; limit > 0.  f32 */
TSR_MUST_CHECK tsr_status tsr_clip(tsr_device *dev, tsr_tensor x, float limit);

/*
 * out[r, c] = x[r, c] / sqrt(mean_c(x[r, :]^2) + eps) * weight[r % p, c]     (Zhang & Sennrich,
 * arXiv 1910.07467) out f32 [n, dim], may be x;  x f32 [n, dim];  weight f32 [p, dim] Squares are
 * summed in sixteen lanes (lane c % 16, ascending), the lanes by a fixed tree.
 */
TSR_MUST_CHECK tsr_status tsr_rmsnorm(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                      tsr_tensor weight, float eps);

/*
 * out[r, c] = (x[r, c] - m) / sqrt(mean_c((x[r, :] - m)^2) + eps) * weight[r % p, c] + bias[r % p,
 * c] with m = mean_c(x[r, :])     (Ba et al., arXiv 1607.06450)
 *   as above;  bias f32 [p, dim] or absent
 */
TSR_MUST_CHECK tsr_status tsr_layernorm(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                        tsr_tensor weight, tsr_tensor bias, float eps);

/*
 * A norm over a row of which each rank has some columns, in two steps with a sum over ranks
 * between. sums[r, 0] = sum over heads h of G(sum_c(x[r, h, c]^2)), where G rounds to the grid of
 * grained products (below), so that the sum over ranks is exact. sums f64 [n, 1];  x f32 [n, heads
 * * head_dim]
 */
TSR_MUST_CHECK tsr_status tsr_square_sums(tsr_device *dev, tsr_tensor sums, tsr_tensor x,
                                          int head_dim);

/*
 * x[r, c] = x[r, c] / sqrt((f32)(sum over p of parts[p][r, 0]) / n_whole + eps) * weight[c], in
 * place.
 *   x f32 [n, own columns];  parts f64 [n, 1] each;  weight f32 [1, own columns];  n_whole columns
 * of all ranks
 */
TSR_MUST_CHECK tsr_status tsr_rmsnorm_shared(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts,
                                             int n_parts, tsr_tensor weight, int64_t n_whole,
                                             float eps);

/* Rows in int8, as products over quantised weights take them (below), in tsr_ops_codes_bytes() of
 * device memory, laid out as the device likes. */
typedef struct tsr_codes {
    void *data; /* NULL: absent */
    int64_t n_rows;
    int64_t n_cols;
} tsr_codes;

enum {
    TSR_FEW_ROWS = 64 /* more are rounded where they are multiplied */
};

size_t tsr_ops_codes_bytes(int64_t n_rows, int64_t n_cols);

/* What tsr_join does; everything but what is said to be absent is there. */
typedef struct tsr_joining {
    const tsr_tensor *parts; /* f64 [n, dim] each */
    int n_parts;             /* 0: nothing is added to x; at most TSR_MAX_PARTS */
    tsr_tensor bias;         /* f32 [1, dim] or absent */
    tsr_tensor post_weight;  /* f32 [1, dim] or absent: the sum has no norm of its own */
    tsr_tensor post_bias;    /* f32 [1, dim] or absent, as next_bias */
    float scale;             /* of the sum */
    tsr_tensor next_weight;  /* f32 [1, dim] or absent: out is x */
    tsr_tensor next_bias;
    bool is_layernorm; /* or they are RMS norms */
    float eps;
    tsr_tensor out;   /* f32 [n, dim], or absent */
    tsr_codes codes;  /* of out; absent, or what tsr_matmul_takes_codes() allows */
    tsr_tensor spare; /* f32 [n, dim] to work in; absent where scale is 1 and post_weight absent */
} tsr_joining;

/*
 * x += scale * norm(tsr_narrow(parts, bias)) and then out = norm(x), as tsr_narrow, tsr_rmsnorm or
 * tsr_layernorm, tsr_add_scaled and tsr_add_sums have it, bit for bit: on a GPU one launch.
 *   x f32 [n, dim]
 */
TSR_MUST_CHECK tsr_status tsr_join(tsr_device *dev, tsr_tensor x, const tsr_joining *j);

/* ---- products ----------------------------------------------------------------------------------
 */

typedef enum tsr_activations {
    TSR_ACTIVATIONS_INT8, /* over quantised weights x is rounded to int8 in groups of 32: scale
                             absmax / 127, to nearest even; a group whose largest is below 2^-120
                             counts as zeros, one with a NaN or infinity gives NaN */
    TSR_ACTIVATIONS_F32,  /* x as it is */
    TSR_ACTIVATIONS_COUNT
} tsr_activations;

/* One of several products with the same x. */
typedef struct tsr_product {
    const tsr_weight *weight; /* [m, k]; m = 0 does nothing; k = 0 gives zeros */
    tsr_tensor out;           /* [n, m]: f32, or f64 when weight->grain_cols > 0 */
    tsr_tensor bias;          /* f32 [1, m], added to an f32 out; or absent */
} tsr_product;

enum {
    TSR_MAX_PRODUCTS = 4
};

/*
 * out_p[r, :] = W_p x[r, :] (+ bias_p) for each product p.
 *   x f32 [n, k]
 * Weights that are not quantised always take x as it is.
 */
TSR_MUST_CHECK tsr_status tsr_matmul(tsr_device *dev, const tsr_product *products, int n_products,
                                     tsr_tensor x, tsr_activations activations);

/* Whether they take x as codes from the op before, on this device: weights all quantised, int8
 * activations, at most TSR_FEW_ROWS rows. */
bool tsr_matmul_takes_codes(const tsr_device *dev, const tsr_product *products, int n_products,
                            int64_t n_rows, tsr_activations activations);

/* tsr_matmul over x that was rounded before, where the above holds. Errors: also UNSUPPORTED (a
 * device that takes none). */
TSR_MUST_CHECK tsr_status tsr_matmul_codes(tsr_device *dev, const tsr_product *products,
                                           int n_products, tsr_codes x);

typedef enum tsr_activation {
    TSR_ACTIVATION_SILU,      /* g / (1 + exp(-g)) */
    TSR_ACTIVATION_GELU,      /* g * Phi(g), Phi the normal distribution     (Hendrycks & Gimpel,
                                 arXiv 1606.08415) */
    TSR_ACTIVATION_GELU_TANH, /* g / (1 + exp(-2 sqrt(2 / pi) (g + 0.044715 g^3))) */
    TSR_ACTIVATION_RELU,
    TSR_ACTIVATION_SWIGLU_CLAMPED, /* with `up` only: g and u are bounded to g <= 7, |u| <= 7; then
                                      g / (1 + exp(-1.702 g)) * (u + 1)     (gpt-oss) */
    TSR_ACTIVATION_COUNT
} tsr_activation;

/*
 * out[r, c] = f(gate[r, c]) * up[r, c] * weights[r], f as `activation` says.     (Shazeer, arXiv
 * 2002.05202)
 *   out, gate, up f32 [n, ff];  up absent: not gated;  weights f32 [1, n], absent: 1;  out may be
 *   gate
 */
TSR_MUST_CHECK tsr_status tsr_activate(tsr_device *dev, tsr_tensor out, tsr_tensor gate,
                                       tsr_tensor up, tsr_tensor weights,
                                       tsr_activation activation);

/* The same, and out in codes. Errors: also UNSUPPORTED, as tsr_matmul_codes. */
TSR_MUST_CHECK tsr_status tsr_activate_codes(tsr_device *dev, tsr_codes codes, tsr_tensor out,
                                             tsr_tensor gate, tsr_tensor up,
                                             tsr_activation activation);

/* ---- experts -----------------------------------------------------------------------------------
 */

enum {
    TSR_ROUTE_MOST = 1024 /* experts */
};

typedef struct tsr_routing {
    int n_experts;
    int n_used;     /* experts a token takes */
    bool before;    /* softmax over all experts, then the choice; else the choice first and the
                       softmax over the chosen */
    bool normalise; /* the chosen weights are divided by their sum */
    float scale;    /* multiplies the weights */
    int n_groups;   /* > 0: experts come in so many groups, of which only the n_groups_used with the
                       best expert are looked at */
    int n_groups_used;
} tsr_routing;

/*
 * Which experts each row takes and how much of each: by falling logit, the lower number first among
 * equals.
 *   ids i32 [n, n_used];  weights f32 [n, n_used];  logits f32 [n, n_experts]
 */
TSR_MUST_CHECK tsr_status tsr_route(tsr_device *dev, tsr_tensor ids, tsr_tensor weights,
                                    tsr_tensor logits, const tsr_routing *routing);

/*
 * The rows of all tokens, by expert, and rising within each: places [start[e], start[e + 1]) of the
 * n n_used are those that take expert e.
 *   start i32 [1, n_experts + 1]
 *   rows i32 [1, n n_used], weights f32 [1, n n_used]   of each place: its row, what that takes
 *   places i32 [n, n_used]                              where each choice went
 *   ids i32 [n, n_used], chosen f32 [n, n_used]         of tsr_route, each id below n_experts
 */
TSR_MUST_CHECK tsr_status tsr_sort_experts(tsr_device *dev, tsr_tensor start, tsr_tensor rows,
                                           tsr_tensor weights, tsr_tensor places, tsr_tensor ids,
                                           tsr_tensor chosen);

/* The same matrix of each of some experts: of one shape and format, equally far apart. */
typedef struct tsr_expert_weights {
    tsr_weight first; /* [m, k], of the first of them */
    int64_t apart_bytes;
    tsr_tensor bias; /* f32 [n_experts, m], rows as far apart; or absent */
} tsr_expert_weights;

/* One of several products with the same x. */
typedef struct tsr_expert_product {
    const tsr_expert_weights *weights;
    tsr_tensor out; /* [n, m]: f32, or f64 of grained weights, which have no bias */
} tsr_expert_product;

/*
 * As tsr_matmul, each row with the weights of its own expert: rows [start[e], start[e + 1]) of x
 * and out belong to expert e. Other rows of out are not written.
 *   x f32 [n, k];  start i32 [1, n_experts + 1], rising, none above n;
 *   most_rows  no expert has more
 */
TSR_MUST_CHECK tsr_status tsr_matmul_experts(tsr_device *dev, const tsr_expert_product *products,
                                             int n_products, tsr_tensor x, tsr_tensor start,
                                             int64_t most_rows, tsr_activations activations);

/*
 * sums[r, :] += parts[places[r, k], :] + G(weights[places[r, k]] * bias[e - first, :]) for every
 * choice k of row r whose expert e = ids[r, k] is here: first <= e < first + n_here; by rising k. G
 * rounds to the grid of grained products.
 *   sums f64 [n, dim];  parts f64 [n n_used, dim];  ids, places, weights as above;
 *   bias f32 [n_here, dim] or absent
 */
TSR_MUST_CHECK tsr_status tsr_add_experts(tsr_device *dev, tsr_tensor sums, tsr_tensor parts,
                                          tsr_tensor ids, tsr_tensor places, tsr_tensor weights,
                                          tsr_tensor bias, int64_t first, int64_t n_here);

/* x f32 [n, 1] becomes 1 / (1 + exp(-x)). */
TSR_MUST_CHECK tsr_status tsr_sigmoid(tsr_device *dev, tsr_tensor x);

/* All elements become 0. */
TSR_MUST_CHECK tsr_status tsr_clear(tsr_device *dev, tsr_tensor x);

/*
 * sums[rows[i], :] += parts[i, :] + G(weights[i] * bias[:]), where G rounds to the grid of grained
 * products, so that such sums are exact in any order.
 *   sums f64 [n, dim];  parts f64 [m, dim];  rows i32 [1, m], none twice;  weights f32 [1, m]; bias
 *   f32 [1, dim] or absent
 */
TSR_MUST_CHECK tsr_status tsr_scatter_sums(tsr_device *dev, tsr_tensor sums, tsr_tensor parts,
                                           tsr_tensor rows, tsr_tensor weights, tsr_tensor bias);

/* ---- attention ---------------------------------------------------------------------------------
 */

/*
 * The turns of a step, used by every layer: angles[r, i] = cos(a) * scale, angles[r, n_rot / 2 + i]
 * = sin(a) * scale with a = positions[r] * frequencies[i] taken in double.      (Su et al., arXiv
 * 2104.09864) angles f32 [n, n_rot];  positions i32 [1, n];  frequencies f64 [1, n_rot / 2]
 */
TSR_MUST_CHECK tsr_status tsr_rope_angles(tsr_device *dev, tsr_tensor angles, tsr_tensor positions,
                                          tsr_tensor frequencies, float scale);

/* Turn n_rot dimensions of every head, from `first` on, in place.  x f32 [n, heads * head_dim];
 * angles f32 [n, n_rot] */
TSR_MUST_CHECK tsr_status tsr_rope(tsr_device *dev, tsr_tensor x, tsr_tensor angles, int head_dim,
                                   int first, tsr_rope_pairs pairs);

/* out[r, h, to + i] = x[r, h, from + i] for i < n, of every head h.
 *   out f32 [n, heads * out_dim];  x f32 [n, heads * x_dim] */
TSR_MUST_CHECK tsr_status tsr_copy_heads(tsr_device *dev, tsr_tensor out, int out_dim, int to,
                                         tsr_tensor x, int x_dim, int from, int n);

/*
 * One layer of the cache as kernels see it. A block lies in one of two places: in the device pool,
 * slot s at pool + s * block_bytes, or in the host pool, slot s at host_pool + s * block_bytes
 * (overflow blocks, attended where they lie). A block in the host pool may be read, not written.
 * Where a block lies changes no bit of a result.
 *
 * On a CPU rank both pools are memory like any other. A GPU reads the host pool over the bus. Where
 * the first runs of a sequence lie there as a whole, the CPU beside it can attend them instead
 * (tsr_attention_part), and the GPU goes on from there (tsr_attention_shape.before).
 */
typedef struct tsr_kv_view {
    void *pool;
    const void *host_pool; /* NULL: no block lies there */
    size_t block_bytes;    /* of both; a multiple of 4 */
    const tsr_kv_layout *layout;
    int layer;
    const tsr_kv_drift *drift; /* on the device: of the layer's keys; read where they have means */
} tsr_kv_view;

/*
 * Which rows belong to which sequence. Rows of one sequence follow one another and have consecutive
 * positions. All arrays are on the device. On a GPU there may be rows more than the sequences have,
 * behind them: nothing is written for these, and what they give is undefined.
 */
typedef struct tsr_batch {
    int n_seqs;
    tsr_tensor row_start; /* i32 [1, n_seqs + 1]: sequence s has rows row_start[s] .. row_start[s +
                             1] - 1 */
    tsr_tensor first_pos; /* i32 [1, n_seqs]: the position of its first row */
    tsr_tensor lanes;     /* i32 [1, n_seqs]: its row of `tables` */
    tsr_tensor tables;    /* i32 [n_lanes, blocks a sequence]: where its b-th block lies: an entry
                             e >= 0 is slot e of the device pool, e < 0 is slot ~e of the host
                             pool. Entries of blocks that no row sees are not read. */
    tsr_tensor table_start; /* i32 [1, n_seqs]: which entry of its row is its 0-th block's; absent:
                               0. Only attention looks at it */
    int64_t longest;        /* the largest first_pos + rows of any sequence, known on the host */
    int64_t most_rows;      /* and the most rows of any sequence, or 0 where that is not known */
} tsr_batch;

/*
 * Put keys and values of every row into the cache, at its sequence's position, rounded to the
 * cache's type (kernels/kv_layout.h).
 *   k f32 [n, n_kv_heads * key_dim]
 *   v f32 [n, n_kv_heads * value_dim]; absent in a latent layout
 * Errors: also ARG (a row's block lies in the host pool).
 */
TSR_MUST_CHECK tsr_status tsr_kv_write(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor k,
                                       tsr_tensor v, const tsr_batch *batch);

/*
 * tsr_rope of q and of k, and tsr_kv_write, at once: on a GPU one launch. Where it fails, q and k
 * may have turned.
 */
TSR_MUST_CHECK tsr_status tsr_rope_write(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor q,
                                         tsr_tensor k, tsr_tensor v, tsr_tensor angles, int first,
                                         tsr_rope_pairs pairs, const tsr_batch *batch);

/*
 * What rows have seen of some positions: per head the softmax's largest score m, the sum l of
 * e^(score - m), and o, the sum of e^(score - m) times values as the cache has them. Nothing: l =
 * 0, and the others are undefined.
 */
typedef struct tsr_attention_piece {
    tsr_tensor o; /* f32 [n, n_heads * value_dim] */
    tsr_tensor m; /* f32 [n, n_heads] */
    tsr_tensor l; /* f32 [n, n_heads] */
} tsr_attention_piece;

/*
 * What attention computes. Zero (or an absent tensor) in a field leaves that part out.
 *
 * Key t is visible to the row at position p when 0 <= d = p - t and
 *   window == 0 or d < window                            (Beltagy et al., arXiv 2004.05150)
 *   stride == 0 or d < local or d % stride == 0          (Child et al., arXiv 1904.10509)
 * and only what is visible is read: cost is proportional to it.
 */
typedef struct tsr_attention_shape {
    int n_heads;    /* query heads on this rank */
    int group;      /* query heads a KV head in the whole model */
    int first_head; /* index of this rank's first query head within its first KV head's group: query
                       head h here reads KV head (first_head + h) / group here */
    float scale;    /* 1 / sqrt(key_dim), usually */
    float softcap;  /* scores become softcap tanh(score / softcap); 0: they stay */
    int64_t window; /* 0: all positions */
    int64_t stride; /* 0: every position */
    int64_t local;  /* only with a stride */
    tsr_tensor slopes; /* f32 [1, n_heads]: slopes[h] * (t - p) is added to a score, behind the soft
                          cap (ALiBi: Press et al., arXiv 2108.12409) */
    float slopes_scale; /* > 0: slopes_scale * bf16(slopes[h] * bf16(t)) is added instead, t from
                           the sequence's start (as Falcon's reference implementation has it) */
    tsr_tensor sinks; /* f32 [1, n_heads]: one more score a head, without a value: e^sinks[h] in the
                         denominator (Xiao et al., arXiv 2309.17453) */
    const tsr_attention_piece *before; /* what rows have seen of positions before that which the
                                          batch calls 0, a multiple of TSR_ATTENTION_RUN: those of
                                          its sequences are counted, and their tables begin, behind
                                          it. Merged first. Not with slopes_scale. */
} tsr_attention_shape;

enum {
    TSR_ATTENTION_RUN =
        256 /* positions whose softmax is taken at once; partial results merge in ascending order */
};

/*
 * Causal attention of every row over what is visible of its sequence, through the tables; what this
 * step wrote is included. out[r, h] = sum_t softmax_t(scale q[r, h] . k_t) v_t
 *   q f32 [n, n_heads * key_dim];  out f32 [n, n_heads * value_dim]
 * No score matrix: a run of 256 positions at a time gives (max m, sum l, output o), and runs merge
 * by m' = max(m, m_run);  l' = l e^(m - m') + l_run e^(m_run - m');  o likewise;      out = o / l
 * (Milakov & Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135). Runs start at multiples
 * of 256; those in which a row sees nothing are left out for it. A sink is merged last, as a run
 * with l_run = 1 and o_run = 0.
 *
 * With a stride, what a row sees beyond the last `local` positions is taken first, in far runs:
 * each is 256 * stride positions long, from multiples of that on, and a row sees at most 256 of it.
 * Then come the last `local` ones in runs as above. The layout of such a layer must be by token.
 */
TSR_MUST_CHECK tsr_status tsr_attention(tsr_device *dev, tsr_tensor out, tsr_tensor q,
                                        const tsr_kv_view *kv, const tsr_batch *batch,
                                        const tsr_attention_shape *shape);

/* Far runs in sequences that are so long at most; runs of tsr_attention_part are counted from them
 * on, near ones behind. */
static inline int64_t tsr_attention_far_runs(const tsr_attention_shape *shape, int64_t longest)
{
    return shape->stride == 0 ? 0 : (longest - 1) / (TSR_ATTENTION_RUN * shape->stride) + 1;
}

/*
 * piece = what rows see of runs [first_run, first_run + n_runs), merged in ascending order, behind
 * shape->before. Only blocks of those runs are read, and only their entries of the tables. A row
 * that belongs to no sequence of the batch has seen nothing. tsr_attention with `piece` before it,
 * over what follows, gives what it gives over all, bit for bit where its sums are in the CPU's
 * order. Errors: also UNSUPPORTED (a GPU).
 */
TSR_MUST_CHECK tsr_status tsr_attention_part(tsr_device *dev, const tsr_attention_piece *piece,
                                             tsr_tensor q, const tsr_kv_view *kv,
                                             const tsr_batch *batch,
                                             const tsr_attention_shape *shape, int64_t first_run,
                                             int64_t n_runs);

/* ---- the end -----------------------------------------------------------------------------------
 */

/* out row i = x row rows[i].  out, x f32;  rows i32 [1, n_out]
 * A number that is no row: ARG on the CPU; on a GPU, which nobody waits for, that row becomes NaN.
 */
TSR_MUST_CHECK tsr_status tsr_gather_rows(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                          tsr_tensor rows);

/*
 * Change single logits, in place: entry i changes the logit x of token ids[i] in row rows[i] to
 *     (x > 0 ? x / factors[i] : x * factors[i]) + adds[i]
 * with each step rounded to f32, and before[i] becomes what x was. A factor above 1 makes a token
 * less likely whatever the sign of its logit (Keskar et al., arXiv 1909.05858); an addend of
 * -infinity makes it impossible.
 *   logits f32 [n, own vocabulary] of tokens from first_id on;  before f32 [1, m];
 *   rows i32 [1, m];  ids i32 [1, m];  factors f32 [1, m], above 0;  adds f32 [1, m]
 * No two entries name the same logit. One that is not there: ARG on the CPU; on a GPU nothing is
 * changed and before[i] becomes NaN.
 */
TSR_MUST_CHECK tsr_status tsr_adjust_logits(tsr_device *dev, tsr_tensor logits, tsr_tensor before,
                                            tsr_tensor rows, tsr_tensor ids, tsr_tensor factors,
                                            tsr_tensor adds, int64_t first_id);

/*
 * The k best of each row and what the softmax needs to know of the rest.
 *   ids i32 [n, k]      first_id + column, by falling logit, lower id first among equals; -1 past
 * the end values f32 [n, k]   their logits; -infinity past the end masses f32 [n, 2 * units]  of
 * each unit of unit_cols columns (the last may be short): the largest logit m, and sum over the
 * unit of exp((logit - m) * sharpness[r]) logits f32 [n, own vocabulary] sharpness f32 [1, n]  1 /
 * temperature units = ceil(own vocabulary / unit_cols). NaN logits are treated as
 * -infinity; a unit of nothing else has the sum 0.
 */
TSR_MUST_CHECK tsr_status tsr_top_k(tsr_device *dev, tsr_tensor ids, tsr_tensor values,
                                    tsr_tensor masses, tsr_tensor logits, tsr_tensor sharpness,
                                    int64_t first_id, int64_t unit_cols);

#ifdef __cplusplus
}
#endif

#endif
