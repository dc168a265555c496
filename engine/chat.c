#include "engine/chat.h"

#include <string.h>

#include "base/utf8.h"

/* A window of the template or of a message. */
typedef struct span {
    const char *at;
    size_t n;
} span;

typedef enum chat_form {
    CHAT_FORM_CHATML,
    CHAT_FORM_LLAMA3,
    CHAT_FORM_COUNT
} chat_form;

/* What is written before the role, between role and content, behind the content. */
typedef struct chat_marks {
    const char *open;
    const char *middle;
    const char *close;
} chat_marks;

static const chat_marks marks_of[CHAT_FORM_COUNT] = {
    [CHAT_FORM_CHATML] = {"<|im_start|>", "\n", "<|im_end|>\n"},
    [CHAT_FORM_LLAMA3] = {"<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>"},
};

/* ---- reading a template ------------------------------------------------------------------------
 */

static span span_of(const char *zero_ended)
{
    return (span){.at = zero_ended, .n = strlen(zero_ended)};
}

/* Where `what` first stands in s, from there to the end of s; .at is NULL if it does not. */
static span find(span s, const char *what)
{
    const size_t n = strlen(what);

    for (size_t i = 0; n <= s.n && i <= s.n - n; i++) {
        const char *hit = memchr(s.at + i, what[0], s.n - n - i + 1);

        if (hit == NULL) {
            break;
        }
        i = (size_t)(hit - s.at);
        if (memcmp(hit, what, n) == 0) {
            return (span){.at = hit, .n = s.n - i};
        }
    }
    return (span){0};
}

static bool has(span s, const char *what)
{
    return find(s, what).at != NULL;
}

static span skip(span s, size_t n)
{
    n = n < s.n ? n : s.n;
    return (span){.at = s.at + n, .n = s.n - n};
}

static span skip_any(span s, const char *of)
{
    while (s.n > 0 && s.at[0] != 0 && strchr(of, s.at[0]) != NULL) {
        s = skip(s, 1);
    }
    return s;
}

/* The first quoted text of the template that begins with `start`, still escaped, without its
 * quotes. */
static span quoted(span template_text, const char *start)
{
    for (span hit = find(template_text, start); hit.at != NULL; hit = find(skip(hit, 1), start)) {
        const char quote = hit.at > template_text.at ? hit.at[-1] : 0;

        if (quote != '\'' && quote != '"') {
            continue;
        }
        for (size_t n = 0; n < hit.n; n++) {
            if (hit.at[n] == '\\') {
                n++;
            } else if (hit.at[n] == quote) {
                return (span){.at = hit.at, .n = n};
            }
        }
    }
    return (span){0};
}

/* Append a quoted text as the characters it means. */
static tsr_status append_quoted(tsr_text *out, span s)
{
    for (size_t i = 0; i < s.n; i++) {
        char meant = s.at[i];

        if (meant == '\\' && i + 1 < s.n) {
            i++;
            meant = s.at[i] == 'n' ? '\n' : s.at[i] == 't' ? '\t' : s.at[i];
        }
        TSR_TRY(tsr_text_append(out, &meant, 1));
    }
    return TSR_OK;
}

static tsr_status append_words(tsr_text *out, const char *words)
{
    return tsr_text_append(out, words, strlen(words));
}

/* Does the template say `set name = 'words'`? Then it builds its text in a way that is not known
 * here. */
static bool sets_words(span s)
{
    for (s = find(s, "set "); s.at != NULL; s = find(skip(s, 1), "set ")) {
        span after = skip_any(skip(s, strlen("set ")), " ");
        size_t name = 0;

        while (name < after.n && strchr(" =\n%", after.at[name]) == NULL) {
            name++;
        }
        after = skip_any(skip(after, name), " =");
        if (after.n >= 2 && (after.at[0] == '\'' || after.at[0] == '"') &&
            after.at[1] != after.at[0]) {
            return true;
        }
    }
    return false;
}

