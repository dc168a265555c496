#include "engine/text/json_field.h"

#include <string.h>

#include "base/utf8.h"

static const json_t *find(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_null(value) ? NULL : value;
}

static tsr_status wrong(const char *of, const char *key, const char *wanted)
{
    return tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: %s: \"%s\" must be %s", of, key, wanted);
}

tsr_status tsr_json_field_text(tsr_text_view *out, const json_t *object, const char *key,
                               const char *of)
{
    const json_t *value = find(object, key);

    if (value != NULL && !json_is_string(value)) {
        return wrong(of, key, "a text");
    }
    if (value != NULL) {
        *out = (tsr_text_view){json_string_value(value), json_string_length(value)};
    }
    return TSR_OK;
}

tsr_status tsr_json_field_bool(bool *out, const json_t *object, const char *key, const char *of)
{
    const json_t *value = find(object, key);

    if (value != NULL && !json_is_boolean(value)) {
        return wrong(of, key, "true or false");
    }
    if (value != NULL) {
        *out = json_is_true(value);
    }
    return TSR_OK;
}

tsr_status tsr_json_field_int(int64_t *out, const json_t *object, const char *key, const char *of)
{
    const json_t *value = find(object, key);

    if (value != NULL && !json_is_integer(value)) {
        return wrong(of, key, "a whole number");
    }
    if (value != NULL) {
        *out = json_integer_value(value);
    }
    return TSR_OK;
}

tsr_status tsr_json_field_char(uint32_t *out, const json_t *object, const char *key, const char *of)
{
    tsr_text_view text = {0};

    TSR_TRY(tsr_json_field_text(&text, object, key, of));
    if (text.bytes == NULL) {
        return TSR_OK;
    }
    if (text.n_bytes == 0 || tsr_utf8_measure(text.bytes, text.n_bytes) != (int)text.n_bytes) {
        return wrong(of, key, "one character");
    }
    *out = tsr_utf8_decode(text.bytes);
    return TSR_OK;
}

tsr_status tsr_json_field_list(const json_t **out, const json_t *object, const char *key,
                               const char *of)
{
    *out = find(object, key);
    return *out == NULL || json_is_array(*out) ? TSR_OK : wrong(of, key, "a list");
}

tsr_status tsr_json_field_pattern(tsr_text_view *out, bool *is_regex, const json_t *object,
                                  const char *of)
{
    const json_t *pattern = find(object, "pattern");

    out->bytes = NULL;
    *is_regex = false;
    TSR_TRY(tsr_json_field_text(out, pattern, "String", of));
    if (out->bytes == NULL) {
        *is_regex = true;
        TSR_TRY(tsr_json_field_text(out, pattern, "Regex", of));
    }
    return out->bytes != NULL ? TSR_OK : wrong(of, "pattern", "a \"String\" or a \"Regex\"");
}

tsr_text_view tsr_json_field_type(const json_t *object)
{
    const json_t *type = json_object_get(object, "type");

    return json_is_string(type) ? (tsr_text_view){json_string_value(type), json_string_length(type)}
                                : (tsr_text_view){"", 0};
}

bool tsr_json_field_is(tsr_text_view text, const char *zero_ended)
{
    return text.n_bytes == strlen(zero_ended) &&
           (text.n_bytes == 0 || memcmp(text.bytes, zero_ended, text.n_bytes) == 0);
}
