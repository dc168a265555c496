#include "engine/weights.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/weight_walk.h"

enum {
    MESSAGE_BYTES = 320,
    PANELS_AT_ONCE = 8,
    RELEASE_BYTES = 32 << 20 // packed bytes after which the file's pages are given back
};

/* What the threads that pack share. */
typedef struct loader {
    tsr_weight_walk walk;
    atomic_llong next_panel;
    atomic_llong done_panels;
    atomic_int failed; /* the first failing thread's status; its words are in message */
    char message[MESSAGE_BYTES];
} loader;

/* ---- packing --------------------------------------------------------------------------------- */

static void note_failure(loader *load, tsr_status st, const tsr_weight_job *j)
{
    int none = TSR_OK;

    if (atomic_compare_exchange_strong(&load->failed, &none, (int)st)) {
        (void)snprintf(load->message, sizeof(load->message), "%.*s: %s",
                       (int)j->pack.place.source->name.n_bytes, j->pack.place.source->name.bytes,
                       tsr_status_message());
    }
}

static void pack_share(void *ctx, int thread, int n_threads)
{
    loader *load = ctx;
    tsr_weight_pack_bench bench = {0};
    size_t packed_bytes = 0;
    int64_t at = 0; // panels are taken in rising order: the job only moves forward

    (void)n_threads;
    for (;;) {
        const int64_t first = atomic_fetch_add(&load->next_panel, PANELS_AT_ONCE);
        const int64_t end = first + PANELS_AT_ONCE < load->walk.n_panels ? first + PANELS_AT_ONCE
                                                                         : load->walk.n_panels;

        if (first >= load->walk.n_panels ||
            atomic_load_explicit(&load->failed, memory_order_relaxed) != TSR_OK) {
            break;
        }
        for (int64_t panel = first; panel < end; panel++) {
            const tsr_weight_job *j;
            tsr_status st;

            while (panel >= load->walk.jobs[at].first_panel + load->walk.jobs[at].n_panels) {
                at++;
            }
            j = &load->walk.jobs[at];
            st = tsr_weight_pack_one(&j->pack, &bench, panel - j->first_panel);
            if (st != TSR_OK) {
                note_failure(load, st, j);
                break;
            }
            packed_bytes += j->pack.panel_bytes;
        }
        atomic_fetch_add(&load->done_panels, end - first);
        if (thread == 0) {
            tsr_log_progress("packing weights", (uint64_t)atomic_load(&load->done_panels),
                             (uint64_t)load->walk.n_panels);
            if (packed_bytes >= RELEASE_BYTES) {
                tsr_checkpoint_release_pages(load->walk.checkpoint);
                packed_bytes = 0;
            }
        }
    }
    tsr_weight_pack_clear(&bench);
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* The first walk: what there is, and how much. */
static tsr_status count(tsr_weight_walk *walk)
{
    tsr_status st;

    walk->used = tsr_alloc((size_t)tsr_checkpoint_count(walk->checkpoint), sizeof(*walk->used));
    if (walk->used == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to look at a model's tensors");
    }
    st = tsr_weight_walk_run(walk);
    if (st != TSR_OK) {
        tsr_free(walk->used);
        walk->used = NULL;
    }
    return st;
}

tsr_status tsr_weights_measure(size_t *n_bytes, const tsr_checkpoint *checkpoint,
                               const tsr_config *config, const tsr_shard *shard, tsr_format as,
                               tsr_device_kind on)
{
    tsr_weight_walk walk = {
        .checkpoint = checkpoint, .config = config, .shard = shard, .as = as, .on = on};

    TSR_TRY(count(&walk));
    tsr_free(walk.used);
    *n_bytes = walk.n_bytes;
    return TSR_OK;
}

size_t tsr_weights_estimate(tsr_encoding encoding, const tsr_config *config, const tsr_shard *shard)
{
    tsr_weight_walk w = {.config = config,
                         .shard = shard,
                         .imagined_as = encoding,
                         .as = TSR_FORMAT_COUNT,
                         .on = TSR_DEVICE_CPU};
    const tsr_status st = tsr_weight_walk_run(&w);

    assert(st == TSR_OK); // what is imagined is there and plain
    (void)st;
    return w.n_bytes;
}

size_t tsr_weights_table_bytes(const tsr_config *config, const tsr_shard *shard)
{
    return (size_t)config->n_layers * sizeof(tsr_layer_weights) +
           (size_t)tsr_weight_walk_numbered(config, shard) * sizeof(tsr_linear);
}

tsr_status tsr_weights_load(tsr_weights *weights, tsr_device *dev, const tsr_checkpoint *checkpoint,
                            const tsr_config *config, const tsr_shard *shard, tsr_format as)
{
    tsr_weights made = {.dev = dev};
    loader load = {.walk = {.checkpoint = checkpoint,
                            .config = config,
                            .shard = shard,
                            .as = as,
                            .on = tsr_device_kind_of(dev)}};
    tsr_weight_walk *walk = &load.walk;
    tsr_status st;

    TSR_TRY(count(walk));
    made.n_bytes = walk->n_bytes;
    made.file_bytes = walk->file_bytes;
    made.layers = tsr_alloc((size_t)config->n_layers, sizeof(*made.layers));
    made.numbered = tsr_alloc((size_t)walk->n_numbered, sizeof(*made.numbered));
    walk->jobs = tsr_alloc((size_t)walk->n_jobs, sizeof(*walk->jobs));
    made.memory = tsr_device_alloc(dev, made.n_bytes);
    if (made.layers == NULL || made.numbered == NULL || walk->jobs == NULL || made.memory == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no room for %.1f MB of weights", (double)made.n_bytes / 1e6);
        goto done;
    }
    walk->packed = tsr_device_is_host(dev) ? made.memory : tsr_alloc_pages(made.n_bytes);
    if (walk->packed == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no room to pack %.1f MB of weights on the host",
                      (double)made.n_bytes / 1e6);
        goto done;
    }
    walk->weights = &made;
    walk->n_bytes = 0;
    walk->n_jobs = walk->n_numbered = 0;
    TSR_TRY_GOTO(st, done, tsr_weight_walk_run(walk));
    if (config->tied_head) {
        made.head.weight = made.embed.weight;
    }
    tsr_cpu_pool_run(tsr_device_pool(dev), pack_share, &load);
    tsr_log_progress("packing weights", 1, 1);
    tsr_checkpoint_release_pages(checkpoint);
    st = (tsr_status)atomic_load(&load.failed);
    if (st != TSR_OK) {
        st = tsr_fail(st, "%s", load.message);
        goto done;
    }
    if (walk->packed != (char *)made.memory) {
        TSR_TRY_GOTO(st, done, tsr_device_upload(dev, made.memory, walk->packed, made.n_bytes));
    }
    *weights = made;

done:
    if (walk->packed != (char *)made.memory) {
        tsr_free_pages(walk->packed, made.n_bytes);
    }
    tsr_free(walk->jobs);
    tsr_free(walk->used);
    if (st != TSR_OK) {
        tsr_weights_clear(&made);
    }
    return st;
}

void tsr_weights_clear(tsr_weights *weights)
{
    if (weights->memory != NULL) {
        tsr_device_free(weights->dev, weights->memory, weights->n_bytes);
    }
    tsr_free(weights->numbered);
    tsr_free(weights->layers);
    *weights = (tsr_weights){0};
}
