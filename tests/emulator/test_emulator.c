#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/dtype.h"
#include "tests/emulator/primitives.h"
#include "tests/emulator/simt.h"
#include "tests/emulator/stream.h"

/*
 * What single instructions, barriers, copies, streams and graphs do on the emulated device, against
 * what CUDA's documents say, in every order of threads and of works.
 */

static cudaStream_t stream;

static void *on_device(const void *from, size_t n_bytes)
{
    void *memory = NULL;

    assert_int_equal(cudaMalloc(&memory, n_bytes), cudaSuccess);
    if (from != NULL) {
        assert_int_equal(cudaMemcpyAsync(memory, from, n_bytes, cudaMemcpyHostToDevice, stream),
                         cudaSuccess);
    }
    return memory;
}

static void fetch(void *to, void *memory, size_t n_bytes)
{
    assert_int_equal(cudaMemcpyAsync(to, memory, n_bytes, cudaMemcpyDeviceToHost, stream),
                     cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(stream), cudaSuccess);
    assert_int_equal(cudaFree(memory), cudaSuccess);
}

/* check() in every order. */
static void in_all_orders(void (*check)(void))
{
    for (int order = 0; order < SIMT_ORDER_COUNT; order++) {
        for (uint32_t seed = 1; seed <= (order < SIMT_RANDOM ? 1U : 3U); seed++) {
            simt_set_order((simt_order)order, seed);
            check();
        }
    }
    simt_set_order(SIMT_FORWARD, 1);
}

/* ---- warps
 * --------------------------------------------------------------------------------------- */

static void check_shuffles(void)
{
    for (uint32_t width = 4; width <= 32; width *= 2) {
        uint32_t got[4][32];
        uint32_t *out = on_device(NULL, sizeof(got));

        run_shuffles(out, (int)width, stream);
        fetch(got, out, sizeof(got));
        for (uint32_t lane = 0; lane < 32; lane++) {
            const uint32_t first = lane / width * width;
            const uint32_t last = first + width - 1;
            const uint32_t turned = lane ^ 6;

            assert_int_equal(got[0][lane], 100 + first + 5 % width);
            assert_int_equal(got[1][lane], 100 + (lane >= first + 3 ? lane - 3 : lane));
            assert_int_equal(got[2][lane], 100 + (lane + 3 <= last ? lane + 3 : lane));
            assert_int_equal(got[3][lane], 100 + (turned <= last ? turned : lane));
        }
    }
}

static void shuffles_reach_the_lane_they_name_within_their_segment(void **state)
{
    (void)state;
    in_all_orders(check_shuffles);
}

static void check_votes(void)
{
    uint32_t got[6][32];
    uint32_t *out = on_device(NULL, sizeof(got));

    run_votes(out, stream);
    fetch(got, out, sizeof(got));
    for (int lane = 0; lane < 32; lane++) {
        assert_int_equal(got[0][lane], 0x49249249);
        assert_int_equal(got[1][lane], lane < 16 ? 0x0000AAAA : 0x11110000);
        assert_int_equal(got[2][lane], 1);
        assert_int_equal(got[3][lane], 0);
        assert_int_equal(got[4][lane], 31 * 32 / 2);
        assert_int_equal((int32_t)got[5][lane], -7);
    }
}

static void votes_and_reductions_count_the_lanes_of_their_mask(void **state)
{
    (void)state;
    in_all_orders(check_votes);
}

/* ---- blocks
 * -------------------------------------------------------------------------------------- */

static void check_reversed(void)
{
    static const int shapes[][3] = {{1, 1, 1}, {3, 33, 1}, {2, 16, 16}, {5, 7, 11}, {1, 256, 1}};

    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const uint32_t n = (uint32_t)(shapes[i][1] * shapes[i][2]);
        const uint32_t n_blocks = (uint32_t)shapes[i][0];
        uint32_t got[2048];
        uint32_t *out = on_device(NULL, n * n_blocks * sizeof(*out));

        run_reversed(out, shapes[i][0], shapes[i][1], shapes[i][2], stream);
        fetch(got, out, n * n_blocks * sizeof(*out));
        for (uint32_t at = 0; at < n * n_blocks; at++) {
            assert_int_equal(got[at], n - 1 - at % n + 1000 * (at / n));
        }
    }
}

