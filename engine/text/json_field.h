/*
 * engine/text/json_field.h - the fields of a tokenizer.json, held to their types.
 *
 * Texts are borrowed from the JSON. `of` names the object in messages. A field that is missing or
 * null leaves the output as it was.
 * Errors of all: FORMAT (another type).
 */
#ifndef TSR_ENGINE_TEXT_JSON_FIELD_H
#define TSR_ENGINE_TEXT_JSON_FIELD_H

#include <jansson.h>

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

TSR_MUST_CHECK tsr_status tsr_json_field_text(tsr_text_view *out, const json_t *object,
                                              const char *key, const char *of);
TSR_MUST_CHECK tsr_status tsr_json_field_bool(bool *out, const json_t *object, const char *key,
                                              const char *of);
TSR_MUST_CHECK tsr_status tsr_json_field_int(int64_t *out, const json_t *object, const char *key,
                                             const char *of);

/* The one character of a text. */
TSR_MUST_CHECK tsr_status tsr_json_field_char(uint32_t *out, const json_t *object, const char *key,
                                              const char *of);

/* A list; NULL if it is missing or null. */
TSR_MUST_CHECK tsr_status tsr_json_field_list(const json_t **out, const json_t *object,
                                              const char *key, const char *of);

/* {"String": "x"} or {"Regex": "x"}. Errors: also when there is neither. */
TSR_MUST_CHECK tsr_status tsr_json_field_pattern(tsr_text_view *out, bool *is_regex,
                                                 const json_t *object, const char *of);

/* The text of an object's "type"; empty if there is none. */
tsr_text_view tsr_json_field_type(const json_t *object);

bool tsr_json_field_is(tsr_text_view text, const char *zero_ended);

#ifdef __cplusplus
}
#endif

#endif
