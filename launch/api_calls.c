#define _GNU_SOURCE // memmem
#include "launch/api_calls.h"

#include <string.h>

#include "launch/out.h"

static const char OPEN[] = "<tool_call>";
static const char CLOSE[] = "</tool_call>";

enum {
    OPEN_BYTES = sizeof(OPEN) - 1,
    CLOSE_BYTES = sizeof(CLOSE) - 1,
    ID_LETTERS = 9 // as many as the templates of some models ask for
};

/* Where the calls go. */
typedef struct sink {
    tsr_api_calls *calls;
    tsr_text *content;
    const char *seed;
    size_t most;
} sink;

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* ---- one call -------------------------------------------------------------------------------- */

static json_t *make_id(const sink *s)
{
    static const char letters[] = "0123456789abcdefghijklmnopqrstuvwxyz";
    uint64_t bits = 0xCBF29CE484222325U + json_array_size(s->calls->found); // FNV-1a from here
    char id[ID_LETTERS + 1] = {0};

    for (const char *c = s->seed; *c != '\0'; c++) {
        bits = (bits ^ (unsigned char)*c) * 0x100000001B3U;
    }
    for (int i = 0; i < ID_LETTERS; i++) {
        id[i] = letters[bits % 36];
        bits /= 36;
    }
    return json_string(id);
}

/* Its arguments; NULL: it is no call. */
static json_t *arguments_of(const json_t *object)
{
    json_t *arguments = json_object_get(object, "arguments");

    arguments = arguments != NULL ? arguments : json_object_get(object, "parameters");
    return json_is_string(json_object_get(object, "name")) &&
                   (json_is_object(arguments) || json_is_string(arguments))
               ? arguments
               : NULL;
}

/* Arguments are given as text, in which they are JSON. */
static tsr_status add_call(const sink *s, const json_t *object)
{
    json_t *arguments = arguments_of(object);
    tsr_text text = {0};
    tsr_status st = TSR_OK;
    json_t *call;

    if (s->calls->found == NULL) {
        s->calls->found = json_array();
    }
    if (json_array_size(s->calls->found) >= s->most) {
        return TSR_OK;
    }
    if (json_is_object(arguments)) {
        st = tsr_out_json_append(&text, arguments);
        arguments = st == TSR_OK ? json_stringn(text.bytes, text.n_bytes) : NULL;
        tsr_text_clear(&text);
    } else {
        (void)json_incref(arguments);
    }
    call = json_pack("{s:o, s:s, s:{s:O, s:o}}", "id", make_id(s), "type", "function", "function",
                     "name", json_object_get(object, "name"), "arguments", arguments);
    return json_array_append_new(s->calls->found, call) == 0
               ? st
               : tsr_fail(TSR_ERR_NOMEM, "no memory for a call");
}

/* ---- the whole text as calls ----------------------------------------------------------------- */

static const char *skip(const char *at, const char *word)
{
    const size_t n = strlen(word);

    while (is_space(*at)) {
        at++;
    }
    return strncmp(at, word, n) == 0 ? at + n : at;
}

/* The objects of a text that is nothing else: one, several with ";" or nothing between, or a list;
 * NULL: it is something else. */
static json_t *read_objects(const char *at, size_t n_bytes)
{
    const char *end = at + n_bytes;
    json_t *objects = json_array();

    at = skip(skip(at, "<|python_tag|>"), "[TOOL_CALLS]");
    while (at < end) {
        json_error_t error;
        json_t *value = json_loadb(at, (size_t)(end - at),
                                   JSON_DISABLE_EOF_CHECK | JSON_REJECT_DUPLICATES, &error);

        if (value == NULL) {
            json_decref(objects);
            return NULL;
        }
        if (json_is_array(value)) {
            (void)!json_array_extend(objects, value);
        } else {
            (void)!json_array_append(objects, value);
        }
        json_decref(value);
        at = skip(skip(at + error.position, ";"), "");
    }
    return objects;
}

/* Is there nothing but calls in it? */
static bool are_calls(const json_t *objects)
{
    const json_t *object;
    size_t i;

    json_array_foreach(objects, i, object)
    {
        if (arguments_of(object) == NULL) {
            return false;
        }
    }
    return json_array_size(objects) > 0;
}

