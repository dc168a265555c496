/*
 * engine/search.h - a group whose members are the beams of a search. Private to the room.
 *
 * engine/beam.h says which beams go on by which tokens; this makes it so. A beam that lives on in
 * one continuation stays the member it is. What dies gives its place to further continuations of
 * others: such a member takes part in the blocks of the beam that it continues, of which only the
 * last is copied, when it is written.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_ENGINE_SEARCH_H
#define TSR_ENGINE_SEARCH_H

#include "engine/group.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tsr_search {
    tsr_group *group;
    const tsr_tokenizer *tokenizer; /* borrowed; NULL: the model has none */
    const tsr_model *model;         /* borrowed */
    tsr_beam *beam;                 /* owned */
    int n_offers;                   /* of each beam */
    tsr_beam_candidate *offers;     /* owned, [n_offers]: those of one */
    int *live;                      /* owned, [width]: which member a live beam is */
    int *next_live;                 /* owned, [width]: in the round that begins */
    tsr_beam_step *steps;           /* owned, [width] */
    bool *is_taken;                 /* owned, [width]: members that live on */
    tsr_writing *writings;          /* owned, [width]: of the beams of a round */
    tsr_text scratch;               /* a token's text */
    int64_t first_ns;               /* of its rounds; 0: none yet */
    int64_t last_ns;
    int64_t longest_gap_ns;
    int64_t n_rounds;
};

/* Errors: ARG (the length penalty), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_search_create(tsr_search **out, const tsr_engine *e, tsr_group *group,
                                            const tsr_generation *wish);
void tsr_search_destroy(tsr_search *search); /* NULL is fine */

/* search->offers [n] are what a member's row says may follow it. */
void tsr_search_offer(tsr_search *search, const tsr_member *member, int n);

/* After a commit that brought offers: when all have come, the next round. */
void tsr_search_advance(tsr_engine *e, tsr_group *group, int64_t now_ns);

/* The scheduler has handed a member's request back: if it was a live beam, the search ends. */
void tsr_search_end(tsr_engine *e, tsr_member *member);

#ifdef __cplusplus
}
#endif

#endif
