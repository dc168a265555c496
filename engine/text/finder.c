#include "engine/text/finder.h"

#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"

tsr_status tsr_finder_create(tsr_finder *out, tsr_text_view pattern, bool is_regex)
{
    if (is_regex || pattern.n_bytes == 0) {
        return tsr_regex_create(&out->regex, pattern.bytes, pattern.n_bytes);
    }
    out->literal = tsr_alloc_text(pattern.bytes, pattern.n_bytes);
    out->literal_bytes = pattern.n_bytes;
    return out->literal != NULL ? TSR_OK : tsr_fail(TSR_ERR_NOMEM, "a text to be found");
}

void tsr_finder_clear(tsr_finder *finder)
{
    tsr_regex_destroy(finder->regex);
    tsr_free(finder->literal);
    *finder = (tsr_finder){0};
}

static bool find_literal(const tsr_finder *f, const char *text, size_t n_bytes, size_t from,
                         size_t *start)
{
    while (from < n_bytes) {
        const char *first = memchr(text + from, f->literal[0], n_bytes - from);

        if (first == NULL) {
            break;
        }
        from = (size_t)(first - text);
        if (n_bytes - from >= f->literal_bytes &&
            memcmp(first, f->literal, f->literal_bytes) == 0) {
            *start = from;
            return true;
        }
        from++;
    }
    return false;
}

static size_t next_character(const char *text, size_t n_bytes, size_t at)
{
    const int n = at < n_bytes ? tsr_utf8_measure(text + at, n_bytes - at) : 1;

    return at + (n > 0 ? (size_t)n : 1);
}

static tsr_status next_match(const tsr_finder *f, tsr_regex_work *work, tsr_finder_place *place,
                             const char *text, size_t n_bytes, size_t *start, size_t *end)
{
    while (place->from <= n_bytes) {
        TSR_TRY(tsr_regex_find(f->regex, work, text, n_bytes, place->from, start, end));
        if (*start > n_bytes) {
            break;
        }
        if (*start < *end || !place->found_any || *end != place->last_end) {
            *place = (tsr_finder_place){*end, *end, true};
            return TSR_OK;
        }
        // Nothing, right behind the last match, is no match: else it would be found for ever.
        place->from = next_character(text, n_bytes, place->from);
    }
    *start = *end = n_bytes + 1;
    return TSR_OK;
}

tsr_status tsr_finder_next(const tsr_finder *finder, tsr_regex_work *work, tsr_finder_place *place,
                           const char *text, size_t n_bytes, size_t *start, size_t *end)
{
    if (finder->regex != NULL) {
        return next_match(finder, work, place, text, n_bytes, start, end);
    }
    *start = *end = n_bytes + 1;
    if (finder->literal != NULL) {
        if (find_literal(finder, text, n_bytes, place->from, start)) {
            *end = *start + finder->literal_bytes;
        }
    } else {
        for (size_t at = place->from; at < n_bytes; at = next_character(text, n_bytes, at)) {
            if (finder->kind(tsr_utf8_decode(text + at))) {
                *start = at;
                *end = next_character(text, n_bytes, at);
                break;
            }
        }
    }
    place->from = *end;
    return TSR_OK;
}

tsr_status tsr_finder_replace(const tsr_finder *finder, tsr_regex_work *work, tsr_text *out,
                              tsr_text_view text, tsr_text_view content)
{
    tsr_finder_place place = {0};

    for (size_t at = 0;;) {
        size_t start = 0;
        size_t end = 0;

        TSR_TRY(tsr_finder_next(finder, work, &place, text.bytes, text.n_bytes, &start, &end));
        if (start > text.n_bytes) {
            return tsr_text_append(out, text.bytes + at, text.n_bytes - at);
        }
        TSR_TRY(tsr_text_append(out, text.bytes + at, start - at));
        TSR_TRY(tsr_text_append(out, content.bytes, content.n_bytes));
        at = end;
    }
}
