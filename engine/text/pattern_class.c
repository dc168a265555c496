#include "engine/text/pattern_class.h"

#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "engine/text/pattern_names.h"

/* A set while it is read: a class of PCRE2 between brackets, and what such a class cannot say. */
typedef struct set {
    tsr_text members; /* between brackets */
    tsr_text others;  /* "|x|y", each of which matches one character */
} set;

static void set_clear(set *s)
{
    tsr_text_clear(&s->members);
    tsr_text_clear(&s->others);
}

tsr_status tsr_pattern_write(tsr_text *out, const char *zero_ended)
{
    return tsr_text_append(out, zero_ended, strlen(zero_ended));
}

static tsr_status write_text(tsr_text *out, const tsr_text *text)
{
    return tsr_text_append(out, text->bytes != NULL ? text->bytes : "", text->n_bytes);
}

tsr_status tsr_pattern_write_char(tsr_text *out, uint32_t code_point)
{
    char text[16];

    if (code_point < 0x80 &&
        ((code_point >= '0' && code_point <= '9') || (code_point >= 'A' && code_point <= 'Z') ||
         (code_point >= 'a' && code_point <= 'z') || code_point == ' ')) {
        (void)snprintf(text, sizeof(text), "%c", (char)code_point);
    } else if (code_point > ' ' && code_point < 0x7f) {
        (void)snprintf(text, sizeof(text), "\\%c", (char)code_point);
    } else {
        (void)snprintf(text, sizeof(text), "\\x{%X}", (unsigned)code_point);
    }
    return tsr_pattern_write(out, text);
}

/* ---- escapes -----------------------------------------------------------------------------------
 */

/* A name without its signs, in small letters; false if it is none. */
static bool plain_name(char *out, size_t out_bytes, const char *name, size_t n_bytes)
{
    size_t n = 0;

    for (size_t i = 0; i < n_bytes; i++) {
        const char c = name[i];

        if (c == ' ' || c == '_' || c == '-') {
            continue;
        }
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
              c == '&') ||
            n + 1 >= out_bytes) {
            return false;
        }
        out[n++] = (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
    }
    out[n] = 0;
    return n > 0;
}

/* \p{...} or \P{...}: the members of a class, and whether all others are meant. */
static tsr_status read_property(tsr_text *members, tsr_pattern_reader *r, bool *negative)
{
    const char *name = r->at + 3;
    const char *close =
        r->end - r->at > 3 && r->at[2] == '{' ? memchr(name, '}', (size_t)(r->end - name)) : NULL;
    char plain[48];
    const char *known;

    *negative = r->at[1] == 'P';
    if (close != NULL && name[0] == '^') {
        *negative = !*negative;
        name++;
    }
    if (close == NULL || !plain_name(plain, sizeof(plain), name, (size_t)(close - name))) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "a pattern has \\%c without the name of a property",
                        r->at[1]);
    }
    r->at = close + 1;
    known = tsr_pattern_names_category(plain);
    if (known == NULL) {
        const char *posix = tsr_pattern_names_set(plain);

        if (posix != NULL) {
            return tsr_pattern_write(members, posix);
        }
    }
    TSR_TRY(tsr_pattern_write(members, tsr_pattern_names_script(plain) ? "\\p{sc:" : "\\p{"));
    TSR_TRY(known != NULL ? tsr_pattern_write(members, known)
                          : tsr_text_append(members, name, (size_t)(close - name)));
    return tsr_pattern_write(members, "}");
}

/* The members of the set at `\`; *found false if it is none. */
static tsr_status read_set(tsr_text *members, tsr_pattern_reader *r, bool *negative, bool *found)
{
    const char letter = (char)(r->end - r->at > 1 ? r->at[1] : 0);
    const char *known = NULL;

    *found = true;
    switch (letter) {
    case 's':
    case 'S':
        known = TSR_PATTERN_SPACES;
        break;
    case 'w':
    case 'W':
        known = TSR_PATTERN_WORD;
        break;
    case 'd':
    case 'D':
        known = "\\p{Nd}";
        break;
    case 'h':
    case 'H':
        known = TSR_PATTERN_HEX;
        break;
    case 'p':
    case 'P':
        return read_property(members, r, negative);
    default:
        *found = false;
        return TSR_OK;
    }
    *negative = letter < 'a';
    r->at += 2;
    return tsr_pattern_write(members, known);
}

