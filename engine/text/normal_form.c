#include "engine/text/normal_form.h"

#include <utf8proc.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/code_point.h"

enum {
    MOST_OF_ONE = 32, // code points that one may become; Unicode's own longest is 18
    SHORT_RUN = 16    // marks that are sorted in place
};

static tsr_status make_room(int32_t **code_points, size_t *capacity, size_t wanted)
{
    size_t more = *capacity < 256 ? 256 : *capacity;
    int32_t *grown;

    if (wanted <= *capacity) {
        return TSR_OK;
    }
    while (more < wanted) {
        more *= 2;
    }
    grown = tsr_alloc_resize(*code_points, more, sizeof(**code_points));
    if (grown == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no room to normalize a text");
    }
    *code_points = grown;
    *capacity = more;
    return TSR_OK;
}

static int class_of(int32_t code_point)
{
    return utf8proc_get_property(code_point)->combining_class;
}

/* Marks into the order of their classes, those of one class as they were. */
static tsr_status order_run(int32_t *run, size_t n)
{
    size_t begins[257] = {0};
    int32_t *sorted;

    if (n <= SHORT_RUN) {
        for (size_t i = 1; i < n; i++) {
            const int32_t moved = run[i];
            size_t at = i;

            for (; at > 0 && class_of(run[at - 1]) > class_of(moved); at--) {
                run[at] = run[at - 1];
            }
            run[at] = moved;
        }
        return TSR_OK;
    }
    sorted = tsr_alloc(n, sizeof(*sorted));
    if (sorted == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no room to order %zu marks", n);
    }
    for (size_t i = 0; i < n; i++) {
        begins[class_of(run[i]) + 1]++;
    }
    for (int c = 0; c < 256; c++) {
        begins[c + 1] += begins[c];
    }
    for (size_t i = 0; i < n; i++) {
        sorted[begins[class_of(run[i])]++] = run[i];
    }
    for (size_t i = 0; i < n; i++) {
        run[i] = sorted[i];
    }
    tsr_free(sorted);
    return TSR_OK;
}

static tsr_status order_marks(int32_t *code_points, size_t n)
{
    for (size_t at = 0; at < n;) {
        size_t end = at;

        while (end < n && class_of(code_points[end]) != 0) {
            end++;
        }
        TSR_TRY(order_run(code_points + at, end - at));
        at = end + 1;
    }
    return TSR_OK;
}

static bool is_ascii(tsr_text_view text)
{
    uint8_t any = 0;

    for (size_t i = 0; i < text.n_bytes; i++) {
        any |= (uint8_t)text.bytes[i];
    }
    return any < 0x80;
}

tsr_status tsr_normal_form_append(tsr_text *out, tsr_normal_form form, tsr_text_view text,
                                  int32_t **code_points, size_t *capacity)
{
    const bool composes = form == TSR_NORMAL_FORM_C || form == TSR_NORMAL_FORM_KC;
    const bool compatible = form == TSR_NORMAL_FORM_KC || form == TSR_NORMAL_FORM_KD;
    const utf8proc_option_t options = (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                          (compatible ? UTF8PROC_COMPAT : 0));
    size_t n = 0;

    if (is_ascii(text)) {
        return tsr_text_append(out, text.bytes, text.n_bytes);
    }
    for (size_t at = 0; at < text.n_bytes;) {
        const int n_char = tsr_utf8_measure(text.bytes + at, text.n_bytes - at);
        const utf8proc_int32_t c = (utf8proc_int32_t)tsr_utf8_decode(text.bytes + at);
        int boundary = 0;
        utf8proc_ssize_t made;

        TSR_TRY(make_room(code_points, capacity, n + MOST_OF_ONE));
        made = utf8proc_decompose_char(c, *code_points + n, MOST_OF_ONE, options, &boundary);
        if (made < 0 || made > MOST_OF_ONE) {
            (*code_points)[n] = c;
            made = 1;
        }
        n += (size_t)made;
        at += n_char > 0 ? (size_t)n_char : 1;
    }
    TSR_TRY(order_marks(*code_points, n));
    if (composes) {
        const utf8proc_ssize_t left =
            utf8proc_normalize_utf32(*code_points, (utf8proc_ssize_t)n,
                                     (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));

        n = left >= 0 ? (size_t)left : n;
    }
    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        const int n_bytes = tsr_code_point_write(bytes, (uint32_t)(*code_points)[i]);

        TSR_TRY(tsr_text_append(out, bytes, (size_t)n_bytes));
    }
    return TSR_OK;
}
