/*
 * engine/stored.h - a tensor as it lies in a model file, whatever the form of the file.
 */
#ifndef TSR_ENGINE_STORED_H
#define TSR_ENGINE_STORED_H

#include "base/text.h"
#include "kernels/encoding.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Text inside a mapping: not 0-terminated, not necessarily UTF-8. */
typedef tsr_text_view tsr_stored_text;

typedef struct tsr_stored_tensor {
    tsr_stored_text name;
    tsr_encoding encoding; /* TSR_ENCODING_COUNT: of a type that no weight of ours has */
    const char *type;      /* what safetensors calls it, "I32"; NULL in GGUF */
    int n_dims;            /* 0..4 */
    int64_t shape[4]; /* shape[0] is the run of a row (columns), shape[1] the rows, shape[2] the
                         matrices; unused are 1 */
    const void *data; /* in the mapping */
    size_t n_bytes;
    int part; /* which file of a split model */
} tsr_stored_tensor;

#ifdef __cplusplus
}
#endif

#endif
