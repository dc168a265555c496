/*
 * [mpirun -n N] bench_overload MODEL [REQUESTS [LONGEST_PROMPT [NEW_TOKENS]]] - memory that is
 * short, measured: the same requests with all the memory they want, and with device pools of a part
 * of it above a host pool or a file. Tokens must be the same each time; the exit status says so.
 *
 * With one request its prompt has LONGEST_PROMPT tokens: a sequence longer than the device pool.
 *
 * Prints a line a way: seconds, processor seconds, tokens a second, the share of the speed with all
 * memory, how often sequences were put back, blocks copied, steps that stalled, how full allocated
 * blocks were.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "engine/tessera.h"
#include "parallel/world.h"
#include "tests/support/dice.h"

enum {
    MOST_REQUESTS = 256,
    MOST_NEW = 512,
    MOST_PROMPT = 8192,
    SHORTEST_PROMPT = 100,
    MOST_RANKS = 64,
    LEAST_DEVICE = 5 // blocks
};

typedef struct outcome {
    int32_t ids[MOST_NEW];
    int n_ids;
    char reason[12];
} outcome;

/* Parts are of the blocks that all requests want at once; 0: all that is wanted. */
typedef struct way {
    const char *name;
    int device_part;
    bool host, disk, cancels;
    const char *kv_dtype;
    int of; /* which run without shortage it is held to */
} way;

static const way ways[] = {
    {"all memory", 0, false, false, false, "f16", 0},
    {"1/8, host", 8, true, false, false, "f16", 0},
    {"1/32, host", 32, true, false, false, "f16", 0},
    {"1/8, disk", 8, false, true, false, "f16", 0},
    {"1/32, host, disk", 32, true, true, false, "f16", 0},
    {"1/8, cancelled", 8, true, true, true, "f16", 0},
    {"all, int8", 0, false, false, false, "int8", 7 - 1},
    {"1/8, int8", 8, true, false, false, "int8", 7 - 1},
};

enum {
    N_WAYS = sizeof(ways) / sizeof(ways[0])
};

static tsr_world *world;
static const char *model_path;
static int n_requests = 64, longest_prompt = 600, n_new = 128, block_tokens = 16;
static int32_t prompt[MOST_REQUESTS][MOST_PROMPT];
static int prompt_tokens[MOST_REQUESTS];
static outcome whole[N_WAYS][MOST_REQUESTS];
static outcome *into;
static double base_rate[N_WAYS];
static double
    base_cpu_s[N_WAYS]; /* processor time of the leader, which a busy machine does not stretch */
static tsr_memory_stats memory[MOST_RANKS];

static void must(tsr_status st)
{
    if (st != TSR_OK) {
        tsr_world_abort(world, st);
    }
}

static void note_event(void *ctx, const tsr_event *event)
{
    outcome *o = ctx;

    if (event->kind == TSR_EVENT_TOKEN && o->n_ids < MOST_NEW) {
        o->ids[o->n_ids++] = event->token;
    } else if (event->kind == TSR_EVENT_END) {
        (void)snprintf(o->reason, sizeof(o->reason), "%s", event->reason);
    }
}

static void submit_all(tsr_engine *engine, int64_t *ids)
{
    for (int i = 0; i < n_requests; i++) {
        const tsr_generation g = {
            .prompt = prompt[i],
            .n_prompt = prompt_tokens[i],
            .max_tokens = n_new,
            .ignore_end = true,
            .seed = (uint64_t)i,
            .temperature = i % 2 == 0 ? 0 : 0.8F,
            .on_event = note_event,
            .ctx = &into[i],
        };

        must(tsr_engine_submit(engine, &g, &ids[i]));
    }
}

static double generate(tsr_engine *engine, const way *w)
{
    const int64_t began = tsr_clock_ns();
    const clock_t cpu_began = clock();
    int64_t ids[MOST_REQUESTS];
    uint64_t dice = 9;
    bool busy = true;

    submit_all(engine, ids);
    while (busy) {
        if (w->cancels && dice_below(&dice, 20) == 0) {
            tsr_engine_cancel(engine, ids[dice_below(&dice, n_requests)]);
        }
        must(tsr_engine_step(engine, &busy));
    }
    base_cpu_s[w - ways] = (double)(clock() - cpu_began) / CLOCKS_PER_SEC;
    return (double)(tsr_clock_ns() - began) / 1e9;
}

