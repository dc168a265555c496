#include "kernels/attention_loops.h"
#include "kernels/rows_cpu.h"

#include <stdatomic.h>
#include <string.h>

// Two ways to share out the work, with the same loops and the same bits:
//
//   sequences with few rows (decoding): a task is (sequence, rows, KV head, run). Its result, a
//   part a query, goes to a slot; when a wave of tasks has filled the slots, parts are merged into
//   the states of their queries, runs ascending. So one long sequence keeps all threads busy, and
//   the memory for parts is bounded.
//
//   sequences with many rows (prompts): a task is (sequence, tile of rows, KV head) over all runs,
//   with its states in the thread's own memory. Tiles with the most to see come first.
//
// A strip is the query heads of one KV head, in pieces of at most STRIP_HEADS.

enum {
    QUERIES = 96, // at most in a tile: they share what is read of a run
    STRIP_HEADS = 64,
    SHORT_ROWS = 4,  // a sequence with more rows is a prompt
    WIDEN_FROM = 12, // queries that pay for converting a run to f32 once
    PARTS_A_THREAD = 256,
    TASKS_A_THREAD = 3, // wanted at least, for the threads to end together
    LEAST_TILE_ROWS = 4,
    MACS_A_NS = 16,
    HAND_OVER_NS = 5000,
    ALIGN = 64
};

typedef struct sequence {
    int64_t first_row;
    int64_t n_rows;
    int64_t first_pos;
    const int32_t *slots;
} sequence;

/* Memory of one thread. */
typedef struct bench {
    float *q;      // [QUERIES, head_dim]
    float *scores; // [QUERIES, TSR_ATTENTION_RUN]
    float *parts;  // [QUERIES, part_floats]
    float *states; // [QUERIES, part_floats]
    float *keys;   // [TSR_ATTENTION_RUN, head_dim]
    float *values; // [TSR_ATTENTION_RUN, padded_dim]
} bench;

typedef struct job {
    const tsr_attention_loops *loops;
    tsr_cpu_pool *pool;
    tsr_tensor out, q;
    const tsr_kv_view *kv;
    const tsr_batch *batch;
    const tsr_attention_shape *shape;
    int padded_dim;
    int part_floats;
    int strips_a_head; // of a KV head
    int n_strips;
    int strip_heads; // at most in one
    int tile_rows;   // of prompts
    int64_t n_parts;
    int64_t *short_tasks; // [n_seqs + 1] tasks before each sequence, of the first way
    int64_t *long_tasks;  // [n_seqs + 1] of the second
    float *states;        // [short rows, n_heads, part_floats]
    int64_t *short_rows;  // [n_seqs + 1] rows before each sequence, among those of the first way
    float *parts;         // [n_parts, part_floats]
    char *benches;
    size_t bench_bytes;
    atomic_llong next_short;
    atomic_llong next_long;
} job;

