/*
 * engine/checkpoint.h - a model as people have it: a GGUF file, or a Hugging Face folder.
 *
 * Threads: reading from several threads is safe.
 */
#ifndef TSR_ENGINE_CHECKPOINT_H
#define TSR_ENGINE_CHECKPOINT_H

#include "engine/gguf.h"
#include "engine/hf_keys.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_checkpoint tsr_checkpoint;

/* A folder is a Hugging Face model; a file is GGUF. Errors: IO, FORMAT, UNSUPPORTED, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_checkpoint_open(tsr_checkpoint **out, const char *path);
void tsr_checkpoint_close(tsr_checkpoint *checkpoint); /* NULL is fine */

const tsr_gguf *tsr_checkpoint_gguf(const tsr_checkpoint *checkpoint); /* NULL: it is a folder */

/* The keys of config.json and generation_config.json; an object of NULL: there is none. */
tsr_hf_keys tsr_checkpoint_config(const tsr_checkpoint *checkpoint);
tsr_hf_keys tsr_checkpoint_generation(const tsr_checkpoint *checkpoint);

/* The path of a file of the folder, in `path`; false when it does not fit or this is no folder. */
bool tsr_checkpoint_path(const tsr_checkpoint *checkpoint, const char *name, char *path,
                         size_t path_bytes);

int tsr_checkpoint_count(const tsr_checkpoint *checkpoint); /* of tensors */
const tsr_stored_tensor *tsr_checkpoint_at(const tsr_checkpoint *checkpoint, int i);
const tsr_stored_tensor *tsr_checkpoint_find(const tsr_checkpoint *checkpoint,
                                             const char *name); /* NULL if there is none */

uint64_t tsr_checkpoint_file_bytes(const tsr_checkpoint *checkpoint);
void tsr_checkpoint_release_pages(const tsr_checkpoint *checkpoint);

#ifdef __cplusplus
}
#endif

#endif
