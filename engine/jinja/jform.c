#include "engine/jinja/jform.h"

#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MOST_PRECISION = 300
};

static tsr_status put_fill(tsr_jrun *run, tsr_jbuilder *b, const tsr_jform *f, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        TSR_TRY(tsr_jvalue_work(run, 1));
        TSR_TRY(tsr_jtext_put(run, b, f->fill, f->fill_bytes));
    }
    return TSR_OK;
}

/* `prefix` (a sign, 0x) and `body` within the width. */
static tsr_status put_aligned(tsr_jrun *run, tsr_jbuilder *b, const tsr_jform *f,
                              const char *prefix, const tsr_jtext *body, char align)
{
    const int64_t missing = f->width - tsr_jtext_n_characters(body) - (int64_t)strlen(prefix);
    const int64_t all = missing > 0 ? missing : 0;
    const int64_t left = align == '<' ? 0 : align == '^' ? all / 2 : all;

    if (align != '=') {
        TSR_TRY(put_fill(run, b, f, left));
    }
    TSR_TRY(tsr_jtext_put_words(run, b, prefix));
    if (align == '=') {
        TSR_TRY(put_fill(run, b, f, left));
    }
    TSR_TRY(tsr_jtext_put_text(run, b, body));
    return put_fill(run, b, f, all - left);
}

tsr_status tsr_jform_text(tsr_jrun *run, tsr_jbuilder *b, const tsr_jform *f, const tsr_jtext *text,
                          char align)
{
    if (f->precision >= 0) {
        TSR_TRY(tsr_jtext_part(run, &text, text, 0, tsr_jtext_offset(text, f->precision)));
    }
    return put_aligned(run, b, f, "", text, align);
}

/* Separators between groups of three (four for other bases) digits before the point. */
static void group_digits(char *digits, char separator, int every)
{
    const size_t whole = strspn(digits, "0123456789abcdefABCDEF");
    const size_t n = whole < strcspn(digits, ".") ? whole : strcspn(digits, ".");
    char grouped[TSR_JFORM_DIGIT_BYTES + TSR_JFORM_DIGIT_BYTES / 3];
    size_t used = 0;

    for (size_t i = 0; digits[i] != 0 && used + 2 < sizeof(grouped); i++) {
        if (i > 0 && i < n && (n - i) % (size_t)every == 0) {
            grouped[used++] = separator;
        }
        grouped[used++] = digits[i];
    }
    grouped[used] = 0;
    memcpy(digits, grouped, used + 1);
}

tsr_status tsr_jform_digits(tsr_jrun *run, tsr_jbuilder *b, const tsr_jform *f, bool negative,
                            const char *base, char *digits)
{
    tsr_jtext body = {.bytes = digits};
    char prefix[4];

    if (f->group != 0) {
        group_digits(digits, f->group, base[0] != 0 ? 4 : 3);
    }
    body.n_bytes = strlen(digits);
    (void)snprintf(prefix, sizeof(prefix), "%s%s",
                   negative         ? "-"
                   : f->sign == '+' ? "+"
                   : f->sign == ' ' ? " "
                                    : "",
                   f->alternate ? base : "");
    return put_aligned(run, b, f, prefix, &body, f->align != 0 ? f->align : '>');
}

tsr_status tsr_jform_whole(tsr_jrun *run, tsr_jbuilder *b, const tsr_jform *f, int64_t number)
{
    const uint64_t magnitude = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    char digits[2 * TSR_JFORM_DIGIT_BYTES];
    char plain[80];
    size_t n = 0;
    const uint64_t base = f->type == 'x' || f->type == 'X' ? 16
                          : f->type == 'o'                 ? 8
                          : f->type == 'b'                 ? 2
                                                           : 10;
    uint64_t rest = magnitude;
    size_t at = 0;

    do {
        plain[n++] = (f->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[rest % base];
        rest /= base;
    } while (rest > 0);
    while (at + n < TSR_JFORM_DIGIT_BYTES && (int64_t)(at + n) < f->precision) {
        digits[at++] = '0';
    }
    while (n > 0) {
        digits[at++] = plain[--n];
    }
    digits[at] = 0;
    return tsr_jform_digits(run, b, f, number < 0,
                            f->type == 'x'   ? "0x"
                            : f->type == 'X' ? "0X"
                            : base == 8      ? "0o"
                            : base == 2      ? "0b"
                                             : "",
                            digits);
}

tsr_status tsr_jform_real(tsr_jrun *run, tsr_jbuilder *b, const tsr_jform *f, double real)
{
    const bool percent = f->type == '%';
    const char type = percent || f->type == 0 ? 'f' : f->type;
    const int precision = f->precision < 0                ? 6
                          : f->precision > MOST_PRECISION ? MOST_PRECISION
                                                          : (int)f->precision;
    const char format[] = {'%',
                           f->alternate ? '#' : '.',
                           f->alternate ? '.' : '*',
                           f->alternate ? '*' : type,
                           f->alternate ? type : 0,
                           0};
    char digits[2 * TSR_JFORM_DIGIT_BYTES];
    const double value = fabs(percent ? real * 100 : real);

    if (isnan(real) || isinf(real)) {
        (void)snprintf(digits, sizeof(digits), "%s",
                       isupper((unsigned char)type) ? (isnan(real) ? "NAN" : "INF")
                       : isnan(real)                ? "nan"
                                                    : "inf");
    } else {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
        (void)snprintf(digits, TSR_JFORM_DIGIT_BYTES, format, precision, value);
#pragma GCC diagnostic pop
    }
    if (percent) {
        (void)strcat(digits, "%");
    }
    return tsr_jform_digits(run, b, f, signbit(real) != 0 && !isnan(real), "", digits);
}