static tsr_status read_whole(const sink *s)
{
    json_t *objects = read_objects(s->calls->text.bytes, s->calls->text.n_bytes);
    tsr_status st = TSR_OK;
    const json_t *object;
    size_t i;

    if (are_calls(objects)) {
        s->calls->at = s->calls->text.n_bytes;
        json_array_foreach(objects, i, object)
        {
            st = st == TSR_OK ? add_call(s, object) : st;
        }
    }
    json_decref(objects);
    return st;
}

/* ---- calls within a text --------------------------------------------------------------------- */

/* How many bytes of text, from its beginning, stand before a mark, or before what could become one;
 * space before it belongs to it. */
static size_t before_mark(const char *text, size_t n_bytes, bool ends)
{
    const char *mark = memmem(text, n_bytes, OPEN, OPEN_BYTES);
    size_t n = mark != NULL ? (size_t)(mark - text) : n_bytes;

    if (mark == NULL && !ends) {
        size_t tail = n < OPEN_BYTES - 1 ? n : OPEN_BYTES - 1;

        while (tail > 0 && memcmp(text + n - tail, OPEN, tail) != 0) {
            tail--;
        }
        n -= tail;
    }
    while (n > 0 && (mark != NULL || !ends) && is_space(text[n - 1])) {
        n--;
    }
    return n;
}

static tsr_status give(const sink *s, size_t n_bytes)
{
    const char *at = s->calls->text.bytes + s->calls->at;

    s->calls->at += n_bytes;
    return n_bytes > 0 ? tsr_text_append(s->content, at, n_bytes) : TSR_OK;
}

/* What stands at `at` is a mark, perhaps with space before it. *goes_on: there may be another. */
static tsr_status read_marked(const sink *s, bool ends, bool *goes_on)
{
    const char *text = s->calls->text.bytes + s->calls->at;
    const size_t n_bytes = s->calls->text.n_bytes - s->calls->at;
    const char *open = memmem(text, n_bytes, OPEN, OPEN_BYTES);
    const char *inside = open + OPEN_BYTES;
    const char *close = memmem(inside, (size_t)(text + n_bytes - inside), CLOSE, CLOSE_BYTES);
    const char *end = close != NULL ? close : text + n_bytes; // the last one may be left open
    tsr_status st = TSR_OK;
    json_t *object;

    *goes_on = close != NULL || ends;
    if (!*goes_on) {
        return TSR_OK;
    }
    object = json_loadb(inside, (size_t)(end - inside), JSON_REJECT_DUPLICATES, NULL);
    end += close != NULL ? CLOSE_BYTES : 0;
    if (arguments_of(object) != NULL) {
        st = add_call(s, object);
        s->calls->at += (size_t)(end - text);
    } else {
        st = give(s, (size_t)(end - text));
    }
    json_decref(object);
    return st;
}

static tsr_status read_within(const sink *s, bool ends)
{
    bool goes_on = true;

    while (goes_on && s->calls->at < s->calls->text.n_bytes) {
        const char *text = s->calls->text.bytes + s->calls->at;
        const size_t n_bytes = s->calls->text.n_bytes - s->calls->at;
        const bool is_marked = memmem(text, n_bytes, OPEN, OPEN_BYTES) != NULL;

        TSR_TRY(give(s, before_mark(text, n_bytes, ends && s->calls->found == NULL)));
        goes_on = is_marked;
        if (is_marked) {
            TSR_TRY(read_marked(s, ends, &goes_on));
        }
    }
    return TSR_OK;
}

/* ---- all of it ------------------------------------------------------------------------------- */

tsr_status tsr_api_calls_read(tsr_api_calls *calls, tsr_text *content, const char *bytes,
                              size_t n_bytes, bool ends, const char *seed, size_t most)
{
    const sink s = {calls, content, seed, most};
    const char *first;

    if (n_bytes > 0) {
        TSR_TRY(tsr_text_append(&calls->text, bytes, n_bytes));
    }
    if (calls->text.n_bytes == 0) {
        return TSR_OK;
    }
    first = skip(calls->text.bytes, "");
    if (!calls->is_decided) {
        const bool may_be_all = *first == '{' || *first == '[' || strncmp(first, "<|", 2) == 0 ||
                                *first == '\0' || strcmp(first, "<") == 0;

        if (may_be_all && !ends) {
            return TSR_OK;
        }
        calls->is_decided = true;
        if (may_be_all) {
            TSR_TRY(read_whole(&s));
        }
    }
    return read_within(&s, ends);
}

void tsr_api_calls_clear(tsr_api_calls *calls)
{
    json_decref(calls->found);
    tsr_text_clear(&calls->text);
    *calls = (tsr_api_calls){0};
}
