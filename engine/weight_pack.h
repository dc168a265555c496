/*
 * engine/weight_pack.h - one weight's rows from the file into panels that kernels compute with.
 *
 * Rows that lie in the file as kernels/weight.h can read them are packed from there; those of
 * engine/packed.h go into tiles run by run. Others, of transposed tensors and of plain ones that
 * are to become another type, pass through f32.
 */
#ifndef TSR_ENGINE_WEIGHT_PACK_H
#define TSR_ENGINE_WEIGHT_PACK_H

#include "engine/weight_place.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_weight_pack {
    tsr_weight_place place;
    tsr_format as;     /* as of tsr_weight_pack_format() */
    tsr_format format; /* that it has in panels */
    char *panels;      /* destination */
    size_t panel_bytes;
    float *groups;        /* of mixed formats: destination of the table */
    tsr_range rows, cols; /* of the weight */
} tsr_weight_pack;

/* A thread's memory between calls; begins as {0}. */
typedef struct tsr_weight_pack_bench {
    float *values; /* [TSR_PANEL_ROWS, n_cols] */
    int64_t n_cols;
} tsr_weight_pack_bench;

/* What a weight becomes: plain ones what `as` says (COUNT: as they are), quantised ones what holds
 * them without loss, or F32 when they lie transposed or are mixed and not for the host. as  also
 * Q8, Q4 or FP8, to which kernels/round_weight.h rounds each 32 columns of a row; every cut must
 * then be a multiple of 32.
 */
tsr_format tsr_weight_pack_format(const tsr_weight_place *place, tsr_format as, tsr_device_kind on);

/* The bytes of the file that rows x cols of a weight are. */
uint64_t tsr_weight_pack_file_bytes(const tsr_weight_place *place, tsr_range rows, tsr_range cols);

/* Pack one panel of 16 rows. Errors: FORMAT, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_weight_pack_one(const tsr_weight_pack *pack,
                                              tsr_weight_pack_bench *bench, int64_t panel);

void tsr_weight_pack_clear(tsr_weight_pack_bench *bench);

#ifdef __cplusplus
}
#endif

#endif
