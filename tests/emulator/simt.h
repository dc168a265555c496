/*
 * tests/emulator/simt.h - kernels run on the CPU as CUDA's programming model describes them.
 *
 * A launch runs its blocks one after another; a block's threads are fibers, warps of 32. What the
 * model leaves open is decided against the kernel: lanes, warps and blocks run in an order that can
 * be chosen (forward, reverse, random, chaos: warps change at random), asynchronous copies arrive
 * as late as they may, and memory that nobody wrote is full of NaN.
 *
 * What the model forbids ends the process with exit status SIMT_EXIT and one report on stderr that
 * names kernel, block, thread, file and line:
 *   accesses outside an allocation, to freed memory, to host memory, misaligned;
 *   races: two threads, one of them writing, and no barrier between them. Within a block
 *     __syncthreads() orders all threads and __syncwarp() those it names (shuffles and votes order
 *     nothing); blocks of one launch are not ordered at all; atomics do not race with each other;
 *   shared memory that is read before anybody of the block wrote it, or while a cp.async fills it;
 *   barriers that not all threads reach, or reach at different lines; collectives of a warp whose
 *     lanes disagree, have left, or name others than take part; deadlocks.
 *
 * Threads: one.
 */
#ifndef TSR_TESTS_EMULATOR_SIMT_H
#define TSR_TESTS_EMULATOR_SIMT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "tests/emulator/fiber.h"

enum {
    SIMT_EXIT = 97,
    SIMT_LANES = 32,
    SIMT_MAX_THREADS = 1024,
    SIMT_MAX_SHARED = 227 * 1024, /* of a block: an H100's */
    SIMT_DEFAULT_SHARED = 48 * 1024,
    SIMT_MAX_PARAMETER_BYTES = 4096
};

typedef enum simt_order {
    SIMT_FORWARD,
    SIMT_REVERSE,
    SIMT_RANDOM,
    SIMT_CHAOS,
    SIMT_ORDER_COUNT
} simt_order;

/* The order of everything that follows; at first what EMULATOR_ORDER and EMULATOR_SEED say. */
void simt_set_order(simt_order order, uint32_t seed);
simt_order simt_get_order(void);

/* ---- kernels ----------------------------------------------------------------------------------
 */

typedef struct simt_thread simt_thread;
typedef void simt_kernel_fn(simt_thread *thread, const char *parameters);

typedef struct simt_kernel {
    const char *name; /* mangled */
    simt_kernel_fn *fn;
    int n_parameters;
    const uint32_t *offsets; /* [n_parameters] bytes */
    const uint32_t *sizes;
    uint32_t shared_bytes; /* static; the dynamic part begins there */
    uint32_t max_threads;  /* __launch_bounds__; 0: not said */
} simt_kernel;

/* A place in a .cu file. */
typedef struct simt_place {
    const char *file;
    int line;
} simt_place;

/* Make a module's kernels and places known; all must outlive the process's last launch. The number
 * of its first place. */
uint32_t simt_announce(const simt_kernel *kernels, int n_kernels, const simt_place *places,
                       int n_places);

const simt_kernel *simt_find(const char *name); /* NULL: there is none */

typedef struct simt_launch {
    const simt_kernel *kernel;
    uint32_t grid[3];
    uint32_t threads[3];
    uint32_t dynamic_shared_bytes;
    int device;
    const char *parameters;
} simt_launch;

/* Run a launch to its end. What a device refuses to start is the caller's to refuse. */
void simt_run(const simt_launch *launch);

/* What has been run so far, for tests and figures. */
typedef struct simt_counts {
    uint64_t blocks, threads, switches, accesses;
} simt_counts;
simt_counts simt_so_far(void);

/* ---- what translated kernels call --------------------------------------------------------------
 * place: a number that simt_announce() gave out. */

typedef struct simt_block simt_block;
typedef struct simt_warp simt_warp;

typedef struct simt_wait {
    enum {
        SIMT_RUNS,
        SIMT_AT_BARRIER,
        SIMT_IN_WARP,
        SIMT_ENDED
    } state;
    uint32_t place;
    uint32_t mask;  /* of a collective */
    int collective; /* which */
    void *operands;
} simt_wait;

