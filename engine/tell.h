/*
 * engine/tell.h - the events of a generation: tokens and their text as it may be shown, scores, and
 * how each choice ended. Private to the room.
 *
 * Threads: the leader's engine thread.
 */
#ifndef TSR_ENGINE_TELL_H
#define TSR_ENGINE_TELL_H

#include "engine/group.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Calls the generation's on_event; fills in whose event it is. */
void tsr_tell(const tsr_group *group, tsr_event *event);

/* The text of one more token, behind what is there; the stream goes on. A token without text gives
 * none. */
void tsr_tell_decode(const tsr_tokenizer *tokenizer, tsr_writing *writing, tsr_text *text,
                     int32_t token);

/* The tokens that a sample begins with, which were told before. True: its text, or a stop id among
 * them, is its end. */
bool tsr_tell_begin(const tsr_engine *e, tsr_member *member);

/* Tokens that a sample has got since: their text is searched for stop strings, which may end it. */
void tsr_tell_tokens(tsr_engine *e, tsr_member *member);

/* A sample has ended: its END event, or, where the choices are told at the end and it was the last
 * one, those of all. */
void tsr_tell_end(tsr_member *member);

/* A choice ends with "error". */
void tsr_tell_error(tsr_group *group, int choice, const char *message, bool last);

/* A search is over: its answers. reason: of those that are as far as they came. */
void tsr_tell_answers(const tsr_engine *e, tsr_group *group, tsr_request_reason reason);

#ifdef __cplusplus
}
#endif

#endif
