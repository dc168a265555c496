/*
 * kernels/backend.h - what every kind of device must do. Private to the room.
 *
 * One function type an op: a twin with another signature does not compile. Every slot of a
 * backend's table is filled; tests/test_ops.c checks it.
 */
#ifndef TSR_KERNELS_BACKEND_H
#define TSR_KERNELS_BACKEND_H

#include "kernels/copy_queue.h"
#include "kernels/ops.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef tsr_status tsr_embed_fn(tsr_device *dev, tsr_tensor sums, tsr_tensor ids,
                                const tsr_weight *table, int64_t first_id, bool add);
typedef tsr_status tsr_narrow_fn(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts,
                                 int n_parts, tsr_tensor bias);
typedef tsr_status tsr_add_scaled_fn(tsr_device *dev, tsr_tensor x, tsr_tensor y, float factor);
typedef tsr_status tsr_scale_fn(tsr_device *dev, tsr_tensor x, float factor, float cap);
typedef tsr_status tsr_clip_fn(tsr_device *dev, tsr_tensor x, float limit);
typedef tsr_status tsr_layernorm_fn(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                    tsr_tensor weight, tsr_tensor bias, float eps);
typedef tsr_status tsr_square_sums_fn(tsr_device *dev, tsr_tensor sums, tsr_tensor x, int head_dim);
typedef tsr_status tsr_rmsnorm_shared_fn(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts,
                                         int n_parts, tsr_tensor weight, int64_t n_whole,
                                         float eps);
typedef tsr_status tsr_route_fn(tsr_device *dev, tsr_tensor ids, tsr_tensor weights,
                                tsr_tensor logits, const tsr_routing *routing);
typedef tsr_status tsr_sort_experts_fn(tsr_device *dev, tsr_tensor start, tsr_tensor rows,
                                       tsr_tensor weights, tsr_tensor places, tsr_tensor ids,
                                       tsr_tensor chosen);
typedef tsr_status tsr_matmul_experts_fn(tsr_device *dev, const tsr_expert_product *products,
                                         int n_products, tsr_tensor x, tsr_tensor start,
                                         int64_t most_rows, tsr_activations activations);
typedef tsr_status tsr_add_experts_fn(tsr_device *dev, tsr_tensor sums, tsr_tensor parts,
                                      tsr_tensor ids, tsr_tensor places, tsr_tensor weights,
                                      tsr_tensor bias, int64_t first, int64_t n_here);
typedef tsr_status tsr_sigmoid_fn(tsr_device *dev, tsr_tensor x);
typedef tsr_status tsr_clear_fn(tsr_device *dev, tsr_tensor x);
typedef tsr_status tsr_scatter_sums_fn(tsr_device *dev, tsr_tensor sums, tsr_tensor parts,
                                       tsr_tensor rows, tsr_tensor weights, tsr_tensor bias);
typedef tsr_status tsr_copy_heads_fn(tsr_device *dev, tsr_tensor out, int out_dim, int to,
                                     tsr_tensor x, int x_dim, int from, int n);
typedef tsr_status tsr_add_sums_fn(tsr_device *dev, tsr_tensor x, const tsr_tensor *parts,
                                   int n_parts, tsr_tensor bias);
typedef tsr_status tsr_rmsnorm_fn(tsr_device *dev, tsr_tensor out, tsr_tensor x, tsr_tensor weight,
                                  float eps);
typedef tsr_status tsr_matmul_fn(tsr_device *dev, const tsr_product *products, int n_products,
                                 tsr_tensor x, tsr_activations activations);
typedef tsr_status tsr_activate_fn(tsr_device *dev, tsr_tensor out, tsr_tensor gate, tsr_tensor up,
                                   tsr_tensor weights, tsr_activation activation);
typedef tsr_status tsr_activate_codes_fn(tsr_device *dev, tsr_codes codes, tsr_tensor out,
                                         tsr_tensor gate, tsr_tensor up, tsr_activation activation);
typedef tsr_status tsr_join_fn(tsr_device *dev, tsr_tensor x, const tsr_joining *j);
typedef tsr_status tsr_matmul_codes_fn(tsr_device *dev, const tsr_product *products, int n_products,
                                       tsr_codes x);
typedef tsr_status tsr_rope_angles_fn(tsr_device *dev, tsr_tensor angles, tsr_tensor positions,
                                      tsr_tensor frequencies, float scale);
typedef tsr_status tsr_rope_fn(tsr_device *dev, tsr_tensor x, tsr_tensor angles, int head_dim,
                               int first, tsr_rope_pairs pairs);
