#include "engine/jinja/jlexer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/jinja/jtext.h"

enum {
    MOST_NESTED = 200, // brackets within brackets
    NUMBER_BYTES = 400
};

typedef struct lexer {
    tsr_jmemory *memory;
    const char *text; // line ends are all \n
    size_t n_bytes;
    size_t at;
    int line;
    size_t counted; // bytes whose line ends are in `line`
    bool line_starts;
    tsr_jtoken *tokens;
    int n_tokens;
    int capacity;
    char open[MOST_NESTED]; // what must close the brackets that are open
    int n_open;
} lexer;

static tsr_status fail(const lexer *lex, const char *what)
{
    return tsr_fail(TSR_ERR_FORMAT, "the chat template, line %d: %s", lex->line, what);
}

static void count_lines(lexer *lex)
{
    for (; lex->counted < lex->at; lex->counted++) {
        lex->line += lex->text[lex->counted] == '\n' ? 1 : 0;
    }
}

static tsr_status add(lexer *lex, tsr_jtoken token)
{
    if (lex->n_tokens == lex->capacity) {
        const int wanted = lex->capacity < 64 ? 64 : 2 * lex->capacity;
        void *tokens = lex->tokens;

        TSR_TRY(tsr_jmemory_grow(lex->memory, &tokens, (size_t)lex->capacity * sizeof(token),
                                 (size_t)wanted * sizeof(token)));
        lex->tokens = tokens;
        lex->capacity = wanted;
    }
    token.line = lex->line;
    lex->tokens[lex->n_tokens++] = token;
    return TSR_OK;
}

static tsr_status add_bytes(lexer *lex, tsr_jtoken_kind kind, const char *bytes, size_t n_bytes)
{
    return add(lex, (tsr_jtoken){.kind = kind, .bytes = bytes, .n_bytes = n_bytes});
}

static bool is_at(const lexer *lex, size_t at, const char *words)
{
    const size_t n = strlen(words);

    return n <= lex->n_bytes - at && memcmp(lex->text + at, words, n) == 0;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || (c >= 0x1c && c <= 0x1f);
}

static size_t skip_blanks(const lexer *lex, size_t at)
{
    while (at < lex->n_bytes && is_blank(lex->text[at])) {
        at++;
    }
    return at;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80;
}

/* Where a tag that ends with `end` ("%}") ends that may begin with a sign, white space behind it
 * taken along; 0: no such end here. */
static size_t end_of_tag(const lexer *lex, size_t at, const char *end, bool plus, bool trim)
{
    if (at < lex->n_bytes && lex->text[at] == '-' && is_at(lex, at + 1, end)) {
        return skip_blanks(lex, at + 3);
    }
    if (plus && at < lex->n_bytes && lex->text[at] == '+' && is_at(lex, at + 1, end)) {
        return at + 3;
    }
    if (is_at(lex, at, end)) {
        return trim && at + 2 < lex->n_bytes && lex->text[at + 2] == '\n' ? at + 3 : at + 2;
    }
    return 0;
}

static char sign_at(const lexer *lex, size_t at)
{
    return at < lex->n_bytes && (lex->text[at] == '-' || lex->text[at] == '+') ? lex->text[at] : 0;
}

/* `name` with blanks around it, from `at` on, and the end of its tag: where that is; 0: no. */
static size_t named_tag(const lexer *lex, size_t at, const char *name, bool plus, bool trim)
{
    at = skip_blanks(lex, at);
    if (!is_at(lex, at, name)) {
        return 0;
    }
    return end_of_tag(lex, skip_blanks(lex, at + strlen(name)), "%}", plus, trim);
}

/* What stands before a tag, as its sign and place say. */
static tsr_status add_data(lexer *lex, size_t first, size_t end, char sign, bool tag)
{
    if (sign == '-') {
        const tsr_jtext data = {.bytes = lex->text + first, .n_bytes = end - first};

        while (end > first) { // any space of Unicode, as Python's rstrip()
            int32_t c;
            const size_t n = tsr_jtext_character_before(&data, end - first, &c);

            if (!tsr_jtext_is_space(c)) {
                break;
            }
            end -= n;
        }
    } else if (sign != '+' && tag) {
        size_t start = end;

        while (start > first && lex->text[start - 1] != '\n' && is_blank(lex->text[start - 1])) {
            start--;
        }
        if (start == first ? lex->line_starts : lex->text[start - 1] == '\n') {
            end = start;
        }
    }
    return end > first ? add_bytes(lex, TSR_JT_DATA, lex->text + first, end - first) : TSR_OK;
}

