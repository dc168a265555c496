/*
 * Blocks of a kernel that an SM of an H100 has room for, by NVIDIA's own cuda_occupancy.h. Each
 * line of stdin is "registers static-bytes dynamic-bytes threads"; the answer is one number a line.
 */
#include <stdio.h>
#include <stdlib.h>

#include <cuda_occupancy.h>

int main(void)
{
    const cudaOccDeviceProp h100 = {.computeMajor = 9,
                                    .computeMinor = 0,
                                    .maxThreadsPerBlock = 1024,
                                    .maxThreadsPerMultiprocessor = 2048,
                                    .regsPerBlock = 65536,
                                    .regsPerMultiprocessor = 65536,
                                    .warpSize = 32,
                                    .sharedMemPerBlock = 49152,
                                    .sharedMemPerMultiprocessor = 233472,
                                    .numSms = 132,
                                    .sharedMemPerBlockOptin = 232448,
                                    .reservedSharedMemPerBlock = 1024};
    const cudaOccDeviceState state = {.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED};
    char line[256];

    while (fgets(line, sizeof(line), stdin) != NULL) {
        cudaOccFuncAttributes kernel = {.maxThreadsPerBlock = 1024,
                                        .shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN};
        cudaOccResult result;
        char *at = line;

        kernel.numRegs = (int)strtol(at, &at, 10);
        kernel.sharedSizeBytes = (size_t)strtol(at, &at, 10);
        kernel.maxDynamicSharedSizeBytes = (size_t)strtol(at, &at, 10);
        if (cudaOccMaxActiveBlocksPerMultiprocessor(
                &result, &h100, &kernel, &state, (int)strtol(at, &at, 10),
                kernel.maxDynamicSharedSizeBytes) != CUDA_OCC_SUCCESS) {
            (void)fprintf(stderr, "occupancy: refused: %s", line);
            return 1;
        }
        (void)printf("%d\n", result.activeBlocksPerMultiprocessor);
    }
    return 0;
}
