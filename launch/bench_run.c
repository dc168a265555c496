#include "launch/bench_run.h"

#include <stdlib.h>

#include "base/alloc.h"
#include "base/clock.h"

/* What has arrived from the sequences of a batch. */
typedef struct arrivals {
    int n_started; /* have a first token */
    int n_ended;
    int64_t n_tokens;
} arrivals;

typedef struct sequence {
    arrivals *all;
    bool started;
} sequence;

static void on_event(void *ctx, const tsr_event *event)
{
    sequence *s = ctx;

    if (event->kind == TSR_EVENT_TOKEN) {
        s->all->n_tokens++;
        s->all->n_started += s->started ? 0 : 1;
        s->started = true;
    } else if (event->kind == TSR_EVENT_END) {
        s->all->n_ended++;
    }
}

/* Numbers without pattern (splitmix64), so that no two prompts begin alike. */
static uint64_t scramble(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15U);

    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
    return z ^ (z >> 31);
}

static tsr_status submit(tsr_engine *engine, sequence *s, int64_t n_prompt, int64_t n_tokens)
{
    static uint64_t state = 1;
    const int64_t n_vocab = tsr_model_describe(tsr_engine_model(engine)).n_vocab;
    int32_t *ids = tsr_alloc((size_t)n_prompt, sizeof(*ids));
    int64_t id;
    tsr_status st;

    if (ids == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a prompt of %lld tokens",
                        (long long)n_prompt);
    }
    for (int64_t i = 0; i < n_prompt; i++) {
        ids[i] = (int32_t)(scramble(&state) % (uint64_t)n_vocab);
    }
    st = tsr_engine_submit(engine,
                           &(tsr_generation){.prompt = ids,
                                             .n_prompt = n_prompt,
                                             .max_tokens = (int)n_tokens,
                                             .ignore_end = true,
                                             .on_event = on_event,
                                             .ctx = s},
                           &id);
    tsr_free(ids);
    return st;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;

    return (x > y) - (x < y);
}

static double median(double *values, int n)
{
    qsort(values, (size_t)n, sizeof(*values), compare);
    return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2.0;
}

static double seconds_since(int64_t ns)
{
    return (double)(tsr_clock_ns() - ns) / 1e9;
}

/* Of the steps since `before`: what of their time was the leader's alone. */
static double host_share_since(const tsr_engine *engine, const tsr_engine_stats *before)
{
    const tsr_engine_stats now = tsr_engine_describe(engine);
    const double step_s = now.step_s - before->step_s;

    return step_s > 0 ? (now.host_s - before->host_s) / step_s : 0;
}

/* Until every sequence has ended; each part's time is that of its prompt. */
static tsr_status time_prompts(tsr_engine *engine, int64_t n_prompt, double *rates, int n_repeats)
{
    for (int part = 0; part < n_repeats; part++) {
        arrivals all = {0};
        sequence s = {.all = &all};
        const int64_t start = tsr_clock_ns();
        bool busy = true;

        TSR_TRY(submit(engine, &s, n_prompt, 1));
        while (busy) {
            TSR_TRY(tsr_engine_step(engine, &busy));
            if (all.n_started == 1 && rates[part] == 0.0) {
                rates[part] = (double)n_prompt / seconds_since(start);
            }
        }
    }
    return TSR_OK;
}

/*
 * Only the time in which all sequences generate and none reads its prompt any more is counted, cut
 * into parts of about the same number of tokens.
 */
static tsr_status time_tokens(tsr_engine *engine, const arrivals *all, int batch, int64_t n_tokens,
                              double *rates, int n_repeats, double *host_share)
{
    tsr_engine_stats before = tsr_engine_describe(engine);
    int64_t begun = 0; // when this part began; 0: not all sequences generate yet
    int64_t begun_tokens = 0;
    int64_t first_tokens = 0;
    int part = 0;
    bool busy = true;

    while (busy) {
        TSR_TRY(tsr_engine_step(engine, &busy));
        if (begun == 0 && all->n_started == batch) {
            before = tsr_engine_describe(engine);
            begun = tsr_clock_ns();
            begun_tokens = all->n_tokens;
            first_tokens = all->n_tokens;
        } else if (begun != 0 && part < n_repeats) {
            const int64_t left = n_tokens * batch - first_tokens;
            const int64_t due = first_tokens + left * (part + 1) / n_repeats;

            // The step in which a sequence ends is whole; those after it are not.
            if (all->n_tokens > begun_tokens && (all->n_tokens >= due || all->n_ended > 0)) {
                rates[part++] = (double)(all->n_tokens - begun_tokens) / seconds_since(begun);
                begun = tsr_clock_ns();
                begun_tokens = all->n_tokens;
            }
            if (all->n_ended > 0) {
                // What was not reached is what was measured last.
                for (; part > 0 && part < n_repeats; part++) {
                    rates[part] = rates[part - 1];
                }
            }
        }
    }
    *host_share = host_share_since(engine, &before);
    return TSR_OK;
}

tsr_status tsr_bench_run(tsr_engine *engine, const tsr_bench_task *task, int n_repeats,
                         tsr_bench_result *out)
{
    const int64_t n_tokens = task->n_tokens + (task->prompt ? 0 : 1); // the first is not timed
    const int64_t most = tsr_engine_describe(engine).context - n_tokens;
    const int64_t context = task->context < most ? task->context : most;
    const int64_t n_prompt = context > 0 ? context : 1;
    arrivals all = {0};
    double host_share = 0;
    double *rates = tsr_alloc((size_t)n_repeats, sizeof(*rates));
    sequence *sequences = tsr_alloc((size_t)task->batch, sizeof(*sequences));
    tsr_status st;

    if (rates == NULL || sequences == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for %d sequences", task->batch);
        goto fail;
    }
    if (task->prompt) {
        const tsr_engine_stats before = tsr_engine_describe(engine);

        TSR_TRY_GOTO(st, fail, time_prompts(engine, n_prompt, rates, n_repeats));
        host_share = host_share_since(engine, &before);
    } else {
        for (int i = 0; i < task->batch; i++) {
            sequences[i].all = &all;
            TSR_TRY_GOTO(st, fail, submit(engine, &sequences[i], n_prompt, n_tokens));
        }
        TSR_TRY_GOTO(
            st, fail,
            time_tokens(engine, &all, task->batch, n_tokens, rates, n_repeats, &host_share));
    }
    *out = (tsr_bench_result){
        .batch = task->batch,
        .context = task->context > 0 ? n_prompt : 0,
        .mean_context = (double)n_prompt + (double)n_tokens / 2.0,
        .tok_per_s = median(rates, n_repeats),
        .host_share = host_share,
    };

fail:
    tsr_free(rates);
    tsr_free(sequences);
    return st;
}
