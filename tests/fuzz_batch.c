/*
 * Any bytes as the lines of a batch, from a file and from a pipe that gives them in two pieces:
 * each line that is not blank comes once, with its number. And any bytes as the results that a
 * batch left: refused in one sentence, or the file keeps its whole lines, and a result that is
 * added now is there when it is opened again.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "launch/batch_lines.h"
#include "launch/batch_results.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

enum {
    MOST_BYTES = 1 << 16 // what a pipe holds
};

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void save(const char *path, const uint8_t *bytes, size_t n_bytes)
{
    const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    must(file >= 0 && write(file, bytes, n_bytes) == (ssize_t)n_bytes && close(file) == 0);
}

static bool is_blank(const uint8_t *line, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') {
            return false;
        }
    }
    return true;
}

/* Where the reader of lines must be. */
typedef struct place {
    const uint8_t *bytes;
    size_t n_bytes;
    size_t at;
    int64_t number;
} place;

/* The next line that is not blank: the one that was read, or the end. */
static void must_be_next(place *p, const char *text, size_t n_text, int64_t number)
{
    while (p->at < p->n_bytes) {
        const uint8_t *line = p->bytes + p->at;
        const uint8_t *end = memchr(line, '\n', p->n_bytes - p->at);
        const size_t n = end != NULL ? (size_t)(end - line) : p->n_bytes - p->at;

        p->at += n + (end != NULL ? 1 : 0);
        p->number++;
        if (!is_blank(line, n)) {
            must(text != NULL && n_text == n && memcmp(text, line, n) == 0 && text[n] == '\0' &&
                 number == p->number);
            return;
        }
    }
    must(text == NULL);
}

/* Lines as they come; those of the first piece without waiting. */
static void read_lines(tsr_batch_lines *lines, place *p, bool may_wait)
{
    bool ended = false;

    while (!ended) {
        const char *text = NULL;
        size_t n_text = 0;
        int64_t number = 0;

        must(tsr_batch_lines_next(lines, may_wait, &text, &n_text, &number, &ended) == TSR_OK);
        if (text == NULL && !ended) {
            must(!may_wait);
            return;
        }
        must_be_next(p, text, n_text, number);
        must(ended || tsr_batch_lines_offset(lines) == (int64_t)p->at);
    }
}

static void read_file(const char *path, const uint8_t *bytes, size_t n_bytes)
{
    place p = {bytes, n_bytes, 0, 0};
    tsr_batch_lines *lines = NULL;

    must(tsr_batch_lines_open(&lines, path) == TSR_OK);
    read_lines(lines, &p, true);
    must(tsr_batch_lines_count(lines) == p.number);
    tsr_batch_lines_close(lines);
}

static void read_pipe(const uint8_t *bytes, size_t n_bytes)
{
    place p = {bytes, n_bytes, 0, 0};
    const size_t half = n_bytes / 2;
    tsr_batch_lines *lines = NULL;
    char path[64];
    int ends[2];

    must(pipe(ends) == 0);
    (void)snprintf(path, sizeof(path), "/dev/fd/%d", ends[0]);
    must(tsr_batch_lines_open(&lines, path) == TSR_OK && tsr_batch_lines_count(lines) == -1);
    must(write(ends[1], bytes, half) == (ssize_t)half);
    read_lines(lines, &p, false);
    must(write(ends[1], bytes + half, n_bytes - half) == (ssize_t)(n_bytes - half));
    must(close(ends[1]) == 0);
    read_lines(lines, &p, true);
    tsr_batch_lines_close(lines);
    must(close(ends[0]) == 0);
}

static void go_on(const char *path, const uint8_t *bytes, size_t n_bytes)
{
    tsr_batch_results *results = NULL;
    struct stat facts;
    bool done;

    if (tsr_batch_results_open(&results, path) != TSR_OK) {
        must(tsr_status_message()[0] != '\0' && stat(path, &facts) == 0);
        must((size_t)facts.st_size == n_bytes); // and left as it was
        return;
    }
    must(stat(path, &facts) == 0 && (size_t)facts.st_size <= n_bytes);
    must(facts.st_size == 0 || bytes[facts.st_size - 1] == '\n');
    if (tsr_batch_results_find(results, 7, "id", &done) == TSR_OK && !done) {
        must(tsr_batch_results_add(results, 7, "id", 200, json_object()) == TSR_OK);
        tsr_batch_results_close(results);
        must(tsr_batch_results_open(&results, path) == TSR_OK);
        must(tsr_batch_results_find(results, 7, "id", &done) == TSR_OK && done);
    }
    tsr_batch_results_close(results);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    const long live = tsr_alloc_live();
    char path[64];

    if (n_bytes >= MOST_BYTES) {
        return 0;
    }
    tsr_log_set_level(TSR_LOG_ERROR);
    (void)snprintf(path, sizeof(path), "/tmp/tsr_fuzz_batch_%d", (int)getpid());
    save(path, bytes, n_bytes);
    read_file(path, bytes, n_bytes);
    read_pipe(bytes, n_bytes);
    go_on(path, bytes, n_bytes);
    (void)unlink(path);
    must(tsr_alloc_live() == live);
    return 0;
}
