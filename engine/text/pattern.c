#include "engine/text/pattern.h"

#include <string.h>

#include "base/utf8.h"
#include "engine/text/pattern_class.h"
#include "engine/text/pattern_names.h"

#define BEHIND_WORD "(?<=[" TSR_PATTERN_WORD_ALONE "])"
#define NOT_BEHIND_WORD "(?<![" TSR_PATTERN_WORD_ALONE "])"
#define BEFORE_WORD "(?=[" TSR_PATTERN_WORD_ALONE "])"
#define NOT_BEFORE_WORD "(?![" TSR_PATTERN_WORD_ALONE "])"

/* A group while it is read. */
typedef struct group {
    size_t atom; /* where what a quantifier would repeat begins in the output; NOTHING: nowhere */
    bool quantified; /* the atom has been repeated already */
    int n_open;      /* groups that flags in the middle opened */
} group;

static const size_t NOTHING = SIZE_MAX;

static tsr_status not_known(const char *what)
{
    return tsr_fail(TSR_ERR_UNSUPPORTED, "a pattern has %s, which is not known here", what);
}

static bool looking_at(const tsr_pattern_reader *r, const char *word)
{
    const size_t n = strlen(word);

    return (size_t)(r->end - r->at) >= n && memcmp(r->at, word, n) == 0;
}

/* Put text into the output before what has been written since `at`. */
static tsr_status insert(tsr_text *out, size_t at, const char *text)
{
    const size_t n = strlen(text);

    TSR_TRY(tsr_pattern_write(out, text)); // makes room
    memmove(out->bytes + at + n, out->bytes + at, out->n_bytes - n - at);
    memcpy(out->bytes + at, text, n);
    return TSR_OK;
}

/* ---- quantifiers -------------------------------------------------------------------------------
 */

/* {n}, {n,}, {n,m} or {,m}: the numbers, -1 for one that is missing. False: it is none, and a brace
 * is a brace. */
static bool read_interval(tsr_pattern_reader *r, int *least, int *most)
{
    const char *at = r->at + 1;
    int numbers[2] = {-1, -1};
    bool comma = false;

    for (; at < r->end && *at != '}'; at++) {
        int *number = &numbers[comma];

        if (*at == ',' && !comma) {
            comma = true;
        } else if (*at >= '0' && *at <= '9' && *number < 100000) {
            *number = (*number < 0 ? 0 : *number) * 10 + (*at - '0');
        } else {
            return false;
        }
    }
    if (at >= r->end || (numbers[0] < 0 && numbers[1] < 0)) {
        return false;
    }
    *least = numbers[0] < 0 ? 0 : numbers[0];
    *most = comma ? numbers[1] : numbers[0];
    r->at = at + 1;
    return true;
}

