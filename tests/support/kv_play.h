/*
 * tests/support/kv_play.h - a store of blocks, and somebody who keeps sequences in it: what is
 * written is remembered outside, and whatever rows read is held to that.
 *
 * A block has 16 cells, one a token; a cell is written once. Sequences run in tables, rest without
 * one, or wait in a table without rows (a ticket). The rules that the owner of block ids promises
 * to the store (kv/kv_tiers.h) are kept here.
 */
#ifndef TSR_TESTS_SUPPORT_KV_PLAY_H
#define TSR_TESTS_SUPPORT_KV_PLAY_H

#include <stdint.h>

#include "kv/kv_store.h"

enum {
    PLAY_TOKENS = 16, /* of a block */
    PLAY_TABLES = 8,
    PLAY_SEQS = 24,       /* that may live */
    PLAY_MOST_BLOCKS = 96 /* of a sequence */
};

typedef struct play_seq {
    bool lives;
    bool was_spoilt; /* by the last step */
    int table;       /* -1: rests */
    int64_t ticket;  /* -1: none is open */
    int n_tokens;
    int n_blocks;
    int32_t ids[PLAY_MOST_BLOCKS];
    int n_told;
} play_seq;

typedef struct play {
    tsr_device *dev;
    tsr_kv_store *store;
    int n_device, n_host, n_disk, n_ids;
    size_t block_bytes;
    unsigned char *shadow; /* [n_ids * block_bytes] what the blocks hold */
    int32_t *free_ids;     /* [n_ids] a stack */
    int n_free;
    int *owners; /* [n_ids] */
    int32_t *dropped;
    int n_dropped;
    play_seq seqs[PLAY_SEQS];
    int free_tables[PLAY_TABLES];
    int n_free_tables;
    int left[PLAY_TABLES];
    int n_left;
    int64_t n_tickets;
    uint64_t next_byte; /* what the next cell is written with */
    int64_t n_wrong;    /* cells that were not what was written, of sequences not spoilt */
    int64_t n_spoilt;   /* times that a sequence was */
    int64_t n_read;     /* cells compared */
} play;

/* folder: of the disk tier. Fails the running test when the store cannot be made. */
void play_open(play *p, int n_device, int n_host, int n_disk, const char *folder);
void play_close(play *p);

/* A new sequence of n_tokens that are still to be written, at rest; its number. */
int play_begin(play *p);

/* It ends: its blocks are dropped with the next step. */
void play_end(play *p, int seq);

/* It gives up its table, or gets one (false: none is free). */
void play_rest(play *p, int seq);
bool play_call(play *p, int seq);

/* Begins a sequence with the first n_tokens of another, sharing its whole blocks. */
int play_fork(play *p, int seq);

/* One step: n_rows[s] tokens more for each sequence in a table (0: a ticket, or just there). */
tsr_status play_step(play *p, const int n_rows[PLAY_SEQS], bool waits);

/* One sequence alone has n tokens more, 1 a step or all at once. */
void play_grow(play *p, int seq, int n, int at_once);

tsr_kv_report play_report(const play *p);

#endif
