/*
 * Any bytes as what a client says behind its hello to a leader with a tiny model: what makes sense
 * is carried out, whoever says anything else is let go; the one who comes after it is served, and
 * in the end nothing is left of either.
 */
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "engine/remote/link.h"
#include "tests/support/tiny_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

enum {
    WAIT_MS = 10000,
    N_TOKENS = 6 // of the one who comes after: so many steps pass beside what was said
};

typedef struct visit {
    const uint8_t *bytes;
    size_t n_bytes;
} visit;

static char model_path[64];
static char socket_path[64];
static tsr_engine *engine;

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void remove_model(void)
{
    (void)unlink(model_path);
}

static void make_engine(void)
{
    const tsr_engine_options options = {.model_path = model_path,
                                        .device = "cpu",
                                        .context = 64,
                                        .kv_memory_bytes = 64 << 10,
                                        .kv_host_bytes = 32 << 10,
                                        .n_threads = 1,
                                        .max_batch_tokens = 16,
                                        .max_sequences = 4};

    (void)snprintf(model_path, sizeof(model_path), "/tmp/tsr_fuzz_host_%d.gguf", (int)getpid());
    (void)snprintf(socket_path, sizeof(socket_path), "/tmp/tsr_fuzz_host_%d", (int)getpid());
    tiny_model_save(tiny_model_preset("2/1"), 1, model_path);
    must(atexit(remove_model) == 0 && tsr_engine_create(&engine, NULL, &options) == TSR_OK);
}

/* ---- the clients ----------------------------------------------------------------------------- */

static void say_hello(tsr_link *link, bool is_owner)
{
    int version = TSR_WIRE_VERSION;
    const char *folder = NULL;
    tsr_status st = TSR_ERR_COMM;
    tsr_wire w;

    while (st == TSR_ERR_COMM) { // until it listens
        st = tsr_link_connect(link, socket_path);
    }
    must(st == TSR_OK);
    w = tsr_wire_write(&link->out, TSR_WIRE_HELLO);
    tsr_wire_int(&w, &version);
    tsr_wire_bool(&w, &is_owner);
    tsr_wire_text(&w, &folder, NULL);
    must(tsr_wire_finish(&w) == TSR_OK);
}

static void ask_for_tokens(tsr_link *link)
{
    static const int32_t prompt[] = {70, 71, 72};
    tsr_generation wish = {.prompt = prompt,
                           .n_prompt = 3,
                           .max_tokens = N_TOKENS,
                           .priority = 1000,
                           .ignore_end = true};
    tsr_wire_stops stops;
    int64_t name = 5;
    tsr_wire w = tsr_wire_write(&link->out, TSR_WIRE_SUBMIT);

    tsr_wire_int64(&w, &name);
    tsr_wire_generation(&w, &wish, &stops);
    must(tsr_wire_finish(&w) == TSR_OK);
}

/* Everything is sent, and what it makes the leader say is heard until `wanted` ends have come. */
static void exchange(tsr_link *link, int wanted, bool may_be_let_go)
{
    bool is_there = true;
    bool any;
    tsr_wire w;

    while (wanted > 0 || tsr_link_n_unsent(link) > 0) {
        struct pollfd watched = {.fd = link->socket, .events = POLLIN};

        if (tsr_link_send(link) != TSR_OK || tsr_link_receive(link, &any) != TSR_OK) {
            must(may_be_let_go);
            return;
        }
        for (is_there = true; is_there;) {
            must(tsr_link_next(link, &w, &is_there) == TSR_OK);
            if (is_there && w.kind == TSR_WIRE_EVENT) {
                tsr_event event = {0};
                int64_t name;

                tsr_wire_int64(&w, &name);
                tsr_wire_event(&w, &event);
                must(tsr_wire_check(&w) == TSR_OK);
                wanted -= event.kind == TSR_EVENT_END ? 1 : 0;
            }
        }
        must(wanted <= 0 || poll(&watched, 1, WAIT_MS) == 1);
    }
}

static void *visit_leader(void *ctx)
{
    const visit *v = ctx;
    tsr_link stranger = TSR_LINK_NONE;
    tsr_link owner = TSR_LINK_NONE;

    say_hello(&stranger, false);
    must(tsr_text_append(&stranger.out, (const char *)v->bytes, v->n_bytes) == TSR_OK);
    exchange(&stranger, 0, true);
    say_hello(&owner, true);
    ask_for_tokens(&owner);
    exchange(&owner, 1, false);
    tsr_link_close(&stranger);
    tsr_link_close(&owner); // which ends the leader's service
    return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    visit v = {bytes, n_bytes};
    pthread_t clients;
    bool busy = true;

    tsr_log_set_level(TSR_LOG_ERROR);
    if (engine == NULL) {
        make_engine();
    }
    must(pthread_create(&clients, NULL, visit_leader, &v) == 0);
    must(tsr_engine_host(engine, socket_path, model_path) == TSR_OK);
    must(pthread_join(clients, NULL) == 0);
    must(tsr_engine_step(engine, &busy) == TSR_OK && !busy);
    must(tsr_engine_describe(engine).n_blocks_free == tsr_engine_describe(engine).n_blocks);
    return 0;
}
