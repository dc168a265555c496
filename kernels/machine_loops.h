/*
 * kernels/machine_loops.h - the loops that measure a core, compiled for each instruction set.
 * Private to the room.
 */
#ifndef TSR_KERNELS_MACHINE_LOOPS_H
#define TSR_KERNELS_MACHINE_LOOPS_H

#include <stddef.h>
#include <stdint.h>

/* Each does `n` rounds of its work and returns something made of all of it, so that none can be
 * left out. */
#define TSR_MACHINE_DECLARE(isa)                                 \
    float tsr_machine_read_##isa(const float *memory, size_t n); \
    float tsr_machine_int8_##isa(size_t n);                      \
    float tsr_machine_f32_##isa(size_t n);
TSR_MACHINE_DECLARE(plain)
TSR_MACHINE_DECLARE(avx2)
TSR_MACHINE_DECLARE(avx512)

enum {
    TSR_MACHINE_CHAINS = 12, /* independent sums: more than an instruction takes cycles */
    TSR_MACHINE_READ_STREAMS = 4,
    TSR_MACHINE_READ_FLOATS = 4 * 16 * TSR_MACHINE_READ_STREAMS, /* of a round of reading */
    TSR_MACHINE_INT8_MACS = TSR_MACHINE_CHAINS * 64,             /* of a round */
    TSR_MACHINE_F32_MACS = TSR_MACHINE_CHAINS * 16
};

#endif
