/*
 * engine/gguf.h - a model file in GGUF form, mapped and never copied.
 *
 * Layout of the format: github.com/ggml-org/ggml, docs/gguf.md (versions 2 and 3, little-endian).
 * Opening checks everything before anything is used: every count, length, offset, alignment, type
 * and product of dimensions against the file's size; names are unique; tensors lie within the file
 * and do not overlap. After tsr_gguf_open() has succeeded no accessor can read outside the mapping.
 *
 * A model split in several files (name-00001-of-0000N.gguf) is opened by its first part, whose
 * metadata is the model's; the tensors of all parts are joined.
 *
 * Threads: reading from several threads is safe.
 */
#ifndef TSR_ENGINE_GGUF_H
#define TSR_ENGINE_GGUF_H

#include "base/text.h"
#include "kernels/encoding.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_gguf tsr_gguf;

/* Text inside the mapping: not 0-terminated, not necessarily UTF-8. */
typedef tsr_text_view tsr_gguf_text;

typedef struct tsr_gguf_tensor {
    tsr_gguf_text name;
    tsr_encoding encoding;
    int n_dims;       /* 1..4 */
    int64_t shape[4]; /* as GGUF has it: shape[0] is the run of a row (columns), shape[1] the rows;
                         unused are 1 */
    const void *data; /* in the mapping */
    size_t n_bytes;
    int part; /* which file of a split model */
} tsr_gguf_tensor;

/* Errors: IO (cannot be read; a directory), FORMAT (not sound), UNSUPPORTED (version, tensor type),
 * NOMEM. */
TSR_MUST_CHECK tsr_status tsr_gguf_open(tsr_gguf **out, const char *path);

/* The same over bytes already in memory, which are borrowed and must outlive it. For tests and
 * fuzzing. */
TSR_MUST_CHECK tsr_status tsr_gguf_open_bytes(tsr_gguf **out, const void *bytes, size_t n_bytes);

void tsr_gguf_close(tsr_gguf *gguf); /* NULL is fine */

/* ---- metadata ----------------------------------------------------------------------------------
 */

/* Each finds a key of the stated kind and is false when the key is missing. A key of another kind
 * is logged as a warning and counts as missing. Integers of every width fit tsr_gguf_int (u64 above
 * 2^63-1 do not). */
bool tsr_gguf_int(const tsr_gguf *gguf, const char *key, int64_t *out);
bool tsr_gguf_float(const tsr_gguf *gguf, const char *key, double *out); /* integers convert */
bool tsr_gguf_bool(const tsr_gguf *gguf, const char *key, bool *out);
bool tsr_gguf_string(const tsr_gguf *gguf, const char *key, tsr_gguf_text *out);

/* Arrays: how many elements (-1 when the key is missing or no array) and one of them; false when
 * there is no such element or it is of another kind. A bool reads as the int 0 or 1. Arrays of
 * arrays have a count and no elements that can be read. */
int64_t tsr_gguf_array_count(const tsr_gguf *gguf, const char *key);
bool tsr_gguf_array_string(const tsr_gguf *gguf, const char *key, int64_t i, tsr_gguf_text *out);
bool tsr_gguf_array_int(const tsr_gguf *gguf, const char *key, int64_t i, int64_t *out);
bool tsr_gguf_array_float(const tsr_gguf *gguf, const char *key, int64_t i, double *out);

/* All keys in file order, for `inspect`: the name, and the value in words (arrays abbreviated) into
 * `text`. */
int tsr_gguf_key_count(const tsr_gguf *gguf);
tsr_gguf_text tsr_gguf_key_name(const tsr_gguf *gguf, int i);
void tsr_gguf_key_value(const tsr_gguf *gguf, int i, char *text, size_t text_bytes);

/* ---- tensors -----------------------------------------------------------------------------------
 */

int tsr_gguf_tensor_count(const tsr_gguf *gguf);
const tsr_gguf_tensor *tsr_gguf_tensor_at(const tsr_gguf *gguf, int i);
const tsr_gguf_tensor *tsr_gguf_find(const tsr_gguf *gguf,
                                     const char *name); /* NULL if there is none */

uint64_t tsr_gguf_file_bytes(const tsr_gguf *gguf); /* all parts */

/* Tell the system that the file's pages are no longer needed (they come back if read again). */
void tsr_gguf_release_pages(const tsr_gguf *gguf);

#ifdef __cplusplus
}
#endif

#endif
