/*
 * Keys and values in 8, 4 and 2 bits: how far attention over them is from exact, that nothing but a
 * sequence's own tokens decides what is kept, and what a block takes.
 */
#include "tests/support/attended.h"

#include <math.h>

#include "kernels/attention_loops.h"
#include "kernels/kv_code.h"

static const tsr_kv_type coded[] = {TSR_KV_TYPE_FP8, TSR_KV_TYPE_INT8, TSR_KV_TYPE_INT4,
                                    TSR_KV_TYPE_INT2};
enum {
    N_CODED = sizeof(coded) / sizeof(coded[0])
};

static const setting shapes[] = {
    {9, 3, 0, 64, 16, TSR_KV_TYPE_F32, {5, {0, 255, 256, 700, 1023}, {1, 1, 1, 1, 77}}, {0}},
    {5, 3, 2, 40, 32, TSR_KV_TYPE_F32, {4, {0, 250, 511, 3}, {270, 9, 4, 2}}, {0}},
    {3, 1, 0, 20, 64, TSR_KV_TYPE_F32, {3, {17, 0, 1000}, {1, 33, 3}}, {.sinks = true}},
    {2, 2, 0, 7, 16, TSR_KV_TYPE_F32, {2, {300, 60}, {1, 50}}, {.value_dim = 13, .window = 70}},
    {16, 16, 0, 96, 16, TSR_KV_TYPE_F32, {2, {260, 100}, {3, 7}}, {.value_dim = 128, .stride = 3}},
    {6, 6, 0, 80, 32, TSR_KV_TYPE_F32, {2, {290, 0}, {1, 30}}, {.value_dim = 64, .latent = true}},
    {4,
     2,
     0,
     23,
     32,
     TSR_KV_TYPE_F32,
     {3, {600, 0, 31}, {1, 90, 300}},
     {.stride = 20, .local = 45}},
    {8,
     8,
     0,
     36,
     16,
     TSR_KV_TYPE_F32,
     {2, {700, 0}, {1, 60}},
     {.value_dim = 20, .latent = true, .stride = 5}},
};
enum {
    N_SHAPES = sizeof(shapes) / sizeof(shapes[0])
};

static void prepare(cache *c, tsr_device **dev, setting *s, int which, tsr_kv_type type)
{
    *s = shapes[which];
    s->type = type;
    *dev = open_for(s, 1 + which % 3);
    make_cache(c, s);
    write_past(*dev, c, &s->work);
    write_step(*dev, c, &s->work);
}

static tsr_tensor attended(int which, tsr_kv_type type)
{
    tsr_device *dev;
    setting s;
    cache c;
    tsr_tensor out;

    prepare(&c, &dev, &s, which, type);
    out = attend_step(dev, &c, &s.work);
    clear_cache(&c);
    tsr_device_close(dev);
    return out;
}

/* sum of squares of (a - b) over that of b. */
static double relative_error(tsr_tensor a, tsr_tensor b)
{
    double off = 0;
    double all = 0;

    for (int64_t r = 0; r < a.n_rows; r++) {
        for (int64_t i = 0; i < a.n_cols; i++) {
            const double x = (double)f32_row(b, r)[i];
            const double d = (double)f32_row(a, r)[i] - x;

            off += d * d;
            all += x * x;
        }
    }
    return off / all;
}

/* Random keys and values have nothing in common and every bit counts: these are the errors of the
 * codes themselves. (With b bits the best of a normal distribution is 4^-b: 0.004 and 0.06.) */
static void errors_are_those_of_the_codes(void **state)
{
    static const double most[N_CODED] = {3e-3, 2e-4, 0.04, 0.35};

    (void)state;
    for (int which = 0; which < N_SHAPES; which++) {
        const tsr_tensor exact = attended(which, TSR_KV_TYPE_F32);

        for (int i = 0; i < N_CODED; i++) {
            const tsr_tensor out = attended(which, coded[i]);
            const double error = relative_error(out, exact);

            print_message("  shape %d, %s: %.5f\n", which, tsr_kv_type_name(coded[i]), error);
            assert_true(error < most[i]);
            assert_true(error > most[i] / 100); // and it is not something else
            free_window(out);
        }
        free_window(exact);
    }
}

static void instruction_sets_threads_and_places_change_no_bit(void **state)
{
    (void)state;
    for (int i = 0; i < N_CODED; i++) {
        for (int which = 0; which < N_SHAPES; which++) {
            tsr_device *dev;
            tsr_device *other;
            setting s;
            cache c;
            tsr_tensor expected;
            tsr_tensor out;

            prepare(&c, &dev, &s, which, coded[i]);
            dev->isa = TSR_ISA_PLAIN_C;
            expected = attend_step(dev, &c, &s.work);
            other = open_for(&s, 3);
            spill(&c);
            out = attend_step(other, &c, &s.work);
            assert_same_rows(out, expected);
            free_window(out);
            free_window(expected);
            clear_cache(&c);
            tsr_device_close(dev);
            tsr_device_close(other);
        }
    }
}