/* Is a message's content piped through `trim`? */
static bool trims(span s)
{
    for (s = find(s, "content"); s.at != NULL; s = find(skip(s, 1), "content")) {
        span after = skip_any(skip(s, strlen("content")), "'\"] ");

        if (after.n > 0 && after.at[0] == '|') {
            after = skip_any(skip(after, 1), " ");
            if (after.n >= 4 && memcmp(after.at, "trim", 4) == 0) {
                return true;
            }
        }
    }
    return false;
}

static tsr_status recognise(chat_form *out, span s)
{
    const bool other = has(s, "<|im_sep|>") || has(s, "[INST]") || has(s, "macro ");

    if (has(s, "<|im_start|>") && has(s, "<|im_end|>") && !other && !sets_words(s)) {
        *out = CHAT_FORM_CHATML;
        return TSR_OK;
    }
    if (has(s, "<|start_header_id|>") && has(s, "<|end_header_id|>") && has(s, "<|eot_id|>") &&
        !other) {
        *out = CHAT_FORM_LLAMA3;
        return TSR_OK;
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED,
                    "this model's chat template is neither plain ChatML nor the Llama-3 form; it "
                    "begins \"%.*s\"",
                    (int)(s.n < 120 ? s.n : 120), s.at);
}

/* ---- writing a conversation --------------------------------------------------------------------
 */

/* What Python's str.strip(), and so the templates' trim, takes for space. */
static bool is_space(uint32_t c)
{
    return (c >= 0x9 && c <= 0xd) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 ||
           c == 0x202f || c == 0x205f || c == 0x3000;
}

static span trimmed(span s)
{
    size_t end = 0; // behind the last character that is no space
    size_t start = s.n;

    for (size_t i = 0; i < s.n;) {
        const int measured = tsr_utf8_measure(s.at + i, s.n - i);
        const size_t n = measured > 0 ? (size_t)measured : 1;

        if (measured <= 0 || !is_space(tsr_utf8_decode(s.at + i))) {
            start = start < i ? start : i;
            end = i + n;
        }
        i += n;
    }
    return end > start ? (span){.at = s.at + start, .n = end - start} : (span){.at = s.at, .n = 0};
}

/* A message's content, and where it came to stand. */
static tsr_status append_content(tsr_text *out, tsr_text_run *where, span content)
{
    if (where != NULL) {
        *where = (tsr_text_run){.start = out->n_bytes, .n_bytes = content.n};
    }
    return tsr_text_append(out, content.at, content.n);
}

static tsr_status append_message(tsr_text *out, tsr_text_run *where, const chat_marks *marks,
                                 const char *role, span content)
{
    TSR_TRY(append_words(out, marks->open));
    TSR_TRY(append_words(out, role));
    TSR_TRY(append_words(out, marks->middle));
    TSR_TRY(append_content(out, where, content));
    return append_words(out, marks->close);
}

/* ChatML: the system message that the template has for a conversation without one, if it has one.
 */
static tsr_status append_default_system(tsr_text *out, span template_text)
{
    span rest = template_text;
    span words;

    // A template can name the role in several places; the default is where a whole message stands
    // in one quoted text.
    while ((words = quoted(rest, "<|im_start|>system")).at != NULL) {
        if (has(words, "<|im_end|>")) {
            return append_quoted(out, words);
        }
        // The quote must stay in view: quoted() looks one character back.
        rest = skip(template_text, (size_t)(words.at - template_text.at) + 1);
    }
    return TSR_OK;
}

/* The words in `date_string = "26 Jul 2024"`; .at is NULL if the template has none. */
static span fixed_date(span s)
{
    static const char words[] = "date_string = ";

    for (s = find(s, words); s.at != NULL; s = find(skip(s, 1), words)) {
        const span after = skip(s, strlen(words));
        const char *end = NULL;

        // Others follow the same words with a call that asks what day it is.
        if (after.n > 1 && (after.at[0] == '"' || after.at[0] == '\'')) {
            end = memchr(after.at + 1, after.at[0], after.n - 1);
        }
        if (end != NULL) {
            return (span){.at = after.at + 1, .n = (size_t)(end - after.at) - 1};
        }
    }
    return (span){0};
}

/*
 * Llama 3.1 and later: every conversation begins with a system message that has two dates in it,
 * and behind them the user's own system message or nothing.
 */