static int64_t blocks_wanted(void)
{
    int64_t n = 0;

    for (int i = 0; i < n_requests; i++) {
        n += (prompt_tokens[i] + n_new + block_tokens - 1) / block_tokens;
    }
    return n;
}

/* Ranks have unequal pools: rank r has r eighths more on the device than it must. */
static tsr_engine_options options_for(const way *w, uint64_t block_bytes, int64_t n_device)
{
    const uint64_t n_all = (uint64_t)blocks_wanted() + 2;
    tsr_engine_options options = {
        .model_path = model_path,
        .kv_dtype = w->kv_dtype,
        .block_tokens = block_tokens,
        .max_sequences = n_requests,
        .context = 2 * MOST_PROMPT,
        .target_itl_ms = 1e6,
        .no_prefix_cache = true,
        .kv_memory_bytes = block_bytes * n_all,
    };

    if (n_device > 0 && block_bytes > 0) {
        const uint64_t n = (uint64_t)(n_device + n_device * tsr_world_rank(world) / 8);

        options.kv_memory_bytes = block_bytes * n;
        options.kv_host_bytes = w->host ? block_bytes * (n_all / (w->disk ? 4 : 1) + 2) : 0;
        options.kv_disk_bytes = w->disk ? (block_bytes + 4096) * n_all : 0;
    } else if (n_device > 0) {
        options.kv_host_bytes = w->host ? 1 : 0;
        options.kv_disk_bytes = w->disk ? 1 : 0;
    }
    return options;
}

/* This rank's bytes of a block. */
static uint64_t measure_block(const char *kv_dtype)
{
    const tsr_engine_options options = {
        .model_path = model_path, .kv_dtype = kv_dtype, .block_tokens = block_tokens};
    tsr_engine *engine = NULL;
    uint64_t n_bytes;

    must(tsr_engine_create(&engine, world, &options));
    n_bytes = tsr_engine_describe(engine).kv_block_bytes;
    if (tsr_engine_is_leader(engine)) {
        must(tsr_engine_stop(engine));
    } else {
        must(tsr_engine_follow(engine));
    }
    tsr_engine_destroy(engine);
    return n_bytes;
}

/* Requests whose tokens differ, and that were dropped. */
static int count_wrong(const way *w, const outcome *got, const outcome *expected, int *n_dropped)
{
    int n_wrong = 0;

    *n_dropped = 0;
    for (int i = 0; i < n_requests; i++) {
        const bool cut = w->cancels && strcmp(got[i].reason, "cancelled") == 0;

        *n_dropped += !cut && got[i].n_ids != n_new ? 1 : 0;
        n_wrong +=
            memcmp(got[i].ids, expected[i].ids, (size_t)got[i].n_ids * sizeof(got[i].ids[0])) != 0;
    }
    return n_wrong;
}

static int show(int which, const tsr_engine_stats *stats, double seconds)
{
    const way *w = &ways[which];
    int64_t n_tokens = 0, n_moves = 0, n_stalls = 0;
    double stall_s = 0;
    int n_dropped;
    const int n_wrong = count_wrong(w, whole[which], whole[w->of], &n_dropped);

    for (int i = 0; i < n_requests; i++) {
        n_tokens += whole[which][i].n_ids;
    }
    base_rate[which] = (double)n_tokens / seconds;
    for (int r = 0; r < stats->n_ranks; r++) {
        for (int m = 0; m < TSR_MEMORY_TIER_COUNT * TSR_MEMORY_TIER_COUNT; m++) {
            n_moves += memory[r].n_moves[m / TSR_MEMORY_TIER_COUNT][m % TSR_MEMORY_TIER_COUNT];
        }
        n_stalls += memory[r].n_stalls;
        stall_s += memory[r].stall_s;
    }
    (void)printf("%-18s %6lld %8.2f %8.2f %9.1f %6.2f %9lld %9lld %7lld %8.3f %7.1f%% %6d %8d\n",
                 w->name, (long long)memory[0].n_slots[0], seconds, base_cpu_s[which],
                 base_rate[which], base_rate[which] / base_rate[w->of],
                 (long long)stats->n_preempted, (long long)n_moves, (long long)n_stalls, stall_s,
                 stats->block_fill * 100, n_wrong, n_dropped);
    (void)fflush(stdout);
    return n_wrong + n_dropped;
}

