/* Kernels with a mistake each, made when `planted`: test_faults.c holds the emulated device to
 * reporting it, and to saying nothing when it is not made. */
#include "tests/emulator/faults.h"

#include "kernels/ptx.cuh"

enum {
    N = 256
};

/* Without the barrier a thread reads what its neighbour may not have written yet. */
static __global__ void neighbour(uint32_t *out, const uint32_t *in, bool planted)
{
    __shared__ uint32_t values[N];

    values[threadIdx.x] = in[threadIdx.x];
    if (!planted) {
        __syncthreads();
    }
    out[threadIdx.x] = values[(threadIdx.x + 32) % N];
}

/* The same within a warp: lanes do not run in step, and a shuffle orders no memory. */
static __global__ void lane_neighbour(uint32_t *out, const uint32_t *in, bool planted)
{
    __shared__ uint32_t values[N];

    values[threadIdx.x] = in[threadIdx.x];
    if (planted) {
        out[threadIdx.x] = __shfl_sync(TSR_WHOLE_WARP, in[threadIdx.x], 0);
    } else {
        __syncwarp();
    }
    out[threadIdx.x] = values[threadIdx.x ^ 1];
}

/* A buffer is filled again while others still read it. */
static __global__ void two_stages(uint32_t *out, const uint32_t *in, bool planted)
{
    __shared__ uint32_t values[N];
    uint32_t sum = 0;

    for (uint32_t stage = 0; stage < 3; stage++) {
        values[threadIdx.x] = in[threadIdx.x] + stage;
        __syncthreads();
        sum += values[N - 1 - threadIdx.x];
        if (!planted) {
            __syncthreads();
        }
    }
    out[threadIdx.x] = sum;
}

static __global__ void divergent_barrier(uint32_t *out, const uint32_t *in, bool planted)
{
    if (planted && threadIdx.x >= 64) {
        out[threadIdx.x] = in[threadIdx.x] * 2;
        __syncthreads();
    } else {
        out[threadIdx.x] = in[threadIdx.x];
        __syncthreads();
    }
}

static __global__ void early_return(uint32_t *out, const uint32_t *in, bool planted)
{
    if (planted && threadIdx.x == 100) {
        return;
    }
    __syncthreads();
    out[threadIdx.x] = in[threadIdx.x];
}

static __global__ void lanes_that_left(uint32_t *out, const uint32_t *in, bool planted)
{
    if (planted && threadIdx.x % 32 >= 16) {
        return;
    }
    out[threadIdx.x] = __shfl_xor_sync(TSR_WHOLE_WARP, in[threadIdx.x], 1);
}

static __global__ void mask_without_caller(uint32_t *out, const uint32_t *in, bool planted)
{
    const uint32_t mask = planted ? 0x0000FFFFU : TSR_WHOLE_WARP;

    out[threadIdx.x] = __shfl_xor_sync(mask, in[threadIdx.x], 1);
}

static __global__ void branches_shuffle_apart(uint32_t *out, const uint32_t *in, bool planted)
{
    if (planted && threadIdx.x % 32 < 16) {
        out[threadIdx.x] = __shfl_xor_sync(TSR_WHOLE_WARP, in[threadIdx.x] + 1, 1);
    } else {
        out[threadIdx.x] = __shfl_down_sync(TSR_WHOLE_WARP, in[threadIdx.x], 1);
    }
}

static __global__ void half_at_barrier(uint32_t *out, const uint32_t *in, bool planted)
{
    uint32_t value = in[threadIdx.x];

    if (!planted || threadIdx.x % 32 < 16) {
        value = __shfl_xor_sync(TSR_WHOLE_WARP, value, 1);
    }
    __syncthreads();
    out[threadIdx.x] = value;
}

static __global__ void shared_overrun(uint32_t *out, const uint32_t *in, bool planted)
{
    extern __shared__ uint32_t values[];

    values[threadIdx.x + (planted ? 1 : 0)] = in[threadIdx.x];
    out[threadIdx.x] = in[threadIdx.x];
}

