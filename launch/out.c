#define _POSIX_C_SOURCE 200809L

#include "launch/out.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <unistd.h>

#include "base/alloc.h"
#include "base/env.h"

static int fault; // errno of the first write that failed

static void note_fault(bool failed)
{
    if (failed && fault == 0) {
        fault = errno != 0 ? errno : EIO;
    }
}

void tsr_out_text(const char *text, size_t n_bytes)
{
    if (fault == 0 && n_bytes > 0) {
        errno = 0;
        note_fault(fwrite(text, 1, n_bytes, stdout) != n_bytes);
    }
}

void tsr_out_print(const char *format, ...)
{
    va_list args;

    if (fault != 0) {
        return;
    }
    errno = 0;
    va_start(args, format);
    note_fault(vfprintf(stdout, format, args) < 0);
    va_end(args);
}

void tsr_out_words(const char *text)
{
    while (*text != '\0') {
        size_t n = 0;

        while ((unsigned char)text[n] >= ' ' && text[n] != 0x7F) {
            n++;
        }
        tsr_out_text(text, n);
        text += n;
        if (*text != '\0') {
            tsr_out_text(*text == '\n' || *text == '\t' ? text : "?", 1);
            text++;
        }
    }
}

void tsr_out_flush(void)
{
    if (fault == 0) {
        errno = 0;
        note_fault(fflush(stdout) != 0);
    }
}

bool tsr_out_on_terminal(void)
{
    return isatty(STDOUT_FILENO) == 1 && !tsr_env_under_mpi();
}

bool tsr_out_ended(void)
{
    return fault != 0;
}

tsr_status tsr_out_finish(void)
{
    tsr_out_flush();
    if (fault != 0 && fault != EPIPE) {
        return tsr_fail(TSR_ERR_IO, "the output could not be written: %s", strerror(fault));
    }
    return TSR_OK;
}

static int write_chunk(const char *chunk, size_t n_bytes, void *ctx)
{
    (void)ctx;
    tsr_out_text(chunk, n_bytes);
    return 0; // faults are kept, not handed through jansson
}

tsr_status tsr_out_json(json_t *value)
{
    int failed;

    if (value == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the JSON output");
    }
    failed = json_dump_callback(value, write_chunk, NULL, JSON_COMPACT);
    json_decref(value);
    if (failed != 0) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to write the JSON output");
    }
    tsr_out_print("\n");
    tsr_out_flush();
    return TSR_OK;
}

static int append_chunk(const char *chunk, size_t n_bytes, void *text)
{
    return tsr_text_append(text, chunk, n_bytes) == TSR_OK ? 0 : -1;
}

tsr_status tsr_out_json_append(tsr_text *text, const json_t *value)
{
    if (value == NULL || json_dump_callback(value, append_chunk, text, JSON_COMPACT) != 0) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to write JSON");
    }
    return TSR_OK;
}

tsr_status tsr_out_to_file(int file, const char *path, const tsr_text *text)
{
    for (size_t at = 0; at < text->n_bytes;) {
        const ssize_t n = write(file, text->bytes + at, text->n_bytes - at);

        if (n < 0 && errno != EINTR) {
            return tsr_fail(TSR_ERR_IO, "%s cannot be written: %s", path, strerror(errno));
        }
        at += n > 0 ? (size_t)n : 0;
    }
    return TSR_OK;
}

/* How many bytes the character that begins with `lead` has (Unicode standard, table 3-7), 0 if none
 * does; and what its second byte may be. */
static size_t character_bytes(unsigned char lead, unsigned char *least, unsigned char *most)
{
    *least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    *most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (lead < 0x80) {
        return 1;
    }
    if (lead < 0xC2 || lead > 0xF4) {
        return 0;
    }
    return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/* The bytes to take at once: a character, or (*whole is false) the longest beginning of one. */
static size_t take_character(const unsigned char *text, size_t n_bytes, bool *whole)
{
    unsigned char least;
    unsigned char most;
    const size_t n = character_bytes(text[0], &least, &most);
    size_t good = 1;

    while (good < n && good < n_bytes && text[good] >= least && text[good] <= most) {
        good++;
        least = 0x80;
        most = 0xBF;
    }
    *whole = good == n;
    return good;
}

json_t *tsr_out_json_text(const char *text, size_t n_bytes)
{
    static const char replacement[] = "\xEF\xBF\xBD";
    json_t *value = json_stringn(text, n_bytes);
    char *repaired;
    size_t used = 0;

    if (value != NULL) {
        return value;
    }
    repaired = tsr_alloc(n_bytes, 3); // each bad byte grows to three
    if (repaired == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < n_bytes;) {
        bool whole;
        const size_t n = take_character((const unsigned char *)text + i, n_bytes - i, &whole);

        memcpy(repaired + used, whole ? text + i : replacement, whole ? n : 3);
        used += whole ? n : 3;
        i += n;
    }
    value = json_stringn(repaired, used);
    tsr_free(repaired);
    return value;
}

json_t *tsr_out_json_ids(const int32_t *ids, int64_t n_ids)
{
    json_t *array = json_array();

    for (int64_t i = 0; array != NULL && i < n_ids; i++) {
        if (json_array_append_new(array, json_integer(ids[i])) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

json_t *tsr_out_json_real(double number)
{
    return isfinite(number) ? json_real(number) : json_null();
}

tsr_out_size tsr_out_bytes(uint64_t n_bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    tsr_out_size size;
    double number = (double)n_bytes;
    int unit = 0;

    while (number >= 1024.0 && unit < 4) {
        number /= 1024.0;
        unit++;
    }
    (void)snprintf(size.text, sizeof(size.text), unit == 0 ? "%.0f %s" : "%.1f %s", number,
                   units[unit]);
    return size;
}
