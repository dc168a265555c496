#include "engine/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/text/pattern.h"

enum {
    // The models' patterns look at each letter a few times; this ends what a hostile one might do,
    // in about a second, and is far above what a text of a hundred megabytes needs.
    MATCH_LIMIT = 400000000,
    MOST_PATTERN_BYTES = 1 << 16
};

struct tsr_regex {
    pcre2_general_context *heap; // owned, as all below: PCRE2 by way of base/alloc.h
    pcre2_match_context *limits;
    pcre2_code *code;
    bool has_jit;
};

// Tells a lack of memory from a system that forbids making code at run time: PCRE2 has one answer
// for both, but the first is an error and the second only slower.
static _Thread_local bool ran_out;

static void *heap_take(PCRE2_SIZE n_bytes, void *unused)
{
    void *block = tsr_alloc(n_bytes, 1);

    (void)unused;
    ran_out |= block == NULL;
    return block;
}

static void heap_give(void *block, void *unused)
{
    (void)unused;
    tsr_free(block);
}

static tsr_status compile(tsr_regex *regex, const tsr_text *pattern)
{
    pcre2_compile_context *with = pcre2_compile_context_create(regex->heap);
    const size_t shown = pattern->n_bytes < 60 ? pattern->n_bytes : 60;
    PCRE2_SIZE at = 0;
    int code = 0;

    if (with == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "a pattern");
    }
    ran_out = false;
    (void)pcre2_set_newline(with, PCRE2_NEWLINE_LF);
    regex->code = pcre2_compile((PCRE2_SPTR)pattern->bytes, pattern->n_bytes,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &code, &at, with);
    pcre2_compile_context_free(with);
    if (regex->code == NULL && ran_out) {
        return tsr_fail(TSR_ERR_NOMEM, "a pattern");
    }
    if (regex->code == NULL) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "the pattern \"%.*s\" is refused by PCRE2 at %zu, error %d", (int)shown,
                        pattern->bytes, (size_t)at, code);
    }
    regex->has_jit = pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0;
    if (!regex->has_jit && ran_out) {
        return tsr_fail(TSR_ERR_NOMEM, "a pattern");
    }
    if (!regex->has_jit) {
        tsr_log_info("no just-in-time compiler for patterns here: tokenizing is slower");
    }
    return TSR_OK;
}

tsr_status tsr_regex_create(tsr_regex **out, const char *pattern, size_t n_bytes)
{
    tsr_text translated = {0};
    tsr_status st = TSR_OK;
    tsr_regex *regex;

    if (n_bytes > MOST_PATTERN_BYTES) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "a pattern of %zu bytes is too long: at most %d",
                        n_bytes, MOST_PATTERN_BYTES);
    }
    regex = tsr_alloc(1, sizeof(*regex));
    if (regex == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "pattern record");
    }
    TSR_TRY_GOTO(st, done, tsr_text_append(&translated, "", 0));
    TSR_TRY_GOTO(st, done, tsr_pattern_translate(&translated, pattern, n_bytes));
    regex->heap = pcre2_general_context_create(heap_take, heap_give, NULL);
    regex->limits = regex->heap != NULL ? pcre2_match_context_create(regex->heap) : NULL;
    if (regex->limits == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "a pattern");
        goto done;
    }
    (void)pcre2_set_match_limit(regex->limits, MATCH_LIMIT);
    st = compile(regex, &translated);

done:
    tsr_text_clear(&translated);
    if (st != TSR_OK) {
        tsr_regex_destroy(regex);
        return st;
    }
    *out = regex;
    return TSR_OK;
}

void tsr_regex_destroy(tsr_regex *regex)
{
    if (regex == NULL) {
        return;
    }
    pcre2_code_free(regex->code);
    pcre2_match_context_free(regex->limits);
    pcre2_general_context_free(regex->heap);
    tsr_free(regex);
}

void tsr_regex_work_clear(tsr_regex_work *work)
{
    pcre2_match_data_free(work->found);
    pcre2_general_context_free(work->heap);
    *work = (tsr_regex_work){0};
}

static tsr_status make_room(tsr_regex_work *work)
{
    if (work->heap == NULL) {
        work->heap = pcre2_general_context_create(heap_take, heap_give, NULL);
    }
    if (work->heap != NULL && work->found == NULL) {
        work->found = pcre2_match_data_create(1, work->heap);
    }
    return work->found != NULL ? TSR_OK : tsr_fail(TSR_ERR_NOMEM, "no room to match a pattern");
}

tsr_status tsr_regex_find(const tsr_regex *regex, tsr_regex_work *work, const char *text,
                          size_t n_bytes, size_t from, size_t *start, size_t *end)
{
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    const PCRE2_SIZE *place;

    if (work->found == NULL) {
        TSR_TRY(make_room(work));
    }
    // The text is known to be valid UTF-8; to have it checked before each match would be quadratic.
    if (regex->has_jit) {
        rc = pcre2_jit_match(regex->code, (PCRE2_SPTR)text, n_bytes, from, 0, work->found,
                             regex->limits);
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) { // the interpreter keeps its stack on the heap
        rc = pcre2_match(regex->code, (PCRE2_SPTR)text, n_bytes, from,
                         PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, work->found, regex->limits);
    }
    if (rc == PCRE2_ERROR_NOMEMORY) {
        return tsr_fail(TSR_ERR_NOMEM, "no room to cut a text of %zu bytes", n_bytes);
    }
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH) {
        return tsr_fail(
            TSR_ERR_UNSUPPORTED,
            "a pattern of the tokenizer gives up on a text of %zu bytes (PCRE2 says %d)", n_bytes,
            rc);
    }
    place = pcre2_get_ovector_pointer(work->found);
    *start = rc >= 0 ? place[0] : n_bytes + 1;
    *end = rc >= 0 ? place[1] : n_bytes + 1;
    if (*start < from) { // \K in what looks behind
        *start = from;
    }
    if (*end < *start) { // \K in what looks ahead
        *end = *start;
    }
    return TSR_OK;
}
