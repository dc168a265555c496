/*
 * engine/json_file.h - JSON from outside: bounded in size and depth, no key twice, and a fault told
 * with its line. Private to the engine's readers.
 */
#ifndef TSR_ENGINE_JSON_FILE_H
#define TSR_ENGINE_JSON_FILE_H

#include "base/status.h"

#include <jansson.h>

#ifdef __cplusplus
extern "C" {
#endif

/* *out is an object, to be given back with json_decref(). Errors: FORMAT, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_json_file_parse(json_t **out, const void *bytes, size_t n_bytes,
                                              const char *label);

/* *out stays NULL when there is no such file. Errors: IO, FORMAT, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_json_file_read(json_t **out, const char *path, const char *label);

#ifdef __cplusplus
}
#endif

#endif
