/*
 * launch/args_number.h - numbers as people type them, checked to the last character.
 *
 * `name` is the option, for the message. Errors: ARG.
 *
 * Threads: any.
 */
#ifndef TSR_LAUNCH_ARGS_NUMBER_H
#define TSR_LAUNCH_ARGS_NUMBER_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

TSR_MUST_CHECK tsr_status tsr_args_number_integer(const char *name, const char *text, int64_t least,
                                                  int64_t most, int64_t *out);
TSR_MUST_CHECK tsr_status tsr_args_number_seed(const char *name, const char *text, uint64_t *out);

/* Finite numbers only, in decimal. */
TSR_MUST_CHECK tsr_status tsr_args_number_real(const char *name, const char *text, double least,
                                               double most, double *out);

/* "65536", "64K", "512MiB", "1.5G"; K, M, G and T are powers of 1024. "auto" is 0; else at least
 * one byte. */
TSR_MUST_CHECK tsr_status tsr_args_number_bytes(const char *name, const char *text, uint64_t *out);

/* Token ids, separated by commas, spaces or newlines; *ids is tsr_free()d. None is an error. */
TSR_MUST_CHECK tsr_status tsr_args_number_ids(const char *name, const char *text, size_t n_bytes,
                                              int32_t **ids, int64_t *n_ids);

#ifdef __cplusplus
}
#endif

#endif