static void move_to(lexer *lex, size_t at)
{
    lex->line_starts = at > lex->at && lex->text[at - 1] == '\n';
    lex->at = at;
    count_lines(lex);
}

/* ---- inside a tag ------------------------------------------------------------------------------
 */

static int hex_of(char c)
{
    return is_digit(c)            ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xC0U | c >> 6);
        out[1] = (char)(0x80U | (c & 0x3FU));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xE0U | c >> 12);
        out[1] = (char)(0x80U | (c >> 6 & 0x3FU));
        out[2] = (char)(0x80U | (c & 0x3FU));
        return 3;
    }
    out[0] = (char)(0xF0U | c >> 18);
    out[1] = (char)(0x80U | (c >> 12 & 0x3FU));
    out[2] = (char)(0x80U | (c >> 6 & 0x3FU));
    out[3] = (char)(0x80U | (c & 0x3FU));
    return 4;
}

/* The escape behind the backslash at s[0]: how many bytes it has, 0 if it is not sound. What it
 * means goes to *out. */
static size_t escape(const char *s, size_t n, char **out)
{
    static const char from[] = "abfnrtv\\'\"";
    static const char to[] = "\a\b\f\n\r\t\v\\'\"";
    const char *known = n > 1 && s[1] != 0 ? strchr(from, s[1]) : NULL;
    uint32_t c = 0;
    size_t used = 2;

    if (known != NULL) {
        *(*out)++ = to[known - from];
        return 2;
    }
    if (n > 1 && s[1] == '\n') {
        return 2;
    }
    if (n > 1 && s[1] >= '0' && s[1] <= '7') {
        for (used = 1; used < n && used < 4 && s[used] >= '0' && s[used] <= '7'; used++) {
            c = c * 8 + (uint32_t)(s[used] - '0');
        }
    } else if (n > 1 && (s[1] == 'x' || s[1] == 'u' || s[1] == 'U')) {
        const size_t wanted = s[1] == 'x' ? 2 : s[1] == 'u' ? 4 : 8;

        for (; used < 2 + wanted; used++) {
            if (used >= n || hex_of(s[used]) < 0) {
                return 0;
            }
            c = c * 16 + (uint32_t)hex_of(s[used]);
        }
        if (c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) {
            return 0;
        }
    } else {
        *(*out)++ = '\\'; // it is no escape
        return 1;
    }
    *out += put_utf8(*out, c);
    return used;
}

static tsr_status read_string(lexer *lex)
{
    const char quote = lex->text[lex->at];
    const size_t first = lex->at + 1;
    size_t end = first;
    void *memory;
    char *made;
    char *out;

    while (end < lex->n_bytes && lex->text[end] != quote) {
        end += lex->text[end] == '\\' ? 2 : 1;
    }
    if (end >= lex->n_bytes) {
        return fail(lex, "a string does not end");
    }
    TSR_TRY(tsr_jmemory_take(lex->memory, &memory, end - first + 1));
    made = memory;
    out = made;
    for (size_t at = first; at < end;) {
        if (lex->text[at] == '\\') {
            const size_t n = escape(lex->text + at, end - at, &out);

            if (n == 0) {
                return fail(lex, "a string has an escape that is not whole");
            }
            at += n;
        } else {
            *out++ = lex->text[at++];
        }
    }
    TSR_TRY(add_bytes(lex, TSR_JT_STRING, made, (size_t)(out - made)));
    move_to(lex, end + 1);
    return TSR_OK;
}

/* Digits with single underscores between them, from `at` on: where they end. */
static size_t digits(const lexer *lex, size_t at)
{
    while (at < lex->n_bytes && (is_digit(lex->text[at]) ||
                                 (lex->text[at] == '_' && at + 1 < lex->n_bytes &&
                                  is_digit(lex->text[at + 1]) && is_digit(lex->text[at - 1])))) {
        at++;
    }
    return at;
}

