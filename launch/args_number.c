#include "launch/args_number.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

static bool only(const char *text, const char *characters)
{
    return text[0] != '\0' && text[strspn(text, characters)] == '\0';
}

tsr_status tsr_args_number_integer(const char *name, const char *text, int64_t least, int64_t most,
                                   int64_t *out)
{
    char *end = NULL;
    long long number = 0;

    errno = 0;
    if (only(text, "-0123456789")) {
        number = strtoll(text, &end, 10);
    }
    if (end == NULL || end == text || *end != '\0') {
        return tsr_fail(TSR_ERR_ARG, "%s wants a whole number, not '%.100s'", name, text);
    }
    if (errno != 0 || number < least || number > most) {
        return tsr_fail(TSR_ERR_ARG, "%s wants a number from %lld to %lld, not %.100s", name,
                        (long long)least, (long long)most, text);
    }
    *out = number;
    return TSR_OK;
}

tsr_status tsr_args_number_seed(const char *name, const char *text, uint64_t *out)
{
    unsigned long long number;

    errno = 0;
    number = strtoull(text, NULL, 10);
    if (!only(text, "0123456789") || errno != 0) {
        return tsr_fail(TSR_ERR_ARG, "%s wants a whole number from 0 to %llu, not '%.100s'", name,
                        (unsigned long long)UINT64_MAX, text);
    }
    *out = number;
    return TSR_OK;
}

tsr_status tsr_args_number_real(const char *name, const char *text, double least, double most,
                                double *out)
{
    char *end = NULL;
    double number = NAN;

    // Not the hexadecimal, infinite and undefined numbers that strtod() would take too.
    if (only(text, "+-.0123456789eE")) {
        number = strtod(text, &end);
    }
    if (end == NULL || end == text || *end != '\0' || !isfinite(number)) {
        return tsr_fail(TSR_ERR_ARG, "%s wants a number, not '%.100s'", name, text);
    }
    if (number < least || number > most) {
        return tsr_fail(TSR_ERR_ARG, "%s wants a number from %g to %g, not %.100s", name, least,
                        most, text);
    }
    *out = number;
    return TSR_OK;
}

/* The factor of a suffix; 0 if it is none. */
static double factor(const char *suffix)
{
    static const char letters[] = "KMGT";
    const char *letter = suffix[0] != '\0' ? strchr(letters, suffix[0]) : NULL;
    double by = 1024.0;

    if (suffix[0] == '\0' || strcmp(suffix, "B") == 0) {
        return 1.0;
    }
    if (letter == NULL || (suffix[1] != '\0' && strcmp(suffix + 1, "iB") != 0)) {
        return 0.0;
    }
    for (const char *at = letters; at < letter; at++) {
        by *= 1024.0;
    }
    return by;
}

tsr_status tsr_args_number_bytes(const char *name, const char *text, uint64_t *out)
{
    const size_t digits = strspn(text, ".0123456789");
    char *end = NULL;
    double number;
    double by;

    if (strcmp(text, "auto") == 0) {
        *out = 0;
        return TSR_OK;
    }
    number = digits > 0 ? strtod(text, &end) : 0.0;
    by = end == text + digits ? factor(end) : 0.0;
    if (by == 0.0 || !(number * by >= 1.0) || number * by >= 9.2e18) {
        return tsr_fail(TSR_ERR_ARG,
                        "%s wants a number of bytes such as 512M, 1.5G or auto, not '%.100s'", name,
                        text);
    }
    *out = (uint64_t)(number * by);
    return TSR_OK;
}

static bool separates(char c)
{
    return c == ',' || c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* One id; the number of its characters, 0 if there is none. */
static size_t read_id(const char *text, size_t n_bytes, int32_t *id)
{
    int64_t number = 0;
    size_t n = 0;

    while (n < n_bytes && text[n] >= '0' && text[n] <= '9') {
        number = number * 10 + (text[n++] - '0');
        if (number > INT32_MAX) {
            return 0;
        }
    }
    *id = (int32_t)number;
    return n < n_bytes && !separates(text[n]) ? 0 : n;
}

tsr_status tsr_args_number_ids(const char *name, const char *text, size_t n_bytes, int32_t **ids,
                               int64_t *n_ids)
{
    int32_t *found = tsr_alloc(n_bytes / 2 + 1, sizeof(*found)); // an id and what separates it
    int64_t n = 0;

    if (found == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the ids of %s", name);
    }
    for (size_t at = 0; at < n_bytes;) {
        size_t length;

        if (separates(text[at])) {
            at++;
            continue;
        }
        length = read_id(text + at, n_bytes - at, &found[n]);
        if (length == 0) {
            int shown = 0;

            while (shown < 20 && at + (size_t)shown < n_bytes &&
                   !separates(text[at + (size_t)shown])) {
                shown++;
            }
            tsr_free(found);
            return tsr_fail(TSR_ERR_ARG, "%s wants token ids such as 1,2,3, not '%.*s'", name,
                            shown, text + at);
        }
        at += length;
        n++;
    }
    if (n == 0) {
        tsr_free(found);
        return tsr_fail(TSR_ERR_ARG, "%s wants token ids such as 1,2,3, and there are none", name);
    }
    *ids = found;
    *n_ids = n;
    return TSR_OK;
}
