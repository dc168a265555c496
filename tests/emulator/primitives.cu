/* Kernels that do one thing each, for test_emulator.c: what the emulated device must do as CUDA's
 * documents say. */
#include "tests/emulator/primitives.h"

#include <cuda_fp16.h>

#include "kernels/ptx.cuh"

static __global__ void shuffles(uint32_t *out, int width)
{
    const uint32_t lane = threadIdx.x;

    out[lane] = __shfl_sync(TSR_WHOLE_WARP, lane + 100, 5, width);
    out[32 + lane] = __shfl_up_sync(TSR_WHOLE_WARP, lane + 100, 3, width);
    out[64 + lane] = __shfl_down_sync(TSR_WHOLE_WARP, lane + 100, 3, width);
    out[96 + lane] = __shfl_xor_sync(TSR_WHOLE_WARP, lane + 100, 6, width);
}

static __global__ void votes(uint32_t *out)
{
    const uint32_t lane = threadIdx.x;
    const uint32_t half = lane < 16 ? 0x0000FFFFU : 0xFFFF0000U;

    out[lane] = __ballot_sync(TSR_WHOLE_WARP, lane % 3 == 0);
    out[32 + lane] = lane < 16 ? __ballot_sync(half, lane % 2) : __ballot_sync(half, lane % 4 == 0);
    out[64 + lane] = (uint32_t)__any_sync(TSR_WHOLE_WARP, lane == 31);
    out[96 + lane] = (uint32_t)__all_sync(TSR_WHOLE_WARP, lane < 31);
    out[128 + lane] = __reduce_add_sync(TSR_WHOLE_WARP, lane);
    out[160 + lane] = (uint32_t)__reduce_min_sync(TSR_WHOLE_WARP, (int)lane - 7);
}

/* Reverses the block's numbers through shared memory, static and dynamic. */
static __global__ void reversed(uint32_t *out)
{
    __shared__ uint32_t fixed[256];
    extern __shared__ uint32_t free_size[];
    const uint32_t at = threadIdx.y * blockDim.x + threadIdx.x;
    const uint32_t n = blockDim.x * blockDim.y;

    fixed[at] = at;
    __syncthreads();
    free_size[at] = fixed[n - 1 - at] + 1000 * blockIdx.x;
    __syncthreads();
    out[blockIdx.x * n + at] = free_size[at];
}

static __global__ void counted(uint32_t *counters, float *sum, uint64_t *largest)
{
    const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;

    atomicAdd(&counters[0], 1U);
    atomicMax(&counters[1], at);
    atomicMin(&counters[2], at);
    atomicOr(&counters[3], 1U << (at % 32));
    counters[8 + at] = atomicInc(&counters[4], 6);
    if (atomicCAS(&counters[5], 0, 1) == 0) {
        atomicExch(&counters[6], 77);
    }
    atomicAdd(sum, 0.5F);
    atomicMax((unsigned long long *)largest, (unsigned long long)at << 33);
}

static __global__ void vectors(uint4 *out, const uint4 *in, int64_t n)
{
    const int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;

    if (at < n) {
        const uint4 v = __ldg(&in[at]);

        out[at] = make_uint4(v.w, v.z, v.y, v.x);
    }
}

/* Through shared memory by asynchronous copies in two groups; unwanted pieces become zeros. */
static __global__ void copied(uint4 *out, const uint4 *in, int n_wanted)
{
    __shared__ uint4 pieces[64];
    const int at = threadIdx.x;

    tsr_copy16(&pieces[at], &in[at], at < n_wanted);
    tsr_copies_end_group();
    tsr_copy16(&pieces[32 + at], &in[32 + at], 32 + at < n_wanted);
    tsr_copies_end_group();
    tsr_copies_wait<1>();
    __syncthreads();
    out[at] = pieces[31 - at];
    tsr_copies_wait<0>();
    __syncthreads();
    out[32 + at] = pieces[63 - at];
}

/* D = A B + C: A [16, 16] row by row, B [16, 8] column by column, by registers. */
static __global__ void multiplied(float *d, const uint16_t *a, const uint16_t *b, const float *c)
{
    const int group = threadIdx.x / 4;
    const int member = threadIdx.x % 4;
    uint32_t a_part[4];
    uint32_t b_part[2];
    float sums[4];

    for (int r = 0; r < 4; r++) {
        a_part[r] = *(const uint32_t *)&a[(group + r % 2 * 8) * 16 + member * 2 + r / 2 * 8];
        sums[r] = c[(group + r / 2 * 8) * 8 + member * 2 + r % 2];
    }
    for (int r = 0; r < 2; r++) {
        b_part[r] = *(const uint32_t *)&b[group * 16 + member * 2 + r * 8];
    }
    tsr_mma_f16(sums, a_part, b_part);
    for (int r = 0; r < 4; r++) {
        d[(group + r / 2 * 8) * 8 + member * 2 + r % 2] = sums[r];
    }
}

/* The same, A and B [16, 8] row by row through ldmatrix, in bf16. */
static __global__ void multiplied_by_matrices(float *d, const uint16_t *a, const uint16_t *b)
{
    __shared__ __align__(16) uint16_t a_rows[16 * 16];
    __shared__ __align__(16) uint16_t b_rows[16 * 8];
    const int lane = threadIdx.x;
    uint32_t a_part[4];
    uint32_t b_part[2];
    float sums[4] = {0, 0, 0, 0};

    for (int i = lane; i < 256; i += 32) {
        a_rows[i] = a[i];
    }
    for (int i = lane; i < 128; i += 32) {
        b_rows[i] = b[i];
    }
    __syncwarp();
    tsr_load_matrices4(a_part, &a_rows[lane % 16 * 16 + lane / 16 * 8]);
    tsr_load_matrices2_transposed(b_part, &b_rows[lane % 16 * 8]);
    tsr_mma_bf16(sums, a_part, b_part);
    for (int r = 0; r < 4; r++) {
        d[(lane / 4 + r / 2 * 8) * 8 + lane % 4 * 2 + r % 2] = sums[r];
    }
}

