/*
 * engine/gguf_part.h - one file of a GGUF model, its bytes checked from end to end.
 * Private to the engine/gguf files: engine/gguf.c maps the files and joins the parts of a model.
 */
#ifndef TSR_ENGINE_GGUF_PART_H
#define TSR_ENGINE_GGUF_PART_H

#include "engine/file_map.h"
#include "engine/gguf_names.h"
#include "engine/gguf_value.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_GGUF_PART_LABEL_BYTES = 192
};

typedef struct tsr_gguf_key {
    tsr_gguf_text name;
    tsr_gguf_value value;
} tsr_gguf_key;

typedef struct tsr_gguf_part {
    char label[TSR_GGUF_PART_LABEL_BYTES]; /* what messages call it: its path */
    const uint8_t *bytes;                  /* borrowed from the mapping */
    size_t n_bytes;
    tsr_file_map map;   /* of engine/gguf.c; empty when the bytes are the caller's */
    tsr_gguf_key *keys; /* [n_keys], owned, in file order */
    int n_keys;
    tsr_gguf_names names;     /* of the keys */
    tsr_gguf_tensor *tensors; /* [n_tensors], owned, in file order */
    int n_tensors;
} tsr_gguf_part;

/*
 * Read and check everything. label, bytes and n_bytes are given, the rest zero. After a failure
 * tsr_gguf_part_clear() is still due. Errors: FORMAT, UNSUPPORTED, NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_gguf_part_parse(tsr_gguf_part *part);

/* Frees what parse made; the mapping stays. */
void tsr_gguf_part_clear(tsr_gguf_part *part);

const tsr_gguf_value *tsr_gguf_part_value(const tsr_gguf_part *part, const char *key); /* or NULL */

/* A whole number, or `fallback` when the key is missing or is none. */
int64_t tsr_gguf_part_int(const tsr_gguf_part *part, const char *key, int64_t fallback);

#ifdef __cplusplus
}
#endif

#endif