/* Rows [0, n_rows) of one sequence, written and attended in chunks. */
static tsr_tensor in_chunks(tsr_device *dev, const setting *s, int n_rows, int chunk)
{
    const int64_t n_cols = (int64_t)s->n_heads * s->head_dim;
    const tsr_tensor all = make_window(TSR_DTYPE_F32, n_rows, n_cols);
    cache c;

    make_cache(&c, s);
    for (int first = 0; first < n_rows; first += chunk) {
        const step work = {1, {first}, {first + chunk < n_rows ? chunk : n_rows - first}};
        tsr_tensor out;

        write_step(dev, &c, &work);
        out = attend_step(dev, &c, &work);
        for (int64_t r = 0; r < out.n_rows; r++) {
            memcpy(f32_row(all, first + r), f32_row(out, r), (size_t)n_cols * sizeof(float));
        }
        free_window(out);
    }
    clear_cache(&c);
    return all;
}

static void a_row_is_the_same_in_chunks_and_blocks_of_any_size(void **state)
{
    static const int chunks[] = {1, 7, 16, 100};
    static const int blocks[] = {16, 32, 64};

    (void)state;
    for (int i = 0; i < N_CODED; i++) {
        setting s = {5, 3, 2, 24, 64, coded[i], {0, {0}, {0}}, {0}};
        tsr_device *dev = open_for(&s, 2);
        const tsr_tensor expected = in_chunks(dev, &s, 300, 300);

        for (size_t n = 0; n < sizeof(chunks) / sizeof(chunks[0]); n++) {
            for (size_t b = 0; b < 3; b++) {
                tsr_tensor out;

                s.block_tokens = blocks[b];
                out = in_chunks(dev, &s, 300, chunks[n]);
                assert_same_rows(out, expected);
                free_window(out);
            }
        }
        free_window(expected);
        tsr_device_close(dev);
    }
}

/* Adds one vector, four times as long as what differs, that turns with the position as make_cache()
 * says: dimensions 8 .. 39 in pairs that follow one another. */
static void add_common(float *key, int position)
{
    double common[64];

    for (int d = 0; d < 64; d++) {
        uint64_t seed = (uint64_t)(d + 99) * 7919;

        common[d] = 8 * (double)next_random(&seed);
    }
    for (int i = 0; i < 16; i++) {
        const double angle = position * pow(1000, -i / 16.0);
        const double a = common[8 + 2 * i];
        const double b = common[9 + 2 * i];

        common[8 + 2 * i] = a * cos(angle) - b * sin(angle);
        common[9 + 2 * i] = a * sin(angle) + b * cos(angle);
    }
    for (int d = 0; d < 64; d++) {
        key[d] += (float)common[d];
    }
}

static void what_keys_have_in_common_costs_nothing(void **state)
{
    (void)state;
    for (int i = 2; i < N_CODED; i++) {
        double errors[2];

        for (int far = 0; far < 2; far++) {
            const setting s = {3, 3, 0, 64, 16, coded[i], {1, {800}, {1}}, {0}};
            const setting exact = {3, 3, 0, 64, 16, TSR_KV_TYPE_F32, {1, {800}, {1}}, {0}};
            const setting *both[] = {&s, &exact};
            tsr_tensor outs[2];

            for (int n = 0; n < 2; n++) {
                tsr_device *dev = open_for(both[n], 1);
                cache c;

                make_cache(&c, both[n]);
                for (int64_t row = 0; far == 1 && row < MAX_SEQS * CONTEXT; row++) {
                    for (int64_t h = 0; h < c.layout.n_kv_heads; h++) {
                        add_common(c.k + row * kv_cols(&c) + h * 64, (int)(row % CONTEXT));
                    }
                }
                write_past(dev, &c, &both[n]->work);
                write_step(dev, &c, &both[n]->work);
                outs[n] = attend_step(dev, &c, &both[n]->work);
                clear_cache(&c);
                tsr_device_close(dev);
            }
            errors[far] = relative_error(outs[0], outs[1]);
            free_window(outs[0]);
            free_window(outs[1]);
        }
        print_message("  %s: %.5f, and %.5f far from zero\n", tsr_kv_type_name(coded[i]), errors[0],
                      errors[1]);
        assert_true(errors[1] < 3 * errors[0]);
    }
}

/* ---- single vectors -------------------------------------------------------------------------- */