static tsr_status read_number(lexer *lex)
{
    const size_t first = lex->at;
    const char second = first + 1 < lex->n_bytes ? (char)(lex->text[first + 1] | 0x20) : 0;
    const bool based = lex->text[first] == '0' && (second == 'x' || second == 'o' || second == 'b');
    const bool behind_dot = first > 0 && lex->text[first - 1] == '.';
    tsr_jtoken token = {.kind = TSR_JT_INT};
    char number[NUMBER_BYTES];
    size_t n = 0;
    size_t end = digits(lex, first);

    if (lex->text[first] == '0' && !based && end < lex->n_bytes && lex->text[end] != '.' &&
        (lex->text[end] | 0x20) != 'e') {
        for (end = first; end < lex->n_bytes && lex->text[end] == '0';) {
            end++; // a number of several digits does not begin with a zero
        }
    }
    if (based) {
        end = first + 2;
        while (end < lex->n_bytes && (hex_of(lex->text[end]) >= 0 || lex->text[end] == '_')) {
            end++;
        }
    } else if (!behind_dot) {
        if (end + 1 < lex->n_bytes && lex->text[end] == '.' && is_digit(lex->text[end + 1])) {
            end = digits(lex, end + 1);
            token.kind = TSR_JT_FLOAT;
        }
        if (end < lex->n_bytes && (lex->text[end] | 0x20) == 'e') {
            const size_t sign = sign_at(lex, end + 1) != 0 ? 1 : 0;

            if (end + 1 + sign < lex->n_bytes && is_digit(lex->text[end + 1 + sign])) {
                end = digits(lex, end + 1 + sign);
                token.kind = TSR_JT_FLOAT;
            }
        }
    }
    for (size_t at = first; at < end; at++) {
        if (lex->text[at] != '_' && n + 1 < sizeof(number)) {
            number[n++] = lex->text[at];
        }
    }
    number[n] = 0;
    errno = 0;
    if (token.kind == TSR_JT_FLOAT) {
        token.real = strtod(number, NULL);
    } else {
        const int base = !based ? 10 : second == 'x' ? 16 : second == 'o' ? 8 : 2;

        token.number = strtoll(number + (based ? 2 : 0), NULL, base);
        if (errno != 0) {
            return fail(lex, "a number beyond 64 bits");
        }
    }
    TSR_TRY(add(lex, token));
    move_to(lex, end);
    return TSR_OK;
}

static tsr_status read_sign(lexer *lex)
{
    static const char *const signs[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                        "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                        ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]); i++) {
        const char c = signs[i][0];

        if (!is_at(lex, lex->at, signs[i])) {
            continue;
        }
        if (c == '(' || c == '[' || c == '{') {
            if (lex->n_open == MOST_NESTED) {
                return fail(lex, "too many brackets within brackets");
            }
            lex->open[lex->n_open++] = (char)(c == '(' ? ')' : c + 2);
        } else if (c == ')' || c == ']' || c == '}') {
            if (lex->n_open == 0 || lex->open[--lex->n_open] != c) {
                return fail(lex, "a bracket closes what is not open");
            }
        }
        TSR_TRY(add_bytes(lex, TSR_JT_SIGN, signs[i], strlen(signs[i])));
        move_to(lex, lex->at + strlen(signs[i]));
        return TSR_OK;
    }
    return fail(lex, "a character that no expression has");
}

static tsr_status read_inside(lexer *lex, bool tag)
{
    for (;;) {
        const size_t end = lex->n_open > 0 ? 0
                           : tag           ? end_of_tag(lex, lex->at, "%}", true, true)
                                           : end_of_tag(lex, lex->at, "}}", false, false);

        if (end > 0) {
            TSR_TRY(add(lex, (tsr_jtoken){.kind = tag ? TSR_JT_CLOSE_TAG : TSR_JT_CLOSE_PRINT}));
            move_to(lex, end);
            return TSR_OK;
        }
        if (lex->at >= lex->n_bytes) {
            return fail(lex, "the template ends within a tag");
        }
        if (is_blank(lex->text[lex->at])) {
            move_to(lex, skip_blanks(lex, lex->at));
        } else if (is_digit(lex->text[lex->at])) {
            TSR_TRY(read_number(lex));
        } else if (is_letter(lex->text[lex->at])) {
            size_t behind = lex->at;

            while (behind < lex->n_bytes &&
                   (is_letter(lex->text[behind]) || is_digit(lex->text[behind]))) {
                behind++;
            }
            TSR_TRY(add_bytes(lex, TSR_JT_NAME, lex->text + lex->at, behind - lex->at));
            move_to(lex, behind);
        } else if (lex->text[lex->at] == '"' || lex->text[lex->at] == '\'') {
            TSR_TRY(read_string(lex));
        } else {
            TSR_TRY(read_sign(lex));
        }
    }
}

