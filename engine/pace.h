/*
 * engine/pace.h - what a step costs, learnt from steps that were timed, and so how many prompt rows
 * may ride along with sequences that are decoding.
 *
 * The time of a step is taken to be
 *     base + a_sequence x decoding sequences + a_row x prompt rows.
 * The first two come from steps without prompts, by least squares of the relative error in which a
 * step counts for less the longer ago it was; the last from the others: what they took beyond that,
 * averaged. While prompts are being read every TSR_PACE_PROBE-th step goes without them, so that
 * the usual time stays known while it changes.
 *
 * Rows seldom cost the same: a few ride for nothing while reading the weights is what takes the
 * time, and attention costs more far down a prompt. The average follows that a little at a time,
 * and it is not trusted for more than twice the rows it was learnt from: if those cost nothing,
 * because the step took max(read, rows x compute), then twice as many at most double it.
 *
 * Times are given, there is no clock in here.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_ENGINE_PACE_H
#define TSR_ENGINE_PACE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_PACE_LEAST_ROWS = 1, /* so that prompts go on however slow they are */
    TSR_PACE_PROBE = 16
};

typedef struct tsr_pace { /* start with {0}: nothing is known */
    double base;          /* microseconds, as are the next two; none below 0 */
    double a_sequence;
    double a_row;
    double reach; /* prompt rows that a_row was learnt from lately; 0: none */
    int n_plain;  /* steps without prompts that were noted, up to a few */
    int n_mixed;  /* steps with prompts and decoding since the last without */

    double squares[3]; /* weighted sums over steps without prompts, n decoding: 1, n, n x n */
    double products[2];
} tsr_pace;

/* A step of so many decoding sequences and prompt rows took `us` microseconds. */
void tsr_pace_note(tsr_pace *pace, int n_decoding, int n_prompt_rows, double us);

/* What such a step would take, in microseconds. */
double tsr_pace_guess(const tsr_pace *pace, int n_decoding, int n_prompt_rows);

/*
 * How many of `budget` prompt rows may join a step that decodes n_decoding sequences: as many as
 * keep it below target_us, or below 1.6 times the step without them if target_us is 0. At least
 * TSR_PACE_LEAST_ROWS (within the budget) but for the probes, which have none; all of them when
 * nobody decodes or nothing was timed yet.
 */
int tsr_pace_prompt_rows(const tsr_pace *pace, int n_decoding, int budget, double target_us);

#ifdef __cplusplus
}
#endif

#endif