struct simt_copy; /* simt_copies.c */

struct simt_thread {
    fiber fiber;
    uint32_t tid[3];
    uint32_t lane;
    uint32_t number; /* in the block */
    simt_warp *warp;
    simt_block *block;
    simt_wait wait;
    uint32_t clock; /* __syncwarp() that it took part in */
    struct simt_copy *copies;
    int n_copies, n_copies_room;
    uint32_t copy_group; /* the open one */
};

struct simt_block {
    uint32_t id[3];
    uint32_t threads[3];
    uint32_t grid[3];
    uint32_t n_threads;
    uint32_t n_alive;
    uint32_t run;       /* number of this block in the process, from 1 */
    uint32_t first_run; /* that of the launch's first block */
    uint32_t epoch;     /* barriers passed */
    uint32_t shared_bytes;
    const simt_launch *launch;
};

typedef enum simt_access {
    SIMT_READ,
    SIMT_WRITE,
    SIMT_ATOMIC
} simt_access;

/* Where n_bytes (a power of two up to 32) at an address are to be read or written now. */
char *simt_global(simt_thread *t, uint64_t address, uint32_t n_bytes, simt_access access,
                  uint32_t place);
char *simt_shared(simt_thread *t, uint32_t offset, uint32_t n_bytes, simt_access access,
                  uint32_t place);
char *simt_generic(simt_thread *t, uint64_t address, uint32_t n_bytes, simt_access access,
                   uint32_t place);
uint64_t simt_shared_base(void); /* generic address of shared memory */

/* cp.async: n_bytes (4, 8, 16), of which n_given come from the source and the rest are zeros. */
void simt_copy_async(simt_thread *t, uint32_t to, uint64_t from, uint32_t n_bytes, uint32_t n_given,
                     uint32_t place);
void simt_copies_commit(simt_thread *t);
void simt_copies_wait(simt_thread *t, uint32_t n_groups_left);

void simt_barrier(simt_thread *t, uint32_t place);
void simt_warp_sync(simt_thread *t, uint32_t mask, uint32_t place);

typedef enum simt_shuffle_mode {
    SIMT_UP,
    SIMT_DOWN,
    SIMT_BUTTERFLY,
    SIMT_INDEX
} simt_shuffle_mode;
uint32_t simt_shuffle(simt_thread *t, simt_shuffle_mode mode, uint32_t value, uint32_t lane,
                      uint32_t clamp, uint32_t mask, bool *within, uint32_t place);
uint32_t simt_vote(simt_thread *t, bool vote, uint32_t mask, uint32_t place);

typedef enum simt_reduction {
    SIMT_ADD,
    SIMT_LEAST,
    SIMT_LARGEST
} simt_reduction;
uint32_t simt_reduce(simt_thread *t, simt_reduction what, bool is_signed, uint32_t value,
                     uint32_t mask, uint32_t place);

/* mma.sync: one lane's registers of A, B, C and D. BF16 and F16: m16n8k16, S8: m16n8k32. */
typedef struct simt_mma_lane {
    uint32_t a[4], b[2], c[4], d[4];
} simt_mma_lane;
typedef enum simt_mma_kind {
    SIMT_MMA_BF16,
    SIMT_MMA_F16,
    SIMT_MMA_S8
} simt_mma_kind;
void simt_mma(simt_thread *t, simt_mma_kind kind, simt_mma_lane *lane, uint32_t place);

/* ldmatrix .x1, .x2, .x4: lane 8 m + r names row r of matrix m, 16 bytes at a shared offset. */
void simt_load_matrices(simt_thread *t, uint32_t *out, int n_matrices, bool transposed,
                        uint32_t offset, uint32_t place);

/* Report and end the process. */
_Noreturn void simt_fail(const simt_thread *t, uint32_t place, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* "file.cu:12" */
const char *simt_place_name(uint32_t place, char text[static 128]);

#endif