/* ---- between tags ------------------------------------------------------------------------------
 */

static tsr_status skip_comment(lexer *lex, size_t first)
{
    for (size_t at = first; at + 1 < lex->n_bytes; at++) {
        const size_t end = end_of_tag(lex, at, "#}", true, true);

        if (end > 0) {
            move_to(lex, end);
            return TSR_OK;
        }
    }
    return first < lex->n_bytes ? fail(lex, "a comment does not end") : TSR_OK;
}

static tsr_status read_raw(lexer *lex, size_t first)
{
    move_to(lex, first);
    for (size_t at = first; at + 1 < lex->n_bytes; at++) {
        const char sign = is_at(lex, at, "{%") ? sign_at(lex, at + 2) : 0;
        const size_t end = is_at(lex, at, "{%")
                               ? named_tag(lex, at + (sign != 0 ? 3 : 2), "endraw", true, true)
                               : 0;

        if (end > 0) {
            TSR_TRY(add_data(lex, first, at, sign, true));
            move_to(lex, end);
            return TSR_OK;
        }
    }
    return first < lex->n_bytes ? fail(lex, "a raw block does not end") : TSR_OK;
}

/* The next {{, {% or {#, from `at` on. */
static size_t next_tag(const lexer *lex, size_t at)
{
    while (at + 1 < lex->n_bytes) {
        const char *brace = memchr(lex->text + at, '{', lex->n_bytes - at - 1);

        if (brace == NULL) {
            break;
        }
        if (brace[1] == '{' || brace[1] == '%' || brace[1] == '#') {
            return (size_t)(brace - lex->text);
        }
        at = (size_t)(brace - lex->text) + 1;
    }
    return lex->n_bytes;
}

static tsr_status read_all(lexer *lex)
{
    while (lex->at < lex->n_bytes) {
        const size_t tag = next_tag(lex, lex->at);
        char sign;
        size_t raw;

        if (tag == lex->n_bytes) {
            TSR_TRY(add_bytes(lex, TSR_JT_DATA, lex->text + lex->at, tag - lex->at));
            move_to(lex, tag);
            break;
        }
        sign = sign_at(lex, tag + 2);
        TSR_TRY(add_data(lex, lex->at, tag, sign, lex->text[tag + 1] != '{'));
        raw = lex->text[tag + 1] == '%'
                  ? named_tag(lex, tag + (sign != 0 ? 3 : 2), "raw", false, false)
                  : 0;
        if (raw > 0) {
            TSR_TRY(read_raw(lex, raw));
            continue;
        }
        move_to(lex, tag + (sign != 0 ? 3 : 2));
        if (lex->text[tag + 1] == '#') {
            TSR_TRY(skip_comment(lex, lex->at));
            continue;
        }
        TSR_TRY(add(lex, (tsr_jtoken){.kind = lex->text[tag + 1] == '%' ? TSR_JT_OPEN_TAG
                                                                        : TSR_JT_OPEN_PRINT}));
        TSR_TRY(read_inside(lex, lex->text[tag + 1] == '%'));
    }
    return add(lex, (tsr_jtoken){.kind = TSR_JT_END});
}

tsr_status tsr_jlexer_read(tsr_jmemory *memory, tsr_jtoken **tokens, int *n, const char *text,
                           size_t n_bytes)
{
    lexer lex = {.memory = memory, .line = 1, .line_starts = true};
    void *made;
    char *copy;

    TSR_TRY(tsr_jmemory_take(memory, &made, n_bytes + 1));
    copy = made;
    for (size_t i = 0; i < n_bytes; i++) {
        if (text[i] == '\r') {
            copy[lex.n_bytes++] = '\n';
            i += i + 1 < n_bytes && text[i + 1] == '\n' ? 1 : 0;
        } else {
            copy[lex.n_bytes++] = text[i];
        }
    }
    // One line end at the very end of a template is not part of it.
    if (lex.n_bytes > 0 && copy[lex.n_bytes - 1] == '\n') {
        lex.n_bytes--;
    }
    lex.text = copy;
    TSR_TRY(read_all(&lex));
    *tokens = lex.tokens;
    *n = lex.n_tokens;
    return TSR_OK;
}
