#include "engine/hf_keys.h"

#include <stdio.h>
#include <string.h>

enum {
    NAME_BYTES = 64
};

static const char *const kinds[] = {
    [JSON_OBJECT] = "an object", [JSON_ARRAY] = "a list",  [JSON_STRING] = "text",
    [JSON_INTEGER] = "a number", [JSON_REAL] = "a number", [JSON_TRUE] = "true",
    [JSON_FALSE] = "false",      [JSON_NULL] = "null",
};

/* The first of the names that is there; its name is copied out. */
static const json_t *find(const tsr_hf_keys *keys, const char *names, char name[NAME_BYTES])
{
    while (*names != '\0') {
        const size_t n = strcspn(names, "|");
        const json_t *value;

        (void)snprintf(name, NAME_BYTES, "%.*s", (int)n, names);
        value = json_object_get(keys->object, name);
        if (value != NULL && !json_is_null(value)) {
            return value;
        }
        names += n + (names[n] == '|' ? 1 : 0);
    }
    return NULL;
}

static tsr_status wrong(const tsr_hf_keys *keys, const char *name, const json_t *value,
                        const char *wanted)
{
    return tsr_fail(TSR_ERR_FORMAT, "%s: %s is %s; %s is expected", keys->label, name,
                    kinds[json_typeof(value)], wanted);
}

bool tsr_hf_has(const tsr_hf_keys *keys, const char *names)
{
    char name[NAME_BYTES];

    return find(keys, names, name) != NULL;
}

bool tsr_hf_is_null(const tsr_hf_keys *keys, const char *name)
{
    return json_is_null(json_object_get(keys->object, name));
}

tsr_status tsr_hf_int(const tsr_hf_keys *keys, const char *names, int64_t *out)
{
    char name[NAME_BYTES];
    const json_t *value = find(keys, names, name);

    if (value != NULL && !json_is_integer(value)) {
        return wrong(keys, name, value, "a whole number");
    }
    *out = value == NULL ? *out : (int64_t)json_integer_value(value);
    return TSR_OK;
}

tsr_status tsr_hf_size(const tsr_hf_keys *keys, const char *names, int64_t *out, int64_t least,
                       int64_t most)
{
    char name[NAME_BYTES];

    if (find(keys, names, name) == NULL) {
        if (*out < least) {
            return tsr_fail(TSR_ERR_FORMAT, "%s lacks %.*s", keys->label, (int)strcspn(names, "|"),
                            names);
        }
        (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(names, "|"), names);
    }
    TSR_TRY(tsr_hf_int(keys, names, out));
    if (*out < least || *out > most) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: %s is %lld; it must lie in %lld..%lld", keys->label,
                        name, (long long)*out, (long long)least, (long long)most);
    }
    return TSR_OK;
}

tsr_status tsr_hf_number(const tsr_hf_keys *keys, const char *names, double *out)
{
    char name[NAME_BYTES];
    const json_t *value = find(keys, names, name);

    if (value != NULL && !json_is_number(value)) {
        return wrong(keys, name, value, "a number");
    }
    *out = value == NULL ? *out : json_number_value(value);
    return TSR_OK;
}

tsr_status tsr_hf_bool(const tsr_hf_keys *keys, const char *names, bool *out)
{
    char name[NAME_BYTES];
    const json_t *value = find(keys, names, name);

    if (value != NULL && !json_is_boolean(value)) {
        return wrong(keys, name, value, "true or false");
    }
    *out = value == NULL ? *out : json_is_true(value);
    return TSR_OK;
}

tsr_status tsr_hf_text(const tsr_hf_keys *keys, const char *names, const char **out)
{
    char name[NAME_BYTES];
    const json_t *value = find(keys, names, name);

    if (value != NULL && !json_is_string(value)) {
        return wrong(keys, name, value, "text");
    }
    *out = value == NULL ? *out : json_string_value(value);
    return TSR_OK;
}

tsr_status tsr_hf_object(const tsr_hf_keys *keys, const char *names, const json_t **out)
{
    char name[NAME_BYTES];
    const json_t *value = find(keys, names, name);

    if (value != NULL && !json_is_object(value)) {
        return wrong(keys, name, value, "an object");
    }
    *out = value;
    return TSR_OK;
}

tsr_status tsr_hf_list(const tsr_hf_keys *keys, const char *names, const json_t **out)
{
    char name[NAME_BYTES];
    const json_t *value = find(keys, names, name);

    if (value != NULL && !json_is_array(value)) {
        return wrong(keys, name, value, "a list");
    }
    *out = value;
    return TSR_OK;
}