tsr_status tsr_pattern_set(tsr_text *out, tsr_pattern_reader *r, bool *found)
{
    const bool is_word = r->end - r->at > 1 && (r->at[1] == 'w' || r->at[1] == 'W');
    tsr_text members = {0};
    bool negative = false;
    tsr_status st = read_set(&members, r, &negative, found);

    if (st == TSR_OK && is_word) {
        members.n_bytes = 0;
        st = tsr_pattern_write(&members, TSR_PATTERN_WORD_ALONE);
    }
    if (st == TSR_OK && *found) {
        st = tsr_pattern_write(out, negative ? "[^" : "[");
        st = st == TSR_OK ? write_text(out, &members) : st;
        st = st == TSR_OK ? tsr_pattern_write(out, "]") : st;
    }
    tsr_text_clear(&members);
    return st;
}

static int digit_of(char c, int base)
{
    const int value = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : 99;

    return value < base ? value : -1;
}

/* Up to `most` digits at `at`; their end. */
static const char *read_digits(uint32_t *value, const tsr_pattern_reader *r, const char *at,
                               int most, int base)
{
    *value = 0;
    for (int i = 0; i < most && at < r->end && digit_of(*at, base) >= 0; i++, at++) {
        *value = *value * (uint32_t)base + (uint32_t)digit_of(*at, base);
    }
    return at;
}

tsr_status tsr_pattern_char(uint32_t *code_point, tsr_pattern_reader *r, bool *found)
{
    static const char letters[] = "aefnrtv";
    static const char values[] = "\a\x1b\f\n\r\t\v";
    const char letter = (char)(r->end - r->at > 1 ? r->at[1] : 0);
    const char *known = letter != 0 ? strchr(letters, letter) : NULL;
    const char *end = r->at;

    *found = true;
    if (known != NULL) {
        *code_point = (uint32_t)values[known - letters];
        end = r->at + 2;
    } else if (letter == 'x' && r->end - r->at > 2 && r->at[2] == '{') {
        end = read_digits(code_point, r, r->at + 3, 8, 16);
        end = end > r->at + 3 && end < r->end && *end == '}' ? end + 1 : r->at;
    } else if (letter == 'x') {
        end = read_digits(code_point, r, r->at + 2, 2, 16);
    } else if (letter == 'u') {
        end = read_digits(code_point, r, r->at + 2, 4, 16);
        end = end == r->at + 6 ? end : r->at;
    } else if (letter == '0') {
        end = read_digits(code_point, r, r->at + 1, 3, 8);
    } else {
        *found = false;
        return TSR_OK;
    }
    if (end == r->at || *code_point > 0x10ffff) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "a pattern has \\%c without the number of a character",
                        letter);
    }
    r->at = end;
    return TSR_OK;
}

/* ---- classes -----------------------------------------------------------------------------------
 */

static tsr_status unfinished(void)
{
    return tsr_fail(TSR_ERR_UNSUPPORTED, "a pattern has a class that is not sound");
}

/* What a set stands for, as something that matches one character. */
static tsr_status write_set(tsr_text *out, const set *s)
{
    if (s->members.n_bytes == 0 && s->others.n_bytes == 0) {
        return tsr_pattern_write(out, "(?!)");
    }
    if (s->others.n_bytes == 0) {
        TSR_TRY(tsr_pattern_write(out, "["));
        TSR_TRY(write_text(out, &s->members));
        return tsr_pattern_write(out, "]");
    }
    TSR_TRY(tsr_pattern_write(out, "(?:"));
    if (s->members.n_bytes > 0) {
        TSR_TRY(tsr_pattern_write(out, "["));
        TSR_TRY(write_text(out, &s->members));
        TSR_TRY(tsr_pattern_write(out, "]"));
        TSR_TRY(write_text(out, &s->others));
    } else {
        TSR_TRY(tsr_text_append(out, s->others.bytes + 1, s->others.n_bytes - 1));
    }
    return tsr_pattern_write(out, ")");
}

