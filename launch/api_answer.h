/*
 * launch/api_answer.h - what comes back for one request of the OpenAI form: the events of its
 * generations collected into choices, and the objects that are sent.
 *
 * The choices of prompt p are p * n .. p * n + n - 1.
 *
 * Threads: none of its own.
 */
#ifndef TSR_LAUNCH_API_ANSWER_H
#define TSR_LAUNCH_API_ANSWER_H

#include "base/text.h"
#include "launch/api_calls.h"
#include "launch/api_request.h"
#include "launch/likely.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_api_choice {
    tsr_text text;
    tsr_likely likely;
    tsr_api_calls calls; /* of tools, where there may be any: the text is without them */
    char reason[16];     /* "" while it runs */
    int64_t n_generated;
} tsr_api_choice;

typedef struct tsr_api_answer {
    const tsr_api_request *request; /* borrowed */
    const tsr_model *model;         /* borrowed */
    const char *name;               /* of the model, as it is told; borrowed */
    char id[64];                    /* "cmpl-..." */
    int64_t created;                /* seconds since 1970 */
    tsr_api_choice *choices;        /* owned, [n_choices] */
    int n_choices;
    tsr_likely *prompts; /* owned, [n_prompts]: echo with logprobs */
    float *vectors;      /* owned, [n_prompts * dim]: embeddings */
    int64_t dim;         /* of the model */
    int64_t n_prompt;    /* tokens of all prompts */
    int64_t n_cached;    /* of these, found in the cache */
    int n_open;          /* prompts that have not come to their last event */
    bool failed;
    tsr_api_error error; /* when it failed */
} tsr_api_answer;

/* Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_api_answer_init(tsr_api_answer *answer,
                                              const tsr_api_request *request,
                                              const tsr_model *model, const char *name);
void tsr_api_answer_clear(tsr_api_answer *answer); /* fine on {0} */

/* An event of the generation of prompt `prompt`. */
void tsr_api_answer_note(tsr_api_answer *answer, int prompt, const tsr_event *event);

static inline bool tsr_api_answer_is_whole(const tsr_api_answer *answer)
{
    return answer->n_open == 0;
}

/* The whole answer, or the error; NULL when memory is short. */
json_t *tsr_api_answer_object(const tsr_api_answer *answer);

/* Parts of it; NULL when memory is short. */
json_t *tsr_api_answer_usage(const tsr_api_answer *answer);
json_t *tsr_api_answer_prompt_text(const tsr_api_answer *answer, int choice);

/* Of a choice's tokens from first_token on; from 0 on with those of an echoed prompt. */
json_t *tsr_api_answer_logprobs(const tsr_api_answer *answer, int choice, int first_token);

#ifdef __cplusplus
}
#endif

#endif
