/*
 * engine/pace.h - what a step costs, learnt from steps that were timed, and so how many prompt rows
 * may ride along with sequences that are decoding.
 *
 * The time of a step is taken to be
 *     cost[0] + cost[1] x decoding sequences + cost[2] x prompt rows,
 * by least squares of the relative error, in which a step counts for less the longer ago it was.
 * Where the last steps say nothing about a cost (nobody sent a prompt for a while) the earlier
 * value stays. Steps rarely cost exactly that: a few rows ride for nothing while reading the
 * weights is what takes the time, and attention costs more far down a prompt. So what the model
 * says of many rows is not trusted beyond twice the rows that were seen lately: what costs
 * max(read, rows x compute) then still stays below twice a step that was seen.
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
    TSR_PACE_N_COSTS = 3,
    TSR_PACE_LEAST_ROWS = 4 /* so that prompts go on however slow they are */
};

typedef struct tsr_pace { /* start with {0}: nothing is known */
    double squares[TSR_PACE_N_COSTS][TSR_PACE_N_COSTS];
    double products[TSR_PACE_N_COSTS];
    double cost[TSR_PACE_N_COSTS]; /* microseconds; none below 0 */
    double reach;                  /* prompt rows seen in one step lately */
    int n_noted;
} tsr_pace;

/* A step of so many decoding sequences and prompt rows took `us` microseconds. */
void tsr_pace_note(tsr_pace *pace, int n_decoding, int n_prompt_rows, double us);

/* What such a step would take, in microseconds. */
double tsr_pace_guess(const tsr_pace *pace, int n_decoding, int n_prompt_rows);

/*
 * How many of `budget` prompt rows may join a step that decodes n_decoding sequences: as many as
 * keep it below target_us, or below twice the step without them if target_us is 0. At least
 * TSR_PACE_LEAST_ROWS (within the budget); all of them when nobody decodes or nothing was timed
 * yet.
 */
int tsr_pace_prompt_rows(const tsr_pace *pace, int n_decoding, int budget, double target_us);

#ifdef __cplusplus
}
#endif

#endif
