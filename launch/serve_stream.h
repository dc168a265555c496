/*
 * launch/serve_stream.h - an answer as a stream of server-sent events (WHATWG HTML, 9.2), in chunks
 * of the OpenAI form: what there is since the last time becomes one chunk a choice.
 *
 * Threads: none of its own.
 */
#ifndef TSR_LAUNCH_SERVE_STREAM_H
#define TSR_LAUNCH_SERVE_STREAM_H

#include "launch/api_answer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How far one choice was sent. */
typedef struct tsr_stream_cursor {
    size_t n_bytes;
    int n_likely;
    size_t n_calls;
    bool has_begun;
    bool has_ended;
} tsr_stream_cursor;

typedef struct tsr_stream {
    tsr_stream_cursor *cursors; /* owned, [n_choices] */
    bool is_over;               /* the last event is written */
} tsr_stream;                   /* start with {0} */

/* Appends what is new of the answer, and when it is whole the end of the stream. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_stream_write(tsr_stream *stream, const tsr_api_answer *answer,
                                           tsr_text *out);
void tsr_stream_clear(tsr_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