typedef tsr_status tsr_kv_write_fn(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor k,
                                   tsr_tensor v, const tsr_batch *batch);
typedef tsr_status tsr_rope_write_fn(tsr_device *dev, const tsr_kv_view *kv, tsr_tensor q,
                                     tsr_tensor k, tsr_tensor v, tsr_tensor angles, int first,
                                     tsr_rope_pairs pairs, const tsr_batch *batch);
typedef tsr_status tsr_attention_fn(tsr_device *dev, tsr_tensor out, tsr_tensor q,
                                    const tsr_kv_view *kv, const tsr_batch *batch,
                                    const tsr_attention_shape *shape);
typedef tsr_status tsr_attention_part_fn(tsr_device *dev, const tsr_attention_piece *piece,
                                         tsr_tensor q, const tsr_kv_view *kv,
                                         const tsr_batch *batch, const tsr_attention_shape *shape,
                                         int64_t first_run, int64_t n_runs);
typedef tsr_status tsr_gather_rows_fn(tsr_device *dev, tsr_tensor out, tsr_tensor x,
                                      tsr_tensor rows);
typedef tsr_status tsr_adjust_logits_fn(tsr_device *dev, tsr_tensor logits, tsr_tensor before,
                                        tsr_tensor rows, tsr_tensor ids, tsr_tensor factors,
                                        tsr_tensor adds, int64_t first_id);
typedef tsr_status tsr_top_k_fn(tsr_device *dev, tsr_tensor ids, tsr_tensor values,
                                tsr_tensor masses, tsr_tensor logits, tsr_tensor sharpness,
                                int64_t first_id, int64_t unit_cols);

typedef tsr_status tsr_device_sync_fn(tsr_device *dev);
typedef void *tsr_device_alloc_fn(tsr_device *dev, size_t n_bytes);
typedef void tsr_device_free_fn(tsr_device *dev, void *memory, size_t n_bytes);
typedef tsr_status tsr_device_copy_fn(tsr_device *dev, void *to, const void *from, size_t n_bytes);
typedef void tsr_device_close_fn(tsr_device *dev);
typedef tsr_status tsr_device_record_fn(tsr_device *dev, tsr_recording **out);
typedef tsr_status tsr_device_replay_fn(tsr_device *dev, tsr_recording *recording);
typedef void tsr_device_forget_fn(tsr_device *dev, tsr_recording *recording);

/* What a copy queue does on some kind of device, as kernels/copy_queue.h has it; each kind's record
 * begins with its ways. */
typedef struct tsr_copy_ways {
    void (*destroy)(tsr_copy_queue *queue); /* also what is half made */
    tsr_status (*put)(tsr_copy_queue *queue, tsr_copy_way way, void *to, const void *from,
                      size_t n_bytes, int64_t *ticket);
    bool (*is_done)(tsr_copy_queue *queue, int64_t ticket);
    tsr_status (*wait)(tsr_copy_queue *queue, int64_t ticket);
    int64_t (*busy_ns)(const tsr_copy_queue *queue);
} tsr_copy_ways;

struct tsr_copy_queue {
    const tsr_copy_ways *ways;
};

typedef tsr_status tsr_copy_queue_fn(tsr_copy_queue **out, tsr_device *dev, int depth);

/* Bytes of scratch that an op needs within these limits. */
typedef size_t tsr_scratch_fn(int n_threads, const tsr_ops_limits *limits);

