/*
 * launch/chat_words.h - a chat, and the words that are for it and not for the model: /help and the
 * like.
 *
 * What they answer goes to stderr, so that stdout holds the model's answers and nothing else.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_CHAT_WORDS_H
#define TSR_LAUNCH_CHAT_WORDS_H

#include "launch/conversation.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_chat {
    const tsr_engine *engine; /* borrowed */
    tsr_conversation conversation;
    int64_t room; /* tokens that the conversation and the next answer may have together */
    bool quits;
    int64_t n_answers;
    int64_t n_prompt; /* tokens, of all answers so far, as are the following */
    int64_t n_reused; /* of the prompts: they were in the cache already */
    double prompt_s;
    int64_t n_generated;
    double generation_s;
} tsr_chat;

/*
 * Do what a line says that begins with "/". A word that is not known, or cannot be followed, is
 * answered with a sentence and is no failure. Errors: NOMEM, CANCELLED.
 */
TSR_MUST_CHECK tsr_status tsr_chat_words_follow(tsr_chat *chat, const char *line);

/* The words, a line each, for the help of the command. */
const char *tsr_chat_words_help(void);

#ifdef __cplusplus
}
#endif

#endif