/* Four matrices of 8 x 8 halves, each turned over its diagonal, by registers. */
static __global__ void transposed(uint32_t *out, const uint16_t *in)
{
    __shared__ __align__(16) uint16_t rows[4 * 64];
    const int lane = threadIdx.x;
    uint32_t part[4];

    for (int i = lane; i < 256; i += 32) {
        rows[i] = in[i];
    }
    __syncwarp();
    tsr_load_matrices4_transposed(part, &rows[lane * 8]);
    for (int r = 0; r < 4; r++) {
        out[lane * 4 + r] = part[r];
    }
}

/* D = A B: A [16, 32] row by row, B [32, 8] column by column, bytes. */
static __global__ void multiplied_bytes(int32_t *d, const int8_t *a, const int8_t *b)
{
    const int group = threadIdx.x / 4;
    const int member = threadIdx.x % 4;
    uint32_t a_part[4];
    uint32_t b_part[2];
    int32_t sums[4] = {0, 0, 0, 0};

    for (int r = 0; r < 4; r++) {
        a_part[r] = *(const uint32_t *)&a[(group + r % 2 * 8) * 32 + member * 4 + r / 2 * 16];
    }
    for (int r = 0; r < 2; r++) {
        b_part[r] = *(const uint32_t *)&b[group * 32 + member * 4 + r * 16];
    }
    tsr_mma_s8(sums, a_part, b_part);
    for (int r = 0; r < 4; r++) {
        d[(group + r / 2 * 8) * 8 + member * 2 + r % 2] = sums[r];
    }
}

/* Conversions and functions: one number in, many out. */
static __global__ void converted(float *out, const float *in, int n)
{
    const int i = threadIdx.x;

    if (i < n) {
        const float x = in[i];
        double sine;
        double cosine;

        sincospi((double)x, &sine, &cosine);
        out[i] = __half2float(__float2half_rn(x));
        out[n + i] = expf(x);
        out[2 * n + i] = (float)(int)x;
        out[3 * n + i] = sqrtf(fabsf(x));
        out[4 * n + i] = x / 3.0F;
        out[5 * n + i] = fmaxf(x, 0.5F);
        out[6 * n + i] = (float)(sine + cosine);
        out[7 * n + i] = __uint_as_float((__float_as_uint(x) ^ 0x80000000U));
        out[8 * n + i] = (float)__dp4a((int)0x80FF7F01, (int)0x02030405, (int)x);
        out[9 * n + i] = rintf(x);
        out[10 * n + i] = tsr_fast_exp2(x);
        out[11 * n + i] = (float)__ffs(__float_as_int(x));
    }
}

/* ---- launches
 * ------------------------------------------------------------------------------------ */

extern "C" {

void run_shuffles(uint32_t *out, int width, cudaStream_t stream)
{
    shuffles<<<1, 32, 0, stream>>>(out, width);
}
void run_votes(uint32_t *out, cudaStream_t stream)
{
    votes<<<1, 32, 0, stream>>>(out);
}
void run_reversed(uint32_t *out, int n_blocks, int n_x, int n_y, cudaStream_t stream)
{
    reversed<<<(unsigned)n_blocks, dim3((unsigned)n_x, (unsigned)n_y),
               (size_t)(n_x * n_y) * sizeof(uint32_t), stream>>>(out);
}
void run_counted(uint32_t *counters, float *sum, uint64_t *largest, int n_blocks, int n_threads,
                 cudaStream_t stream)
{
    counted<<<(unsigned)n_blocks, (unsigned)n_threads, 0, stream>>>(counters, sum, largest);
}
void run_vectors(void *out, const void *in, int64_t n, cudaStream_t stream)
{
    vectors<<<(unsigned)((n + 63) / 64), 64, 0, stream>>>((uint4 *)out, (const uint4 *)in, n);
}
void run_copied(void *out, const void *in, int n_wanted, cudaStream_t stream)
{
    copied<<<1, 32, 0, stream>>>((uint4 *)out, (const uint4 *)in, n_wanted);
}
void run_multiplied(float *d, const uint16_t *a, const uint16_t *b, const float *c,
                    cudaStream_t stream)
{
    multiplied<<<1, 32, 0, stream>>>(d, a, b, c);
}
void run_multiplied_by_matrices(float *d, const uint16_t *a, const uint16_t *b, cudaStream_t stream)
{
    multiplied_by_matrices<<<1, 32, 0, stream>>>(d, a, b);
}
void run_transposed(uint32_t *out, const uint16_t *in, cudaStream_t stream)
{
    transposed<<<1, 32, 0, stream>>>(out, in);
}
void run_multiplied_bytes(int32_t *d, const int8_t *a, const int8_t *b, cudaStream_t stream)
{
    multiplied_bytes<<<1, 32, 0, stream>>>(d, a, b);
}
void run_converted(float *out, const float *in, int n, cudaStream_t stream)
{
    converted<<<1, 32, 0, stream>>>(out, in, n);
}
}