static __global__ void shared_unwritten(uint32_t *out, const uint32_t *in, bool planted)
{
    __shared__ uint32_t values[N + 1];

    values[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = values[planted ? threadIdx.x + 1 : threadIdx.x];
}

static __global__ void copy_not_waited(uint32_t *out, const uint32_t *in, bool planted)
{
    __shared__ uint4 values[N / 4];

    if (threadIdx.x < N / 4) {
        tsr_copy16(&values[threadIdx.x], &((const uint4 *)in)[threadIdx.x], true);
        tsr_copies_end_group();
        if (!planted) {
            tsr_copies_wait<0>();
        }
    }
    __syncthreads();
    out[threadIdx.x] = ((const uint32_t *)values)[threadIdx.x];
    tsr_copies_wait<0>();
}

/* Of two groups the second is read. */
static __global__ void copy_waited_too_little(uint32_t *out, const uint32_t *in, bool planted)
{
    __shared__ uint4 values[2][N / 4];

    for (int i = 0; i < 2; i++) {
        if (threadIdx.x < N / 4) {
            tsr_copy16(&values[i][threadIdx.x], &((const uint4 *)in)[threadIdx.x], true);
        }
        tsr_copies_end_group();
    }
    if (planted) {
        tsr_copies_wait<1>();
    } else {
        tsr_copies_wait<0>();
    }
    __syncthreads();
    out[threadIdx.x] = ((const uint32_t *)values[1])[threadIdx.x];
    tsr_copies_wait<0>();
}

static __global__ void copy_left_behind(uint32_t *out, const uint32_t *in, bool planted)
{
    __shared__ uint4 values[N];

    tsr_copy16(&values[threadIdx.x], in, true);
    out[threadIdx.x] = in[threadIdx.x];
    if (!planted) {
        tsr_copies_end_group();
        tsr_copies_wait<0>();
    }
}

/* Each thread has waited for its own copies, and nobody for the others'. */
static __global__ void matrices_of_other_threads(uint32_t *out, const uint32_t *in, bool planted)
{
    __shared__ uint4 rows[N / 4];
    uint32_t got[4];

    if (threadIdx.x < N / 4) {
        tsr_copy16(&rows[N / 4 - 1 - threadIdx.x], &((const uint4 *)in)[threadIdx.x], true);
    }
    tsr_copies_end_group();
    tsr_copies_wait<0>();
    if (!planted) {
        __syncthreads();
    }
    tsr_load_matrices4_transposed(got, &rows[threadIdx.x % (N / 4)]);
    out[threadIdx.x] = got[0] ^ got[1] ^ got[2] ^ got[3];
}

/* The next tile is asked for while others still read the last one. */
static __global__ void copy_over_matrices(uint32_t *out, const uint32_t *in, bool planted)
{
    __shared__ uint4 rows[N];
    uint32_t got[4];
    uint32_t sum = 0;

    for (int stage = 0; stage < 2; stage++) {
        tsr_copy16(&rows[threadIdx.x], &((const uint4 *)in)[threadIdx.x % (N / 4)], true);
        tsr_copies_end_group();
        tsr_copies_wait<0>();
        __syncthreads();
        tsr_load_matrices4(got, &rows[N - 1 - threadIdx.x]);
        sum += got[0] + got[1] + got[2] + got[3];
        if (!planted) {
            __syncthreads();
        }
    }
    out[threadIdx.x] = sum;
}

static __global__ void matrix_row_misaligned(uint32_t *out, const uint32_t *in, bool planted)
{
    __shared__ __align__(16) uint32_t rows[N + 4];
    uint32_t got[2];

    rows[threadIdx.x] = in[threadIdx.x];
    if (threadIdx.x < 4) {
        rows[N + threadIdx.x] = 0;
    }
    __syncthreads();
    tsr_load_matrices2(got, &rows[threadIdx.x % 32 * 4 + (planted ? 1 : 0)]);
    out[threadIdx.x] = got[0] + got[1];
}

static __global__ void half_a_warp_multiplies(uint32_t *out, const uint32_t *in, bool planted)
{
    const uint32_t a[4] = {in[threadIdx.x], 0, 0, 0};
    const uint32_t b[2] = {in[threadIdx.x], 0};
    float sums[4] = {0, 0, 0, 0};

    if (!planted || threadIdx.x % 32 < 16) {
        tsr_mma_bf16(sums, a, b);
    }
    out[threadIdx.x] = __float_as_uint(sums[0]);
}

static __global__ void misaligned_vector(uint32_t *out, const uint32_t *in, bool planted)
{
    const uint4 *at = (const uint4 *)(in + (planted ? 1 : 0));

    const uint4 v = at[threadIdx.x / 8];

    out[threadIdx.x] = v.x + v.y + v.z + v.w;
}

static __global__ void global_overrun(uint32_t *out, const uint32_t *in, bool planted)
{
    out[threadIdx.x + (planted && threadIdx.x == N - 1 ? 1 : 0)] = in[threadIdx.x];
}

static __global__ void blocks_share_a_word(uint32_t *out, const uint32_t *in, bool planted)
{
    if (threadIdx.x == 0) {
        out[planted ? 0 : blockIdx.x] = in[blockIdx.x];
    }
}

static __global__ void block_reads_what_others_write(uint32_t *out, const uint32_t *in,
                                                     bool planted)
{
    const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;

    out[at] = planted ? in[at] + out[(at + blockDim.x) % N] : in[at];
}

static __global__ void atomic_and_plain(uint32_t *out, const uint32_t *in, bool planted)
{
    if (planted && threadIdx.x == 77) {
        out[0] = 0;
    }
    atomicAdd(&out[0], in[threadIdx.x]);
}

/* Columns of A and rows of B belong together: with A's middle registers exchanged they do not. */
static __global__ void swapped_operands(uint32_t *out, const uint32_t *in, bool planted)
{
    const uint32_t lane = threadIdx.x;
    uint32_t a[4] = {in[lane], in[32 + lane], in[64 + lane], in[96 + lane]};
    const uint32_t b[2] = {in[128 + lane], in[160 + lane]};
    float sums[4] = {0, 0, 0, 0};

    if (planted) {
        const uint32_t kept = a[1];

        a[1] = a[2];
        a[2] = kept;
    }
    tsr_mma_bf16(sums, a, b);
    for (int r = 0; r < 4; r++) {
        out[4 * lane + r] = __float_as_uint(sums[r]);
    }
}

static __global__ void __launch_bounds__(64) few_threads(uint32_t *out, const uint32_t *in)
{
    out[threadIdx.x] = in[threadIdx.x];
}

static __global__ void much_shared(uint32_t *out, const uint32_t *in)
{
    extern __shared__ uint32_t values[];

    values[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = values[threadIdx.x];
}

static __global__ void plus_one(uint32_t *out, const uint32_t *in)
{
    out[threadIdx.x] = in[threadIdx.x] + 1;
}

/* ---- launches
 * ------------------------------------------------------------------------------------ */

#define LAUNCH(kernel, n_blocks, n_threads, n_shared_bytes)                                 \
    void run_##kernel(uint32_t *out, const uint32_t *in, bool planted, cudaStream_t stream) \
    {                                                                                       \
        kernel<<<n_blocks, n_threads, n_shared_bytes, stream>>>(out, in, planted);          \
    }

extern "C" {

LAUNCH(neighbour, 1, N, 0)
LAUNCH(lane_neighbour, 1, N, 0)
LAUNCH(two_stages, 1, N, 0)
LAUNCH(divergent_barrier, 1, N, 0)
LAUNCH(early_return, 1, N, 0)
LAUNCH(lanes_that_left, 1, N, 0)
LAUNCH(mask_without_caller, 1, N, 0)
LAUNCH(branches_shuffle_apart, 1, N, 0)
LAUNCH(half_at_barrier, 1, N, 0)
LAUNCH(shared_overrun, 1, N, N * sizeof(uint32_t))
LAUNCH(shared_unwritten, 1, N, 0)
LAUNCH(copy_not_waited, 1, N, 0)
LAUNCH(copy_waited_too_little, 1, N, 0)
LAUNCH(copy_left_behind, 1, N, 0)
LAUNCH(matrices_of_other_threads, 1, N, 0)
LAUNCH(copy_over_matrices, 1, N, 0)
LAUNCH(matrix_row_misaligned, 1, N, 0)
LAUNCH(half_a_warp_multiplies, 1, N, 0)
LAUNCH(misaligned_vector, 1, N, 0)
LAUNCH(global_overrun, 1, N, 0)
LAUNCH(blocks_share_a_word, 4, N / 4, 0)
LAUNCH(block_reads_what_others_write, 4, N / 4, 0)
LAUNCH(atomic_and_plain, 1, N, 0)
LAUNCH(swapped_operands, 1, 32, 0)

void run_few_threads(uint32_t *out, const uint32_t *in, bool planted, cudaStream_t stream)
{
    few_threads<<<1, planted ? 65 : 64, 0, stream>>>(out, in);
}

void run_much_shared(uint32_t *out, const uint32_t *in, bool planted, cudaStream_t stream)
{
    const int n_bytes = 100 * 1024;

    if (!planted) {
        (void)cudaFuncSetAttribute(much_shared, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   n_bytes);
    }
    much_shared<<<1, N, n_bytes, stream>>>(out, in);
}

void run_plus_one(uint32_t *out, const uint32_t *in, cudaStream_t stream)
{
    plus_one<<<1, N, 0, stream>>>(out, in);
}
}
