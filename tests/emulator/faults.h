/*
 * tests/emulator/faults.h - kernels that can be run with a fault planted in them, or without.
 */
#ifndef TSR_TESTS_EMULATOR_FAULTS_H
#define TSR_TESTS_EMULATOR_FAULTS_H

#include <stdbool.h>
#include <stdint.h>

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* X(kernel): each a launch of its own, run_<kernel>(). */
#define FAULTY_KERNELS(X)            \
    X(neighbour)                     \
    X(lane_neighbour)                \
    X(two_stages)                    \
    X(divergent_barrier)             \
    X(early_return)                  \
    X(lanes_that_left)               \
    X(mask_without_caller)           \
    X(branches_shuffle_apart)        \
    X(half_at_barrier)               \
    X(shared_overrun)                \
    X(shared_unwritten)              \
    X(copy_not_waited)               \
    X(copy_waited_too_little)        \
    X(copy_left_behind)              \
    X(matrices_of_other_threads)     \
    X(copy_over_matrices)            \
    X(matrix_row_misaligned)         \
    X(half_a_warp_multiplies)        \
    X(misaligned_vector)             \
    X(global_overrun)                \
    X(blocks_share_a_word)           \
    X(block_reads_what_others_write) \
    X(atomic_and_plain)              \
    X(swapped_operands)              \
    X(few_threads)                   \
    X(much_shared)

/* in, out [256] each, on the device; what `out` holds afterwards is the kernel's own. */
#define DECLARE_FAULTY(kernel) \
    void run_##kernel(uint32_t *out, const uint32_t *in, bool planted, cudaStream_t stream);
FAULTY_KERNELS(DECLARE_FAULTY)
#undef DECLARE_FAULTY

void run_plus_one(uint32_t *out, const uint32_t *in, cudaStream_t stream); /* out = in + 1 */

#ifdef __cplusplus
}
#endif

#endif