static tsr_status write_number(tsr_text *out, int number)
{
    char digits[12];
    size_t n = sizeof(digits);

    do {
        digits[--n] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return tsr_text_append(out, digits + n, sizeof(digits) - n);
}

/* Write {least,most}, and what follows it: a lazy mark, or one more quantifier. */
static tsr_status write_interval(tsr_text *out, tsr_pattern_reader *r, group *g, int least,
                                 int most)
{
    if (least > 65535 || most > 65535 || (most >= 0 && most < least)) {
        return not_known("a repetition of such numbers");
    }
    TSR_TRY(tsr_pattern_write(out, "{"));
    TSR_TRY(write_number(out, least));
    if (most != least) {
        TSR_TRY(tsr_pattern_write(out, ","));
        TSR_TRY(most >= 0 ? write_number(out, most) : TSR_OK);
    }
    TSR_TRY(tsr_pattern_write(out, "}"));
    g->quantified = true;
    if (r->at < r->end && *r->at == '?' && most != least) {
        r->at++;
        return tsr_pattern_write(out, "?");
    }
    return TSR_OK; // a{2}? is a{2} or nothing, a{1,3}+ repeats: both are quantifiers of their own
}

/* *is_one: there was a quantifier, and it has been written. */
static tsr_status read_quantifier(tsr_text *out, tsr_pattern_reader *r, group *g, bool *is_one)
{
    const char sign = *r->at;
    int least = 0;
    int most = 0;

    *is_one = sign == '*' || sign == '+' || sign == '?' ||
              (sign == '{' && read_interval(r, &least, &most));
    if (!*is_one) {
        return TSR_OK;
    }
    if (g->atom == NOTHING) {
        return not_known("a repetition of nothing");
    }
    if (g->quantified) {
        TSR_TRY(insert(out, g->atom, "(?:"));
        TSR_TRY(tsr_pattern_write(out, ")"));
    }
    if (sign == '{') {
        return write_interval(out, r, g, least, most);
    }
    TSR_TRY(tsr_text_append(out, r->at, 1));
    r->at++;
    g->quantified = true;
    if (r->at < r->end && (*r->at == '?' || *r->at == '+')) {
        TSR_TRY(tsr_text_append(out, r->at, 1));
        r->at++;
    }
    return TSR_OK;
}

/* ---- escapes -----------------------------------------------------------------------------------
 */

/* \k<name> and \g<name>, which are written the same. */
static tsr_status copy_reference(tsr_text *out, tsr_pattern_reader *r)
{
    const char *close =
        r->end - r->at > 2 && r->at[2] == '<' ? memchr(r->at, '>', (size_t)(r->end - r->at)) : NULL;

    if (close == NULL) {
        return not_known("a reference without a name");
    }
    TSR_TRY(tsr_text_append(out, r->at, (size_t)(close - r->at) + 1));
    r->at = close + 1;
    return TSR_OK;
}

static tsr_status read_letter(tsr_text *out, tsr_pattern_reader *r)
{
    static const char same[] = "AzZGKRXN123456789"; // they mean the same to PCRE2
    const char letter = r->at[1];

    if (letter == 'k' || letter == 'g') {
        return copy_reference(out, r);
    }
    if (letter == 'y' || letter == 'Y' || letter == 'c' || letter == 'C' || letter == 'M') {
        return not_known("an escape");
    }
    r->at += 2;
    if (letter == 'b') {
        return tsr_pattern_write(out, "(?:" BEHIND_WORD NOT_BEFORE_WORD
                                      "|" NOT_BEHIND_WORD BEFORE_WORD ")");
    }
    if (letter == 'B') {
        return tsr_pattern_write(out, "(?:" BEHIND_WORD BEFORE_WORD
                                      "|" NOT_BEHIND_WORD NOT_BEFORE_WORD ")");
    }
    if (letter == 'O') {
        return tsr_pattern_write(out, "(?s:.)");
    }
    if (strchr(same, letter) != NULL) {
        return tsr_text_append(out, r->at - 2, 2);
    }
    return tsr_pattern_write_char(out, (uint8_t)letter); // it stands for itself
}

static tsr_status read_escape(tsr_text *out, tsr_pattern_reader *r)
{
    uint32_t code_point = 0;
    bool found = false;

    if (r->end - r->at < 2) {
        return not_known("a \\ at its end");
    }
    TSR_TRY(tsr_pattern_set(out, r, &found));
    if (found) {
        return TSR_OK;
    }
    TSR_TRY(tsr_pattern_char(&code_point, r, &found));
    if (found) {
        return tsr_pattern_write_char(out, code_point);
    }
    if ((uint8_t)r->at[1] >= 0x80) {
        r->at++; // the character behind it stands for itself, and comes next
        return TSR_OK;
    }
    if (r->at[1] == 0) {
        return not_known("a zero behind a \\");
    }
    return read_letter(out, r);
}

/* ---- groups ------------------------------------------------------------------------------------
 */

/* The flags of (?im-x: or (?i): written as PCRE2 names them. */
static tsr_status read_flags(tsr_text *out, tsr_pattern_reader *r, bool *to_the_end)
{
    TSR_TRY(tsr_pattern_write(out, "(?"));
    for (r->at += 2; r->at < r->end; r->at++) {
        if (*r->at == ':' || *r->at == ')') {
            *to_the_end = *r->at == ')';
            r->at++;
            return tsr_pattern_write(out, ":");
        }
        if (*r->at == 'i' || *r->at == '-') {
            TSR_TRY(tsr_text_append(out, r->at, 1));
        } else if (*r->at == 'm') { // a dot matches an end of line, too
            TSR_TRY(tsr_pattern_write(out, "s"));
        } else {
            break;
        }
    }
    return not_known("a group of a kind");
}

/* What opens a group, at "(". *to_the_end: flags that hold to the end of the group around them. */
static tsr_status read_opening(tsr_text *out, tsr_pattern_reader *r, bool *to_the_end)
{
    static const char *const same[] = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};

    *to_the_end = false;
    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        if (looking_at(r, same[i])) {
            r->at += strlen(same[i]);
            return tsr_pattern_write(out, same[i]);
        }
    }
    if (looking_at(r, "(?<")) {
        const char *close = memchr(r->at, '>', (size_t)(r->end - r->at));

        if (close == NULL) {
            return not_known("a group without the end of its name");
        }
        TSR_TRY(tsr_text_append(out, r->at, (size_t)(close - r->at) + 1));
        r->at = close + 1;
        return TSR_OK;
    }
    if (looking_at(r, "(?")) {
        return read_flags(out, r, to_the_end);
    }
    r->at++;
    return looking_at(r, "*") ? not_known("(*") : tsr_pattern_write(out, "(");
}

