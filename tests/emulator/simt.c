#define _GNU_SOURCE // MAP_ANONYMOUS

#include "tests/emulator/simt_inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    MAX_MODULES = 256,
    MAX_PLACES = 1 << 20,
    N_WARPS = SIMT_MAX_THREADS / SIMT_LANES,
    STACK_BYTES = 64 << 10,
    STACK_STRIDE = STACK_BYTES + 4096 + 192 // neighbours fall into different sets of the cache
};

static struct {
    const simt_kernel *kernels;
    int n_kernels;
} modules[MAX_MODULES];
static int n_modules;
static const simt_place **places;
static uint32_t n_places = 1; // 0: nowhere

static simt_order order;
static bool order_is_set;
static uint32_t seed = 1;
static uint32_t dice = 1;

static simt_thread threads[SIMT_MAX_THREADS];
static simt_warp warps[N_WARPS];
static uint32_t ready_warps;           // bit = place in the schedule
static uint8_t warp_place_of[N_WARPS]; // warp -> place
static uint8_t warp_at[N_WARPS];       // place -> warp
static simt_block block;
static simt_thread *running;
static fiber host;
static char *stacks;
static uint32_t n_at_barrier;
static uint32_t barrier_place;
static uint32_t n_runs;
static simt_counts counts;

/* ---- kernels and places ------------------------------------------------------------------------
 */