/* [:alpha:] and [:^alpha:]; false if it is none. */
static tsr_status read_posix(set *s, tsr_pattern_reader *r, bool *found)
{
    const char *name = r->at + 2;
    const char *end = name;
    bool negative;
    char plain[16];
    const char *members;

    *found = false;
    if (r->end - r->at < 4 || r->at[1] != ':') {
        return TSR_OK;
    }
    negative = *name == '^';
    name += negative;
    for (end = name; end < r->end && *end >= 'a' && *end <= 'z';) {
        end++;
    }
    if (r->end - end < 2 || end[0] != ':' || end[1] != ']' ||
        !plain_name(plain, sizeof(plain), name, (size_t)(end - name))) {
        return TSR_OK;
    }
    members = tsr_pattern_names_set(plain);
    if (members == NULL) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "a pattern has [:%s:], which is not known", plain);
    }
    *found = true;
    r->at = end + 2;
    if (!negative) {
        return tsr_pattern_write(&s->members, members);
    }
    TSR_TRY(tsr_pattern_write(&s->others, "|[^"));
    TSR_TRY(tsr_pattern_write(&s->others, members));
    return tsr_pattern_write(&s->others, "]");
}

/* One character of a class, written plainly or as an escape. */
static tsr_status read_member(uint32_t *code_point, tsr_pattern_reader *r)
{
    bool found = false;
    int n;

    if (r->at < r->end && *r->at == '\\') {
        TSR_TRY(tsr_pattern_char(code_point, r, &found));
        if (found) {
            return TSR_OK;
        }
        r->at++;
        if (r->at < r->end && *r->at == 'b') { // a backspace, in a class
            *code_point = '\b';
            r->at++;
            return TSR_OK;
        }
    }
    n = r->at < r->end ? tsr_utf8_measure(r->at, (size_t)(r->end - r->at)) : 0;
    if (n <= 0) {
        return unfinished();
    }
    *code_point = tsr_utf8_decode(r->at);
    r->at += n;
    return TSR_OK;
}

/* A character, or a range of them. */
static tsr_status read_range(set *s, tsr_pattern_reader *r)
{
    uint32_t first;
    uint32_t last;

    TSR_TRY(read_member(&first, r));
    TSR_TRY(tsr_pattern_write_char(&s->members, first));
    if (r->end - r->at > 1 && r->at[0] == '-' && r->at[1] != ']' && r->at[1] != '[') {
        tsr_pattern_reader behind = *r;
        tsr_text ignored = {0};
        bool is_set = false;
        bool negative;
        const tsr_status st = (behind.at++, read_set(&ignored, &behind, &negative, &is_set));

        tsr_text_clear(&ignored);
        TSR_TRY(st);
        if (is_set) {
            return unfinished(); // [a-\d]
        }
        r->at++;
        TSR_TRY(read_member(&last, r));
        if (last < first) {
            return unfinished();
        }
        TSR_TRY(tsr_pattern_write(&s->members, "-"));
        TSR_TRY(tsr_pattern_write_char(&s->members, last));
    }
    return TSR_OK;
}

static tsr_status read_class(set *out, tsr_pattern_reader *r);

/* A set that an escape stands for. */
static tsr_status add_escaped(set *s, tsr_pattern_reader *r, bool *found)
{
    tsr_text members = {0};
    bool negative = false;
    tsr_status st = read_set(&members, r, &negative, found);

    if (st == TSR_OK && *found && !negative) {
        st = write_text(&s->members, &members);
    } else if (st == TSR_OK && *found) {
        st = tsr_pattern_write(&s->others, "|[^");
        st = st == TSR_OK ? write_text(&s->others, &members) : st;
        st = st == TSR_OK ? tsr_pattern_write(&s->others, "]") : st;
    }
    tsr_text_clear(&members);
    return st;
}

/* A class within a class. */
static tsr_status add_class(set *s, tsr_pattern_reader *r)
{
    set inner = {0};
    tsr_status st = read_class(&inner, r);

    st = st == TSR_OK ? write_text(&s->members, &inner.members) : st;
    st = st == TSR_OK ? write_text(&s->others, &inner.others) : st;
    set_clear(&inner);
    return st;
}

