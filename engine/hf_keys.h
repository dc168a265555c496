/*
 * engine/hf_keys.h - the keys of a config.json, each looked up by any of its names and checked for
 * its type. A key that is null counts as missing.
 */
#ifndef TSR_ENGINE_HF_KEYS_H
#define TSR_ENGINE_HF_KEYS_H

#include "base/status.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_hf_keys {
    const json_t *object; /* borrowed */
    const char *label;    /* of messages: "config.json" */
} tsr_hf_keys;

/*
 * `names`: the key, or several separated by '|', the first that is there counts. *out stays as it
 * is when none is there, so set it to the default before. Errors: FORMAT (another type, named).
 */
TSR_MUST_CHECK tsr_status tsr_hf_int(const tsr_hf_keys *keys, const char *names, int64_t *out);
TSR_MUST_CHECK tsr_status tsr_hf_number(const tsr_hf_keys *keys, const char *names, double *out);
TSR_MUST_CHECK tsr_status tsr_hf_bool(const tsr_hf_keys *keys, const char *names, bool *out);
TSR_MUST_CHECK tsr_status tsr_hf_text(const tsr_hf_keys *keys, const char *names, const char **out);

/* NULL when it is missing. */
TSR_MUST_CHECK tsr_status tsr_hf_object(const tsr_hf_keys *keys, const char *names,
                                        const json_t **out);
TSR_MUST_CHECK tsr_status tsr_hf_list(const tsr_hf_keys *keys, const char *names,
                                      const json_t **out);

bool tsr_hf_has(const tsr_hf_keys *keys, const char *names);

/* The key is there and says null: where a default would mean something else. */
bool tsr_hf_is_null(const tsr_hf_keys *keys, const char *name);

/* A whole number in [least, most], or FORMAT; a key that is missing keeps *out, which is checked as
 * well: begin with -1 for a key that must be there. */
TSR_MUST_CHECK tsr_status tsr_hf_size(const tsr_hf_keys *keys, const char *names, int64_t *out,
                                      int64_t least, int64_t most);

#ifdef __cplusplus
}
#endif

#endif
