#define _POSIX_C_SOURCE 200809L

#include "launch/line.h"

#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "launch/input.h"
#include "launch/line_editor.h"
#include "launch/out.h"

enum {
    CHUNK_BYTES = 1 << 16
};

struct tsr_line {
    tsr_line_editor *editor; // owned; NULL where lines are just read
    char *chunk;             // [CHUNK_BYTES], owned: what was read and is not used up
    size_t used;
    size_t n_bytes;
    bool ended;
};

tsr_status tsr_line_open(tsr_line **out)
{
    tsr_line *line = tsr_alloc(1, sizeof(*line));
    tsr_status st = TSR_OK;

    if (line == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to read lines");
    }
    line->chunk = tsr_alloc(CHUNK_BYTES, 1);
    if (line->chunk == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory to read lines");
        goto fail;
    }
    if (isatty(STDIN_FILENO) == 1 && tsr_out_on_terminal()) {
        TSR_TRY_GOTO(st, fail, tsr_line_editor_create(&line->editor));
    }
    *out = line;
    return TSR_OK;

fail:
    tsr_line_close(line);
    return st;
}

void tsr_line_close(tsr_line *line)
{
    if (line == NULL) {
        return;
    }
    tsr_line_editor_destroy(line->editor);
    tsr_free(line->chunk);
    tsr_free(line);
}

bool tsr_line_is_edited(const tsr_line *line)
{
    return line->editor != NULL;
}

/* Bytes up to the next newline, which is not kept; CLOSED only where there is not one byte more. */
static tsr_status read_plain(tsr_line *line, tsr_text *text, tsr_line_end *end)
{
    bool any = false;

    *end = TSR_LINE_TYPED;
    for (;;) {
        const char *from = line->chunk + line->used;
        const size_t left = line->n_bytes - line->used;
        const char *newline = left > 0 ? memchr(from, '\n', left) : NULL;
        const size_t n = newline != NULL ? (size_t)(newline - from) : left;

        any = any || left > 0;
        if (text->n_bytes + n > TSR_LINE_MOST_BYTES) {
            *end = TSR_LINE_TOO_LONG; // the rest of it is passed over
        } else {
            TSR_TRY(tsr_text_append(text, from, n));
        }
        line->used += newline != NULL ? n + 1 : n;
        if (newline != NULL || line->ended) {
            break;
        }
        line->used = 0;
        TSR_TRY(tsr_input_some("stdin", line->chunk, CHUNK_BYTES, &line->n_bytes));
        line->ended = line->n_bytes == 0;
    }
    if (!any) {
        *end = TSR_LINE_CLOSED;
    } else if (text->n_bytes > 0 && text->bytes[text->n_bytes - 1] == '\r') {
        text->bytes[--text->n_bytes] = '\0';
    }
    return TSR_OK;
}

tsr_status tsr_line_read(tsr_line *line, tsr_text *text, tsr_line_end *end)
{
    bool goes_on = false;

    text->n_bytes = 0;
    TSR_TRY(tsr_text_append(text, "", 0));
    for (;;) {
        const size_t n_before = text->n_bytes;

        TSR_TRY(line->editor != NULL ? tsr_line_editor_read(line->editor, goes_on, text, end)
                                     : read_plain(line, text, end));
        if (*end == TSR_LINE_CLOSED && goes_on) {
            *end = TSR_LINE_TYPED; // what goes on with nothing ends here
            return TSR_OK;
        }
        if (*end == TSR_LINE_INTERRUPT && goes_on) {
            *end = TSR_LINE_CLEARED;
        }
        if (*end != TSR_LINE_TYPED || text->n_bytes == n_before ||
            text->bytes[text->n_bytes - 1] != '\\') {
            return TSR_OK;
        }
        text->bytes[text->n_bytes - 1] = '\n';
        goes_on = true;
    }
}