static void a_barrier_lets_all_see_what_others_wrote(void **state)
{
    (void)state;
    in_all_orders(check_reversed);
}

static void check_counted(void)
{
    enum {
        N = 6 * 70
    };
    uint32_t counters[8 + N] = {0, 0, UINT32_MAX, 0, 0, 0, 0, 0};
    float sum = 1;
    uint64_t largest = 0;
    uint32_t *on_counters = on_device(counters, sizeof(counters));
    float *on_sum = on_device(&sum, sizeof(sum));
    uint64_t *on_largest = on_device(&largest, sizeof(largest));
    uint32_t seen[7] = {0};

    run_counted(on_counters, on_sum, on_largest, 6, 70, stream);
    fetch(counters, on_counters, sizeof(counters));
    fetch(&sum, on_sum, sizeof(sum));
    fetch(&largest, on_largest, sizeof(largest));
    assert_int_equal(counters[0], N);
    assert_int_equal(counters[1], N - 1);
    assert_int_equal(counters[2], 0);
    assert_int_equal(counters[3], UINT32_MAX);
    assert_int_equal(counters[4], 0); // 420 = 60 turns of 7
    assert_int_equal(counters[5], 1);
    assert_int_equal(counters[6], 77);
    for (int i = 0; i < N; i++) {
        assert_in_range(counters[8 + i], 0, 6);
        seen[counters[8 + i]]++;
    }
    for (int i = 0; i < 7; i++) {
        assert_int_equal(seen[i], N / 7);
    }
    assert_true(sum == 1 + 0.5F * N);
    assert_true(largest == (uint64_t)(N - 1) << 33);
}

static void atomics_lose_nothing(void **state)
{
    (void)state;
    in_all_orders(check_counted);
}

/* ---- memory
 * -------------------------------------------------------------------------------------- */

static void check_vectors(void)
{
    uint32_t numbers[4 * 100];
    uint32_t got[4 * 100];
    void *in;
    void *out = on_device(NULL, sizeof(got));

    for (uint32_t i = 0; i < 400; i++) {
        numbers[i] = i * 2654435761U;
    }
    in = on_device(numbers, sizeof(numbers));
    run_vectors(out, in, 100, stream);
    fetch(got, out, sizeof(got));
    for (uint32_t i = 0; i < 400; i++) {
        assert_int_equal(got[i], numbers[i / 4 * 4 + 3 - i % 4]);
    }
    assert_int_equal(cudaFree(in), cudaSuccess);
}

static void vectors_are_loaded_and_stored_whole(void **state)
{
    (void)state;
    in_all_orders(check_vectors);
}

static void check_copied(void)
{
    for (int n_wanted = 0; n_wanted <= 64; n_wanted += 16) {
        uint32_t numbers[4 * 64];
        uint32_t got[4 * 64];
        void *in;
        void *out = on_device(NULL, sizeof(got));

        for (uint32_t i = 0; i < 256; i++) {
            numbers[i] = i + 1;
        }
        in = on_device(numbers, sizeof(numbers));
        run_copied(out, in, n_wanted, stream);
        fetch(got, out, sizeof(got));
        for (int i = 0; i < 64; i++) {
            const int piece = i < 32 ? 31 - i : 95 - i;

            for (int j = 0; j < 4; j++) {
                assert_int_equal(got[4 * i + j], piece < n_wanted ? 4 * piece + j + 1 : 0);
            }
        }
        assert_int_equal(cudaFree(in), cudaSuccess);
    }
}

static void asynchronous_copies_arrive_when_waited_for(void **state)
{
    (void)state;
    in_all_orders(check_copied);
}

/* ---- tensor cores
 * -------------------------------------------------------------------------------- */

