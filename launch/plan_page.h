/*
 * launch/plan_page.h - plans for several numbers of ranks, as a page or as JSON.
 */
#ifndef TSR_LAUNCH_PLAN_PAGE_H
#define TSR_LAUNCH_PLAN_PAGE_H

#include <jansson.h>

#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One number of ranks. */
typedef struct tsr_plan_row {
    tsr_plan plan;
    uint64_t device_bytes;  /* of each rank */
    tsr_plan_share *shares; /* [plan.n_ranks] */
} tsr_plan_row;

typedef struct tsr_plan_page {
    const char *title;    /* "llama-3-8b, bf16 weights" */
    const char *memory;   /* "h100, 78.6 GiB a rank" */
    const char *kv_dtype; /* "f16" */
    uint64_t lower_bytes; /* of each rank's tiers below the device; 0: none */
    const char *model;    /* the path to start it with; NULL for a shape */
    const tsr_plan_row *rows;
    int n_rows;
    int best; /* the row that is drawn and advised; -1: none holds a sequence */
} tsr_plan_page;

void tsr_plan_page_print(const tsr_plan_page *page);

/* NULL: no memory. */
json_t *tsr_plan_page_json(const tsr_plan_page *page);

#ifdef __cplusplus
}
#endif

#endif
