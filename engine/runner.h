/*
 * engine/runner.h - below the waist: one rank carries out steps.
 *
 * Every rank has a runner over its own device, weights and cache. A step's changes are applied to
 * the block tables that the runner keeps on the device, the forward pass runs, and what the leader
 * needs of the logits comes out.
 */
#ifndef TSR_ENGINE_RUNNER_H
#define TSR_ENGINE_RUNNER_H

#include "engine/decoder.h"
#include "engine/step.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_runner tsr_runner;

/*
 * What a rank found for the wanted rows, as one block of 32-bit words to be gathered. Row i starts
 * at word i * row_words: [n_best] token ids, [n_best] their logits (f32), [1] the target's logit
 * (f32; -infinity when another rank has it), [2 * n_units] masses (f32): (largest, sum) of each
 * vocabulary unit here, unused ones (-infinity, 0). row_words and n_units are the same on all
 * ranks.
 *
 * Behind them the rows that were looked at twice (step->raw), each of raw_words words, as they were
 * before any change and at sharpness 1: [n_raw_best] ids, [n_raw_best] logits, [n_best] the logits
 * that the row's candidates above had, [2 * n_units] masses.
 */
typedef struct tsr_findings {
    const int32_t *words;
    size_t n_words;
    size_t row_words;
    size_t raw_at; /* where the first of them starts */
    size_t raw_words;
    size_t report_at; /* where this rank's words about memory start (memory_report.h), with tiers */
    int n_best;
    int n_raw_best;
    int n_units;
} tsr_findings;

/* parts' dev, comm, config, shard, weights, kv are borrowed; store is the same cache as parts->kv,
 * to be changed. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_runner_create(tsr_runner **out, const tsr_decoder_parts *parts,
                                            tsr_kv_store *store, const tsr_step_limits *limits,
                                            int n_ranks);

/* Bytes of its block tables, inputs and row of logits, the decoder's not counted. */
size_t tsr_runner_table_bytes(const tsr_step_limits *limits, const tsr_shard *shard);
void tsr_runner_destroy(tsr_runner *runner); /* NULL is fine */

/* Carry out a RUN step; all ranks together. A device with a queue may still be at it afterwards. */
TSR_MUST_CHECK tsr_status tsr_runner_start(tsr_runner *runner, const tsr_step *step);

/* Wait for what was started; findings are good until the next start. */
TSR_MUST_CHECK tsr_status tsr_runner_finish(tsr_runner *runner, const tsr_step *step,
                                            tsr_findings *findings);

/* After tsr_runner_finish(): this rank's logits of wanted row i, unchanged, on the host, [own
 * vocabulary]; good until the next call. */
TSR_MUST_CHECK tsr_status tsr_runner_row(tsr_runner *runner, int i, const float **logits);

/* After tsr_runner_finish(): hidden states of rows [first, first + n) of the step, n up to
 * TSR_DECODER_HEAD_ROWS, copied to hidden [n * dim]. Any rank may ask by itself. */
TSR_MUST_CHECK tsr_status tsr_runner_hidden(tsr_runner *runner, float *hidden, int first, int n);

#ifdef __cplusplus
}
#endif

#endif
