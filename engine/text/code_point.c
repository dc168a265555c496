#include "engine/text/code_point.h"

#include <utf8proc.h>

#include "base/utf8.h"

static utf8proc_category_t category_of(uint32_t code_point)
{
    return utf8proc_category((utf8proc_int32_t)code_point);
}

bool tsr_code_point_is_space(uint32_t c)
{
    if (c < 0x80) {
        return c == ' ' || (c >= 9 && c <= 13);
    }
    return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
           c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool tsr_code_point_is_number(uint32_t c)
{
    const utf8proc_category_t category = category_of(c);

    return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
           category == UTF8PROC_CATEGORY_NO;
}

bool tsr_code_point_is_punctuation(uint32_t c)
{
    const utf8proc_category_t category = category_of(c);

    if (c < 0x80) {
        return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
               (c >= '{' && c <= '~');
    }
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool tsr_code_point_is_mark(uint32_t c)
{
    const utf8proc_category_t category = category_of(c);

    return category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
           category == UTF8PROC_CATEGORY_ME;
}

bool tsr_code_point_is_word(uint32_t c)
{
    const utf8proc_category_t category = category_of(c);

    // Unicode TR 18: Alphabetic, which beside letters, marks and Nl has the letters in circles and
    // squares; decimal digits; connectors; the two joiners.
    return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
           category == UTF8PROC_CATEGORY_PC || (c >= 0x24b6 && c <= 0x24e9) ||
           (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
           (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c || c == 0x200d;
}

int tsr_code_point_write(char out[4], uint32_t c)
{
    return (int)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)out);
}

/* Where the character before `at` begins; `at` if no character ends there. */
static size_t previous(const char *text, size_t at)
{
    size_t start = at;

    while (start > 0 && at - start < 4) {
        start--;
        if (((uint8_t)text[start] & 0xc0) != 0x80) {
            return tsr_utf8_measure(text + start, at - start) == (int)(at - start) ? start : at;
        }
    }
    return at;
}

size_t tsr_code_point_spaces_behind(const char *text, size_t n_bytes)
{
    size_t at = n_bytes;

    while (at > 0) {
        const size_t start = previous(text, at);

        if (start == at || !tsr_code_point_is_space(tsr_utf8_decode(text + start))) {
            break;
        }
        at = start;
    }
    return n_bytes - at;
}

size_t tsr_code_point_spaces_before(const char *text, size_t n_bytes)
{
    size_t at = 0;

    while (at < n_bytes) {
        const int n = tsr_utf8_measure(text + at, n_bytes - at);

        if (n <= 0 || !tsr_code_point_is_space(tsr_utf8_decode(text + at))) {
            break;
        }
        at += (size_t)n;
    }
    return at;
}

bool tsr_code_point_word_ends(const char *text, size_t n_bytes)
{
    const size_t start = previous(text, n_bytes);

    return start < n_bytes && tsr_code_point_is_word(tsr_utf8_decode(text + start));
}

bool tsr_code_point_word_begins(const char *text, size_t n_bytes)
{
    return n_bytes > 0 && tsr_utf8_measure(text, n_bytes) > 0 &&
           tsr_code_point_is_word(tsr_utf8_decode(text));
}