/* Small whole numbers: every sum is exact, whatever its order. */
static float small(int i)
{
    return (float)(i * 37 % 17 - 8);
}

static void check_multiplied(void)
{
    uint16_t a[16 * 16]; // [row][k]
    uint16_t b[8 * 16];  // [column][k]
    uint16_t b_rows[16 * 8];
    float c[16 * 8];
    float d[16 * 8];
    void *on[4];

    for (int i = 0; i < 256; i++) {
        a[i] = tsr_dtype_to_f16(small(i));
    }
    for (int i = 0; i < 128; i++) {
        b[i] = tsr_dtype_to_f16(small(i + 5));
        c[i] = small(i + 9);
    }
    on[0] = on_device(NULL, sizeof(d));
    on[1] = on_device(a, sizeof(a));
    on[2] = on_device(b, sizeof(b));
    on[3] = on_device(c, sizeof(c));
    run_multiplied(on[0], on[1], on[2], on[3], stream);
    fetch(d, on[0], sizeof(d));
    for (int row = 0; row < 16; row++) {
        for (int column = 0; column < 8; column++) {
            float sum = c[row * 8 + column];

            for (int k = 0; k < 16; k++) {
                sum += small(row * 16 + k) * small(column * 16 + k + 5);
            }
            assert_true(d[row * 8 + column] == sum);
        }
    }
    for (int i = 0; i < 256; i++) {
        a[i] = tsr_dtype_to_bf16(small(i));
    }
    for (int i = 0; i < 128; i++) {
        b_rows[i] = tsr_dtype_to_bf16(small(i + 5));
    }
    fetch(c, on[3], sizeof(c));
    assert_int_equal(cudaFree(on[1]), cudaSuccess);
    assert_int_equal(cudaFree(on[2]), cudaSuccess);
    on[0] = on_device(NULL, sizeof(d));
    on[1] = on_device(a, sizeof(a));
    on[2] = on_device(b_rows, sizeof(b_rows));
    run_multiplied_by_matrices(on[0], on[1], on[2], stream);
    fetch(d, on[0], sizeof(d));
    for (int row = 0; row < 16; row++) {
        for (int column = 0; column < 8; column++) {
            float sum = 0;

            for (int k = 0; k < 16; k++) {
                sum += small(row * 16 + k) * small(k * 8 + column + 5);
            }
            assert_true(d[row * 8 + column] == sum);
        }
    }
    assert_int_equal(cudaFree(on[1]), cudaSuccess);
    assert_int_equal(cudaFree(on[2]), cudaSuccess);
}

static void matrices_of_halves_are_multiplied(void **state)
{
    (void)state;
    in_all_orders(check_multiplied);
}

static void check_multiplied_bytes(void)
{
    int8_t a[16 * 32];
    int8_t b[8 * 32];
    int32_t d[16 * 8];
    void *on[3];

    for (int i = 0; i < 512; i++) {
        a[i] = (int8_t)(i * 91 % 256 - 128);
        b[i / 2] = (int8_t)(i * 53 % 256 - 128);
    }
    on[0] = on_device(NULL, sizeof(d));
    on[1] = on_device(a, sizeof(a));
    on[2] = on_device(b, sizeof(b));
    run_multiplied_bytes(on[0], on[1], on[2], stream);
    fetch(d, on[0], sizeof(d));
    for (int row = 0; row < 16; row++) {
        for (int column = 0; column < 8; column++) {
            int32_t sum = 0;

            for (int k = 0; k < 32; k++) {
                sum += a[row * 32 + k] * b[column * 32 + k];
            }
            assert_int_equal(d[row * 8 + column], sum);
        }
    }
    assert_int_equal(cudaFree(on[1]), cudaSuccess);
    assert_int_equal(cudaFree(on[2]), cudaSuccess);
}

