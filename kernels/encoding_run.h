/*
 * kernels/encoding_run.h - the file's bits of a quantised row as runs of 32 small integers and
 * their scales: read once here for those who pack (kernels/weight.c) and who decode
 * (kernels/encoding.c). Private to the room.
 */
#ifndef TSR_KERNELS_ENCODING_RUN_H
#define TSR_KERNELS_ENCODING_RUN_H

#include "kernels/encoding.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Run t of a row. */
typedef void tsr_encoding_read_fn(tsr_encoding_run *run, const uint8_t *row, int64_t t);

/* Scale and minimum of run i, six bits each, of the eight that Q4_K and Q5_K keep in 12 bytes. */
void tsr_encoding_six_bits(const uint8_t *packed, int i, unsigned *scale, unsigned *minimum);

/* NULL: that encoding is not read in runs (plain types and those whose bits go into a tile as they
 * are). */
tsr_encoding_read_fn *tsr_encoding_reader(tsr_encoding encoding);

/*
 * The sixteen values that the codes of IQ4_NL and IQ4_XS stand for, and those of MXFP4, doubled
 * (e2m1 of the OCP Microscaling specification 1.0).
 */
extern const int8_t tsr_encoding_nl4_values[16];
extern const int8_t tsr_encoding_fp4_values[16];

/* For the encodings with such codes: q are the codes, below 16, and d[0] is what their values are
 * multiplied by; the rest is not set. NULL for all others. */
tsr_encoding_read_fn *tsr_encoding_codes_reader(tsr_encoding encoding);

/* ---- grids: the points that runs of 8 or 4 elements may take ------------------------------------
 * Data of the format (ggml/src/ggml-common.h). An entry has 2 bits an element for the eight
 * elements of iq2 and iq1 grids and 4 bits for the four of iq3 ones, the first lowest: which of the
 * grid's levels it takes.
 */
extern const uint16_t tsr_grid_iq2_xxs[256];
extern const uint16_t tsr_grid_iq2_xs[512];
extern const uint16_t tsr_grid_iq2_s[1024];
extern const uint16_t tsr_grid_iq3_xxs[256];
extern const uint16_t tsr_grid_iq3_s[512];
extern const uint16_t tsr_grid_iq1[2048];

#ifdef __cplusplus
}
#endif

#endif
