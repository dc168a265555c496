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

static float squares(const float *x, int64_t n)
{
    const int64_t whole = n / TSR_LANES * TSR_LANES;
    const int rest = (int)(n - whole);
    v16 sums = v16_set1(0.0F);

    for (int64_t c = 0; c < whole; c += TSR_LANES) {
        const v16 v = v16_load(x + c);

        sums = v16_fma(v, v, sums);
    }
    if (rest > 0) {
        const v16 v = v16_load_some(x + whole, rest);

        sums = v16_fma(v, v, sums);
    }
    return v16_sum(sums);
}

static void rmsnorm(float *out, const float *x, const float *weight, int64_t n, float eps)
{
    const int64_t whole = n / TSR_LANES * TSR_LANES;
    const int rest = (int)(n - whole);
    const v16 scale = v16_set1(1.0F / sqrtf(squares(x, n) / (float)n + eps));

    for (int64_t c = 0; c < whole; c += TSR_LANES) {
        v16_store(out + c, v16_mul(v16_mul(v16_load(x + c), scale), v16_load(weight + c)));
    }
    if (rest > 0) {
        const v16 v = v16_mul(v16_load_some(x + whole, rest), scale);

        v16_store_some(out + whole, v16_mul(v, v16_load_some(weight + whole, rest)), rest);
    }
}

/* 16 elements of x, or as many as are left. */
TSR_INLINE v16 load_up_to(const float *x, int64_t c, int64_t n)
{
    return c + TSR_LANES <= n ? v16_load(x + c) : v16_load_some(x + c, (int)(n - c));
}

TSR_INLINE void store_up_to(float *x, int64_t c, int64_t n, v16 v)
{
    if (c + TSR_LANES <= n) {
        v16_store(x + c, v);
    } else {
        v16_store_some(x + c, v, (int)(n - c));
    }
}

static void layernorm(float *out, const float *x, const float *weight, const float *bias, int64_t n,
                      float eps)
{
    v16 sums = v16_set1(0.0F);
    v16 mean;
    v16 scale;
    int64_t c = 0;

    for (; c < n; c += TSR_LANES) {
        sums = v16_add(sums, load_up_to(x, c, n));
    }
    mean = v16_set1(v16_sum(sums) / (float)n);
    sums = v16_set1(0.0F);
    for (c = 0; c + TSR_LANES <= n; c += TSR_LANES) {
        const v16 v = v16_sub(v16_load(x + c), mean);

        sums = v16_fma(v, v, sums);
    }
    if (c < n) { // lanes past the end must not count: they hold zeros, not the mean
        float rest[TSR_LANES] = {0};
        v16 v;

        v16_store_some(rest, v16_sub(load_up_to(x, c, n), mean), (int)(n - c));
        v = v16_load(rest);
        sums = v16_fma(v, v, sums);
    }
    scale = v16_set1(1.0F / sqrtf(v16_sum(sums) / (float)n + eps));
    for (c = 0; c < n; c += TSR_LANES) {
        const v16 v = v16_mul(v16_sub(load_up_to(x, c, n), mean), scale);
        const v16 w = load_up_to(weight, c, n);

        store_up_to(out, c, n,
                    bias == NULL ? v16_mul(v, w) : v16_fma(v, w, load_up_to(bias, c, n)));
    }
}

/* x / (1 + e^-z) */
TSR_INLINE v16 times_sigmoid(v16 x, v16 z)
{
    // e^88 is within f32, and x / (1 + e^88) is as good as 0.
    const v16 bounded = v16_max(z, v16_set1(-88.0F));
    const v16 e = v16_exp(v16_sub(v16_set1(0.0F), bounded));

    return v16_div(x, v16_add(v16_set1(1.0F), e));
}

/*
 * x Phi(x) = x / 2 erfc(-x / sqrt 2). erfc(z) = t (a1 + t (a2 + ...)) e^(-z^2), t = 1 / (1 + p z)
 * for z >= 0, within 1.5e-7 (Abramowitz & Stegun, 7.1.26; Hastings 1955).
 */
