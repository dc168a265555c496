#include "launch/api_value.h"

#include <stdio.h>

tsr_status tsr_api_value_refuse(const tsr_api_body *r, const char *key, const char *wanted)
{
    tsr_api_error_set(r->error, 400, key, "'%s' must be %s", key, wanted);
    return TSR_ERR_ARG;
}

tsr_status tsr_api_value_no_memory(const tsr_api_body *r)
{
    tsr_api_error_set(r->error, 500, "", "no memory for the request");
    return TSR_ERR_NOMEM;
}

const json_t *tsr_api_value_of(const tsr_api_body *r, const char *key)
{
    const json_t *value = json_object_get(r->body, key);

    return json_is_null(value) ? NULL : value;
}

tsr_status tsr_api_value_real(const tsr_api_body *r, const char *key, double least, double most,
                              double *out)
{
    const json_t *value = tsr_api_value_of(r, key);
    char wanted[64];

    if (value == NULL) {
        return TSR_OK;
    }
    if (!json_is_number(value) || !(json_number_value(value) >= least) ||
        !(json_number_value(value) <= most)) {
        (void)snprintf(wanted, sizeof(wanted), "a number from %g to %g", least, most);
        return tsr_api_value_refuse(r, key, wanted);
    }
    *out = json_number_value(value);
    return TSR_OK;
}

tsr_status tsr_api_value_float(const tsr_api_body *r, const char *key, double least, double most,
                               float *out)
{
    double value = (double)*out;

    TSR_TRY(tsr_api_value_real(r, key, least, most, &value));
    *out = (float)value;
    return TSR_OK;
}

tsr_status tsr_api_value_int(const tsr_api_body *r, const char *key, int64_t least, int64_t most,
                             int *out)
{
    const json_t *value = tsr_api_value_of(r, key);
    char wanted[80];

    if (value == NULL) {
        return TSR_OK;
    }
    if (!json_is_integer(value) || json_integer_value(value) < least ||
        json_integer_value(value) > most) {
        (void)snprintf(wanted, sizeof(wanted), "a whole number from %lld to %lld", (long long)least,
                       (long long)most);
        return tsr_api_value_refuse(r, key, wanted);
    }
    *out = (int)json_integer_value(value);
    return TSR_OK;
}

tsr_status tsr_api_value_bool(const tsr_api_body *r, const char *key, bool *out)
{
    const json_t *value = tsr_api_value_of(r, key);

    if (value != NULL && !json_is_boolean(value)) {
        return tsr_api_value_refuse(r, key, "true or false");
    }
    *out = value != NULL ? json_is_true(value) : *out;
    return TSR_OK;
}
