/*
 * How much a long prompt stalls the others: eight sequences generate, a prompt of 4,000 tokens
 * arrives, and the gaps between their tokens are compared with the usual ones.
 *     bench_arrival MODEL [SEQUENCES [PROMPT [THREADS]]]
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/tessera.h"

enum {
    MOST_SEQUENCES = 64,
    BEFORE = 40, /* tokens of each sequence before the prompt arrives */
    MOST_GAPS = 1 << 16
};

/* The gaps between the tokens of all the sequences, in two heaps: before the prompt arrived, and
 * until its first token came. */
typedef struct gaps {
    double ms[MOST_GAPS];
    int n;
} gaps;

static gaps usual;
static gaps beside;
static bool arrived;  /* the long prompt is in */
static bool answered; /* and has its first token */
static int64_t last_ns[MOST_SEQUENCES];
static int n_before;

static void note_token(void *ctx, const tsr_event *event)
{
    const int s = (int)((int64_t *)ctx - last_ns);
    const int64_t now = tsr_clock_ns();
    gaps *into = arrived ? &beside : &usual;

    if (event->kind != TSR_EVENT_TOKEN) {
        return;
    }
    // The first steps of all still have prompts in them.
    if (last_ns[s] > 0 && !answered && into->n < MOST_GAPS && (arrived || n_before > 4 * BEFORE)) {
        into->ms[into->n++] = (double)(now - last_ns[s]) / 1e6;
    }
    n_before += arrived ? 0 : 1;
    last_ns[s] = now;
}

static void note_answer(void *ctx, const tsr_event *event)
{
    (void)ctx;
    answered = answered || event->kind == TSR_EVENT_TOKEN;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;

    return (x > y) - (x < y);
}

static double quantile(gaps *g, double q)
{
    qsort(g->ms, (size_t)g->n, sizeof(*g->ms), by_size);
    return g->n == 0 ? 0 : g->ms[(int)(q * (g->n - 1))];
}

static tsr_status run(tsr_engine *engine, int n_sequences, int n_prompt)
{
    int32_t *prompt = tsr_alloc((size_t)n_prompt, sizeof(*prompt));
    int64_t ids[MOST_SEQUENCES];
    int64_t began, id;
    bool busy = true;

    if (prompt == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a prompt");
    }
    for (int i = 0; i < n_prompt; i++) {
        prompt[i] = 300 + (i * 7919) % 20000;
    }
    for (int s = 0; s < n_sequences; s++) {
        const tsr_generation g = {.prompt = prompt + 20 * s,
                                  .n_prompt = 20,
                                  .max_tokens = 1 << 20,
                                  .ignore_end = true,
                                  .on_event = note_token,
                                  .ctx = &last_ns[s]};

        TSR_TRY(tsr_engine_submit(engine, &g, &ids[s]));
    }
    while (n_before < n_sequences * BEFORE * 2) {
        TSR_TRY(tsr_engine_step(engine, &busy));
    }
    arrived = true;
    began = tsr_clock_ns();
    const tsr_generation g = {.prompt = prompt,
                              .n_prompt = n_prompt,
                              .max_tokens = 1,
                              .ignore_end = true,
                              .on_event = note_answer};
    TSR_TRY(tsr_engine_submit(engine, &g, &id));
    while (!answered) {
        TSR_TRY(tsr_engine_step(engine, &busy));
    }
    printf("%d sequences, a prompt of %d tokens arrives and is read in %.2f s\n", n_sequences,
           n_prompt, (double)(tsr_clock_ns() - began) / 1e9);
    printf("  usual gap   median %6.2f ms, 99 %% %6.2f, longest %6.2f\n", quantile(&usual, 0.5),
           quantile(&usual, 0.99), quantile(&usual, 1));
    printf("  beside it   median %6.2f ms, 99 %% %6.2f, longest %6.2f\n", quantile(&beside, 0.5),
           quantile(&beside, 0.99), quantile(&beside, 1));
    printf("  median ratio %.2f, of the 99 %% to the usual median %.2f, of the longest %.2f\n",
           quantile(&beside, 0.5) / quantile(&usual, 0.5),
           quantile(&beside, 0.99) / quantile(&usual, 0.5),
           quantile(&beside, 1) / quantile(&usual, 0.5));
    for (int s = 0; s < n_sequences; s++) {
        tsr_engine_cancel(engine, ids[s]);
    }
    while (busy) {
        TSR_TRY(tsr_engine_step(engine, &busy));
    }
    tsr_free(prompt);
    return tsr_engine_stop(engine);
}

int main(int argc, char **argv)
{
    const int n_sequences = argc > 2 ? atoi(argv[2]) : 8;
    const int n_prompt = argc > 3 ? atoi(argv[3]) : 4000;
    const tsr_engine_options options = {.model_path = argc > 1 ? argv[1] : "",
                                        .n_threads = argc > 4 ? atoi(argv[4]) : 0};
    tsr_engine *engine = NULL;
    tsr_status st;

    if (argc < 2 || n_sequences < 1 || n_sequences > MOST_SEQUENCES || n_prompt < 1) {
        fprintf(stderr, "usage: bench_arrival MODEL [SEQUENCES [PROMPT [THREADS]]]\n");
        return 2;
    }
    st = tsr_engine_create(&engine, NULL, &options);
    if (st == TSR_OK) {
        st = tsr_engine_is_leader(engine) ? run(engine, n_sequences, n_prompt)
                                          : tsr_engine_follow(engine);
    }
    if (st != TSR_OK) {
        fprintf(stderr, "bench_arrival: %s\n", tsr_status_message());
    }
    tsr_engine_destroy(engine);
    return st == TSR_OK ? 0 : 1;
}
