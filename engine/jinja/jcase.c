/*
 * Letters: their case and kind, by utf8proc's tables of Unicode.
 */
#include <string.h>

#include <utf8proc.h>

#include "engine/jinja/jtext.h"

tsr_status tsr_jtext_put_character(tsr_jrun *run, tsr_jbuilder *b, int32_t c, bool said)
{
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t n = utf8proc_encode_char(c, bytes);

    return tsr_jtext_put_said(run, b, (const char *)bytes, (size_t)n, said);
}

static utf8proc_category_t category(int32_t c)
{
    return c < 0 ? UTF8PROC_CATEGORY_CN : utf8proc_category(c);
}

static bool is_upper(int32_t c)
{
    const utf8proc_category_t kind = category(c);

    return kind == UTF8PROC_CATEGORY_LU || (c >= 0x2160 && c <= 0x216f) ||
           (c >= 0x24b6 && c <= 0x24cf);
}

static bool is_lower(int32_t c)
{
    const utf8proc_category_t kind = category(c);

    return kind == UTF8PROC_CATEGORY_LL || c == 0xaa || c == 0xba || (c >= 0x2170 && c <= 0x217f) ||
           (c >= 0x24d0 && c <= 0x24e9);
}

static bool is_cased(int32_t c)
{
    return is_upper(c) || is_lower(c) || category(c) == UTF8PROC_CATEGORY_LT;
}

static bool is_alpha(int32_t c)
{
    const utf8proc_category_t kind = category(c);

    return kind == UTF8PROC_CATEGORY_LU || kind == UTF8PROC_CATEGORY_LL ||
           kind == UTF8PROC_CATEGORY_LT || kind == UTF8PROC_CATEGORY_LM ||
           kind == UTF8PROC_CATEGORY_LO;
}

static bool is_digit(int32_t c)
{
    return category(c) == UTF8PROC_CATEGORY_ND || c == 0xb2 || c == 0xb3 || c == 0xb9 ||
           c == 0x2070 || (c >= 0x2074 && c <= 0x2079) || (c >= 0x2080 && c <= 0x2089);
}

static bool is_numeric(int32_t c)
{
    return is_digit(c) || category(c) == UTF8PROC_CATEGORY_NL ||
           category(c) == UTF8PROC_CATEGORY_NO;
}

bool tsr_jtext_is_printable(int32_t c)
{
    switch (category(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
        return false;
    case UTF8PROC_CATEGORY_ZS:
        return c == ' ';
    default:
        return true;
    }
}

bool tsr_jtext_is(const tsr_jtext *text, tsr_jtext_class what)
{
    bool any = what == TSR_JTEXT_PRINTABLE;
    int32_t c;

    for (size_t at = 0; at < text->n_bytes;) {
        at += tsr_jtext_character(text, at, &c);
        switch (what) {
        case TSR_JTEXT_LOWERCASE:
        case TSR_JTEXT_UPPERCASE:
            if (is_cased(c)) {
                if (!(what == TSR_JTEXT_LOWERCASE ? is_lower(c) : is_upper(c))) {
                    return false;
                }
                any = true;
            }
            break;
        default:
            if (!(what == TSR_JTEXT_ALPHA   ? is_alpha(c)
                  : what == TSR_JTEXT_DIGIT ? is_digit(c)
                  : what == TSR_JTEXT_ALNUM ? is_alpha(c) || is_numeric(c)
                  : what == TSR_JTEXT_SPACE ? tsr_jtext_is_space(c)
                                            : tsr_jtext_is_printable(c))) {
                return false;
            }
            any = true;
        }
    }
    return any;
}

/* ---- case --------------------------------------------------------------------------------------
 */

/* What one character becomes in capitals where that is several (Unicode's SpecialCasing.txt, those
 * without a condition that occur in running text). */
static const char *long_upper(int32_t c)
{
    switch (c) {
    case 0xdf:
        return "SS";
    case 0x149:
        return "\xCA\xBCN";
    case 0x1f0:
        return "J\xCC\x8C";
    case 0x587:
        return "\xD4\xB5\xD5\x92";
    case 0xfb00:
        return "FF";
    case 0xfb01:
        return "FI";
    case 0xfb02:
        return "FL";
    case 0xfb03:
        return "FFI";
    case 0xfb04:
        return "FFL";
    case 0xfb05:
    case 0xfb06:
        return "ST";
    default:
        return NULL;
    }
}

static tsr_status put_upper(tsr_jrun *run, tsr_jbuilder *b, int32_t c, bool said, bool title)
{
    const char *many = long_upper(c);

    if (many == NULL) {
        return tsr_jtext_put_character(run, b, title ? utf8proc_totitle(c) : utf8proc_toupper(c),
                                       said);
    }
    if (title && c >= 0x80 && (unsigned char)many[0] < 0x80) { // "Ss", "Fi"
        const char rest[] = {many[0], (char)(many[1] | 0x20),
                             many[1] != 0 ? (char)(many[2] | 0x20) : 0};

        return tsr_jtext_put_said(run, b, rest, strlen(many), said);
    }
    return tsr_jtext_put_said(run, b, many, strlen(many), said);
}

/* Is the capital sigma at `at` the last letter of a word? (Unicode 3.13, Final_Sigma) */
static bool ends_word(const tsr_jtext *text, size_t at, size_t n)
{
    int32_t c = 0;

    if (at == 0) {
        return false;
    }
    (void)tsr_jtext_character_before(text, at, &c);
    if (!is_cased(c)) {
        return false;
    }
    if (at + n < text->n_bytes) {
        (void)tsr_jtext_character(text, at + n, &c);
        return !is_cased(c);
    }
    return true;
}

static tsr_status put_lower(tsr_jrun *run, tsr_jbuilder *b, const tsr_jtext *text, size_t at,
                            size_t n, int32_t c, bool said)
{
    if (c == 0x3a3 && ends_word(text, at, n)) {
        return tsr_jtext_put_character(run, b, 0x3c2, said);
    }
    if (c == 0x130) {
        return tsr_jtext_put_said(run, b, "i\xCC\x87", 3, said);
    }
    return tsr_jtext_put_character(run, b, utf8proc_tolower(c), said);
}

tsr_status tsr_jtext_recase(tsr_jrun *run, const tsr_jtext **out, const tsr_jtext *text,
                            tsr_jtext_case how)
{
    tsr_jbuilder b = {0};
    bool in_word = false; // TITLE: the character before has a case; CAPITALIZE: is not the first
    int32_t c;

    for (size_t at = 0; at < text->n_bytes;) {
        const size_t n = tsr_jtext_character(text, at, &c);
        const bool said = tsr_jtext_said_at(text, at);
        const bool first = (how == TSR_JTEXT_TITLE || how == TSR_JTEXT_CAPITALIZE) && !in_word;

        if (c < 0) {
            TSR_TRY(tsr_jtext_put_said(run, &b, text->bytes + at, n, said));
        } else if (how == TSR_JTEXT_UPPER || first || (how == TSR_JTEXT_SWAP && is_lower(c))) {
            TSR_TRY(put_upper(run, &b, c, said, first));
        } else if (how == TSR_JTEXT_SWAP && !is_upper(c)) {
            TSR_TRY(tsr_jtext_put_character(run, &b, c, said));
        } else {
            TSR_TRY(put_lower(run, &b, text, at, n, c, said));
        }
        in_word = how == TSR_JTEXT_CAPITALIZE || is_cased(c);
        at += n;
    }
    return tsr_jtext_finish(run, &b, out);
}
