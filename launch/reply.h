/*
 * launch/reply.h - what comes back for each prompt of one command, and how it is shown.
 *
 * Text is shown in the order of the prompts and of their choices: the first one that is not
 * complete streams, those behind it are kept until it is their turn. With JSON each reply is one
 * object, in that order too.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_REPLY_H
#define TSR_LAUNCH_REPLY_H

#include "base/ids.h"
#include "base/text.h"
#include "engine/tessera.h"
#include "launch/likely.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_reply_set tsr_reply_set;

/* One answer. */
typedef struct tsr_reply_choice {
    tsr_ids ids;
    tsr_text text;
    tsr_likely likely; /* of the tokens, with JSON */
    size_t n_shown;
    char reason[16]; /* "" while it runs */
    double logprob;
    double score;
} tsr_reply_choice;

typedef struct tsr_reply {
    tsr_reply_set *set;
    const char *title; /* of the prompt: its file's name */
    int32_t *prompt;   /* the reply's to give back: handed out by the model, or tsr_alloc()ed */
    int64_t n_prompt;
    bool prompt_is_ours;       /* the latter */
    tsr_reply_choice *choices; /* [n_choices] */
    int n_choices;             /* when all has ended there may be fewer than were asked for */
    bool ended;
    int64_t n_cached_tokens;  /* of the prompt: they were not computed */
    int64_t n_generated;      /* tokens of all choices */
    tsr_likely likely_prompt; /* of the prompt's tokens, when they are scored */
    int64_t submitted_ns;
    int64_t last_token_ns;
    double first_token_s;
    double prompt_s;
    double generation_s; /* the longest of the choices, as are the next two */
    double mean_gap_s;
    double longest_gap_s;
} tsr_reply;

struct tsr_reply_set {
    tsr_reply *replies;
    int n;
    int n_choices; /* asked for, of each */
    int n_ended;
    int turn; /* the one that is shown, and which of its choices */
    int choice_turn;
    bool json;
    const tsr_model *model; /* borrowed; with JSON */
    bool with_logprobs;     /* a JSON reply says how likely its tokens were */
    bool with_prompt;       /* and those of its prompt */
    bool with_score;
    double load_s;
    tsr_status st; /* the first failure: its message is this thread's last when it is returned */
    char message[512];
};

TSR_MUST_CHECK tsr_status tsr_reply_set_make(tsr_reply_set *set, int n, int n_choices, bool json);
void tsr_reply_set_clear(tsr_reply_set *set);

/* The generation's on_event; ctx is its tsr_reply. */
void tsr_reply_on_event(void *ctx, const tsr_event *event);

/* No more events will come: those that still run are "cancelled". Shows what is left to show. */
void tsr_reply_set_finish(tsr_reply_set *set);

#ifdef __cplusplus
}
#endif

#endif
