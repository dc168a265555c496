/*
 * How much a long prompt stalls the others: eight sequences generate, a prompt of 4,000 tokens
 * arrives, and the gaps between their tokens are held against those of a second run to which no
 * prompt comes, each against its neighbours there: the sequences are as long then.
 *     bench_arrival MODEL [SEQUENCES [PROMPT [THREADS]]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "engine/tessera.h"

enum {
    MOST_SEQUENCES = 64,
    BEFORE = 80, /* tokens of each sequence before the prompt arrives */
    MOST_GAPS = 1 << 15,
    AROUND = 10 /* gaps on either side whose median is the usual one */
};

/* The gaps before the tokens of the first sequence, which has one in each step; by number. */
typedef struct gaps {
    double ms[MOST_GAPS];
    int n;
    int64_t last_ns;
} gaps;

static gaps usual;
static gaps beside;

static void note_token(void *ctx, const tsr_event *event)
{
    gaps *into = ctx;
    const int64_t now = tsr_clock_ns();

    if (into != NULL && event->kind == TSR_EVENT_TOKEN && into->n < MOST_GAPS) {
        into->ms[into->n++] = (double)(now - into->last_ns) / 1e6;
        into->last_ns = now;
    }
}

static void note_answer(void *ctx, const tsr_event *event)
{
    bool *answered = ctx;

    *answered = *answered || event->kind == TSR_EVENT_TOKEN;
}

static int by_size(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;

    return (x > y) - (x < y);
}

static double quantile(const double *values, int n, double q)
{
    static double sorted[MOST_GAPS];

    memcpy(sorted, values, (size_t)n * sizeof(*values));
    qsort(sorted, (size_t)n, sizeof(*sorted), by_size);
    return n == 0 ? 0 : sorted[(int)(q * (n - 1))];
}

/* The sequences generate; after BEFORE tokens of each a prompt of n_long tokens comes (0: none),
 * and they go on until it has its first token, or until there are n_gaps gaps. */
static tsr_status run(tsr_engine *engine, const int32_t *prompt, int n_sequences, int n_long,
                      gaps *into, int n_gaps)
{
    int64_t ids[MOST_SEQUENCES + 1];
    bool answered = n_long == 0;
    bool busy = true;

    for (int s = 0; s < n_sequences; s++) {
        const tsr_generation g = {.prompt = prompt + 20 * s,
                                  .n_prompt = 20,
                                  .max_tokens = 1 << 20,
                                  .ignore_end = true,
                                  .on_event = note_token,
                                  .ctx = s == 0 ? into : NULL};

        TSR_TRY(tsr_engine_submit(engine, &g, &ids[s]));
    }
    while (into->n < BEFORE) {
        TSR_TRY(tsr_engine_step(engine, &busy));
    }
    if (n_long > 0) {
        const tsr_generation g = {.prompt = prompt,
                                  .n_prompt = n_long,
                                  .max_tokens = 1,
                                  .ignore_end = true,
                                  .on_event = note_answer,
                                  .ctx = &answered};

        TSR_TRY(tsr_engine_submit(engine, &g, &ids[n_sequences]));
    }
    while (!answered || into->n < n_gaps) {
        TSR_TRY(tsr_engine_step(engine, &busy));
    }
    for (int s = 0; s < n_sequences; s++) {
        tsr_engine_cancel(engine, ids[s]);
    }
    while (busy) {
        TSR_TRY(tsr_engine_step(engine, &busy));
    }
    return TSR_OK;
}

/* The time at which a gap is over counts from the first token. */
static double seconds(const gaps *g, int from, int to)
{
    double ms = 0;

    for (int i = from; i < to; i++) {
        ms += g->ms[i];
    }
    return ms / 1e3;
}