/* What stands between brackets up to `&&` or the end, joined. */
static tsr_status read_operand(set *s, tsr_pattern_reader *r, bool is_first)
{
    for (bool begins = is_first;; begins = false) {
        bool found = false;

        if (r->at >= r->end) {
            return unfinished();
        }
        if ((*r->at == ']' && !begins) || (r->end - r->at > 1 && memcmp(r->at, "&&", 2) == 0)) {
            return TSR_OK;
        }
        if (*r->at == '[') {
            TSR_TRY(read_posix(s, r, &found));
            if (!found) {
                TSR_TRY(add_class(s, r));
            }
            continue;
        }
        if (*r->at == '\\') {
            TSR_TRY(add_escaped(s, r, &found));
            if (found) {
                continue;
            }
        }
        TSR_TRY(read_range(s, r));
    }
}

/* Turn a set into all other characters. */
static tsr_status negate(set *s)
{
    tsr_text whole = {0};
    tsr_status st;

    if (s->others.n_bytes == 0 && s->members.n_bytes > 0) {
        st = tsr_pattern_write(&whole, "|[^");
        st = st == TSR_OK ? write_text(&whole, &s->members) : st;
        st = st == TSR_OK ? tsr_pattern_write(&whole, "]") : st;
    } else {
        st = tsr_pattern_write(&whole, "|(?!");
        st = st == TSR_OK ? write_set(&whole, s) : st;
        st = st == TSR_OK ? tsr_pattern_write(&whole, ")(?s:.)") : st;
    }
    if (st != TSR_OK) {
        tsr_text_clear(&whole);
        return st;
    }
    set_clear(s);
    s->others = whole;
    return TSR_OK;
}

/* `both` is what all operands so far have in common: "(?=x)(?=y)", to which the last is added. */
static tsr_status intersect(set *s, tsr_text *both)
{
    tsr_status st = write_set(both, s);

    if (st == TSR_OK) {
        set_clear(s);
        st = tsr_pattern_write(&s->others, "|");
        st = st == TSR_OK ? write_text(&s->others, both) : st;
    }
    return st;
}

static tsr_status read_operands(set *s, tsr_pattern_reader *r)
{
    tsr_text both = {0};
    tsr_status st = read_operand(s, r, true);

    while (st == TSR_OK && *r->at == '&') {
        r->at += 2;
        st = tsr_pattern_write(&both, "(?=");
        st = st == TSR_OK ? write_set(&both, s) : st;
        st = st == TSR_OK ? tsr_pattern_write(&both, ")") : st;
        set_clear(s);
        st = st == TSR_OK ? read_operand(s, r, false) : st;
    }
    if (st == TSR_OK && both.n_bytes > 0) {
        st = intersect(s, &both);
    }
    tsr_text_clear(&both);
    return st;
}

static tsr_status read_class(set *out, tsr_pattern_reader *r)
{
    bool negative;

    if (++r->depth > TSR_PATTERN_MOST_DEPTH) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "a pattern is nested more than %d deep",
                        TSR_PATTERN_MOST_DEPTH);
    }
    r->at++;
    negative = r->at < r->end && *r->at == '^';
    r->at += negative;
    TSR_TRY(read_operands(out, r));
    r->at++;
    r->depth--;
    return negative ? negate(out) : TSR_OK;
}

tsr_status tsr_pattern_class(tsr_text *out, tsr_pattern_reader *r)
{
    set s = {0};
    tsr_status st = read_class(&s, r);

    if (st == TSR_OK && s.members.n_bytes == 0 && s.others.n_bytes > 3 &&
        memcmp(s.others.bytes, "|[^", 3) == 0 &&
        memchr(s.others.bytes + 1, '|', s.others.n_bytes - 1) == NULL) {
        st = tsr_text_append(out, s.others.bytes + 1, s.others.n_bytes - 1); // [^...], alone
    } else if (st == TSR_OK) {
        st = write_set(out, &s);
    }
    set_clear(&s);
    return st;
}
