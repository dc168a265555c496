/*
 * engine/model.h - a model file inside the engine: the mapped file, its config, its tokenizer. The
 * public face is engine/tessera.h.
 */
#ifndef TSR_ENGINE_MODEL_H
#define TSR_ENGINE_MODEL_H

#include "engine/checkpoint.h"
#include "engine/config.h"
#include "engine/tessera.h"
#include "engine/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Like tsr_model_open() without a tokenizer, for ranks that never see text: it is NULL. Errors: the
 * same. */
TSR_MUST_CHECK tsr_status tsr_model_open_mute(tsr_model **out, const char *path);

const tsr_checkpoint *tsr_model_checkpoint(const tsr_model *model);
const tsr_config *tsr_model_config(const tsr_model *model);
const tsr_tokenizer *tsr_model_tokenizer(const tsr_model *model); /* NULL: ids only */

/* Does this token end a generation, as the tokenizer or the folder's JSON files say? */
bool tsr_model_is_end(const tsr_model *model, int32_t id);

#ifdef __cplusplus
}
#endif

#endif
