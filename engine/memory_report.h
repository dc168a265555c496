/*
 * engine/memory_report.h - what ranks with tiers of memory tell the leader at the end of each step,
 * and what the leader makes of it.
 */
#ifndef TSR_ENGINE_MEMORY_REPORT_H
#define TSR_ENGINE_MEMORY_REPORT_H

#include "engine/step.h"
#include "engine/tessera.h"
#include "kv/kv_store.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_MEMORY_REPORT_WORDS = 6 + TSR_STEP_MOST_LOST /* 32 bits each */
};

/* What was said last: a report tells what came since. */
typedef struct tsr_memory_report {
    int64_t moved_bytes;
    int64_t moved_us;
} tsr_memory_report; /* start with {0} */

/* This rank's words, [TSR_MEMORY_REPORT_WORDS]. */
void tsr_memory_report_write(tsr_memory_report *said, int32_t *words, const tsr_kv_tiers *tiers);

/* What this rank's store has held and moved. */
tsr_memory_stats tsr_memory_report_stats(const tsr_kv_store *store);

/* Of all ranks together; rank r's words start at words[r * stride]. */
void tsr_memory_report_merge(tsr_step_report *out, const int32_t *words, size_t stride,
                             int n_ranks);

#ifdef __cplusplus
}
#endif

#endif
