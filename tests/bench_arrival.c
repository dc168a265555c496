/*
 * How much a long prompt stalls the others: eight sequences generate, a prompt of 4,000 tokens
 * arrives, and the gaps between their tokens are held against those of a run to which no prompt
 * comes, each against its neighbours there: the sequences are as long then. Both are run ROUNDS
 * times in turns, and a gap's length is the median of its lengths in them, for the machine has
 * hiccups of its own; what single runs had is told as well.
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
    ROUNDS = 5,
    AROUND = 2 /* gaps on either side whose median, over all rounds, is the usual one */
};

/* The gaps before the tokens of the first sequence, which has one in each step; by number. */
typedef struct gaps {
    double ms[MOST_GAPS];
    int n;
    int64_t last_ns;
} gaps;

static gaps usual[ROUNDS];
static gaps beside[ROUNDS];

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

/* The median of the gaps [first, last] of all rounds. */
static double median_gap(const gaps *rounds, int first, int last)
{
    double ms[ROUNDS * (2 * AROUND + 1)];
    int n = 0;

    for (int k = 0; k < ROUNDS; k++) {
        for (int i = first; i <= last; i++) {
            ms[n++] = rounds[k].ms[i];
        }
    }
    return quantile(ms, n, 0.5);
}

static void tell_ratios(const char *name, const double *ratios, int n)
{
    int n_above = 0;

    for (int i = 0; i < n; i++) {
        n_above += ratios[i] >= 2.5 ? 1 : 0;
    }
    printf("  %-22s median %.2f, 90 %% %.2f, 99 %% %.2f, longest %.2f; %d of %d reach 2.5\n", name,
           quantile(ratios, n, 0.5), quantile(ratios, n, 0.9), quantile(ratios, n, 0.99),
           quantile(ratios, n, 1), n_above, n);
}

static void tell(int n_sequences, int n_long, int n)
{
    static double usual_ms[MOST_GAPS];
    static double ratios[MOST_GAPS];
    char name[32];

    for (int i = BEFORE; i < n; i++) {
        usual_ms[i - BEFORE] = median_gap(usual, i - AROUND, i + AROUND < n ? i + AROUND : n - 1);
        ratios[i - BEFORE] = median_gap(beside, i, i) / usual_ms[i - BEFORE];
    }
    n -= BEFORE;
    printf("%d sequences beside a prompt of %d tokens; the usual gap is %.2f ms at first, %.2f at "
           "last\n",
           n_sequences, n_long, usual_ms[0], usual_ms[n - 1]);
    for (int k = 0; k < ROUNDS; k++) {
        printf("  round %d: the prompt is read in %.2f s, %d steps\n", k + 1,
               seconds(&beside[k], BEFORE, beside[k].n), beside[k].n - BEFORE);
    }
    printf("times the usual gap of that moment\n");
    tell_ratios("median of the rounds", ratios, n);
    for (int k = 0; k < ROUNDS; k++) {
        for (int way = 0; way < 2; way++) {
            const gaps *one = way == 0 ? &beside[k] : &usual[k];

            for (int i = 0; i < n; i++) {
                ratios[i] = one->ms[BEFORE + i] / usual_ms[i];
            }
            snprintf(name, sizeof(name), "round %d, %s it", k + 1, way == 0 ? "beside" : "without");
            tell_ratios(name, ratios, n);
        }
    }
}

static tsr_status compare(tsr_engine *engine, int n_sequences, int n_long)
{
    const int n_prompt = n_long + 20 * MOST_SEQUENCES;
    int32_t *prompt = tsr_alloc((size_t)n_prompt, sizeof(*prompt));
    tsr_status st = TSR_OK;
    int n = 0;

    if (prompt == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a prompt");
    }
    for (int i = 0; i < n_prompt; i++) {
        prompt[i] = 300 + (i * 7919) % 20000;
    }
    // The first time for the memory's sake: what the machine has never given out before costs more
    // at the first touch than a step.
    TSR_TRY_GOTO(st, end, run(engine, prompt, n_sequences, n_long, &usual[0], 0));
    usual[0] = (gaps){0};
    for (int k = 0; k < ROUNDS; k++) {
        TSR_TRY_GOTO(st, end, run(engine, prompt, n_sequences, n_long, &beside[k], 0));
        TSR_TRY_GOTO(st, end, run(engine, prompt, n_sequences, 0, &usual[k], beside[k].n));
        n = k == 0 || beside[k].n < n ? beside[k].n : n;
    }
    tell(n_sequences, n_long, n);
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