static tsr_status read_group(tsr_text *out, tsr_pattern_reader *r);

static tsr_status read_inner(tsr_text *out, tsr_pattern_reader *r, group *g)
{
    const size_t begins = out->n_bytes;
    bool to_the_end;

    if (looking_at(r, "(?#")) { // words for the reader
        const char *close = memchr(r->at, ')', (size_t)(r->end - r->at));

        r->at = close != NULL ? close + 1 : r->end;
        return close != NULL ? TSR_OK : not_known("a remark without an end");
    }
    TSR_TRY(read_opening(out, r, &to_the_end));
    if (to_the_end) {
        g->n_open++;
        g->atom = NOTHING;
        return TSR_OK;
    }
    if (++r->depth > TSR_PATTERN_MOST_DEPTH) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "a pattern is nested more than %d deep",
                        TSR_PATTERN_MOST_DEPTH);
    }
    TSR_TRY(read_group(out, r));
    if (r->at >= r->end) {
        return not_known("a ( without its )");
    }
    r->at++;
    r->depth--;
    g->atom = begins;
    g->quantified = false;
    return tsr_pattern_write(out, ")");
}

/* One piece of a group that is no quantifier. */
static tsr_status read_atom(tsr_text *out, tsr_pattern_reader *r, group *g)
{
    int n;

    if (*r->at == '(') {
        return read_inner(out, r, g);
    }
    g->atom = out->n_bytes;
    g->quantified = false;
    switch (*r->at) {
    case '[':
        return tsr_pattern_class(out, r);
    case '\\':
        return read_escape(out, r);
    case '|':
        g->atom = NOTHING;
        r->at++;
        return tsr_pattern_write(out, "|");
    case '.':
    case '^':
    case '$':
        return tsr_text_append(out, r->at++, 1);
    default:
        break;
    }
    n = tsr_utf8_measure(r->at, (size_t)(r->end - r->at));
    if (n <= 0) {
        return not_known("a byte that is no character");
    }
    TSR_TRY(tsr_pattern_write_char(out, tsr_utf8_decode(r->at)));
    r->at += n;
    return TSR_OK;
}

/* Up to the ) that ends it, or the end of the pattern. */
static tsr_status read_group(tsr_text *out, tsr_pattern_reader *r)
{
    group g = {.atom = NOTHING};

    while (r->at < r->end && *r->at != ')') {
        bool is_quantifier = false;

        TSR_TRY(read_quantifier(out, r, &g, &is_quantifier));
        if (!is_quantifier) {
            TSR_TRY(read_atom(out, r, &g));
        }
    }
    for (; g.n_open > 0; g.n_open--) {
        TSR_TRY(tsr_pattern_write(out, ")"));
    }
    return TSR_OK;
}

tsr_status tsr_pattern_translate(tsr_text *out, const char *pattern, size_t n_bytes)
{
    tsr_pattern_reader reader = {.at = pattern, .end = pattern + n_bytes};

    TSR_TRY(read_group(out, &reader));
    return reader.at < reader.end ? not_known("a ) without its (") : TSR_OK;
}
