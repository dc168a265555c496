/*
 * engine/text/token_stream.h - where a text stands between one token and the next.
 */
#ifndef TSR_ENGINE_TEXT_TOKEN_STREAM_H
#define TSR_ENGINE_TEXT_TOKEN_STREAM_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * For the tokenizers that write the first token otherwise than the rest (without its space, say).
 * {0} is the beginning of a text; a text that goes on behind a prompt starts with .begun = true.
 */
typedef struct tsr_token_stream {
    bool begun;
    bool strips;     /* what stands at the beginning is still left out */
    bool owes_space; /* before the next token, if one comes */
    int n_stripped;  /* characters, from the beginning */
    int n_held;      /* characters, which are lost if the text ends here */
} tsr_token_stream;

#ifdef __cplusplus
}
#endif

#endif
