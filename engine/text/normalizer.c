#include "engine/text/normalizer.h"

#include <string.h>
#include <utf8proc.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/code_point.h"
#include "engine/text/normalizer_step.h"

tsr_status tsr_normalizer_add(tsr_normalizer *normalizer, tsr_rewrite_step **out,
                              tsr_rewrite_kind kind)
{
    if (normalizer->n_steps == TSR_NORMALIZER_MOST_STEPS) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "a normalizer of more than %d steps",
                        TSR_NORMALIZER_MOST_STEPS);
    }
    *out = &normalizer->steps[normalizer->n_steps++];
    (*out)->kind = kind;
    return TSR_OK;
}

tsr_status tsr_normalizer_create_spm(tsr_normalizer **out, bool adds_space)
{
    static const char sign[] = "\xe2\x96\x81";
    const size_t n_sign = sizeof(sign) - 1;
    tsr_normalizer *normalizer = tsr_alloc(1, sizeof(*normalizer));
    tsr_rewrite_step *step = NULL;
    tsr_status st = TSR_OK;

    if (normalizer == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "normalizer record");
    }
    if (adds_space) {
        TSR_TRY_GOTO(st, fail, tsr_normalizer_add(normalizer, &step, TSR_REWRITE_KIND_PREPEND));
        step->content = tsr_alloc_text(sign, n_sign);
        step->content_bytes = n_sign;
    }
    TSR_TRY_GOTO(st, fail, tsr_normalizer_add(normalizer, &step, TSR_REWRITE_KIND_REPLACE));
    TSR_TRY_GOTO(st, fail, tsr_finder_create(&step->finder, (tsr_text_view){" ", 1}, false));
    step->content = tsr_alloc_text(sign, n_sign);
    step->content_bytes = n_sign;
    if (step->content == NULL || normalizer->steps[0].content == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "normalizer record");
        goto fail;
    }
    *out = normalizer;
    return TSR_OK;

fail:
    tsr_normalizer_destroy(normalizer);
    return st;
}

void tsr_normalizer_destroy(tsr_normalizer *normalizer)
{
    if (normalizer == NULL) {
        return;
    }
    for (int i = 0; i < normalizer->n_steps; i++) {
        tsr_finder_clear(&normalizer->steps[i].finder);
        tsr_free(normalizer->steps[i].content);
        tsr_charsmap_destroy(normalizer->steps[i].charsmap);
    }
    tsr_free(normalizer);
}

void tsr_normalizer_work_clear(tsr_normalizer_work *work)
{
    tsr_regex_work_clear(&work->regex);
    tsr_text_clear(&work->texts[0]);
    tsr_text_clear(&work->texts[1]);
    tsr_free(work->code_points);
    *work = (tsr_normalizer_work){0};
}

/* ---- a character at a time ---------------------------------------------------------------------
 */

static tsr_status append_char(tsr_text *out, uint32_t code_point)
{
    char bytes[4];
    const int n = tsr_code_point_write(bytes, code_point);

    return tsr_text_append(out, bytes, (size_t)n);
}

static bool is_other(uint32_t c) // Cc, Cf, Cs, Co
{
    const utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);

    return category >= UTF8PROC_CATEGORY_CC;
}

static bool is_chinese(uint32_t c)
{
    return (c >= 0x4e00 && c <= 0x9fff) || (c >= 0x3400 && c <= 0x4dbf) ||
           (c >= 0x20000 && c <= 0x2a6df) || (c >= 0x2a700 && c <= 0x2b73f) ||
           (c >= 0x2b740 && c <= 0x2b81f) || (c >= 0x2b920 && c <= 0x2ceaf) ||
           (c >= 0xf900 && c <= 0xfaff) || (c >= 0x2f800 && c <= 0x2fa1f);
}