static int run(int which)
{
    const way *w = &ways[which];
    const int64_t part = w->device_part > 0 ? blocks_wanted() / w->device_part : 0;
    // Without a host pool one sequence must fit the device.
    const int64_t least =
        w->host ? LEAST_DEVICE : (longest_prompt + n_new) / block_tokens + LEAST_DEVICE;
    const int64_t n_device = w->device_part > 0 && part < least ? least : part;
    const tsr_engine_options options = options_for(w, measure_block(w->kv_dtype), n_device);
    tsr_engine *engine = NULL;
    int n_wrong = 0;

    into = whole[which];
    must(tsr_engine_create(&engine, world, &options));
    if (tsr_engine_is_leader(engine)) {
        const double seconds = generate(engine, w);
        tsr_engine_stats stats;

        must(tsr_engine_memory(engine, memory));
        stats = tsr_engine_describe(engine);
        n_wrong = show(which, &stats, seconds);
        must(tsr_engine_stop(engine));
    } else {
        must(tsr_engine_follow(engine));
    }
    tsr_engine_destroy(engine);
    return n_wrong;
}

int main(int argc, char **argv)
{
    uint64_t dice = 77;
    const char *only = getenv("WAYS"); // such as "012"; all by default
    int n_wrong = 0;

    if (argc < 2 || tsr_world_open(&world) != TSR_OK) {
        (void)fprintf(stderr, "usage: [mpirun -n N] bench_overload MODEL [REQUESTS [LONGEST_PROMPT "
                              "[NEW_TOKENS [BLOCK_TOKENS]]]]\n");
        return 2;
    }
    model_path = argv[1];
    n_requests = argc > 2 ? atoi(argv[2]) : n_requests;
    longest_prompt = argc > 3 ? atoi(argv[3]) : longest_prompt;
    n_new = argc > 4 ? atoi(argv[4]) : n_new;
    block_tokens = argc > 5 ? atoi(argv[5]) : block_tokens;
    if (n_requests < 1 || n_requests > MOST_REQUESTS || longest_prompt < SHORTEST_PROMPT ||
        longest_prompt > MOST_PROMPT || n_new < 1 || n_new > MOST_NEW) {
        (void)fprintf(stderr,
                      "bench_overload: up to %d requests, prompts of %d to %d tokens, up to "
                      "%d new\n",
                      MOST_REQUESTS, SHORTEST_PROMPT, MOST_PROMPT, MOST_NEW);
        return 2;
    }
    for (int i = 0; i < n_requests; i++) {
        prompt_tokens[i] =
            n_requests == 1
                ? longest_prompt
                : SHORTEST_PROMPT + dice_below(&dice, longest_prompt - SHORTEST_PROMPT + 1);
        for (int t = 0; t < prompt_tokens[i]; t++) {
            prompt[i][t] = 1000 + dice_below(&dice, 40000);
        }
    }
    if (tsr_world_is_leader(world)) {
        (void)printf("%-18s %6s %8s %8s %9s %6s %9s %9s %7s %8s %8s %6s %8s\n", "", "blocks",
                     "seconds", "cpu s", "tokens/s", "share", "put back", "copies", "stalls",
                     "stalled", "full", "differ", "dropped");
    }
    for (int which = 0; which < N_WAYS; which++) {
        if (only == NULL || strchr(only, '0' + which) != NULL) {
            n_wrong += run(which);
        }
    }
    tsr_world_close(world);
    return n_wrong == 0 ? 0 : 1;
}