typedef struct tsr_backend {
    tsr_device_close_fn *close;
    tsr_device_sync_fn *sync;
    tsr_device_alloc_fn *alloc; /* zeroed */
    tsr_device_free_fn *give_back;
    tsr_device_alloc_fn *alloc_host; /* zeroed, page-aligned */
    tsr_device_free_fn *give_back_host;
    tsr_device_copy_fn *copy;
    tsr_device_copy_fn *upload;
    tsr_device_copy_fn *download;
    tsr_copy_queue_fn *copies_aside; /* a copy queue; depth >= 1 */
    tsr_device_sync_fn *record_begin;
    tsr_device_record_fn *record_end;
    tsr_device_replay_fn *replay;
    tsr_device_forget_fn *forget;
    tsr_embed_fn *embed;
    tsr_narrow_fn *narrow;
    tsr_add_sums_fn *add_sums;
    tsr_rmsnorm_fn *rmsnorm;
    tsr_matmul_fn *matmul;
    tsr_activate_fn *activate;
    tsr_activate_codes_fn *activate_codes;
    tsr_join_fn *join;
    tsr_matmul_codes_fn *matmul_codes;
    tsr_add_scaled_fn *add_scaled;
    tsr_scale_fn *scale;
    tsr_clip_fn *clip;
    tsr_layernorm_fn *layernorm;
    tsr_square_sums_fn *square_sums;
    tsr_rmsnorm_shared_fn *rmsnorm_shared;
    tsr_route_fn *route;
    tsr_sort_experts_fn *sort_experts;
    tsr_matmul_experts_fn *matmul_experts;
    tsr_add_experts_fn *add_experts;
    tsr_sigmoid_fn *sigmoid;
    tsr_clear_fn *clear;
    tsr_scatter_sums_fn *scatter_sums;
    tsr_copy_heads_fn *copy_heads;
    tsr_rope_angles_fn *rope_angles;
    tsr_rope_fn *rope;
    tsr_kv_write_fn *kv_write;
    tsr_rope_write_fn *rope_write;
    tsr_attention_fn *attention;
    tsr_attention_part_fn *attention_part;
    tsr_gather_rows_fn *gather_rows;
    tsr_adjust_logits_fn *adjust_logits;
    tsr_top_k_fn *top_k;
} tsr_backend;

/* The backend of CPUs; what kernels/device.c calls once kind is known. Errors: UNSUPPORTED. */
tsr_status tsr_device_cpu_open(tsr_device *dev, const tsr_device_options *options);

/* The backend of GPUs (device_cuda.c; in a build without CUDA device_no_cuda.c, which has none).
 * Errors: UNSUPPORTED (no usable GPU), ARG (no such GPU), DEVICE. */
tsr_status tsr_device_cuda_open(tsr_device *dev, const tsr_device_options *options);
uint64_t tsr_device_cuda_free_bytes(int index); /* 0: there is no such GPU */
int tsr_device_cuda_count(void); /* 0 without a driver, with one that is too old, without a GPU */

tsr_copy_queue_fn tsr_copy_queue_cpu;
tsr_embed_fn tsr_embed_cpu;
tsr_narrow_fn tsr_narrow_cpu;
tsr_add_sums_fn tsr_add_sums_cpu;
tsr_rmsnorm_fn tsr_rmsnorm_cpu;
tsr_matmul_fn tsr_matmul_cpu;
tsr_activate_fn tsr_activate_cpu;
tsr_activate_codes_fn tsr_activate_codes_cpu;
tsr_join_fn tsr_join_cpu;
tsr_matmul_codes_fn tsr_matmul_codes_cpu;
tsr_add_scaled_fn tsr_add_scaled_cpu;
tsr_scale_fn tsr_scale_cpu;
tsr_clip_fn tsr_clip_cpu;
tsr_layernorm_fn tsr_layernorm_cpu;
tsr_square_sums_fn tsr_square_sums_cpu;
tsr_rmsnorm_shared_fn tsr_rmsnorm_shared_cpu;
tsr_route_fn tsr_route_cpu;
tsr_sort_experts_fn tsr_sort_experts_cpu;
tsr_matmul_experts_fn tsr_matmul_experts_cpu;
tsr_add_experts_fn tsr_add_experts_cpu;
tsr_sigmoid_fn tsr_sigmoid_cpu;
tsr_clear_fn tsr_clear_cpu;
tsr_scatter_sums_fn tsr_scatter_sums_cpu;
tsr_copy_heads_fn tsr_copy_heads_cpu;
tsr_rope_angles_fn tsr_rope_angles_cpu;
tsr_rope_fn tsr_rope_cpu;
tsr_kv_write_fn tsr_kv_write_cpu;
tsr_rope_write_fn tsr_rope_write_cpu;
tsr_attention_fn tsr_attention_cpu;
tsr_attention_part_fn tsr_attention_part_cpu;
tsr_gather_rows_fn tsr_gather_rows_cpu;
tsr_adjust_logits_fn tsr_adjust_logits_cpu;
tsr_top_k_fn tsr_top_k_cpu;

