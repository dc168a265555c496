#include "launch/batch_results.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <unistd.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "base/alloc.h"
#include "base/text.h"
#include "launch/batch_lines.h"
#include "launch/out.h"

static const char ID[] = "batch_req_";

/* A line of the input that is done. */
typedef struct done_line {
    int64_t line;
    uint64_t hash; // of its custom_id
} done_line;

struct tsr_batch_results {
    const char *path; // borrowed, for messages
    int file;
    bool is_ours;    // to be closed
    done_line *done; // owned, [room]: [n_done], by line once all are read
    int64_t room;
    int64_t n_done;
};

static uint64_t hash_of(const char *custom_id)
{
    return custom_id == NULL ? 0 : XXH3_64bits(custom_id, strlen(custom_id)) | 1;
}

static tsr_status note_done(tsr_batch_results *r, int64_t line, const char *custom_id)
{
    if (r->n_done == r->room) {
        const int64_t room = r->room > 0 ? 2 * r->room : 1024;
        done_line *grown = tsr_alloc_resize(r->done, (size_t)room, sizeof(*grown));

        if (grown == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory to note %lld lines", (long long)room);
        }
        r->done = grown;
        r->room = room;
    }
    r->done[r->n_done++] = (done_line){line, hash_of(custom_id)};
    return TSR_OK;
}

static int compare_lines(const void *a, const void *b)
{
    const int64_t x = ((const done_line *)a)->line;
    const int64_t y = ((const done_line *)b)->line;

    return (x > y) - (x < y);
}

static void sort_lines(tsr_batch_results *r)
{
    int64_t n = 0;

    if (r->n_done > 0) {
        qsort(r->done, (size_t)r->n_done, sizeof(*r->done), compare_lines);
    }
    for (int64_t i = 0; i < r->n_done; i++) {
        if (n == 0 || r->done[n - 1].line != r->done[i].line) {
            r->done[n++] = r->done[i];
        }
    }
    r->n_done = n;
}

/* The input's line that a result is about; 0: it is no result. */
static int64_t line_of(const json_t *result)
{
    const char *id = json_string_value(json_object_get(result, "id"));
    char *end = NULL;
    long long line;

    if (id == NULL || strncmp(id, ID, strlen(ID)) != 0) {
        return 0;
    }
    line = strtoll(id + strlen(ID), &end, 10);
    return *end == '\0' && line > 0 && line < INT64_MAX ? line : 0;
}

/* Notes what is done; *whole is where the last whole result ends. */
static tsr_status read_results(tsr_batch_results *r, tsr_batch_lines *from, off_t *whole)
{
    const char *text;
    size_t n_bytes;
    int64_t number;
    bool ended;
    tsr_status st = TSR_OK;

    while (st == TSR_OK) {
        json_t *result;
        int64_t line;

        TSR_TRY(tsr_batch_lines_next(from, true, &text, &n_bytes, &number, &ended));
        if (text == NULL || !tsr_batch_lines_had_newline(from)) {
            return TSR_OK;
        }
        result = json_loadb(text, n_bytes, JSON_ALLOW_NUL, NULL);
        line = line_of(result);
        *whole = (off_t)tsr_batch_lines_offset(from);
        st = line > 0
                 ? note_done(r, line, json_string_value(json_object_get(result, "custom_id")))
                 : tsr_fail(TSR_ERR_FORMAT,
                            "%s is there already and its line %lld is no result of a batch: name "
                            "another file, or take it away",
                            r->path, (long long)number);
        json_decref(result);
    }
    return st;
}

/* What a batch wrote before stays, but for a last line that is torn. */
static tsr_status take_over(tsr_batch_results *r)
{
    tsr_batch_lines *lines = NULL;
    off_t whole = 0;
    tsr_status st;

    TSR_TRY(tsr_batch_lines_open(&lines, r->path));
    st = read_results(r, lines, &whole);
    tsr_batch_lines_close(lines);
    sort_lines(r);
    if (st == TSR_OK && ftruncate(r->file, whole) != 0) {
        return tsr_fail(TSR_ERR_IO, "%s cannot be written: %s", r->path, strerror(errno));
    }
    return st;
}

tsr_status tsr_batch_results_open(tsr_batch_results **out, const char *path)
{
    tsr_batch_results *r = tsr_alloc(1, sizeof(*r));
    tsr_status st = TSR_OK;
    struct stat facts;

    if (r == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to write %s", path);
    }
    r->path = path;
    if (strcmp(path, "-") == 0) {
        r->path = "stdout";
        r->file = STDOUT_FILENO;
        *out = r;
        return TSR_OK;
    }
    r->file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    r->is_ours = r->file >= 0;
    if (r->file < 0 || fstat(r->file, &facts) != 0) {
        st = tsr_fail(TSR_ERR_IO, "%s cannot be written: %s", path, strerror(errno));
        goto fail;
    }
    if (!S_ISREG(facts.st_mode)) { // a pipe or a device: nothing to read back
        *out = r;
        return TSR_OK;
    }
    if (flock(r->file, LOCK_EX | LOCK_NB) != 0) {
        st = tsr_fail(TSR_ERR_IO, "%s is being written by another batch", path);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, take_over(r));
    *out = r;
    return TSR_OK;

fail:
    tsr_batch_results_close(r);
    return st;
}

void tsr_batch_results_close(tsr_batch_results *r)
{
    if (r == NULL) {
        return;
    }
    if (r->is_ours) {
        (void)close(r->file);
    }
    tsr_free(r->done);
    tsr_free(r);
}

tsr_status tsr_batch_results_find(const tsr_batch_results *r, int64_t line, const char *custom_id,
                                  bool *done)
{
    const done_line key = {line, 0};
    const done_line *found =
        r->n_done > 0 ? bsearch(&key, r->done, (size_t)r->n_done, sizeof(*r->done), compare_lines)
                      : NULL;

    *done = found != NULL;
    if (*done && found->hash != hash_of(custom_id)) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "%s has a result for line %lld with another custom_id: it is of another "
                        "input; name another file, or take it away",
                        r->path, (long long)line);
    }
    return TSR_OK;
}

tsr_status tsr_batch_results_add(tsr_batch_results *r, int64_t line, const char *custom_id,
                                 int status, json_t *body)
{
    json_t *result = json_pack("{s:o, s:o, s:{s:i, s:o, s:o}, s:n}", "id",
                               json_sprintf("%s%lld", ID, (long long)line), "custom_id",
                               custom_id != NULL ? json_string(custom_id) : json_null(), "response",
                               "status_code", status, "request_id",
                               json_sprintf("req_%lld", (long long)line), "body", body, "error");
    tsr_text text = {0};
    tsr_status st;

    st = tsr_out_json_append(&text, result);
    json_decref(result);
    st = st == TSR_OK ? tsr_text_append(&text, "\n", 1) : st;
    st = st == TSR_OK ? tsr_out_to_file(r->file, r->path, &text) : st;
    tsr_text_clear(&text);
    return st;
}
