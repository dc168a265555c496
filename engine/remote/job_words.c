#include "engine/remote/job_words.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"

enum {
    NUMBER_BYTES = 40
};

static tsr_status add_part(tsr_job_words *w, const char *text, size_t n_bytes)
{
    char *copy;

    if (w->n_words == TSR_JOB_WORDS_MOST) {
        return tsr_fail(TSR_ERR_ARG, "a launcher with too many words");
    }
    copy = tsr_alloc_text(text, n_bytes);
    if (copy == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a command line");
    }
    w->words[w->n_words++] = copy;
    return TSR_OK;
}

static tsr_status add(tsr_job_words *w, const char *text)
{
    return add_part(w, text, strlen(text));
}

static tsr_status add_text(tsr_job_words *w, const char *name, const char *value)
{
    if (value == NULL) {
        return TSR_OK;
    }
    TSR_TRY(add(w, name));
    return add(w, value);
}

static tsr_status add_number(tsr_job_words *w, const char *name, uint64_t value)
{
    char text[NUMBER_BYTES];

    (void)snprintf(text, sizeof(text), "%" PRIu64, value);
    return add_text(w, name, value > 0 ? text : NULL);
}

static tsr_status add_disk(tsr_job_words *w, const tsr_engine_options *o)
{
    char number[NUMBER_BYTES];
    tsr_status st;
    char *text;
    size_t n_bytes;

    if (o->kv_disk_bytes == 0 || o->kv_disk_folder == NULL) {
        return add_number(w, "--kv-disk", o->kv_disk_bytes);
    }
    (void)snprintf(number, sizeof(number), "%" PRIu64, o->kv_disk_bytes);
    n_bytes = strlen(number) + 1 + strlen(o->kv_disk_folder) + 1;
    text = tsr_alloc(n_bytes, 1);
    if (text == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a command line");
    }
    (void)snprintf(text, n_bytes, "%s:%s", number, o->kv_disk_folder);
    st = add_text(w, "--kv-disk", text);
    tsr_free(text);
    return st;
}

/* All but max_queue: how many may wait is the client's affair, which submits them again. */
static tsr_status add_options(tsr_job_words *w, const tsr_engine_options *o)
{
    char real[NUMBER_BYTES];

    TSR_TRY(add_text(w, "--model", o->model_path));
    TSR_TRY(add_number(w, "--ctx", (uint64_t)o->context));
    TSR_TRY(add_text(w, "--dtype", o->dtype));
    TSR_TRY(add_text(w, "--quantize", o->quantize));
    TSR_TRY(add_text(w, "--kv-dtype", o->kv_dtype));
    TSR_TRY(add_number(w, "--kv-memory", o->kv_memory_bytes));
    TSR_TRY(add_number(w, "--kv-host", o->kv_host_bytes));
    TSR_TRY(add_disk(w, o));
    TSR_TRY(add_number(w, "--block-tokens", (uint64_t)o->block_tokens));
    TSR_TRY(add_number(w, "--threads", (uint64_t)o->n_threads));
    TSR_TRY(add_text(w, "--device", o->device));
    TSR_TRY(add_text(w, "--activations", o->activations));
    TSR_TRY(add_number(w, "--max-batch-tokens", (uint64_t)o->max_batch_tokens));
    TSR_TRY(add_number(w, "--max-sequences", (uint64_t)o->max_sequences));
    TSR_TRY(add_text(w, "--preempt", o->preempt));
    (void)snprintf(real, sizeof(real), "%.17g", o->target_itl_ms);
    TSR_TRY(add_text(w, "--target-itl", o->target_itl_ms > 0 ? real : NULL));
    return o->no_prefix_cache ? add(w, "--no-prefix-cache") : TSR_OK;
}

static tsr_status make_socket(tsr_job_words *w, const char *wished)
{
    static const char name[] = "/engine";
    char folder[] = "/tmp/tessera-XXXXXX";
    char path[sizeof(folder) + sizeof(name)];

    if (wished == NULL) {
        if (mkdtemp(folder) == NULL) {
            return tsr_fail(TSR_ERR_IO, "cannot make a folder in /tmp: %s", strerror(errno));
        }
        w->own_folder = tsr_alloc_text(folder, strlen(folder));
        (void)snprintf(path, sizeof(path), "%s%s", folder, name);
        wished = path;
        if (w->own_folder == NULL) {
            (void)rmdir(folder);
        }
    }
    w->socket = tsr_alloc_text(wished, strlen(wished));
    if (w->socket == NULL || (wished == path && w->own_folder == NULL)) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a path");
    }
    return TSR_OK;
}

static tsr_status add_all(tsr_job_words *w, const tsr_launch_options *o)
{
    const char *at = o->launcher != NULL ? o->launcher : "mpirun";

    while (*(at += strspn(at, " ")) != '\0') {
        const size_t n = strcspn(at, " ");

        TSR_TRY(add_part(w, at, n));
        at += n;
    }
    if (w->n_words == 0) {
        return tsr_fail(TSR_ERR_ARG, "a launcher without a word");
    }
    TSR_TRY(add_number(w, "-n", (uint64_t)o->n_ranks));
    TSR_TRY(add(w, o->program != NULL ? o->program : "tessera"));
    TSR_TRY(add(w, "engine"));
    TSR_TRY(make_socket(w, o->socket));
    TSR_TRY(add_text(w, "--socket", w->socket));
    return add_options(w, &o->engine);
}

tsr_status tsr_job_words_init(tsr_job_words *words, const tsr_launch_options *options)
{
    const tsr_engine_options *o = &options->engine;
    tsr_job_words w = {0};
    tsr_status st;

    if (options->n_ranks < 1 || o->model_path == NULL || o->context < 0 || o->block_tokens < 0 ||
        o->n_threads < 0 || o->max_batch_tokens < 0 || o->max_sequences < 0) {
        return tsr_fail(
            TSR_ERR_ARG,
            "an engine is started on 1 rank or more, with a model and no option below 0");
    }
    st = add_all(&w, options);
    if (st != TSR_OK) {
        tsr_job_words_clear(&w);
        return st;
    }
    *words = w;
    return TSR_OK;
}

void tsr_job_words_clear(tsr_job_words *w)
{
    if (w->own_folder != NULL) {
        (void)unlink(w->socket); // of one that was killed
        (void)rmdir(w->own_folder);
    }
    for (int i = 0; i < w->n_words; i++) {
        tsr_free(w->words[i]);
    }
    tsr_free(w->socket);
    tsr_free(w->own_folder);
    *w = (tsr_job_words){0};
}
