/*
 * parallel/watch_table.h - the table that the ranks of a host share, and what signals do to it.
 * Private to the watch.
 *
 * Everything in it is lock-free and atomic: it is read by other processes and written by signal
 * handlers. A rank that dies leaves its cell as it was, which is how the others know what it was
 * at.
 */
#ifndef TSR_PARALLEL_WATCH_TABLE_H
#define TSR_PARALLEL_WATCH_TABLE_H

#include <pthread.h>
#include <stdatomic.h>

#include "parallel/watch.h"

enum {
    TSR_WATCH_LINE_BYTES = 128, /* two cache lines: neighbours are fetched in pairs */
    TSR_WATCH_NOTE_WORDS = 6,
    TSR_WATCH_NOTE_BYTES = TSR_WATCH_NOTE_WORDS * 8
};

typedef struct tsr_watch_cell {
    _Alignas(TSR_WATCH_LINE_BYTES) _Atomic int32_t pid; /* 0: not there yet */
    _Atomic int32_t rank;
    _Atomic uint32_t n_beats;
    _Atomic int32_t finished;
    _Atomic int64_t number;                      /* behind the note; < 0: none */
    _Atomic uint64_t note[TSR_WATCH_NOTE_WORDS]; /* text, 0 behind it */
} tsr_watch_cell;

typedef struct tsr_watch_table {
    _Alignas(TSR_WATCH_LINE_BYTES) _Atomic int32_t
        claimed; /* rank + 1 of the one that reports the end */
    _Atomic int32_t asked_to_end;
    tsr_watch_cell cells[];
} tsr_watch_table;

_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_LLONG_LOCK_FREE == 2,
               "the table is shared between processes and written by signal handlers");

struct tsr_watch {
    tsr_watch_place place;
    tsr_watch_table *table;      /* borrowed */
    struct tsr_watch_seen *seen; /* [n_host_ranks], owned: what the last looks showed */
    _Atomic(const char *) noted; /* the text that the own cell holds */
    int bell;                    /* an eventfd that wakes the thread; -1: there is no thread */
    int parent;                  /* the launcher's process */
    _Atomic int stop;
    bool in_signals;
    bool has_thread;
    pthread_t thread;
};

/* The note of a cell: text [TSR_WATCH_NOTE_BYTES]. Safe in a signal handler. */
void tsr_watch_table_read_note(const tsr_watch_cell *cell, char *text);

/* Signals of the process lead to `watch` until closed. Errors: ARG (they lead to another already),
 * IO. */
TSR_MUST_CHECK tsr_status tsr_watch_signals_open(tsr_watch *watch);
void tsr_watch_signals_close(tsr_watch *watch);
bool tsr_watch_signals_asked(void); /* was this process itself asked to end? */

#endif
