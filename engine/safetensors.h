/*
 * engine/safetensors.h - the tensors of a Hugging Face folder, mapped and never copied.
 *
 * Layout of the format: github.com/huggingface/safetensors, "Format": a little-endian u64, so many
 * bytes of JSON, then the tensors' bytes. A model is one file, several named by
 * model.safetensors.index.json, or several without one. Opening checks everything before anything
 * is used: lengths, types, shapes, that tensors neither overlap nor leave bytes unexplained, that
 * no name is there twice, and that index and files agree.
 *
 * Threads: reading from several threads is safe.
 */
#ifndef TSR_ENGINE_SAFETENSORS_H
#define TSR_ENGINE_SAFETENSORS_H

#include "engine/stored.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_safetensors tsr_safetensors;

/* Errors: IO (a file is missing or cannot be read), FORMAT (not sound), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_safetensors_open(tsr_safetensors **out, const char *folder);

/* One file's bytes already in memory, borrowed. For tests and fuzzing. */
TSR_MUST_CHECK tsr_status tsr_safetensors_open_bytes(tsr_safetensors **out, const void *bytes,
                                                     size_t n_bytes);

void tsr_safetensors_close(tsr_safetensors *files); /* NULL is fine */

int tsr_safetensors_count(const tsr_safetensors *files);
const tsr_stored_tensor *tsr_safetensors_at(const tsr_safetensors *files, int i);
const tsr_stored_tensor *tsr_safetensors_find(const tsr_safetensors *files, const char *name);

uint64_t tsr_safetensors_file_bytes(const tsr_safetensors *files); /* all files */
uint64_t tsr_safetensors_header_bytes(const tsr_safetensors *files);
void tsr_safetensors_release_pages(const tsr_safetensors *files);

#ifdef __cplusplus
}
#endif

#endif
