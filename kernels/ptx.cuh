/*
 * kernels/ptx.cuh - the only inline PTX: one small function an instruction. Private to CUDA files.
 *
 * Fragments are those of the manual "Parallel Thread Execution ISA", mma.m16n8k16: with
 * group = lane / 4 and member = lane % 4,
 *   A [16 rows, 16 columns]   a[r], two halves: row group + 8 (r % 2), columns 2 member + 8 (r / 2)
 * + {0, 1} B [16 rows, 8 columns]    b[r], two halves: rows 2 member + 8 r + {0, 1}, column group
 *   C, D [16 rows, 8 columns] c[r], one f32: row group + 8 (r / 2), column 2 member + r % 2
 */
#ifndef TSR_KERNELS_PTX_CUH
#define TSR_KERNELS_PTX_CUH

#include <stdint.h>

enum {
    TSR_WARP = 32
};
static constexpr unsigned TSR_WHOLE_WARP = 0xFFFFFFFFU;

/* The address of shared memory as instructions take it. */
static __device__ __forceinline__ uint32_t tsr_shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* D = A B + D with bf16 or f16 elements, f32 sums. All lanes of a warp together. */
static __device__ __forceinline__ void tsr_mma_bf16(float d[4], const uint32_t a[4],
                                                    const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
static __device__ __forceinline__ void tsr_mma_f16(float d[4], const uint32_t a[4],
                                                   const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* The same with 32 columns of bytes in place of 16 of halves (m16n8k32), and exact i32 sums. */
static __device__ __forceinline__ void tsr_mma_s8(int32_t d[4], const uint32_t a[4],
                                                  const uint32_t b[2])
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, "
                 "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four, or two, 8 x 8 matrices of halves from shared memory; lane 8 m + r names row r of matrix m
 * (16 bytes, aligned; of two matrices the upper lanes' addresses are not read). */
static __device__ __forceinline__ void tsr_load_matrices4(uint32_t out[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(tsr_shared_address(row))
                 : "memory");
}
static __device__ __forceinline__ void tsr_load_matrices2(uint32_t out[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(tsr_shared_address(row))
                 : "memory");
}
static __device__ __forceinline__ void tsr_load_matrices2_transposed(uint32_t out[2],
                                                                     const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(out[0]), "=r"(out[1])
                 : "r"(tsr_shared_address(row))
                 : "memory");
}

static __device__ __forceinline__ void tsr_load_matrices4_transposed(uint32_t out[4],
                                                                     const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(tsr_shared_address(row))
                 : "memory");
}

/* 2^x to about two units in the last place; what is subnormal becomes 0. */
static __device__ __forceinline__ float tsr_fast_exp2(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Begin to copy 16 bytes from device to shared memory, past the first-level cache; when not wanted,
 * zeros (the source must still be an address that may be read). */
static __device__ __forceinline__ void tsr_copy16(void *shared, const void *global, bool is_wanted)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(tsr_shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(is_wanted ? 16 : 0)
                 : "memory");
}
/* The copies begun since the last end are a group. */
static __device__ __forceinline__ void tsr_copies_end_group(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Wait until at most N groups of this thread are under way. Others see the copies after a barrier.
 */
template <int N> static __device__ __forceinline__ void tsr_copies_wait(void)
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

#endif
