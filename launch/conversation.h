/*
 * launch/conversation.h - what a person and the model have said so far.
 *
 * At most one system message, the first. A turn begins with a user's message and holds what was
 * answered. When a conversation outgrows the model's context its oldest turns are left out of what
 * the model is given; they stay in the conversation.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_CONVERSATION_H
#define TSR_LAUNCH_CONVERSATION_H

#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Start with {0}; one clear. Contents are owned, roles are not. */
typedef struct tsr_conversation {
    tsr_chat_message *messages;
    int n_messages;
    int capacity;
    int n_left_out; /* turns, the oldest, that the model is no longer given */
} tsr_conversation;

void tsr_conversation_clear(tsr_conversation *conversation); /* it is {0} again */

/* Zero bytes of the text are dropped. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_conversation_add(tsr_conversation *conversation, const char *role,
                                               const char *text, size_t n_bytes);
void tsr_conversation_drop_last(tsr_conversation *conversation);

/* The system message's content; NULL if there is none. */
const char *tsr_conversation_system(const tsr_conversation *conversation);

/* Nothing said yet, but for this system message, which may be NULL. The text may be the
 * conversation's own. Errors: NOMEM; the conversation is then as it was. */
TSR_MUST_CHECK tsr_status tsr_conversation_begin(tsr_conversation *conversation,
                                                 const char *system);

int tsr_conversation_n_turns(const tsr_conversation *conversation);

/*
 * The prompt for the next answer, of most_tokens at most; *ids is handed out: tsr_tessera_free().
 * Leaves out as many turns more as it must, never the last.
 * Errors: FULL (the last turn alone is too long), and those of tsr_model_conversation_ids().
 */
TSR_MUST_CHECK tsr_status tsr_conversation_ids(tsr_conversation *conversation,
                                               const tsr_model *model, int64_t most_tokens,
                                               int32_t **ids, int64_t *n_ids);

/*
 * As JSON Lines: one {"role": ..., "content": ...} a message. Saving makes a new file and never
 * writes over one; loading replaces the conversation.
 * Errors: IO, FORMAT (which line), NOMEM, CANCELLED; what there was is then untouched.
 */
TSR_MUST_CHECK tsr_status tsr_conversation_save(const tsr_conversation *conversation,
                                                const char *path);
TSR_MUST_CHECK tsr_status tsr_conversation_load(tsr_conversation *conversation, const char *path);

#ifdef __cplusplus
}
#endif

#endif