static tsr_status append_lower(tsr_text *out, uint32_t c)
{
    if (c == 0x130) { // the one letter whose small form is two characters
        return tsr_text_append(out, "i\xcc\x87", 3);
    }
    return append_char(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
}

static tsr_status append_clean(tsr_text *out, uint32_t c)
{
    if (c == '\t' || c == '\n' || c == '\r' || tsr_code_point_is_space(c)) {
        return is_other(c) && c != '\t' && c != '\n' && c != '\r' ? TSR_OK : append_char(out, ' ');
    }
    return c == 0 || c == 0xfffd || is_other(c) ? TSR_OK : append_char(out, c);
}

static tsr_status append_chinese(tsr_text *out, uint32_t c)
{
    if (!is_chinese(c)) {
        return append_char(out, c);
    }
    TSR_TRY(append_char(out, ' '));
    TSR_TRY(append_char(out, c));
    return append_char(out, ' ');
}

/* As github.com/google/sentencepiece, src/builder.cc has it for nmt_nfkc. */
static tsr_status append_nmt(tsr_text *out, uint32_t c)
{
    if ((c >= 1 && c <= 8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f || c == 0x8f ||
        c == 0x9f) {
        return TSR_OK;
    }
    if (c == 9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680 || (c >= 0x200b && c <= 0x200f) ||
        c == 0x2028 || c == 0x2029 || c == 0x2581 || c == 0xfeff || c == 0xfffd) {
        c = ' ';
    }
    return append_char(out, c);
}

static tsr_status append_unless(tsr_text *out, uint32_t c, bool left_out)
{
    return left_out ? TSR_OK : append_char(out, c);
}

static tsr_status rewrite_char(tsr_text *out, tsr_rewrite_kind kind, uint32_t c)
{
    switch (kind) {
    case TSR_REWRITE_KIND_LOWER:
        return append_lower(out, c);
    case TSR_REWRITE_KIND_NO_MARKS:
        return append_unless(out, c, tsr_code_point_is_mark(c));
    case TSR_REWRITE_KIND_NO_ACCENTS:
        return append_unless(out, c,
                             utf8proc_category((utf8proc_int32_t)c) == UTF8PROC_CATEGORY_MN);
    case TSR_REWRITE_KIND_CLEAN:
        return append_clean(out, c);
    case TSR_REWRITE_KIND_SPACE_CHINESE:
        return append_chinese(out, c);
    default:
        return append_nmt(out, c);
    }
}

static tsr_status rewrite_chars(tsr_text *out, tsr_rewrite_kind kind, tsr_text_view text,
                                bool *lost)
{
    for (size_t at = 0; at < text.n_bytes;) {
        const int n = tsr_utf8_measure(text.bytes + at, text.n_bytes - at);

        TSR_TRY(rewrite_char(out, kind, tsr_utf8_decode(text.bytes + at)));
        *lost |= at == 0 && out->n_bytes == 0;
        at += n > 0 ? (size_t)n : 1;
    }
    return TSR_OK;
}

/* ---- a text at a time --------------------------------------------------------------------------
 */

static tsr_status rewrite_letters(tsr_text *out, tsr_text_view text)
{
    for (size_t i = 0; i < text.n_bytes; i++) {
        char letter[2];
        const int n = tsr_byte_alphabet_write(letter, (uint8_t)text.bytes[i]);

        TSR_TRY(tsr_text_append(out, letter, (size_t)n));
    }
    return TSR_OK;
}

static tsr_status strip(tsr_text *out, const tsr_rewrite_step *step, tsr_text_view text, bool *lost)
{
    if (step->strip_left) {
        const size_t n = tsr_code_point_spaces_before(text.bytes, text.n_bytes);

        *lost |= n > 0;
        text = (tsr_text_view){text.bytes + n, text.n_bytes - n};
    }
    if (step->strip_right) {
        text.n_bytes -= tsr_code_point_spaces_behind(text.bytes, text.n_bytes);
    }
    return tsr_text_append(out, text.bytes, text.n_bytes);
}

static tsr_status rewrite(const tsr_rewrite_step *step, tsr_normalizer_work *work, tsr_text *out,
                          tsr_text_view text, bool begins, bool *lost)
{
    const tsr_text_view content = {step->content, step->content_bytes};

    switch (step->kind) {
    case TSR_REWRITE_KIND_FORM:
        return tsr_normal_form_append(out, step->form, text, &work->code_points, &work->capacity);
    case TSR_REWRITE_KIND_STRIP:
        return strip(out, step, text, lost);
    case TSR_REWRITE_KIND_REPLACE:
        return tsr_finder_replace(&step->finder, &work->regex, out, text, content);
    case TSR_REWRITE_KIND_PREPEND:
        if (text.n_bytes > 0 && begins) {
            TSR_TRY(tsr_text_append(out, content.bytes, content.n_bytes));
        }
        return tsr_text_append(out, text.bytes, text.n_bytes);
    case TSR_REWRITE_KIND_CHARSMAP:
        return tsr_charsmap_apply(step->charsmap, out, text);
    case TSR_REWRITE_KIND_LETTERS:
        return rewrite_letters(out, text);
    default:
        return rewrite_chars(out, step->kind, text, lost);
    }
}

tsr_status tsr_normalizer_apply(const tsr_normalizer *normalizer, tsr_normalizer_work *work,
                                tsr_text_view *out, tsr_text_view text, bool begins, bool *lost)
{
    *lost = false;
    for (int i = 0; i < normalizer->n_steps; i++) {
        tsr_text *made = &work->texts[i % 2];

        made->n_bytes = 0;
        TSR_TRY(tsr_text_append(made, "", 0));
        TSR_TRY(rewrite(&normalizer->steps[i], work, made, text, begins, lost));
        text = (tsr_text_view){made->bytes, made->n_bytes};
    }
    *out = text;
    return TSR_OK;
}
