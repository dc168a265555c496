#define _POSIX_C_SOURCE 200809L

#include "kernels/backend.h"

#include <stdio.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "base/alloc.h"
#include "base/env.h"

static const struct {
    const char *asked; /* in TSR_ISA */
    const char *name;
} sets[TSR_ISA_COUNT] = {
    [TSR_ISA_PLAIN_C] = {"plain", "plain C"},
    [TSR_ISA_AVX2_FMA] = {"avx2", "AVX2"},
    [TSR_ISA_AVX512_VNNI] = {"avx512", "AVX-512 VNNI"},
};

static tsr_status sync(tsr_device *dev)
{
    (void)dev; // ops have ended when they return
    return TSR_OK;
}

static void *alloc(tsr_device *dev, size_t n_bytes)
{
    (void)dev;
    return tsr_alloc_pages(n_bytes);
}

static void give_back(tsr_device *dev, void *memory, size_t n_bytes)
{
    (void)dev;
    tsr_free_pages(memory, n_bytes);
}

static tsr_status copy(tsr_device *dev, void *to, const void *from, size_t n_bytes)
{
    (void)dev;
    memcpy(to, from, n_bytes);
    return TSR_OK;
}

static void close_nothing(tsr_device *dev)
{
    (void)dev;
}

/* Ops run when they are called: there is nothing to keep. */
static tsr_status record_begin(tsr_device *dev)
{
    (void)dev;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "device: the CPU records no ops");
}

static tsr_status record_end(tsr_device *dev, tsr_recording **out)
{
    (void)out;
    return record_begin(dev);
}

static tsr_status replay(tsr_device *dev, tsr_recording *recording)
{
    (void)recording;
    return record_begin(dev);
}

static void forget(tsr_device *dev, tsr_recording *recording)
{
    (void)dev, (void)recording;
}

static const tsr_backend backend = {
    .close = close_nothing,
    .sync = sync,
    .alloc = alloc,
    .give_back = give_back,
    .alloc_host = alloc,
    .give_back_host = give_back,
    .copy = copy,
    .upload = copy,
    .download = copy,
    .record_begin = record_begin,
    .record_end = record_end,
    .replay = replay,
    .forget = forget,
    .embed = tsr_embed_cpu,
    .narrow = tsr_narrow_cpu,
    .add_sums = tsr_add_sums_cpu,
    .rmsnorm = tsr_rmsnorm_cpu,
    .matmul = tsr_matmul_cpu,
    .activate = tsr_activate_cpu,
    .activate_codes = tsr_activate_codes_cpu,
    .join = tsr_join_cpu,
    .matmul_codes = tsr_matmul_codes_cpu,
    .add_scaled = tsr_add_scaled_cpu,
    .scale = tsr_scale_cpu,
    .clip = tsr_clip_cpu,
    .layernorm = tsr_layernorm_cpu,
    .square_sums = tsr_square_sums_cpu,
    .rmsnorm_shared = tsr_rmsnorm_shared_cpu,
    .route = tsr_route_cpu,
    .sort_experts = tsr_sort_experts_cpu,
    .matmul_experts = tsr_matmul_experts_cpu,
    .add_experts = tsr_add_experts_cpu,
    .sigmoid = tsr_sigmoid_cpu,
    .clear = tsr_clear_cpu,
    .scatter_sums = tsr_scatter_sums_cpu,
    .copy_heads = tsr_copy_heads_cpu,
    .rope_angles = tsr_rope_angles_cpu,
    .rope = tsr_rope_cpu,
    .kv_write = tsr_kv_write_cpu,
    .rope_write = tsr_rope_write_cpu,
    .attention = tsr_attention_cpu,
    .attention_part = tsr_attention_part_cpu,
    .attention_merge = tsr_attention_merge_cpu,
    .gather_rows = tsr_gather_rows_cpu,
    .adjust_logits = tsr_adjust_logits_cpu,
    .top_k = tsr_top_k_cpu,
};

bool tsr_device_cpu_can(tsr_isa isa)
{
#if defined(__x86_64__)
    unsigned a;
    unsigned b;
    unsigned c;
    unsigned d;
    // The compilers' test knows all but F16C by name, and asks the system about the registers too.
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                      __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;

    switch (isa) {
    case TSR_ISA_AVX512_VNNI:
        return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512vnni");
    case TSR_ISA_AVX2_FMA:
        return avx2;
    default:
        return isa == TSR_ISA_PLAIN_C;
    }
#else
    return isa == TSR_ISA_PLAIN_C;
#endif
}

tsr_status tsr_device_cpu_choose(tsr_isa *out, const char *wanted)
{
    if (strcmp(wanted, "auto") == 0) {
        tsr_isa best = TSR_ISA_AVX512_VNNI;

        while (!tsr_device_cpu_can(best)) {
            best = (tsr_isa)(best - 1);
        }
        *out = best;
        return TSR_OK;
    }
    for (int isa = 0; isa < TSR_ISA_COUNT; isa++) {
        if (strcmp(wanted, sets[isa].asked) == 0) {
            if (!tsr_device_cpu_can((tsr_isa)isa)) {
                return tsr_fail(TSR_ERR_UNSUPPORTED, "TSR_ISA=%s: this machine has no %s", wanted,
                                sets[isa].name);
            }
            *out = (tsr_isa)isa;
            return TSR_OK;
        }
    }
    return tsr_fail(TSR_ERR_ARG, "TSR_ISA=%s: auto, plain, avx2 or avx512 is expected", wanted);
}

tsr_status tsr_device_cpu_open(tsr_device *dev, const tsr_device_options *options)
{
    TSR_TRY(tsr_device_cpu_choose(&dev->isa, tsr_env_text(TSR_ENV_ISA)));
    dev->backend = &backend;
    (void)snprintf(dev->description, sizeof(dev->description), "CPU, %s, %d thread%s",
                   sets[dev->isa].name, options->n_threads, options->n_threads == 1 ? "" : "s");
    return TSR_OK;
}
