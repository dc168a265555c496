#include "tests/support/generations.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "tests/support/tiny_model.h"

tsr_world *world;
char model_path[64];
int32_t prompts[N_PROMPTS][LONGEST];
int prompt_tokens[N_PROMPTS];
int n_vocab;

static void keep_text(outcome *o, const tsr_event *event)
{
    assert_true(o->n_text + (int)event->text_bytes <= MOST_TEXT);
    if (event->text_bytes > 0) {
        memcpy(o->text + o->n_text, event->text, event->text_bytes);
    }
    o->n_text += (int)event->text_bytes;
}

static void keep_likely(likely *into, const tsr_event *event)
{
    into->logprob = event->logprob;
    into->n_top = event->n_top;
    assert_in_range(event->n_top, 0, N_TOP);
    for (int i = 0; i < event->n_top; i++) {
        into->top[i].id = event->top[i].id; // not what lies between the fields
        into->top[i].logprob = event->top[i].logprob;
    }
}

void note_event(void *ctx, const tsr_event *event)
{
    outcome *o = ctx;

    switch (event->kind) {
    case TSR_EVENT_TOKEN:
        assert_true(o->n_ids < N_NEW);
        o->ids[o->n_ids] = event->token;
        keep_likely(&o->tokens[o->n_ids++], event);
        keep_text(o, event);
        break;
    case TSR_EVENT_SCORE:
        keep_likely(&o->prompt[event->position], event);
        o->n_scores++;
        break;
    default:
        keep_text(o, event);
        (void)snprintf(o->reason, sizeof(o->reason), "%s", event->reason);
        break;
    }
}

void must(tsr_status st)
{
    if (st != TSR_OK) {
        tsr_world_abort(world, st); // the others must not be left waiting
    }
}

static void run_to_the_end(tsr_engine *engine)
{
    bool busy = true;

    while (busy) {
        must(tsr_engine_step(engine, &busy));
    }
}

tsr_engine_stats run_way(const way *w, wish_fn *wish, outcome *into)
{
    tsr_engine_options options = w->options;
    tsr_engine *engine = NULL;
    tsr_engine_stats stats;
    int64_t id;

    options.model_path = model_path;
    options.n_threads = options.n_threads == 0 ? 1 : options.n_threads;
    must(tsr_engine_create(&engine, world, &options));
    if (tsr_engine_is_leader(engine)) {
        memset(into, 0, N_PROMPTS * sizeof(*into));
        for (int i = 0; i < N_PROMPTS; i++) {
            tsr_generation g = wish(i);

            g.prompt = prompts[i];
            g.n_prompt = prompt_tokens[i];
            g.on_event = note_event;
            g.ctx = &into[i];
            must(tsr_engine_submit(engine, &g, &id));
            if (!w->together) {
                run_to_the_end(engine);
            }
        }
        run_to_the_end(engine);
        stats = tsr_engine_describe(engine);
        must(tsr_engine_stop(engine));
    } else {
        must(tsr_engine_follow(engine));
        stats = tsr_engine_describe(engine);
    }
    tsr_engine_destroy(engine);
    return stats;
}

void make_model(const char *name, uint64_t seed)
{
    const tiny_model *m = tiny_model_preset(name);
    uint64_t state = seed;

    n_vocab = m->vocab;
    (void)snprintf(model_path, sizeof(model_path), "/tmp/tsr_test_decoding_%d.gguf", (int)getpid());
    must(tsr_world_broadcast(world, model_path, sizeof(model_path)));
    if (tsr_world_is_leader(world)) {
        tiny_model_save(m, seed, model_path);
    }
    for (int i = 0; i < N_PROMPTS; i++) {
        prompt_tokens[i] = 1 + (i * 37) % LONGEST;
        for (int t = 0; t < prompt_tokens[i]; t++) {
            state = state * 6364136223846793005U + 1442695040888963407U;
            prompts[i][t] = (int32_t)((state >> 33) % (uint64_t)m->vocab);
        }
    }
    must(tsr_world_agree(world, TSR_OK)); // the file is there
}

void drop_model(void)
{
    must(tsr_world_agree(world, TSR_OK)); // nobody reads it any more
    if (tsr_world_is_leader(world)) {
        (void)unlink(model_path);
    }
}