TSR_INLINE v16 gelu(v16 x)
{
    static const float a[] = {1.061405429F, -1.453152027F, 1.421413741F, -0.284496736F,
                              0.254829592F};
    const v16 size = v16_abs(x);
    const v16 z = v16_mul(size, v16_set1(0.70710678F));
    const v16 t = v16_div(v16_set1(1.0F), v16_fma(z, v16_set1(0.3275911F), v16_set1(1.0F)));
    v16 p = v16_set1(a[0]);
    v16 tail;

    for (int i = 1; i < 5; i++) {
        p = v16_fma(p, t, v16_set1(a[i]));
    }
    // |x| / 2 times the small tail; x Phi(x) is that below zero, with its sign, and x less it
    // above.
    tail = v16_exp(v16_mul(v16_mul(x, x), v16_set1(-0.5F)));
    tail = v16_mul(v16_mul(v16_mul(p, t), tail), v16_mul(size, v16_set1(0.5F)));
    return v16_sub(v16_max(x, v16_set1(0.0F)), tail);
}

/* 2 sqrt(2 / pi) = 1.5957691 */
TSR_INLINE v16 gelu_tanh(v16 x)
{
    const v16 cube = v16_mul(v16_mul(x, x), x);
    const v16 inner = v16_fma(cube, v16_set1(0.044715F), x);

    return times_sigmoid(x, v16_mul(inner, v16_set1(1.5957691F)));
}

TSR_INLINE v16 least(v16 x, float bound)
{
    const v16 zero = v16_set1(0.0F);

    return v16_sub(zero, v16_max(v16_sub(zero, x), v16_set1(-bound)));
}

TSR_INLINE v16 activated(v16 gate, tsr_activation activation)
{
    switch (activation) {
    case TSR_ACTIVATION_SILU:
        return times_sigmoid(gate, gate);
    case TSR_ACTIVATION_GELU:
        return gelu(gate);
    case TSR_ACTIVATION_GELU_TANH:
        return gelu_tanh(gate);
    case TSR_ACTIVATION_RELU:
        return v16_max(gate, v16_set1(0.0F));
    default:
        gate = least(gate, 7.0F);
        return times_sigmoid(gate, v16_mul(gate, v16_set1(1.702F)));
    }
}

TSR_INLINE void activate_all(float *out, const float *gate, const float *up, int64_t n,
                             float weight, tsr_activation activation)
{
    for (int64_t c = 0; c < n; c += TSR_LANES) {
        v16 v = activated(load_up_to(gate, c, n), activation);

        if (up != NULL) {
            v16 u = load_up_to(up, c, n);

            if (activation == TSR_ACTIVATION_SWIGLU_CLAMPED) {
                u = v16_add(v16_max(least(u, 7.0F), v16_set1(-7.0F)), v16_set1(1.0F));
            }
            v = v16_mul(v, u);
        }
        store_up_to(out, c, n, weight == 1.0F ? v : v16_mul(v, v16_set1(weight)));
    }
}

/* Each activation by itself, so that the compiler sees it. */
static void activate(float *out, const float *gate, const float *up, int64_t n, float weight,
                     tsr_activation activation)
{
    switch (activation) {
    case TSR_ACTIVATION_SILU:
        activate_all(out, gate, up, n, weight, TSR_ACTIVATION_SILU);
        break;
    case TSR_ACTIVATION_GELU:
        activate_all(out, gate, up, n, weight, TSR_ACTIVATION_GELU);
        break;
    case TSR_ACTIVATION_GELU_TANH:
        activate_all(out, gate, up, n, weight, TSR_ACTIVATION_GELU_TANH);
        break;
    case TSR_ACTIVATION_RELU:
        activate_all(out, gate, up, n, weight, TSR_ACTIVATION_RELU);
        break;
    default:
        activate_all(out, gate, up, n, weight, TSR_ACTIVATION_SWIGLU_CLAMPED);
        break;
    }
}

static void scale(float *x, int64_t n, float factor, float cap)
{
    for (int64_t c = 0; c < n; c += TSR_LANES) {
        v16 v = v16_mul(load_up_to(x, c, n), v16_set1(factor));

        if (cap > 0) { // cap tanh(v / cap) = 2 cap / (1 + e^(-2 v / cap)) - cap
            v = v16_sub(times_sigmoid(v16_set1(2 * cap), v16_mul(v, v16_set1(2 / cap))),
                        v16_set1(cap));
        }
        store_up_to(x, c, n, v);
    }
}

static void add_scaled(float *restrict x, const float *restrict y, int64_t n, float factor)
{
    for (int64_t c = 0; c < n; c += TSR_LANES) {
        store_up_to(x, c, n,
                    v16_add(load_up_to(x, c, n), v16_mul(load_up_to(y, c, n), v16_set1(factor))));
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
    .layernorm = layernorm,
    .squares = squares,
    .activate = activate,
    .scale = scale,
    .add_scaled = add_scaled,
    .rope = rope,
    .round = round_to,
};
