/*
 * engine/model_state.h - what a model is made of. Private to
 *
 *   model.c        opening one, and what it is
 *   model_text.c   texts and conversations to ids and back
 *   model_rounding.c   how far its weights move when they are rounded
 */
#ifndef TSR_ENGINE_MODEL_STATE_H
#define TSR_ENGINE_MODEL_STATE_H

#include "engine/model.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_MODEL_SHORT_BYTES = 64,
    TSR_MODEL_MOST_ENDS = 32
};

struct tsr_model {
    tsr_checkpoint *checkpoint;
    tsr_config config;
    tsr_tokenizer *tokenizer; /* NULL when mute, or when the folder has none that is known */
    int32_t
        ends[TSR_MODEL_MOST_ENDS]; /* end tokens that generation_config.json or config.json names */
    int n_ends;
    char *name; /* owned texts of the facts */
    char *template_text;
    tsr_text bos, eos, pad; /* texts of these tokens; NULL bytes: none */
    char scaling[TSR_MODEL_SHORT_BYTES];
    char tokenizer_name[TSR_MODEL_SHORT_BYTES];
};

#ifdef __cplusplus
}
#endif

#endif
