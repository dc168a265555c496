/*
 * tests/support/oracle_beam.h - a plain beam search on an oracle: every beam is computed anew for
 * every token, all continuations are listed and sorted.
 *
 * The rules are those that engine/beam.h states; this is written from them, and from nothing else.
 */
#ifndef TSR_TESTS_SUPPORT_ORACLE_BEAM_H
#define TSR_TESTS_SUPPORT_ORACLE_BEAM_H

#include "engine/tessera.h"
#include "tests/support/oracle.h"

enum {
    ORACLE_BEAM_WIDTH = 16,
    ORACLE_BEAM_LENGTH = 64
};

typedef struct oracle_beam_rules {
    int width;
    double length_penalty;
    tsr_stopping stopping;
    int max_tokens;
    int32_t end_token; /* not kept; -1: none */
    int32_t stop_id;   /* kept; -1: none */
    int min_tokens;    /* before so many neither is possible */
    double repetition; /* penalty; 1: off */
    double presence;   /* 0: off */
} oracle_beam_rules;

typedef struct oracle_answer {
    int32_t ids[ORACLE_BEAM_LENGTH];
    int n_ids;
    double sum;
    double score;
    bool is_open;
} oracle_answer;

/*
 * answers [width], best first; returns how many. *margin: by how much the closest decision was
 * made. Small errors in logits change nothing while they are well below it.
 */
int oracle_beam_search(oracle *o, const int32_t *prompt, int n_prompt,
                       const oracle_beam_rules *rules, oracle_answer *answers, double *margin);

#endif