static void check_transposed(void)
{
    uint16_t in[4 * 64];
    uint32_t out[32 * 4];
    void *on[2];

    for (int i = 0; i < 4 * 64; i++) {
        in[i] = (uint16_t)(1000 + i);
    }
    on[0] = on_device(NULL, sizeof(out));
    on[1] = on_device(in, sizeof(in));
    run_transposed(on[0], on[1], stream);
    fetch(out, on[0], sizeof(out));
    for (int lane = 0; lane < 32; lane++) {
        for (int r = 0; r < 4; r++) { // rows 2 (lane % 4) and the next of matrix r, column lane / 4
            const int low = 64 * r + lane % 4 * 2 * 8 + lane / 4;

            assert_int_equal(out[lane * 4 + r], (uint32_t)in[low] | (uint32_t)in[low + 8] << 16);
        }
    }
    assert_int_equal(cudaFree(on[1]), cudaSuccess);
}

static void matrices_are_turned_over_their_diagonals(void **state)
{
    (void)state;
    in_all_orders(check_transposed);
}

static void matrices_of_bytes_are_multiplied(void **state)
{
    (void)state;
    in_all_orders(check_multiplied_bytes);
}

static bool near(float got, double expected, double ulps)
{
    return fabs((double)got - expected) <= ulps * 0x1p-24 * fabs(expected) + 1e-37;
}

static void functions_and_conversions_are_the_hosts(void **state)
{
    static const float x[] = {0.0F,  1.0F, -1.5F,  2.5F,   3.5F,  65504.0F, 65520.0F,
                              1e-8F, 0.1F, -20.3F, 80.25F, -0.5F, 1e30F,    3e-39F};
    enum {
        N = sizeof(x) / sizeof(x[0])
    };
    float got[12][N];
    float *in = on_device(x, sizeof(x));
    float *out = on_device(NULL, sizeof(got));

    (void)state;
    run_converted(out, in, N, stream);
    fetch(got, out, sizeof(got));
    for (int i = 0; i < N; i++) {
        const int32_t whole = x[i] > 2e9F ? INT32_MAX : (int32_t)x[i];
        int32_t bits;

        assert_true(got[0][i] == tsr_dtype_from_f16(tsr_dtype_to_f16(x[i])));
        assert_true(near(got[1][i], exp((double)x[i]), 3) || exp((double)x[i]) > 1e38);
        assert_true(got[2][i] == (float)whole);
        assert_true(got[3][i] == sqrtf(fabsf(x[i])));
        assert_true(got[4][i] == x[i] / 3.0F);
        assert_true(got[5][i] == fmaxf(x[i], 0.5F));
        if (fabsf(x[i]) < 1000) {
            assert_true(fabs((double)got[6][i] - sin(M_PI * (double)x[i]) -
                             cos(M_PI * (double)x[i])) < 1e-6);
        }
        assert_true(got[7][i] == -x[i]);
        assert_true(got[8][i] == (float)(-128 * 2 - 1 * 3 + 127 * 4 + 1 * 5 + (int64_t)whole) ||
                    whole == INT32_MAX);
        assert_true(got[9][i] == rintf(x[i]));
        assert_true(near(got[10][i], exp2((double)x[i]), 4) || exp2((double)x[i]) > 1e38);
        memcpy(&bits, &x[i], sizeof(bits));
        assert_true(got[11][i] == (float)__builtin_ffs(bits));
    }
    assert_int_equal(cudaFree(in), cudaSuccess);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shuffles_reach_the_lane_they_name_within_their_segment),
        cmocka_unit_test(votes_and_reductions_count_the_lanes_of_their_mask),
        cmocka_unit_test(a_barrier_lets_all_see_what_others_wrote),
        cmocka_unit_test(atomics_lose_nothing),
        cmocka_unit_test(vectors_are_loaded_and_stored_whole),
        cmocka_unit_test(asynchronous_copies_arrive_when_waited_for),
        cmocka_unit_test(matrices_of_halves_are_multiplied),
        cmocka_unit_test(matrices_of_bytes_are_multiplied),
        cmocka_unit_test(matrices_are_turned_over_their_diagonals),
        cmocka_unit_test(functions_and_conversions_are_the_hosts),
    };

    if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) {
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