static void bytes_are_the_nearest_numbers(void **state)
{
    tsr_kv_code code;
    float x[256];

    (void)state;
    // All positive numbers of e4m3, times a scale of 1: the largest, 448, makes it so.
    for (int i = 0; i < 127; i++) {
        const int e = i / 8;

        x[i] = e == 0 ? (float)(i % 8) * 0x1p-9F : (8.0F + (float)(i % 8)) * exp2f((float)(e - 10));
    }
    tsr_kv_code_round(&code, x, NULL, 127, TSR_KV_TYPE_FP8);
    assert_true(tsr_dtype_from_bf16(code.scale) == 1);
    for (int i = 0; i < 127; i++) {
        assert_int_equal(code.codes[i], i);
    }
    for (int i = 0; i < 126; i++) { // between two: to the nearer one; a tie to the even code
        const float middle = 0.5F * (x[i] + x[i + 1]);
        float y[4] = {nextafterf(middle, 0), middle, -nextafterf(middle, 1000), 448};

        tsr_kv_code_round(&code, y, NULL, 4, TSR_KV_TYPE_FP8);
        assert_int_equal(code.codes[0], i);
        assert_int_equal(code.codes[1], i % 2 == 0 ? i : i + 1);
        assert_int_equal(code.codes[2], 0x80 + i + 1);
    }
    for (int i = 0; i < 255; i++) {
        x[i] = (float)(i - 127);
    }
    tsr_kv_code_round(&code, x, NULL, 255, TSR_KV_TYPE_INT8);
    assert_true(tsr_dtype_from_bf16(code.scale) == 1);
    for (int i = 0; i < 255; i++) {
        assert_int_equal((int8_t)code.codes[i], i - 127);
    }
}

static void what_is_not_finite_becomes_nan_and_nothing_stays_nothing(void **state)
{
    static const float odd[] = {INFINITY, -INFINITY, NAN};

    (void)state;
    for (int i = 0; i < N_CODED; i++) {
        tsr_kv_code code;
        float x[8] = {0};

        tsr_kv_code_round(&code, x, NULL, 8, coded[i]);
        assert_true(tsr_dtype_from_bf16(code.scale) == 0);
        x[7] = 1e-42F; // below what has a reciprocal
        tsr_kv_code_round(&code, x, NULL, 8, coded[i]);
        assert_true(fabsf(tsr_dtype_from_bf16(code.scale)) < 1e-30F);
        for (int n = 0; n < 3; n++) {
            x[3] = odd[n];
            tsr_kv_code_round(&code, x, NULL, 8, coded[i]);
            assert_true(isnan(tsr_dtype_from_bf16(code.scale)));
        }
    }
}

static void turning_twice_changes_nothing_and_keeps_lengths(void **state)
{
    tsr_device *dev = open_for(&shapes[0], 1);
    const tsr_attention_loops *loops = TSR_ISA_PICK(dev->isa, tsr_attention_loops);
    uint64_t seed = 5;

    (void)state;
    for (int dim = 1; dim <= TSR_KV_LAYOUT_MOST_DIM; dim += dim < 40 ? 1 : 67) {
        const tsr_kv_layout layout = {.key_dim = dim, .value_dim = dim};
        const int unit = tsr_kv_code_key_unit(&layout);
        float x[TSR_KV_LAYOUT_MOST_DIM];
        float y[TSR_KV_LAYOUT_MOST_DIM];
        float z[TSR_KV_LAYOUT_MOST_DIM] = {0};
        double before = 0;
        double after = 0;

        assert_true(dim % unit == 0 && (dim / unit) % 2 == 1);
        for (int d = 0; d < dim; d++) {
            x[d] = y[d] = next_random(&seed);
            before += (double)x[d] * (double)x[d];
        }
        memcpy(z, y, sizeof(z));
        tsr_kv_code_turn(y, dim, unit);
        loops->turn(z, dim, unit);
        assert_memory_equal(z, y, (size_t)dim * sizeof(*y));
        for (int d = 0; d < dim; d++) {
            after += (double)y[d] * (double)y[d];
        }
        assert_true(fabs(before - after) < 1e-5 * before);
        tsr_kv_code_turn(y, dim, unit);
        for (int d = 0; d < dim; d++) {
            assert_true(fabsf(x[d] - y[d]) < 1e-5F);
        }
    }
    tsr_device_close(dev);
}

/* Turned by the rope to a position, and from there on as keys drift: the same as turned by the rope
 * to the later one. */
