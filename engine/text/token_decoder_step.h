/*
 * engine/text/token_decoder_step.h - what a decoder is made of; private to
 * engine/text/token_decoder*.c.
 */
#ifndef TSR_ENGINE_TEXT_TOKEN_DECODER_STEP_H
#define TSR_ENGINE_TEXT_TOKEN_DECODER_STEP_H

#include "engine/text/finder.h"
#include "engine/text/token_decoder.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum tsr_decode_kind {
    TSR_DECODE_KIND_BYTES,    /* a token all in letters of the byte alphabet is those bytes */
    TSR_DECODE_KIND_FALLBACK, /* "<0x0A>" is a byte */
    TSR_DECODE_KIND_REPLACE,  /* what the finder finds by the content */
    TSR_DECODE_KIND_SIGN,     /* the content is a space; at the beginning of a text, nothing */
    TSR_DECODE_KIND_SUFFIX,   /* the content is a space; at the end of a token it is left to the
                                 stream */
    TSR_DECODE_KIND_STRIP,    /* without up to so many of the content at each end */
    TSR_DECODE_KIND_COUNT
} tsr_decode_kind;

typedef struct tsr_decode_step {
    tsr_decode_kind kind;
    tsr_finder finder;
    char *content; /* owned */
    size_t content_bytes;
    int n_start; /* of TSR_DECODE_KIND_STRIP */
    int n_stop;
    bool drops_first; /* of TSR_DECODE_KIND_SIGN */
} tsr_decode_step;

enum {
    TSR_TOKEN_DECODER_MOST_STEPS = 16
};

struct tsr_token_decoder {
    const tsr_vocab *vocab; /* borrowed */
    int n_steps;            /* what each token goes through by itself */
    tsr_decode_step steps[TSR_TOKEN_DECODER_MOST_STEPS];
    bool fused;            /* while it is made: what follows is of the whole text */
    bool keeps_special;    /* control and user-defined tokens are as they are */
    bool spaces_between;   /* a space between any two tokens */
    tsr_decode_step whole; /* TSR_DECODE_KIND_STRIP of the whole text, if it has a content */
    char *suffix;          /* of a token behind which a space comes, if anything does; owned */
    size_t suffix_bytes;
    char *letters;  /* the texts of all tokens, one behind the other; owned, as the next */
    size_t *starts; /* [n_tokens + 1] */
};

/* One more step, all zero but for its kind; UNSUPPORTED if there are too many. */
TSR_MUST_CHECK tsr_status tsr_token_decoder_add(tsr_token_decoder *decoder, tsr_decode_step **out,
                                                tsr_decode_kind kind);
TSR_MUST_CHECK tsr_status tsr_decode_step_content(tsr_decode_step *step, tsr_text_view content);

/* Work out the texts of all tokens, once all steps are there. Errors: NOMEM, UNSUPPORTED. */
TSR_MUST_CHECK tsr_status tsr_token_decoder_fill(tsr_token_decoder *decoder);

#ifdef __cplusplus
}
#endif

#endif
