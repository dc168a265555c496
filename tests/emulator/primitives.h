/*
 * tests/emulator/primitives.h - launches of the kernels in primitives.cu. Memory is the device's.
 */
#ifndef TSR_TESTS_EMULATOR_PRIMITIVES_H
#define TSR_TESTS_EMULATOR_PRIMITIVES_H

#include <stdint.h>

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

void run_shuffles(uint32_t *out, int width, cudaStream_t stream); /* out [4, 32] */
void run_votes(uint32_t *out, cudaStream_t stream);               /* out [6, 32] */
void run_reversed(uint32_t *out, int n_blocks, int n_x, int n_y, cudaStream_t stream);
void run_counted(uint32_t *counters, float *sum, uint64_t *largest, int n_blocks, int n_threads,
                 cudaStream_t stream);
void run_vectors(void *out, const void *in, int64_t n, cudaStream_t stream);   /* n of 16 bytes */
void run_copied(void *out, const void *in, int n_wanted, cudaStream_t stream); /* 64 of 16 bytes */
void run_multiplied(float *d, const uint16_t *a, const uint16_t *b, const float *c,
                    cudaStream_t stream);
void run_multiplied_by_matrices(float *d, const uint16_t *a, const uint16_t *b,
                                cudaStream_t stream);
void run_multiplied_bytes(int32_t *d, const int8_t *a, const int8_t *b, cudaStream_t stream);
void run_transposed(uint32_t *out, const uint16_t *in,
                    cudaStream_t stream); /* out [32, 4], in [4, 8, 8] */
void run_converted(float *out, const float *in, int n, cudaStream_t stream); /* out [12, n] */

#ifdef __cplusplus
}
#endif

#endif