/* The rows of one sequence and the heads of one strip. */
typedef struct tile {
    int seq;
    int strip;
    sequence in;
    int64_t first_row; // within the sequence
    int n_rows;
    int kv_head;
    int first_head;
    int n_heads; // may be 0 at the edges
} tile;

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static int head_dim_of(const tsr_kv_layout *layout)
{
    return layout->key_dim > layout->value_dim ? layout->key_dim : layout->value_dim;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* Takes n_bytes from a cursor; with *base NULL only counts. */
static void *carve(char *base, size_t *used, size_t n_bytes)
{
    void *at = base != NULL ? base + *used : NULL;

    *used += (n_bytes + ALIGN - 1) / ALIGN * ALIGN;
    return at;
}

static size_t lay_bench(bench *b, char *base, int head_dim)
{
    const size_t padded_dim = ((size_t)head_dim + 15) / 16 * 16;
    const size_t part_bytes = (padded_dim + TSR_ATTENTION_PART_TAIL) * sizeof(float);
    size_t used = 0;

    b->q = carve(base, &used, QUERIES * (size_t)head_dim * sizeof(float));
    b->scores = carve(base, &used, QUERIES * TSR_ATTENTION_RUN * sizeof(float));
    b->parts = carve(base, &used, QUERIES * part_bytes);
    b->states = carve(base, &used, QUERIES * part_bytes);
    b->keys = carve(base, &used, TSR_ATTENTION_RUN * (size_t)head_dim * sizeof(float));
    b->values = carve(base, &used, TSR_ATTENTION_RUN * padded_dim * sizeof(float));
    return used;
}

static size_t lay_out(job *j, char *base, int n_threads, const tsr_ops_limits *limits)
{
    const size_t n_seqs = (size_t)limits->n_seqs;
    const size_t padded_dim = ((size_t)limits->head_dim + 15) / 16 * 16;
    const size_t part_bytes = (padded_dim + TSR_ATTENTION_PART_TAIL) * sizeof(float);
    const size_t n_states = (size_t)least(limits->n_rows, (int64_t)limits->n_seqs * SHORT_ROWS) *
                            (size_t)limits->n_heads;
    bench none;
    size_t used = 0;

    j->n_parts = (int64_t)PARTS_A_THREAD * n_threads;
    j->short_tasks = carve(base, &used, (n_seqs + 1) * sizeof(*j->short_tasks));
    j->long_tasks = carve(base, &used, (n_seqs + 1) * sizeof(*j->long_tasks));
    j->short_rows = carve(base, &used, (n_seqs + 1) * sizeof(*j->short_rows));
    j->states = carve(base, &used, n_states * part_bytes);
    j->parts = carve(base, &used, (size_t)j->n_parts * part_bytes);
    j->bench_bytes = lay_bench(&none, NULL, limits->head_dim);
    j->benches = carve(base, &used, (size_t)n_threads * j->bench_bytes);
    return used;
}

size_t tsr_attention_cpu_scratch(int n_threads, const tsr_ops_limits *limits)
{
    job none;

    return lay_out(&none, NULL, n_threads, limits);
}

/* ---- what there is to do --------------------------------------------------------------------- */

static sequence sequence_at(const job *j, int s)
{
    const int32_t *row_start = j->batch->row_start.data;
    const int32_t *first_pos = j->batch->first_pos.data;
    const int32_t *lanes = j->batch->lanes.data;

    return (sequence){row_start[s], row_start[s + 1] - row_start[s], first_pos[s],
                      tsr_rows_cpu_i32(j->batch->tables, lanes[s])};
}

/* Rows in a tile of a sequence with few rows. */
static int64_t short_tile_rows(const job *j, const sequence *in)
{
    return least(in->n_rows, most(1, QUERIES / j->strip_heads));
}

static int64_t runs_of(const sequence *in)
{
    return ceil_div(in->first_pos + in->n_rows, TSR_ATTENTION_RUN);
}

static tile tile_at(const job *j, int s, int64_t row_tile, int64_t tile_rows, int strip)
{
    const tsr_attention_shape *shape = j->shape;
    const int64_t kv_head = strip / j->strips_a_head;
    const int64_t piece = strip % j->strips_a_head;
    const int64_t group = kv_head * shape->group - shape->first_head; // its first head, may be < 0
    const int64_t first = most(0, group + piece * STRIP_HEADS);
    const int64_t end =
        least(least(shape->n_heads, group + shape->group), group + (piece + 1) * STRIP_HEADS);
    tile t = {.seq = s, .strip = strip, .in = sequence_at(j, s)};

    t.first_row = row_tile * tile_rows;
    t.n_rows = (int)least(tile_rows, t.in.n_rows - t.first_row);
    t.kv_head = (int)kv_head;
    t.first_head = (int)first;
    t.n_heads = (int)most(0, end - first);
    return t;
}

/* The sequence that task i belongs to. */
static int find_sequence(const int64_t *starts, int n_seqs, int64_t i)
{
    int low = 0;
    int high = n_seqs; // starts[low] <= i < starts[high]

    while (high - low > 1) {
        const int middle = low + (high - low) / 2;

        if (starts[middle] <= i) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

static void count_tasks(job *j, int n_threads)
{
    int64_t n_long = 0;
    int64_t n_short = 0;

    for (int s = 0; s < j->batch->n_seqs; s++) {
        const sequence in = sequence_at(j, s);

        n_long += in.n_rows > SHORT_ROWS ? in.n_rows : 0;
    }
    j->tile_rows = (int)most(most(1, least(LEAST_TILE_ROWS, QUERIES / j->strip_heads)),
                             least(n_long * j->n_strips / ((int64_t)n_threads * TASKS_A_THREAD),
                                   QUERIES / j->strip_heads));
    j->short_tasks[0] = 0;
    j->long_tasks[0] = 0;
    for (int s = 0; s < j->batch->n_seqs; s++) {
        const sequence in = sequence_at(j, s);
        const bool is_long = in.n_rows > SHORT_ROWS;
        const int64_t short_tiles =
            is_long || in.n_rows == 0 ? 0 : ceil_div(in.n_rows, short_tile_rows(j, &in));

        j->short_tasks[s + 1] = j->short_tasks[s] + short_tiles * j->n_strips * runs_of(&in);
        j->long_tasks[s + 1] =
            j->long_tasks[s] + (is_long ? ceil_div(in.n_rows, j->tile_rows) * j->n_strips : 0);
        j->short_rows[s] = n_short;
        n_short += is_long ? 0 : in.n_rows;
    }
}

/* The next task below end, or -1. */
static int64_t take(atomic_llong *next, int64_t end)
{
    long long i = atomic_load_explicit(next, memory_order_relaxed);

    while (i < end) {
        if (atomic_compare_exchange_weak_explicit(next, &i, i + 1, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            return i;
        }
    }
    return -1;
}

/* ---- one tile -------------------------------------------------------------------------------- */

/* Tokens of a run that a row of the tile sees; not positive when the run is later than the row. */
static int64_t seen(const tile *t, int row, int64_t run)
{
    const int64_t n = t->in.first_pos + t->first_row + row + 1 - run * TSR_ATTENTION_RUN;

    return least(n, TSR_ATTENTION_RUN);
}

static void scale_queries(const job *j, const tile *t, float *q)
{
    const int key_dim = j->kv->layout->key_dim;

    for (int r = 0; r < t->n_rows; r++) {
        const float *row = tsr_rows_cpu_f32(j->q, t->in.first_row + t->first_row + r);

        for (int h = 0; h < t->n_heads; h++) {
            j->loops->scale(q, row + (t->first_head + h) * key_dim, key_dim, j->shape->scale);
            q += key_dim;
        }
    }
}

static tsr_attention_run run_at(const job *j, const tile *t, int64_t index, int64_t n_tokens)
{
    const tsr_kv_layout *layout = j->kv->layout;
    const size_t elem_bytes = (size_t)tsr_kv_type_bits(layout->type) / 8;
    const size_t offset = tsr_kv_layout_offset(layout, j->kv->layer, t->kv_head);
    const size_t key_bytes = tsr_kv_layout_key_bytes(layout);
    tsr_attention_run run = {.type = layout->type,
                             .key_dim = layout->key_dim,
                             .padded_dim = j->padded_dim,
                             .key_stride = layout->block_tokens};

    for (int64_t first = 0; first < n_tokens; first += 16) {
        const int64_t token = index * TSR_ATTENTION_RUN + first;
        const size_t slot = (size_t)t->in.slots[token / layout->block_tokens];
        const size_t within = (size_t)(token % layout->block_tokens);
        const char *keys = (const char *)j->kv->pool + slot * j->kv->block_bytes + offset;

        run.keys[first / 16] = keys + within * elem_bytes;
        run.values[first / 16] = keys + key_bytes + within * (size_t)j->padded_dim * elem_bytes;
    }
    return run;
}

/*
 * The parts of a tile's queries over one run; queries that see nothing of it get none.
 *   then  the run that this thread will read next, or NULL
 */
static void attend_run(const job *j, const tile *t, int64_t index, const bench *b, const float *q,
                       float *parts, const tsr_attention_run *then)
{
    const int n_queries = t->n_rows * t->n_heads;
    const int64_t n_tokens = seen(t, t->n_rows - 1, index);
    tsr_attention_run run;
    int n_seen[QUERIES];
    int first = 0;
    tsr_attention_tile queries;

    if (n_tokens <= 0) {
        return;
    }
    run = run_at(j, t, index, n_tokens);
    for (int i = 0; i < n_queries; i++) {
        n_seen[i] = (int)seen(t, i / t->n_heads, index);
        first += n_seen[i] <= 0;
    }
    queries = (tsr_attention_tile){
        .n_queries = n_queries - first,
        .n_seen = n_seen + first,
        .q = q + (int64_t)first * j->kv->layout->key_dim,
        .scores = b->scores,
        .parts = parts + (int64_t)first * j->part_floats,
    };
    queries.from_memory = queries.n_queries < WIDEN_FROM;
    queries.then = queries.from_memory ? then : NULL;
    if (!queries.from_memory && run.type != TSR_KV_TYPE_F32) {
        const tsr_attention_run narrow = run;

        j->loops->widen(&run, b->keys, b->values, &narrow, (int)n_tokens);
    }
    j->loops->attend(&run, &queries);
}

static void finish(const job *j, const tile *t, int query, const float *state)
{
    const int64_t row = t->in.first_row + t->first_row + query / t->n_heads;
    const int head = t->first_head + query % t->n_heads;

    const int value_dim = j->kv->layout->value_dim;

    j->loops->finish(tsr_rows_cpu_f32(j->out, row) + (int64_t)head * value_dim, state, value_dim);
}

static void merge(const job *j, float *state, const float *part, bool is_first)
{
    if (is_first) {
        memcpy(state, part, (size_t)j->part_floats * sizeof(*part));
    } else {
        j->loops->merge(state, part, j->padded_dim);
    }
}

/* ---- prompts --------------------------------------------------------------------------------- */

static void attend_prompts(job *j, const bench *b)
{
    const int64_t n_tasks = j->long_tasks[j->batch->n_seqs];

    for (int64_t i; (i = take(&j->next_long, n_tasks)) >= 0;) {
        const int64_t task = n_tasks - 1 - i; // later rows see more: they go first
        const int s = find_sequence(j->long_tasks, j->batch->n_seqs, task);
        const int64_t within = task - j->long_tasks[s];
        const tile t =
            tile_at(j, s, within / j->n_strips, j->tile_rows, (int)(within % j->n_strips));
        const int n_queries = t.n_rows * t.n_heads;

        if (n_queries == 0) {
            continue;
        }
        scale_queries(j, &t, b->q);
        for (int64_t run = 0; seen(&t, t.n_rows - 1, run) > 0; run++) {
            attend_run(j, &t, run, b, b->q, b->parts, NULL);
            for (int q = 0; q < n_queries; q++) {
                if (seen(&t, q / t.n_heads, run) > 0) {
                    merge(j, b->states + (int64_t)q * j->part_floats,
                          b->parts + (int64_t)q * j->part_floats, run == 0);
                }
            }
        }
        for (int q = 0; q < n_queries; q++) {
            finish(j, &t, q, b->states + (int64_t)q * j->part_floats);
        }
    }
}

/* ---- decoding -------------------------------------------------------------------------------- */

typedef struct short_task {
    tile t;
    int64_t run;
    int64_t n_runs;
} short_task;

static short_task short_task_at(const job *j, int64_t i)
{
    const int s = find_sequence(j->short_tasks, j->batch->n_seqs, i);
    const int64_t within = i - j->short_tasks[s];
    const sequence in = sequence_at(j, s);
    short_task task = {.n_runs = runs_of(&in)};
    const int64_t column = within / task.n_runs;

    task.run = within % task.n_runs;
    task.t =
        tile_at(j, s, column / j->n_strips, short_tile_rows(j, &in), (int)(column % j->n_strips));
    return task;
}

/* Merge what tasks [from, to) left in the slots; queries are dealt out to the threads. */
static void merge_wave(const job *j, int64_t from, int64_t to, int64_t slot_floats, int thread,
                       int n_threads)
{
    int64_t n_columns = 0;

    for (int64_t i = from, next; i < to; i = next) {
        const short_task task = short_task_at(j, i);
        const tile *t = &task.t;
        const int n_queries = t->n_rows * t->n_heads;
        const int64_t last_run = least(task.n_runs, task.run + (to - i)) - 1;
        const int first = (int)((thread + n_threads - n_columns % n_threads) % n_threads);

        for (int q = first; q < n_queries; q += n_threads) {
            const int64_t row = j->short_rows[t->seq] + t->first_row + q / t->n_heads;
            const int64_t head = t->first_head + q % t->n_heads;
            float *state = j->states + (row * j->shape->n_heads + head) * j->part_floats;

            for (int64_t run = task.run; run <= last_run; run++) {
                if (seen(t, q / t->n_heads, run) > 0) {
                    merge(j, state,
                          j->parts + (i - from + run - task.run) * slot_floats +
                              (int64_t)q * j->part_floats,
                          run == 0);
                }
            }
            if (last_run == task.n_runs - 1) {
                finish(j, t, q, state);
            }
        }
        n_columns += n_queries;
        next = i + last_run - task.run + 1;
    }
}

static void meet(const job *j, int thread, int n_threads)
{
    if (n_threads > 1) {
        tsr_cpu_pool_barrier(j->pool, thread);
    }
}

static void attend_task(const job *j, const bench *b, int64_t i, int64_t next, float *parts)
{
    const short_task task = short_task_at(j, i);
    tsr_attention_run then;
    int64_t n_then = 0;

    if (task.t.n_heads == 0) {
        return;
    }
    if (next >= 0) {
        const short_task follows = short_task_at(j, next);

        n_then = seen(&follows.t, follows.t.n_rows - 1, follows.run);
        then = run_at(j, &follows.t, follows.run, n_then);
    }
    scale_queries(j, &task.t, b->q);
    attend_run(j, &task.t, task.run, b, b->q, parts, n_then > 0 ? &then : NULL);
}

static void attend_decoding(job *j, const bench *b, int thread, int n_threads)
{
    const int64_t n_tasks = j->short_tasks[j->batch->n_seqs];
    const int64_t slot_queries =
        most(1, least(QUERIES / j->strip_heads, SHORT_ROWS)) * j->strip_heads;
    const int64_t slot_floats = slot_queries * j->part_floats;
    const int64_t wave = j->n_parts / slot_queries;

    for (int64_t from = 0; from < n_tasks; from += wave) {
        const int64_t to = least(from + wave, n_tasks);

        for (int64_t i = take(&j->next_short, to), next; i >= 0; i = next) {
            next = take(&j->next_short, to); // known one ahead, to be asked for in time
            attend_task(j, b, i, next, j->parts + (i - from) * slot_floats);
        }
        meet(j, thread, n_threads); // all parts are there
        merge_wave(j, from, to, slot_floats, thread, n_threads);
        if (to < n_tasks) {
            meet(j, thread, n_threads); // all slots are free
        }
    }
}

static void share(void *ctx, int thread, int n_threads)
{
    job *j = ctx;
    bench b;

    (void)lay_bench(&b, j->benches + (size_t)thread * j->bench_bytes, head_dim_of(j->kv->layout));
    attend_prompts(j, &b);
    attend_decoding(j, &b, thread, n_threads);
}

/* ---- the op ---------------------------------------------------------------------------------- */

static int64_t work_ns(const job *j)
{
    int64_t pairs = 0;

    for (int s = 0; s < j->batch->n_seqs; s++) {
        const sequence in = sequence_at(j, s);

        pairs += in.n_rows * (in.first_pos + in.n_rows);
    }
    return pairs * j->q.n_cols * 2 / MACS_A_NS;
}

tsr_status tsr_attention_cpu(tsr_device *dev, tsr_tensor out, tsr_tensor q, const tsr_kv_view *kv,
                             const tsr_batch *batch, const tsr_attention_shape *shape)
{
    const int n_threads = tsr_cpu_pool_n_threads(dev->pool);
    const tsr_ops_limits limits = {.n_rows = q.n_rows,
                                   .n_heads = shape->n_heads,
                                   .head_dim = head_dim_of(kv->layout),
                                   .n_seqs = batch->n_seqs};
    if (shape->softcap > 0 || shape->window > 0 || shape->stride > 0 ||
        shape->slopes.data != NULL || shape->sinks.data != NULL || kv->host_pool != NULL) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "attention: soft caps, windows, strides, slopes, sinks "
                        "and blocks in the host pool are not there yet");
    }
    job j = {.loops = TSR_ISA_PICK(dev->isa, tsr_attention_loops),
             .pool = dev->pool,
             .out = out,
             .q = q,
             .kv = kv,
             .batch = batch,
             .shape = shape,
             .padded_dim = tsr_kv_layout_padded_dim(kv->layout),
             .strips_a_head = (int)ceil_div(shape->group, STRIP_HEADS),
             .strip_heads = (int)least(least(shape->group, shape->n_heads), STRIP_HEADS)};
    const size_t n_bytes = lay_out(&j, dev->scratch, n_threads, &limits);

    if (n_bytes > dev->scratch_bytes) {
        return tsr_fail(TSR_ERR_ARG, "attention: %zu bytes of scratch are needed, %zu are reserved",
                        n_bytes, dev->scratch_bytes);
    }
    j.part_floats = j.padded_dim + TSR_ATTENTION_PART_TAIL;
    j.n_strips = (int)ceil_div(shape->first_head + shape->n_heads, shape->group) * j.strips_a_head;
    if (work_ns(&j) < HAND_OVER_NS) {
        count_tasks(&j, 1);
        share(&j, 0, 1);
    } else {
        count_tasks(&j, n_threads);
        tsr_cpu_pool_run(dev->pool, share, &j);
    }
    return TSR_OK;
}

tsr_status tsr_attention_part_cpu(tsr_device *dev, const tsr_attention_piece *piece, tsr_tensor q,
                                  const tsr_kv_view *kv, const tsr_batch *batch,
                                  const tsr_attention_shape *shape, int64_t first_run,
                                  int64_t n_runs)
{
    (void)dev, (void)piece, (void)q, (void)kv, (void)batch, (void)shape, (void)first_run;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "attention_part: %lld runs: not there yet",
                    (long long)n_runs);
}

tsr_status tsr_attention_merge_cpu(tsr_device *dev, tsr_tensor out,
                                   const tsr_attention_piece *pieces, int n_pieces,
                                   const tsr_kv_layout *layout, const tsr_attention_shape *shape)
{
    (void)dev, (void)out, (void)pieces, (void)layout, (void)shape;
    return tsr_fail(TSR_ERR_UNSUPPORTED, "attention_merge: %d pieces: not there yet", n_pieces);
}