tsr_copy_queue_fn tsr_copy_queue_cuda;
tsr_embed_fn tsr_embed_cuda;
tsr_narrow_fn tsr_narrow_cuda;
tsr_add_sums_fn tsr_add_sums_cuda;
tsr_rmsnorm_fn tsr_rmsnorm_cuda;
tsr_matmul_fn tsr_matmul_cuda;
tsr_activate_fn tsr_activate_cuda;
tsr_activate_codes_fn tsr_activate_codes_cuda;
tsr_join_fn tsr_join_cuda;
tsr_matmul_codes_fn tsr_matmul_codes_cuda;
tsr_add_scaled_fn tsr_add_scaled_cuda;
tsr_scale_fn tsr_scale_cuda;
tsr_clip_fn tsr_clip_cuda;
tsr_layernorm_fn tsr_layernorm_cuda;
tsr_square_sums_fn tsr_square_sums_cuda;
tsr_rmsnorm_shared_fn tsr_rmsnorm_shared_cuda;
tsr_route_fn tsr_route_cuda;
tsr_sort_experts_fn tsr_sort_experts_cuda;
tsr_matmul_experts_fn tsr_matmul_experts_cuda;
tsr_add_experts_fn tsr_add_experts_cuda;
tsr_sigmoid_fn tsr_sigmoid_cuda;
tsr_clear_fn tsr_clear_cuda;
tsr_scatter_sums_fn tsr_scatter_sums_cuda;
tsr_copy_heads_fn tsr_copy_heads_cuda;
tsr_rope_angles_fn tsr_rope_angles_cuda;
tsr_rope_fn tsr_rope_cuda;
tsr_kv_write_fn tsr_kv_write_cuda;
tsr_rope_write_fn tsr_rope_write_cuda;
tsr_attention_fn tsr_attention_cuda;
tsr_attention_part_fn tsr_attention_part_cuda;
tsr_gather_rows_fn tsr_gather_rows_cuda;
tsr_adjust_logits_fn tsr_adjust_logits_cuda;
tsr_top_k_fn tsr_top_k_cuda;

tsr_scratch_fn tsr_embed_cpu_scratch;
tsr_scratch_fn tsr_matmul_cpu_scratch;
tsr_scratch_fn tsr_attention_cpu_scratch;
tsr_scratch_fn tsr_top_k_cpu_scratch;
tsr_scratch_fn tsr_device_cuda_scratch;
tsr_scratch_fn tsr_matmul_cuda_scratch;
tsr_scratch_fn tsr_attention_cuda_scratch;

/* Instruction sets of the CPU twins; the loops of each are compiled from the same sources
 * (kernels/simd.h). */
typedef enum tsr_isa {
    TSR_ISA_PLAIN_C,
    TSR_ISA_AVX2_FMA,
    TSR_ISA_AVX512_VNNI,
    TSR_ISA_COUNT
} tsr_isa;

/* The set that TSR_ISA (or "auto") asks for. Errors: UNSUPPORTED (the machine lacks it), ARG (no
 * such set). */
tsr_status tsr_device_cpu_choose(tsr_isa *out, const char *wanted);

/* Whether this machine, and this build, can run a set's loops. */
bool tsr_device_cpu_can(tsr_isa isa);

/* The copy of `name` compiled for a set: TSR_ISA_PICK(dev->isa, tsr_row_loops)->rmsnorm(...). */
#if defined(__x86_64__)
#define TSR_ISA_PICK(isa, name)                    \
    ((isa) == TSR_ISA_AVX512_VNNI ? &name##_avx512 \
     : (isa) == TSR_ISA_AVX2_FMA  ? &name##_avx2   \
                                  : &name##_plain)
#define TSR_ISA_DECLARE(type, name) \
    extern const type name##_plain; \
    extern const type name##_avx2;  \
    extern const type name##_avx512
#else
#define TSR_ISA_PICK(isa, name) ((void)(isa), &name##_plain)
#define TSR_ISA_DECLARE(type, name) extern const type name##_plain
#endif

struct tsr_device {
    tsr_device_kind kind;
    const tsr_backend *backend;
    tsr_cpu_pool *pool; /* owned, or another device's */
    bool shares_pool;
    tsr_isa isa;   /* of the CPU twins */
    void *scratch; /* owned; 64-byte aligned */
    size_t scratch_bytes;
    void *queue;      /* of a GPU: its cudaStream_t; owned */
    void *staging;    /* of a GPU: pinned memory that uploads go through (device_cuda.c); owned */
    void *blas;       /* of a GPU: what its large products need (blas_cuda.c); owned */
    int64_t identity; /* of a GPU: where it sits in its host */
    tsr_device_guard *guard; /* or NULL */
    void *guard_ctx;
    bool deterministic; /* a GPU whose twins give the CPU's bits */
    char description[64];
};

#ifdef __cplusplus
}
#endif

#endif
