#define _GNU_SOURCE // memmem
#include "engine/jinja/jtext.h"

#include <string.h>

#include "base/utf8.h"

enum {
    LEAST_BYTES = 64,
    STEP_BYTES = 64, // that cost as much as a step
    MOST_BYTES = 64 << 20
};

/* ---- building ----------------------------------------------------------------------------------
 */

static tsr_status make_room(tsr_jrun *run, tsr_jbuilder *b, size_t n_bytes)
{
    size_t wanted = b->capacity < LEAST_BYTES ? LEAST_BYTES : 2 * b->capacity;
    void *bytes = b->bytes;

    TSR_TRY(tsr_jvalue_work(run, n_bytes / STEP_BYTES));
    if (n_bytes > MOST_BYTES || b->n_bytes + n_bytes > MOST_BYTES) {
        return tsr_jvalue_fail(run, "a text of more than %d MB", MOST_BYTES >> 20);
    }
    if (b->n_bytes + n_bytes <= b->capacity) {
        return TSR_OK;
    }
    wanted = wanted < b->n_bytes + n_bytes ? b->n_bytes + n_bytes : wanted;
    TSR_TRY(tsr_jmemory_grow(&run->memory, &bytes, b->capacity, wanted));
    b->bytes = bytes;
    b->capacity = wanted;
    return TSR_OK;
}

static tsr_status mark_said(tsr_jrun *run, tsr_jbuilder *b, size_t start, size_t n_bytes)
{
    void *said = b->said;

    if (b->n_said > 0 && b->said[b->n_said - 1].start + b->said[b->n_said - 1].n_bytes == start) {
        b->said[b->n_said - 1].n_bytes += n_bytes;
        return TSR_OK;
    }
    if (b->n_said == b->said_capacity) {
        const int wanted = b->said_capacity < 4 ? 4 : 2 * b->said_capacity;

        TSR_TRY(tsr_jmemory_grow(&run->memory, &said, (size_t)b->said_capacity * sizeof(*b->said),
                                 (size_t)wanted * sizeof(*b->said)));
        b->said = said;
        b->said_capacity = wanted;
    }
    b->said[b->n_said++] = (tsr_text_run){.start = start, .n_bytes = n_bytes};
    return TSR_OK;
}

tsr_status tsr_jtext_put_said(tsr_jrun *run, tsr_jbuilder *b, const char *bytes, size_t n_bytes,
                              bool said)
{
    if (n_bytes == 0) {
        return TSR_OK;
    }
    TSR_TRY(make_room(run, b, n_bytes));
    memcpy(b->bytes + b->n_bytes, bytes, n_bytes);
    if (said) {
        TSR_TRY(mark_said(run, b, b->n_bytes, n_bytes));
    }
    b->n_bytes += n_bytes;
    return TSR_OK;
}

tsr_status tsr_jtext_put(tsr_jrun *run, tsr_jbuilder *b, const char *bytes, size_t n_bytes)
{
    return tsr_jtext_put_said(run, b, bytes, n_bytes, false);
}

tsr_status tsr_jtext_put_words(tsr_jrun *run, tsr_jbuilder *b, const char *words)
{
    return tsr_jtext_put_said(run, b, words, strlen(words), false);
}