static tsr_status append_dated_system(tsr_text *out, tsr_text_run *where, span template_text,
                                      span content)
{
    const chat_marks *marks = &marks_of[CHAT_FORM_LLAMA3];
    const span day = fixed_date(template_text);

    TSR_TRY(append_words(out, marks->open));
    TSR_TRY(append_words(out, "system"));
    TSR_TRY(append_words(out, marks->middle));
    TSR_TRY(append_quoted(out, quoted(template_text, "Cutting Knowledge Date: ")));
    TSR_TRY(append_quoted(out, quoted(template_text, "Today Date: ")));
    TSR_TRY(tsr_text_append(out, day.at, day.n));
    TSR_TRY(append_words(out, "\n\n"));
    TSR_TRY(append_content(out, where, content));
    return append_words(out, marks->close);
}

static tsr_status append_opening(tsr_text *out, chat_form form, span template_text)
{
    // A template may open an answer with more than the role, such as a tag to think in.
    const span asked = find(template_text, "add_generation_prompt");
    const span words =
        form == CHAT_FORM_CHATML ? quoted(asked, "<|im_start|>assistant") : (span){0};

    if (words.at != NULL) {
        return append_quoted(out, words);
    }
    TSR_TRY(append_words(out, marks_of[form].open));
    TSR_TRY(append_words(out, "assistant"));
    return append_words(out, marks_of[form].middle);
}

static tsr_status render(tsr_text *out, tsr_text_run *contents, span template_text,
                         const tsr_chat_message *messages, int n_messages)
{
    const bool trim = trims(template_text);
    const bool dated = has(template_text, "Cutting Knowledge Date: ") &&
                       has(template_text, "Today Date: ") && fixed_date(template_text).at != NULL;
    const bool has_system = strcmp(messages[0].role, "system") == 0;
    chat_form form;
    int first = 0;

    TSR_TRY(recognise(&form, template_text));
    if (form == CHAT_FORM_LLAMA3 && dated) {
        span content = has_system ? span_of(messages[0].content) : span_of("");

        content = trim ? trimmed(content) : content;
        TSR_TRY(append_dated_system(out, has_system ? contents : NULL, template_text, content));
        first = has_system;
    } else if (form == CHAT_FORM_CHATML && !has_system) {
        TSR_TRY(append_default_system(out, template_text));
    }
    for (int i = first; i < n_messages; i++) {
        const span content = span_of(messages[i].content);

        TSR_TRY(append_message(out, contents != NULL ? &contents[i] : NULL, &marks_of[form],
                               messages[i].role, trim ? trimmed(content) : content));
    }
    return append_opening(out, form, template_text);
}

tsr_status tsr_chat_render(tsr_text *out, tsr_text_run *contents, const char *template_text,
                           size_t template_bytes, const tsr_chat_message *messages, int n_messages)
{
    const size_t n_before = out->n_bytes;
    tsr_status st;

    if (n_messages <= 0) {
        return tsr_fail(TSR_ERR_ARG, "a conversation needs a message");
    }
    for (int i = 0; i < n_messages; i++) {
        const char *role = messages[i].role;

        if (strcmp(role, "system") != 0 && strcmp(role, "user") != 0 &&
            strcmp(role, "assistant") != 0) {
            return tsr_fail(TSR_ERR_ARG,
                            "message %d has the role \"%.40s\"; known are system, user, assistant",
                            i, role);
        }
    }
    st = render(out, contents, (span){.at = template_text, .n = template_bytes}, messages,
                n_messages);
    if (st != TSR_OK && out->bytes != NULL) {
        out->n_bytes = n_before;
        out->bytes[n_before] = 0;
    }
    return st;
}

const char *tsr_chat_form_name(const char *template_text, size_t template_bytes)
{
    static const char *const names[CHAT_FORM_COUNT] = {"ChatML", "Llama 3"};
    chat_form form;

    if (template_bytes == 0) {
        return "none";
    }
    return recognise(&form, (span){template_text, template_bytes}) == TSR_OK ? names[form]
                                                                             : "unknown";
}