static void tell(int n_sequences, int n_long, int n)
{
    static double ratios[MOST_GAPS];
    int n_above = 0;
    int n_unquiet = 0; // the machine's own doing

    for (int i = BEFORE; i < n; i++) {
        const int first = i - AROUND;
        const int last = i + AROUND < n - 1 ? i + AROUND : n - 1;

        const double usual_ms = quantile(usual.ms + first, last - first + 1, 0.5);

        ratios[i - BEFORE] = beside.ms[i] / usual_ms;
        n_unquiet += usual.ms[i] / usual_ms >= 2.5 ? 1 : 0;
        n_above += ratios[i - BEFORE] >= 2.5 ? 1 : 0;
    }
    printf("%d sequences, a prompt of %d tokens arrives and is read in %.2f s, %d steps\n",
           n_sequences, n_long, seconds(&beside, BEFORE, n), n - BEFORE);
    printf("  gap without it  median %6.2f ms, 99 %% %6.2f, longest %6.2f\n",
           quantile(usual.ms + BEFORE, n - BEFORE, 0.5),
           quantile(usual.ms + BEFORE, n - BEFORE, 0.99),
           quantile(usual.ms + BEFORE, n - BEFORE, 1));
    printf("  gap beside it   median %6.2f ms, 99 %% %6.2f, longest %6.2f\n",
           quantile(beside.ms + BEFORE, n - BEFORE, 0.5),
           quantile(beside.ms + BEFORE, n - BEFORE, 0.99),
           quantile(beside.ms + BEFORE, n - BEFORE, 1));
    printf("  without it, held against its own neighbours: %d of %d reach 2.5\n", n_unquiet,
           n - BEFORE);
    printf("  times the usual one of that moment: median %.2f, 90 %% %.2f, 99 %% %.2f, longest "
           "%.2f; %d of %d reach 2.5\n",
           quantile(ratios, n - BEFORE, 0.5), quantile(ratios, n - BEFORE, 0.9),
           quantile(ratios, n - BEFORE, 0.99), quantile(ratios, n - BEFORE, 1), n_above,
           n - BEFORE);
}

static tsr_status compare(tsr_engine *engine, int n_sequences, int n_long)
{
    const int n_prompt = n_long + 20 * MOST_SEQUENCES;
    int32_t *prompt = tsr_alloc((size_t)n_prompt, sizeof(*prompt));
    tsr_status st = TSR_OK;

    if (prompt == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a prompt");
    }
    for (int i = 0; i < n_prompt; i++) {
        prompt[i] = 300 + (i * 7919) % 20000;
    }
    // The first time for the memory's sake: what the machine has never given out before costs more
    // at the first touch than a step.
    TSR_TRY_GOTO(st, end, run(engine, prompt, n_sequences, n_long, &usual, 0));
    usual = (gaps){0};
    TSR_TRY_GOTO(st, end, run(engine, prompt, n_sequences, n_long, &beside, 0));
    TSR_TRY_GOTO(st, end, run(engine, prompt, n_sequences, 0, &usual, beside.n));
    tell(n_sequences, n_long, beside.n);
    st = tsr_engine_stop(engine);

end:
    tsr_free(prompt);
    return st;
}

int main(int argc, char **argv)
{
    const int n_sequences = argc > 2 ? atoi(argv[2]) : 8;
    const int n_prompt = argc > 3 ? atoi(argv[3]) : 4000;
    const tsr_engine_options options = {.model_path = argc > 1 ? argv[1] : "",
                                        .n_threads = argc > 4 ? atoi(argv[4]) : 0,
                                        .no_prefix_cache = true};
    tsr_engine *engine = NULL;
    tsr_status st;

    if (argc < 2 || n_sequences < 1 || n_sequences > MOST_SEQUENCES || n_prompt < 1) {
        fprintf(stderr, "usage: bench_arrival MODEL [SEQUENCES [PROMPT [THREADS]]]\n");
        return 2;
    }
    st = tsr_engine_create(&engine, NULL, &options);
    if (st == TSR_OK) {
        st = tsr_engine_is_leader(engine) ? compare(engine, n_sequences, n_prompt)
                                          : tsr_engine_follow(engine);
    }
    if (st != TSR_OK) {
        fprintf(stderr, "bench_arrival: %s\n", tsr_status_message());
    }
    tsr_engine_destroy(engine);
    return st == TSR_OK ? 0 : 1;
}