static void keys_drift_as_the_rope_turns_them(void **state)
{
    static const struct {
        int dim, first, n_rot;
    } heads[] = {{64, 0, 64}, {40, 8, 20}, {7, 2, 4}, {576, 512, 64}, {5, 0, 0}};
    enum {
        N_STEPS = 17
    };
    tsr_device *dev = open_for(&shapes[0], 1);
    uint64_t seed = 11;

    (void)state;
    for (size_t n = 0; n < 2 * sizeof(heads) / sizeof(heads[0]); n++) {
        const int dim = heads[n / 2].dim;
        const int n_rot = heads[n / 2].n_rot;
        const int first = heads[n / 2].first;
        const tsr_rope_pairs pairs = n % 2 == 0 ? TSR_ROPE_INTERLEAVED : TSR_ROPE_HALVES;
        const tsr_tensor x = make_window(TSR_DTYPE_F32, N_STEPS, dim);
        const tsr_tensor positions = make_window(TSR_DTYPE_I32, 1, N_STEPS);
        const tsr_tensor frequencies = make_window(TSR_DTYPE_F64, 1, n_rot / 2 + 1);
        const tsr_tensor angles = make_window(TSR_DTYPE_F32, N_STEPS, n_rot);
        tsr_tensor used = frequencies;
        tsr_kv_drift drift;

        used.n_cols = n_rot / 2;
        for (int i = 0; i < n_rot / 2; i++) {
            ((double *)frequencies.data)[i] = pow(500, -2.0 * i / n_rot);
        }
        for (int d = 0; d < dim; d++) {
            f32_row(x, 0)[d] = next_random(&seed);
        }
        for (int i = 0; i < N_STEPS; i++) {
            i32_row(positions, 0)[i] = 23 + i;
            memcpy(f32_row(x, i), f32_row(x, 0), (size_t)dim * sizeof(float));
        }
        if (n_rot > 0) {
            assert_int_equal(tsr_rope_angles(dev, angles, positions, used, 1), TSR_OK);
            assert_int_equal(tsr_rope(dev, x, angles, dim, first, pairs), TSR_OK);
        }
        tsr_kv_drift_init(&drift, dim, frequencies.data, n_rot, first, pairs);
        for (int from = 0; from < N_STEPS; from += 16) { // on, and back
            for (int to = 0; to < N_STEPS; to++) {
                float split[TSR_KV_LAYOUT_MOST_DIM];
                float y[TSR_KV_LAYOUT_MOST_DIM];

                tsr_kv_drift_split(&drift, split, f32_row(x, from));
                tsr_kv_drift_turn(&drift, split, to - from);
                tsr_kv_drift_join(&drift, y, split);
                for (int d = 0; d < dim; d++) {
                    assert_true(fabsf(y[d] - f32_row(x, to)[d]) < 1e-5F);
                }
            }
        }
        free_window(x);
        free_window(positions);
        free_window(frequencies);
        free_window(angles);
    }
    tsr_device_close(dev);
}

static void a_block_takes_what_the_formula_says(void **state)
{
    // Of a head of 64 and 16 tokens: codes, scales of 2 bytes, a mean of 66 bytes.
    static const struct {
        tsr_kv_type type;
        size_t key_bytes, value_bytes;
    } expected[] = {{TSR_KV_TYPE_F32, 4096, 4096},
                    {TSR_KV_TYPE_F16, 2048, 2048},
                    {TSR_KV_TYPE_BF16, 2048, 2048},
                    {TSR_KV_TYPE_FP8, 1024 + 32, 1024 + 32},
                    {TSR_KV_TYPE_INT8, 1024 + 32, 1024 + 32},
                    {TSR_KV_TYPE_INT4, 512 + 32 + 68, 512 + 32},
                    {TSR_KV_TYPE_INT2, 256 + 32 + 68, 256 + 32}};

    (void)state;
    for (int i = 0; i < TSR_KV_TYPE_COUNT; i++) {
        const tsr_kv_layout layout = {30, 3, 64, 64, 16, expected[i].type, false, false};

        assert_int_equal(tsr_kv_layout_key_bytes(&layout), expected[i].key_bytes);
        assert_int_equal(tsr_kv_layout_value_bytes(&layout), expected[i].value_bytes);
        assert_int_equal(tsr_kv_layout_block_bytes(&layout),
                         90 * (expected[i].key_bytes + expected[i].value_bytes));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_are_those_of_the_codes),
        cmocka_unit_test(instruction_sets_threads_and_places_change_no_bit),
        cmocka_unit_test(a_row_is_the_same_in_chunks_and_blocks_of_any_size),
        cmocka_unit_test(what_keys_have_in_common_costs_nothing),
        cmocka_unit_test(bytes_are_the_nearest_numbers),
        cmocka_unit_test(what_is_not_finite_becomes_nan_and_nothing_stays_nothing),
        cmocka_unit_test(turning_twice_changes_nothing_and_keeps_lengths),
        cmocka_unit_test(keys_drift_as_the_rope_turns_them),
        cmocka_unit_test(a_block_takes_what_the_formula_says),
    };

    return isa_is_missing() ? MISSING_SET : cmocka_run_group_tests(tests, NULL, NULL);
}
