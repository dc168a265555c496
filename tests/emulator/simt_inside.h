/*
 * tests/emulator/simt_inside.h - what the parts of the engine know of each other.
 */
#ifndef TSR_TESTS_EMULATOR_SIMT_INSIDE_H
#define TSR_TESTS_EMULATOR_SIMT_INSIDE_H

#include "tests/emulator/simt.h"

struct simt_warp {
    simt_thread *threads; /* its first */
    uint32_t n_lanes;
    uint32_t ready;   /* lanes that can run: bit = place in the schedule */
    uint32_t waiting; /* in a collective: bit = lane */
    uint32_t ended;   /* bit = lane */
    uint8_t place_of[SIMT_LANES];
    uint8_t lane_at[SIMT_LANES];
    /* knows[l][m]: what lane m did before its clock reached this is before what lane l does now */
    uint32_t knows[SIMT_LANES][SIMT_LANES];
};

/* simt.c: let others run until this thread is made ready again. */
void simt_give_way(simt_thread *t);
void simt_make_ready(simt_thread *t);
void simt_make_wait(simt_thread *t);

/* Do two places stand for the same line? */
bool simt_same_place(uint32_t a, uint32_t b);

/* simt_mma.c: D = A B + C of a warp. lanes [32] */
void simt_multiply(simt_mma_kind kind, simt_mma_lane *const *lanes);

/* simt_warp.c: lanes have left: may those that wait go on? */
void simt_warp_lane_left(simt_warp *warp);

/* simt_access.c */
void simt_access_block_begins(const simt_block *block);
/* An asynchronous copy begins to write, and has written; and what it reads. */
char *simt_access_copy_target(simt_thread *t, uint32_t offset, uint32_t n_bytes, uint32_t place);
void simt_access_copy_arrives(simt_thread *t, uint32_t offset, uint32_t n_bytes, uint32_t place);
uint64_t simt_access_count(void);

/* simt_copies.c */
void simt_copies_thread_ends(simt_thread *t);

/* The next of a fixed sequence of random numbers. */
uint32_t simt_random(void);

#endif
