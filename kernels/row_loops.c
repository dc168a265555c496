#include "kernels/row_loops.h"

#include "kernels/simd.h"

// Loops whose elements are independent are left to the compiler: no order of sums is at stake.

static void widen(double *restrict out, const float *restrict x, int64_t n)
{
    for (int64_t c = 0; c < n; c++) {
        out[c] = (double)x[c];
    }
}

/* The sum of parts is exact (kernels/ops.h). It starts at zero, so that it is never a negative
 * zero, which would tell the number of ranks. */
TSR_INLINE double total(const double *const *parts, int n_parts, int64_t c)
{
    double sum = 0.0;

    for (int p = 0; p < n_parts; p++) {
        sum += parts[p][c];
    }
    return sum;
}

TSR_INLINE void narrow_parts(float *restrict out, const double *const *parts, int n_parts,
                             int64_t n)
{
    for (int64_t c = 0; c < n; c++) {
        out[c] = (float)total(parts, n_parts, c);
    }
}

TSR_INLINE void add_parts(float *restrict x, const double *const *parts, int n_parts,
                          const float *restrict bias, int64_t n)
{
    if (bias == NULL) {
        for (int64_t c = 0; c < n; c++) {
            x[c] = x[c] + (float)total(parts, n_parts, c);
        }
        return;
    }
    for (int64_t c = 0; c < n; c++) {
        x[c] = x[c] + ((float)total(parts, n_parts, c) + bias[c]);
    }
}

/* Each number of parts by itself, so that the compiler sees it. */
static void narrow(float *out, const double *const *parts, int n_parts, int64_t n)
{
    const double *const fixed[TSR_MAX_PARTS] = {parts[0], parts[n_parts > 1 ? 1 : 0],
                                                parts[n_parts > 2 ? 2 : 0], parts[n_parts - 1]};

    switch (n_parts) {
    case 1:
        narrow_parts(out, fixed, 1, n);
        break;
    case 2:
        narrow_parts(out, fixed, 2, n);
        break;
    case 3:
        narrow_parts(out, fixed, 3, n);
        break;
    default:
        narrow_parts(out, fixed, 4, n);
        break;
    }
}

static void add_sums(float *x, const double *const *parts, int n_parts, const float *bias,
                     int64_t n)
{
    const double *const fixed[TSR_MAX_PARTS] = {parts[0], parts[n_parts > 1 ? 1 : 0],
                                                parts[n_parts > 2 ? 2 : 0], parts[n_parts - 1]};

    switch (n_parts) {
    case 1:
        add_parts(x, fixed, 1, bias, n);
        break;
    case 2:
        add_parts(x, fixed, 2, bias, n);
        break;
    case 3:
        add_parts(x, fixed, 3, bias, n);
        break;
    default:
        add_parts(x, fixed, 4, bias, n);
        break;
    }
}

static void rmsnorm(float *out, const float *x, const float *weight, int64_t n, float eps)
{
    const int64_t whole = n / TSR_LANES * TSR_LANES;
    const int rest = (int)(n - whole);
    v16 sums = v16_set1(0.0F);
    v16 scale;

    for (int64_t c = 0; c < whole; c += TSR_LANES) {
        const v16 v = v16_load(x + c);

        sums = v16_fma(v, v, sums);
    }
    if (rest > 0) {
        const v16 v = v16_load_some(x + whole, rest);

        sums = v16_fma(v, v, sums);
    }
    scale = v16_set1(1.0F / sqrtf(v16_sum(sums) / (float)n + eps));
    for (int64_t c = 0; c < whole; c += TSR_LANES) {
        v16_store(out + c, v16_mul(v16_mul(v16_load(x + c), scale), v16_load(weight + c)));
    }
    if (rest > 0) {
        const v16 v = v16_mul(v16_load_some(x + whole, rest), scale);

        v16_store_some(out + whole, v16_mul(v, v16_load_some(weight + whole, rest)), rest);
    }
}

TSR_INLINE v16 swiglu_of(v16 gate, v16 up)
{
    // e^88 is within f32, and gate / (1 + e^88) is as good as 0.
    const v16 bounded = v16_max(gate, v16_set1(-88.0F));
    const v16 e = v16_exp(v16_sub(v16_set1(0.0F), bounded));

    return v16_mul(v16_div(gate, v16_add(v16_set1(1.0F), e)), up);
}

static void swiglu(float *out, const float *gate, const float *up, int64_t n)
{
    int64_t c = 0;

    for (; c + TSR_LANES <= n; c += TSR_LANES) {
        v16_store(out + c, swiglu_of(v16_load(gate + c), v16_load(up + c)));
    }
    if (c < n) {
        const int rest = (int)(n - c);

        v16_store_some(out + c,
                       swiglu_of(v16_load_some(gate + c, rest), v16_load_some(up + c, rest)), rest);
    }
}

static void rope(float *restrict x, const float *restrict angles, int n_rot, tsr_rope_pairs pairs)
{
    const int half = n_rot / 2;

    if (pairs == TSR_ROPE_HALVES) {
        for (int i = 0; i < half; i++) {
            const float a = x[i];
            const float b = x[half + i];

            x[i] = a * angles[i] - b * angles[half + i];
            x[half + i] = a * angles[half + i] + b * angles[i];
        }
        return;
    }
    for (int i = 0; i < half; i++) {
        const float a = x[2 * i];
        const float b = x[2 * i + 1];

        x[2 * i] = a * angles[i] - b * angles[half + i];
        x[2 * i + 1] = a * angles[half + i] + b * angles[i];
    }
}

static void round_f16(uint16_t *out, const float *x, int64_t n)
{
    int64_t c = 0;

    for (; c + TSR_LANES <= n; c += TSR_LANES) {
        v16_store_f16(out + c, v16_load(x + c));
    }
    for (; c < n; c++) {
        out[c] = tsr_dtype_to_f16(x[c]);
    }
}

static void round_to(void *out, const float *x, int64_t n, tsr_kv_type type)
{
    uint16_t *halves = out;

    switch (type) {
    case TSR_KV_TYPE_F16:
        round_f16(halves, x, n);
        break;
    case TSR_KV_TYPE_BF16:
        for (int64_t c = 0; c < n; c++) {
            halves[c] = tsr_dtype_to_bf16(x[c]);
        }
        break;
    default:
        memcpy(out, x, (size_t)n * sizeof(*x));
    }
}

const tsr_row_loops TSR_ISA_NAME(tsr_row_loops) = {
    .widen = widen,
    .narrow = narrow,
    .add_sums = add_sums,
    .rmsnorm = rmsnorm,
    .swiglu = swiglu,
    .rope = rope,
    .round = round_to,
};
