/*
 * launch/decoding.h - how tokens are chosen and where an answer ends, as flags of a command.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_DECODING_H
#define TSR_LAUNCH_DECODING_H

#include "engine/tessera.h"
#include "launch/args.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_decoding_options {
    double typical_p;
    double repetition_penalty;
    double presence_penalty;
    double frequency_penalty;
    const char *logit_bias; /* "ID:B,..." */
    int64_t min_tokens;
    const char *stop_ids;
    tsr_args_list stops;
    bool include_stop;
    int64_t logprobs; /* -1: not asked for */
    bool echo;
} tsr_decoding_options;

/* What flags that are not given mean. */
tsr_decoding_options tsr_decoding_defaults(void);

/* The flags, for a command that keeps the options at `at` of its struct. */
tsr_args_group tsr_decoding_group(size_t at);
tsr_args_group tsr_decoding_telling_group(size_t at); /* --logprobs, --echo */

/* The lists that flags spell out. */
typedef struct tsr_decoding {
    int32_t *bias_ids;
    float *biases;
    int n_biases;
    int32_t *stop_ids;
    int n_stop_ids;
} tsr_decoding;

/* Errors: ARG (in words for the person who typed it), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_decoding_read(tsr_decoding *out, const tsr_decoding_options *options);
void tsr_decoding_clear(tsr_decoding *decoding);

/* The fields of a generation; the lists are borrowed. */
void tsr_decoding_put(tsr_generation *generation, const tsr_decoding_options *options,
                      const tsr_decoding *decoding);

#ifdef __cplusplus
}
#endif

#endif