uint32_t simt_announce(const simt_kernel *kernels, int n_kernels, const simt_place *module_places,
                       int n_module_places)
{
    const uint32_t first = n_places;

    if (places == NULL) {
        places = mmap(NULL, MAX_PLACES * sizeof(*places), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    if (n_modules == MAX_MODULES || (size_t)n_places + (size_t)n_module_places > MAX_PLACES ||
        places == MAP_FAILED) {
        (void)fprintf(stderr, "emulator: too many modules\n");
        _exit(SIMT_EXIT);
    }
    for (int i = 0; i < n_module_places; i++) {
        places[n_places++] = &module_places[i];
    }
    modules[n_modules].kernels = kernels;
    modules[n_modules++].n_kernels = n_kernels;
    return first;
}

const simt_kernel *simt_find(const char *name)
{
    for (int m = 0; m < n_modules; m++) {
        for (int k = 0; k < modules[m].n_kernels; k++) {
            if (strcmp(modules[m].kernels[k].name, name) == 0) {
                return &modules[m].kernels[k];
            }
        }
    }
    return NULL;
}

const char *simt_place_name(uint32_t place, char text[static 128])
{
    (void)snprintf(text, 128, "%s:%d", place == 0 ? "?" : places[place]->file,
                   place == 0 ? 0 : places[place]->line);
    return text;
}

bool simt_same_place(uint32_t a, uint32_t b)
{
    // The compiler may have copied one line's instruction to several places.
    return a == b ||
           (places[a]->line == places[b]->line && strcmp(places[a]->file, places[b]->file) == 0);
}

void simt_fail(const simt_thread *t, uint32_t place, const char *format, ...)
{
    char at[128];
    va_list arguments;

    (void)fprintf(stderr, "emulator: kernel %s, block (%u,%u,%u), thread (%u,%u,%u), %s: ",
                  block.launch->kernel->name, block.id[0], block.id[1], block.id[2], t->tid[0],
                  t->tid[1], t->tid[2], simt_place_name(place, at));
    va_start(arguments, format);
    (void)vfprintf(stderr, format, arguments);
    va_end(arguments);
    (void)fputc('\n', stderr);
    _exit(SIMT_EXIT);
}

/* ---- order --------------------------------------------------------------------------------------
 */

void simt_set_order(simt_order wanted, uint32_t wanted_seed)
{
    order = wanted;
    seed = wanted_seed;
    dice = wanted_seed * 2654435761U + 1;
    order_is_set = true;
}

simt_order simt_get_order(void)
{
    static const char *const names[SIMT_ORDER_COUNT] = {"forward", "reverse", "random", "chaos"};
    const char *wanted = getenv("EMULATOR_ORDER");
    const char *wanted_seed = getenv("EMULATOR_SEED");

    if (!order_is_set) {
        simt_set_order(SIMT_FORWARD, wanted_seed != NULL ? (uint32_t)atoi(wanted_seed) : 1);
        for (int i = 0; wanted != NULL && i < SIMT_ORDER_COUNT; i++) {
            if (strcmp(wanted, names[i]) == 0) {
                simt_set_order((simt_order)i, seed);
            }
        }
    }
    return order;
}

uint32_t simt_random(void)
{
    dice = dice * 1664525U + 1013904223U;
    return dice >> 8;
}

/* at[place] = who, place_of[who] = place */
static void arrange(uint8_t *at, uint8_t *place_of, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        at[i] = (uint8_t)(order == SIMT_REVERSE ? n - 1 - i : i);
    }
    for (uint32_t i = n; order >= SIMT_RANDOM && i > 1; i--) {
        const uint32_t other = simt_random() % i;
        const uint8_t kept = at[i - 1];

        at[i - 1] = at[other];
        at[other] = kept;
    }
    for (uint32_t i = 0; i < n; i++) {
        place_of[at[i]] = (uint8_t)i;
    }
}

/* The first set bit behind bit `from`, going around. */
static uint32_t next_bit(uint32_t bits, uint32_t from)
{
    const uint32_t behind = from == 31 ? 0 : bits & (~0U << (from + 1));

    return (uint32_t)__builtin_ctz(behind != 0 ? behind : bits);
}

/* Who runs after `last` (NULL: nobody did): the same warp as long as one of its lanes can. */
static simt_thread *next_thread(const simt_thread *last)
{
    const simt_warp *warp = last != NULL ? last->warp : NULL;
    uint32_t lane;

    if (ready_warps == 0) {
        return NULL;
    }
    if (order == SIMT_CHAOS && simt_random() % 16 == 0) {
        warp = &warps[warp_at[next_bit(ready_warps, simt_random() % 32)]];
        lane = warp->lane_at[next_bit(warp->ready, simt_random() % 32)];
        return &warp->threads[lane];
    }
    if (warp == NULL) {
        warp = &warps[warp_at[__builtin_ctz(ready_warps)]];
        return &warp->threads[warp->lane_at[__builtin_ctz(warp->ready)]];
    }
    if (warp->ready == 0) {
        warp = &warps[warp_at[next_bit(ready_warps, warp_place_of[warp - warps])]];
        return &warp->threads[warp->lane_at[__builtin_ctz(warp->ready)]];
    }
    return &warp->threads[warp->lane_at[next_bit(warp->ready, warp->place_of[last->lane])]];
}

void simt_make_ready(simt_thread *t)
{
    t->wait.state = SIMT_RUNS;
    t->warp->ready |= 1U << t->warp->place_of[t->lane];
    ready_warps |= 1U << warp_place_of[t->warp - warps];
}

void simt_make_wait(simt_thread *t)
{
    t->warp->ready &= ~(1U << t->warp->place_of[t->lane]);
    if (t->warp->ready == 0) {
        ready_warps &= ~(1U << warp_place_of[t->warp - warps]);
    }
}

/* ---- threads ------------------------------------------------------------------------------------
 */

static _Noreturn void report_deadlock(void)
{
    int n_shown = 0;

    (void)fprintf(stderr, "emulator: kernel %s, block (%u,%u,%u): deadlock\n",
                  block.launch->kernel->name, block.id[0], block.id[1], block.id[2]);
    for (uint32_t i = 0; i < block.n_threads && n_shown < 8; i++) {
        const simt_thread *t = &threads[i];
        char at[128];

        if (t->wait.state == SIMT_ENDED) {
            continue;
        }
        // One line for what a whole warp waits in.
        if (i % SIMT_LANES != 0 && threads[i - 1].wait.state == t->wait.state &&
            threads[i - 1].wait.place == t->wait.place) {
            continue;
        }
        n_shown++;
        (void)fprintf(stderr, "    thread %u (warp %u, lane %u) waits in %s at %s, mask %08x\n", i,
                      i / SIMT_LANES, t->lane,
                      t->wait.state == SIMT_AT_BARRIER ? "a barrier of the block" : "its warp",
                      simt_place_name(t->wait.place, at), t->wait.mask);
    }
    (void)fprintf(stderr, "    %u of %u threads have ended\n", block.n_threads - block.n_alive,
                  block.n_threads);
    _exit(SIMT_EXIT);
}

void simt_give_way(simt_thread *t)
{
    simt_thread *next = next_thread(t);

    if (next == NULL) {
        report_deadlock();
    }
    if (next == t) {
        return;
    }
    counts.switches++;
    running = next;
    fiber_switch(&t->fiber, &next->fiber, false);
}

static void thread_main(void)
{
    simt_thread *t;
    simt_thread *next;
    char at[128];

    fiber_begin();
    t = running;
    block.launch->kernel->fn(t, block.launch->parameters);
    simt_copies_thread_ends(t);
    if (n_at_barrier > 0) {
        simt_fail(t, barrier_place, "the thread returns while %u threads wait in the barrier at %s",
                  n_at_barrier, simt_place_name(barrier_place, at));
    }
    simt_make_wait(t);
    t->wait.state = SIMT_ENDED;
    t->warp->ended |= 1U << t->lane;
    block.n_alive--;
    simt_warp_lane_left(t->warp);
    next = next_thread(t);
    if (next == NULL && block.n_alive > 0) {
        report_deadlock();
    }
    counts.switches++;
    running = next;
    fiber_switch(&t->fiber, next != NULL ? &next->fiber : &host, true);
}

void simt_barrier(simt_thread *t, uint32_t place)
{
    char here[128];
    char there[128];

    if (n_at_barrier > 0 && !simt_same_place(place, barrier_place)) {
        simt_fail(t, place, "divergent barrier: this thread is at %s, others wait at %s",
                  simt_place_name(place, here), simt_place_name(barrier_place, there));
    }
    if (block.n_alive < block.n_threads) {
        simt_fail(t, place, "barrier after %u threads of the block have returned",
                  block.n_threads - block.n_alive);
    }
    barrier_place = place;
    t->wait.place = place;
    t->wait.mask = 0;
    if (++n_at_barrier < block.n_threads) {
        t->wait.state = SIMT_AT_BARRIER;
        simt_make_wait(t);
        simt_give_way(t);
        return;
    }
    n_at_barrier = 0;
    block.epoch++;
    for (uint32_t i = 0; i < block.n_threads; i++) {
        simt_make_ready(&threads[i]);
    }
    if (order != SIMT_FORWARD) {
        simt_give_way(t); // not always does the last to come go on first
    }
}

/* ---- blocks -------------------------------------------------------------------------------------
 */

static void prepare_threads(void)
{
    const uint32_t *extent = block.threads;
    const uint32_t n_warps = (block.n_threads + SIMT_LANES - 1) / SIMT_LANES;

    arrange(warp_at, warp_place_of, n_warps);
    ready_warps = 0;
    for (uint32_t w = 0; w < n_warps; w++) {
        simt_warp *warp = &warps[w];
        const uint32_t left = block.n_threads - w * SIMT_LANES;

        memset(warp, 0, sizeof(*warp));
        warp->threads = &threads[w * SIMT_LANES];
        warp->n_lanes = left < SIMT_LANES ? left : SIMT_LANES;
        arrange(warp->lane_at, warp->place_of, warp->n_lanes);
    }
    for (uint32_t i = 0; i < block.n_threads; i++) {
        simt_thread *t = &threads[i];

        t->number = i;
        t->lane = i % SIMT_LANES;
        t->warp = &warps[i / SIMT_LANES];
        t->block = &block;
        t->tid[0] = i % extent[0];
        t->tid[1] = i / extent[0] % extent[1];
        t->tid[2] = i / extent[0] / extent[1];
        t->clock = 0;
        t->n_copies = 0;
        t->copy_group = 0;
        fiber_prepare(&t->fiber, stacks + (size_t)i * STACK_STRIDE, STACK_BYTES, thread_main);
        simt_make_ready(t);
    }
}

static void run_block(const simt_launch *launch, uint64_t number)
{
    block.id[0] = (uint32_t)(number % launch->grid[0]);
    block.id[1] = (uint32_t)(number / launch->grid[0] % launch->grid[1]);
    block.id[2] = (uint32_t)(number / launch->grid[0] / launch->grid[1]);
    block.n_alive = block.n_threads;
    block.run = ++n_runs;
    block.epoch = 0;
    n_at_barrier = 0;
    simt_access_block_begins(&block);
    prepare_threads();
    counts.blocks++;
    counts.threads += block.n_threads;
    running = next_thread(NULL);
    fiber_switch(&host, &running->fiber, false);
}

void simt_run(const simt_launch *launch)
{
    const uint64_t n_blocks = (uint64_t)launch->grid[0] * launch->grid[1] * launch->grid[2];
    const simt_order now = simt_get_order();
    uint64_t stride = 1;
    uint64_t first = 0;

    if (stacks == NULL) {
        stacks = mmap(NULL, (size_t)SIMT_MAX_THREADS * STACK_STRIDE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        fiber_adopt(&host);
    }
    block =
        (simt_block){.first_run = n_runs + 1,
                     .n_threads = launch->threads[0] * launch->threads[1] * launch->threads[2],
                     .shared_bytes = launch->kernel->shared_bytes + launch->dynamic_shared_bytes,
                     .launch = launch};
    memcpy(block.threads, launch->threads, sizeof(block.threads));
    memcpy(block.grid, launch->grid, sizeof(block.grid));
    if (now >=
        SIMT_RANDOM) { // a walk over all blocks in steps that share no factor with their number
        first = simt_random() % n_blocks;
        for (stride = simt_random() % n_blocks + 1;; stride++) {
            uint64_t a = stride;
            uint64_t b = n_blocks;

            while (b != 0) {
                const uint64_t rest = a % b;

                a = b;
                b = rest;
            }
            if (a == 1) {
                break;
            }
        }
    }
    for (uint64_t i = 0; i < n_blocks; i++) {
        run_block(launch, now == SIMT_REVERSE ? n_blocks - 1 - i : (first + i * stride) % n_blocks);
    }
}

simt_counts simt_so_far(void)
{
    counts.accesses = simt_access_count();
    return counts;
}