/* The first of text's runs that ends behind byte `at`. */
static int run_behind(const tsr_jtext *text, size_t at)
{
    int low = 0;
    int high = text->n_said;

    while (low < high) {
        const int middle = low + (high - low) / 2;

        if (text->said[middle].start + text->said[middle].n_bytes <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

tsr_status tsr_jtext_put_part(tsr_jrun *run, tsr_jbuilder *b, const tsr_jtext *text, size_t first,
                              size_t end)
{
    size_t at = first;

    for (int i = run_behind(text, first); i < text->n_said && text->said[i].start < end; i++) {
        const size_t start = text->said[i].start > at ? text->said[i].start : at;
        const size_t behind = text->said[i].start + text->said[i].n_bytes;
        const size_t stop = behind < end ? behind : end;

        TSR_TRY(tsr_jtext_put_said(run, b, text->bytes + at, start - at, false));
        TSR_TRY(tsr_jtext_put_said(run, b, text->bytes + start, stop - start, true));
        at = stop;
    }
    return at < end ? tsr_jtext_put_said(run, b, text->bytes + at, end - at, false) : TSR_OK;
}

tsr_status tsr_jtext_put_text(tsr_jrun *run, tsr_jbuilder *b, const tsr_jtext *text)
{
    return tsr_jtext_put_part(run, b, text, 0, text->n_bytes);
}

static tsr_status new_text(tsr_jrun *run, tsr_jtext **out)
{
    void *made;

    TSR_TRY(tsr_jmemory_take(&run->memory, &made, sizeof(tsr_jtext)));
    *out = made;
    (*out)->bytes = "";
    return TSR_OK;
}

tsr_status tsr_jtext_finish(tsr_jrun *run, tsr_jbuilder *b, const tsr_jtext **out)
{
    tsr_jtext *text;

    TSR_TRY(new_text(run, &text));
    if (b->n_bytes > 0) {
        text->bytes = b->bytes;
    }
    text->n_bytes = b->n_bytes;
    text->said = b->said;
    text->n_said = b->n_said;
    *b = (tsr_jbuilder){0};
    *out = text;
    return TSR_OK;
}

tsr_status tsr_jtext_finish_value(tsr_jrun *run, tsr_jbuilder *b, tsr_jvalue *out)
{
    const tsr_jtext *text;

    TSR_TRY(tsr_jtext_finish(run, b, &text));
    *out = tsr_jvalue_text(text);
    return TSR_OK;
}

tsr_status tsr_jtext_words(tsr_jrun *run, const tsr_jtext **out, const char *words)
{
    tsr_jtext *text;

    TSR_TRY(new_text(run, &text));
    text->bytes = words;
    text->n_bytes = strlen(words);
    *out = text;
    return TSR_OK;
}

tsr_status tsr_jtext_copy(tsr_jrun *run, const tsr_jtext **out, const char *bytes, size_t n_bytes,
                          bool said)
{
    tsr_jbuilder b = {0};

    TSR_TRY(tsr_jtext_put_said(run, &b, bytes, n_bytes, said));
    return tsr_jtext_finish(run, &b, out);
}

tsr_status tsr_jtext_part(tsr_jrun *run, const tsr_jtext **out, const tsr_jtext *text, size_t first,
                          size_t end)
{
    const int begin = run_behind(text, first);
    tsr_jtext *part;
    int n = 0;

    end = end < first ? first : end;
    TSR_TRY(new_text(run, &part));
    part->bytes = text->bytes + first;
    part->n_bytes = end - first;
    part->markup = text->markup;
    while (begin + n < text->n_said && text->said[begin + n].start < end) {
        n++;
    }
    if (n > 0) {
        void *made;
        tsr_text_run *said;

        TSR_TRY(tsr_jmemory_take(&run->memory, &made, (size_t)n * sizeof(*said)));
        said = made;
        for (int i = 0; i < n; i++) {
            const tsr_text_run whole = text->said[begin + i];
            const size_t start = whole.start > first ? whole.start : first;
            const size_t behind = whole.start + whole.n_bytes;

            said[i] = (tsr_text_run){.start = start - first,
                                     .n_bytes = (behind < end ? behind : end) - start};
        }
        part->said = said;
        part->n_said = n;
    }
    *out = part;
    return TSR_OK;
}

tsr_status tsr_jtext_part_value(tsr_jrun *run, tsr_jvalue *out, const tsr_jtext *text, size_t first,
                                size_t end)
{
    const tsr_jtext *part;

    TSR_TRY(tsr_jtext_part(run, &part, text, first, end));
    *out = tsr_jvalue_text(part);
    return TSR_OK;
}

bool tsr_jtext_said_at(const tsr_jtext *text, size_t at)
{
    const int i = run_behind(text, at);

    return i < text->n_said && text->said[i].start <= at;
}

bool tsr_jtext_equal(const tsr_jtext *a, const tsr_jtext *b)
{
    return a->n_bytes == b->n_bytes && memcmp(a->bytes, b->bytes, a->n_bytes) == 0;
}

int tsr_jtext_compare(const tsr_jtext *a, const tsr_jtext *b)
{
    // The order of UTF-8's bytes is that of its code points.
    const int order = memcmp(a->bytes, b->bytes, a->n_bytes < b->n_bytes ? a->n_bytes : b->n_bytes);

    return order != 0 ? order : (a->n_bytes > b->n_bytes) - (a->n_bytes < b->n_bytes);
}

size_t tsr_jtext_find(const tsr_jtext *text, const tsr_jtext *what, size_t from)
{
    const char *hit;

    if (from > text->n_bytes || what->n_bytes > text->n_bytes - from) {
        return SIZE_MAX;
    }
    if (what->n_bytes == 0) {
        return from;
    }
    hit = memmem(text->bytes + from, text->n_bytes - from, what->bytes, what->n_bytes);
    return hit == NULL ? SIZE_MAX : (size_t)(hit - text->bytes);
}

size_t tsr_jtext_find_last(const tsr_jtext *text, const tsr_jtext *what, size_t end)
{
    if (what->n_bytes > end) {
        return SIZE_MAX;
    }
    for (size_t at = end - what->n_bytes + 1; at-- > 0;) {
        if (memcmp(text->bytes + at, what->bytes, what->n_bytes) == 0) {
            return at;
        }
    }
    return SIZE_MAX;
}

/* ---- characters --------------------------------------------------------------------------------
 */

size_t tsr_jtext_character(const tsr_jtext *text, size_t at, int32_t *c)
{
    const unsigned char first = (unsigned char)text->bytes[at];
    int n;

    if (first < 0x80) {
        *c = first;
        return 1;
    }
    n = tsr_utf8_measure(text->bytes + at, text->n_bytes - at);
    *c = n > 0 ? (int32_t)tsr_utf8_decode(text->bytes + at) : -1;
    return n > 0 ? (size_t)n : 1;
}

size_t tsr_jtext_character_before(const tsr_jtext *text, size_t end, int32_t *c)
{
    for (size_t n = 1; n <= 4 && n <= end; n++) {
        if (((unsigned char)text->bytes[end - n] & 0xC0) != 0x80) {
            if (tsr_jtext_character(text, end - n, c) == n) {
                return n;
            }
            break;
        }
    }
    *c = -1;
    return 1;
}

int64_t tsr_jtext_n_characters(const tsr_jtext *text)
{
    int64_t n = 0;
    int32_t c;

    for (size_t at = 0; at < text->n_bytes; at += tsr_jtext_character(text, at, &c)) {
        n++;
    }
    return n;
}

size_t tsr_jtext_offset(const tsr_jtext *text, int64_t character)
{
    size_t at = 0;
    int32_t c;

    while (character-- > 0 && at < text->n_bytes) {
        at += tsr_jtext_character(text, at, &c);
    }
    return at;
}

bool tsr_jtext_is_space(int32_t c)
{
    return (c >= 0x9 && c <= 0xd) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static bool is_one_of(const tsr_jtext *text, size_t at, size_t n, int32_t c, const tsr_jtext *chars)
{
    int32_t other;

    if (chars == NULL) {
        return tsr_jtext_is_space(c);
    }
    for (size_t i = 0; i < chars->n_bytes;) {
        const size_t m = tsr_jtext_character(chars, i, &other);

        if (m == n && memcmp(chars->bytes + i, text->bytes + at, n) == 0) {
            return true;
        }
        i += m;
    }
    return false;
}

tsr_status tsr_jtext_strip(tsr_jrun *run, const tsr_jtext **out, const tsr_jtext *text,
                           const tsr_jtext *chars, bool left, bool right)
{
    size_t first = 0;
    size_t end = text->n_bytes;
    int32_t c;

    TSR_TRY(tsr_jvalue_work(run, text->n_bytes / STEP_BYTES *
                                     (chars == NULL ? 1 : 1 + chars->n_bytes / STEP_BYTES)));
    while (left && first < end) {
        const size_t n = tsr_jtext_character(text, first, &c);

        if (!is_one_of(text, first, n, c, chars)) {
            break;
        }
        first += n;
    }
    while (right && end > first) {
        const size_t n = tsr_jtext_character_before(text, end, &c);

        if (!is_one_of(text, end - n, n, c, chars)) {
            break;
        }
        end -= n;
    }
    return tsr_jtext_part(run, out, text, first, end);
}

size_t tsr_jtext_line_break(const tsr_jtext *text, size_t at)
{
    int32_t c;
    const size_t n = tsr_jtext_character(text, at, &c);

    if (c == '\r' && at + 1 < text->n_bytes && text->bytes[at + 1] == '\n') {
        return at + 2;
    }
    return (c >= 0xa && c <= 0xd) || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 ||
                   c == 0x2029
               ? at + n
               : at;
}
