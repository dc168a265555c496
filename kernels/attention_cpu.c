#include "kernels/attention_tile.h"
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
// With a stride the rows of a tile lie so far apart (kernels/attention_tile.h).

enum {
    SHORT_ROWS = 8, // a sequence with more rows is long: its tiles keep all threads busy
    PARTS_A_THREAD = 256,
    TASKS_A_THREAD = 3, // wanted at least, for the threads to end together
    LEAST_TILE_ROWS = 4,
    MACS_A_NS = 16,
    HAND_OVER_NS = 5000,
    ALIGN = 64
};

typedef struct job {
    tsr_attention_call call;
    tsr_cpu_pool *pool;
    tsr_tensor out;
    int tile_rows; // of prompts
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
    // Of tsr_attention_part only:
    const tsr_attention_piece *piece;
    int64_t first_run, end_run;
} job;

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

static size_t lay_bench(tsr_attention_bench *b, char *base, int head_dim)
{
    const size_t padded_dim = ((size_t)head_dim + 15) / 16 * 16;
    const size_t part_bytes = (padded_dim + TSR_ATTENTION_PART_TAIL) * sizeof(float);
    const size_t split_bytes = 2 * (size_t)tsr_attention_pairs(head_dim) * sizeof(float);
    size_t used = 0;

    b->q = carve(base, &used, TSR_ATTENTION_QUERIES * (size_t)head_dim * sizeof(float));
    b->pairs = carve(base, &used, TSR_ATTENTION_QUERIES * split_bytes);
    b->scores = carve(base, &used, TSR_ATTENTION_QUERIES * TSR_ATTENTION_RUN * sizeof(float));
    b->parts = carve(base, &used, TSR_ATTENTION_QUERIES * part_bytes);
    b->states = carve(base, &used, TSR_ATTENTION_QUERIES * part_bytes);
    b->keys = carve(base, &used, TSR_ATTENTION_RUN * (size_t)head_dim * sizeof(float));
    b->scales = carve(base, &used, 3 * TSR_ATTENTION_RUN * sizeof(float));
    b->means = carve(base, &used, TSR_ATTENTION_RUN * split_bytes);
    b->values = carve(base, &used, TSR_ATTENTION_RUN * padded_dim * sizeof(float));
    b->picked_keys = carve(base, &used, TSR_ATTENTION_RUN * (size_t)head_dim * sizeof(float));
    b->picked_values = carve(base, &used, TSR_ATTENTION_RUN * padded_dim * sizeof(float));
    b->rows = carve(base, &used, 3 * TSR_ATTENTION_RUN * sizeof(*b->rows));
    return used;
}

static size_t lay_out(job *j, char *base, int n_threads, const tsr_ops_limits *limits)
{
    const size_t n_seqs = (size_t)limits->n_seqs;
    const size_t padded_dim = ((size_t)limits->head_dim + 15) / 16 * 16;
    const size_t part_bytes = (padded_dim + TSR_ATTENTION_PART_TAIL) * sizeof(float);
    const size_t n_states =
        (size_t)tsr_least(limits->n_rows, (int64_t)limits->n_seqs * SHORT_ROWS) *
        (size_t)limits->n_heads;
    tsr_attention_bench none;
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

/* Rows that a tile may have. */
static int64_t most_rows(const tsr_attention_call *c)
{
    return tsr_most(1, TSR_ATTENTION_QUERIES / tsr_most(1, c->strip_heads));
}

/* Rows in a tile of a sequence with few rows. */
static int64_t short_tile_rows(const job *j, const tsr_attention_sequence *in)
{
    return tsr_least(in->n_rows, most_rows(&j->call));
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

/* Cuts what lies outside of [from, to) off [*first, *first + *n). */
static void cut(int64_t *first, int64_t *n, int64_t from, int64_t to)
{
    const int64_t end = tsr_least(*first + *n, to);

    *first = tsr_most(*first, from);
    *n = tsr_most(0, end - *first);
}

/* The runs of a sequence that are to be attended. */
static tsr_attention_runs runs_of(const job *j, const tsr_attention_sequence *in)
{
    const int64_t n_far = tsr_attention_far_runs(j->call.shape, j->call.batch->longest);
    tsr_attention_runs runs = tsr_attention_tile_runs(&j->call, in->first_pos, in->n_rows);

    if (j->piece != NULL) {
        cut(&runs.first_far, &runs.n_far, j->first_run, j->end_run);
        cut(&runs.first_near, &runs.n_near, j->first_run - n_far, j->end_run - n_far);
    }
    return runs;
}

static bool is_prompt(const job *j, const tsr_attention_sequence *in)
{
    return j->piece == NULL && in->n_rows > SHORT_ROWS;
}

static void count_tasks(job *j, int n_threads)
{
    const tsr_attention_call *c = &j->call;
    int64_t n_long = 0;
    int64_t n_short = 0;

    for (int s = 0; s < c->batch->n_seqs; s++) {
        const tsr_attention_sequence in = tsr_attention_tile_sequence(c, s);

        n_long += is_prompt(j, &in) ? in.n_rows : 0;
    }
    j->tile_rows = (int)tsr_most(
        tsr_least(LEAST_TILE_ROWS, most_rows(c)),
        tsr_least(n_long * c->n_strips / ((int64_t)n_threads * TASKS_A_THREAD), most_rows(c)));
    j->short_tasks[0] = 0;
    j->long_tasks[0] = 0;
    for (int s = 0; s < c->batch->n_seqs; s++) {
        const tsr_attention_sequence in = tsr_attention_tile_sequence(c, s);
        const bool is_long = is_prompt(j, &in);
        const int64_t short_tiles = is_long || in.n_rows == 0
                                        ? 0
                                        : tsr_attention_tile_count(c, &in, short_tile_rows(j, &in));
        const tsr_attention_runs runs = runs_of(j, &in);

        j->short_tasks[s + 1] =
            j->short_tasks[s] + short_tiles * c->n_strips * (runs.n_far + runs.n_near);
        j->long_tasks[s + 1] =
            j->long_tasks[s] +
            (is_long ? tsr_attention_tile_count(c, &in, j->tile_rows) * c->n_strips : 0);
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

/* Within its sequence. */
static int64_t row_of(const tsr_attention_call *c, const tsr_attention_rows *t, int query)
{
    return t->first_row + query / t->n_heads * c->stride;
}

static int head_of(const tsr_attention_rows *t, int query)
{
    return t->first_head + query % t->n_heads;
}

/* ---- prompts --------------------------------------------------------------------------------- */

static void attend_tile(const job *j, const tsr_attention_bench *b, const tsr_attention_rows *t)
{
    const tsr_attention_call *c = &j->call;
    const int n_queries = t->n_rows * t->n_heads;
    const int64_t first_pos = t->in.first_pos + t->first_row;
    const tsr_attention_runs runs = tsr_attention_tile_runs( // as if there were no other rows
        c, first_pos, (t->n_rows - 1) * c->stride + 1);

    for (int q = 0; q < n_queries; q++) {
        *tsr_attention_tile_sum(c, b->states + (int64_t)q * c->part_floats) = 0;
    }
    tsr_attention_tile_queries(c, t, b);
    for (int64_t i = 0; i < runs.n_far + runs.n_near; i++) {
        const tsr_attention_span span = tsr_attention_tile_span(c, &runs, first_pos, i);

        tsr_attention_tile_attend(c, t, &span, b, b->parts, NULL);
        for (int q = 0; q < n_queries; q++) {
            tsr_attention_tile_merge(c, b->states + (int64_t)q * c->part_floats,
                                     b->parts + (int64_t)q * c->part_floats);
        }
    }
    for (int q = 0; q < n_queries; q++) {
        tsr_attention_tile_finish(c, j->out, t->in.first_row + row_of(c, t, q), head_of(t, q),
                                  b->states + (int64_t)q * c->part_floats);
    }
}

static void attend_prompts(job *j, const tsr_attention_bench *b)
{
    const tsr_attention_call *c = &j->call;
    const int64_t n_tasks = j->long_tasks[c->batch->n_seqs];

    for (int64_t i; (i = take(&j->next_long, n_tasks)) >= 0;) {
        const int64_t task = n_tasks - 1 - i; // later rows see more: they go first
        const int s = find_sequence(j->long_tasks, c->batch->n_seqs, task);
        const int64_t within = task - j->long_tasks[s];
        const tsr_attention_rows t = tsr_attention_tile_at(c, s, within / c->n_strips, j->tile_rows,
                                                           (int)(within % c->n_strips));

        if (t.n_heads > 0 && t.n_rows > 0) {
            attend_tile(j, b, &t);
        }
    }
}

/* ---- decoding -------------------------------------------------------------------------------- */

typedef struct short_task {
    tsr_attention_rows t;
    tsr_attention_runs runs; // of the sequence
    int64_t n_runs;
    int64_t run; // of the task
} short_task;

static short_task short_task_at(const job *j, int64_t i)
{
    const tsr_attention_call *c = &j->call;
    const int s = find_sequence(j->short_tasks, c->batch->n_seqs, i);
    const int64_t within = i - j->short_tasks[s];
    const tsr_attention_sequence in = tsr_attention_tile_sequence(c, s);
    short_task task;
    int64_t column;

    task.runs = runs_of(j, &in);
    task.n_runs = task.runs.n_far + task.runs.n_near;
    column = within / task.n_runs;
    task.run = within % task.n_runs;
    task.t = tsr_attention_tile_at(c, s, column / c->n_strips, short_tile_rows(j, &in),
                                   (int)(column % c->n_strips));
    return task;
}

/* Merge what tasks [from, to) left in the slots; queries are dealt out to the threads. */
static void merge_wave(const job *j, int64_t from, int64_t to, int64_t slot_floats, int thread,
                       int n_threads)
{
    const tsr_attention_call *c = &j->call;
    int64_t n_columns = 0;

    for (int64_t i = from, next; i < to; i = next) {
        const short_task task = short_task_at(j, i);
        const tsr_attention_rows *t = &task.t;
        const int n_queries = t->n_rows * t->n_heads;
        const int64_t last_run = tsr_least(task.n_runs, task.run + (to - i)) - 1;
        const int first = (int)((thread + n_threads - n_columns % n_threads) % n_threads);

        for (int q = first; q < n_queries; q += n_threads) {
            const int64_t row = j->short_rows[t->seq] + row_of(c, t, q);
            float *state = j->states + (row * c->shape->n_heads + head_of(t, q)) * c->part_floats;

            if (task.run == 0) {
                *tsr_attention_tile_sum(c, state) = 0;
            }
            for (int64_t run = task.run; run <= last_run; run++) {
                tsr_attention_tile_merge(c, state,
                                         j->parts + (i - from + run - task.run) * slot_floats +
                                             (int64_t)q * c->part_floats);
            }
            if (last_run == task.n_runs - 1) {
                tsr_attention_tile_finish(c, j->out, t->in.first_row + row_of(c, t, q),
                                          head_of(t, q), state);
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

static tsr_attention_span span_of(const job *j, const short_task *task)
{
    return tsr_attention_tile_span(&j->call, &task->runs, task->t.in.first_pos + task->t.first_row,
                                   task->run);
}

/* Next is the task that follows, or -1. */
static void attend_task(const job *j, const tsr_attention_bench *b, const short_task *task,
                        int64_t next, float *parts)
{
    const tsr_attention_call *c = &j->call;
    const tsr_attention_span span = span_of(j, task);
    tsr_attention_next follows;

    if (task->t.n_heads == 0) {
        return;
    }
    if (next >= 0) {
        const short_task later = short_task_at(j, next);

        follows = (tsr_attention_next){later.t, span_of(j, &later)};
    }
    tsr_attention_tile_queries(c, &task->t, b);
    tsr_attention_tile_attend(c, &task->t, &span, b, parts, next >= 0 ? &follows : NULL);
}

static void attend_decoding(job *j, const tsr_attention_bench *b, int thread, int n_threads)
{
    const tsr_attention_call *c = &j->call;
    const int64_t n_tasks = j->short_tasks[c->batch->n_seqs];
    const int64_t slot_queries = tsr_most(1, tsr_least(most_rows(c), SHORT_ROWS)) * c->strip_heads;
    const int64_t slot_floats = slot_queries * c->part_floats;
    const int64_t wave = j->n_parts / slot_queries;

    for (int64_t from = 0; from < n_tasks; from += wave) {
        const int64_t to = tsr_least(from + wave, n_tasks);

        for (int64_t i = take(&j->next_short, to), next; i >= 0; i = next) {
            const short_task task = short_task_at(j, i);

            next = take(&j->next_short, to); // known one ahead, to be asked for in time
            attend_task(j, b, &task, next, j->parts + (i - from) * slot_floats);
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
    tsr_attention_bench b;

    (void)lay_bench(&b, j->benches + (size_t)thread * j->bench_bytes,
                    head_dim_of(j->call.kv->layout));
    attend_prompts(j, &b);
    attend_decoding(j, &b, thread, n_threads);
}

/* ---- the ops --------------------------------------------------------------------------------- */

static int64_t work_ns(const job *j)
{
    const tsr_attention_call *c = &j->call;
    int64_t pairs = 0;

    for (int s = 0; s < c->batch->n_seqs; s++) {
        const tsr_attention_sequence in = tsr_attention_tile_sequence(c, s);
        const tsr_attention_runs runs = runs_of(j, &in);

        pairs += in.n_rows * (runs.n_far + runs.n_near) * TSR_ATTENTION_RUN;
    }
    return pairs * c->q.n_cols * 2 / MACS_A_NS;
}

/* Lays a job out in the device's scratch. */
static tsr_status prepare(job *j, tsr_device *dev, tsr_tensor q, const tsr_kv_view *kv,
                          const tsr_batch *batch, const tsr_attention_shape *shape)
{
    const tsr_ops_limits limits = {.n_rows = q.n_rows,
                                   .n_heads = shape->n_heads,
                                   .head_dim = head_dim_of(kv->layout),
                                   .n_seqs = batch->n_seqs};
    const int strips_a_head = (int)tsr_ceil_div(shape->group, TSR_ATTENTION_STRIP_HEADS);
    const int padded_dim = tsr_kv_layout_padded_dim(kv->layout);
    size_t n_bytes;

    *j = (job){.pool = dev->pool, .end_run = INT64_MAX};
    j->call = (tsr_attention_call){
        .loops = TSR_ISA_PICK(dev->isa, tsr_attention_loops),
        .q = q,
        .kv = kv,
        .batch = batch,
        .shape = shape,
        .stride = tsr_most(1, shape->stride),
        .padded_dim = padded_dim,
        .part_floats = padded_dim + TSR_ATTENTION_PART_TAIL,
        .strips_a_head = strips_a_head,
        .n_strips =
            (int)tsr_ceil_div(shape->first_head + shape->n_heads, shape->group) * strips_a_head,
        .strip_heads =
            (int)tsr_least(tsr_least(shape->group, shape->n_heads), TSR_ATTENTION_STRIP_HEADS),
    };
    n_bytes = lay_out(j, dev->scratch, tsr_cpu_pool_n_threads(dev->pool), &limits);
    if (n_bytes > dev->scratch_bytes) {
        return tsr_fail(TSR_ERR_ARG, "attention: %zu bytes of scratch are needed, %zu are reserved",
                        n_bytes, dev->scratch_bytes);
    }
    return TSR_OK;
}

static void run_job(tsr_device *dev, job *j, tsr_cpu_pool_fn *work)
{
    if (work_ns(j) < HAND_OVER_NS) {
        count_tasks(j, 1);
        work(j, 0, 1);
    } else {
        count_tasks(j, tsr_cpu_pool_n_threads(dev->pool));
        tsr_cpu_pool_run(dev->pool, work, j);
    }
}

tsr_status tsr_attention_cpu(tsr_device *dev, tsr_tensor out, tsr_tensor q, const tsr_kv_view *kv,
                             const tsr_batch *batch, const tsr_attention_shape *shape)
{
    job j;

    TSR_TRY(prepare(&j, dev, q, kv, batch, shape));
    j.out = out;
    run_job(dev, &j, share);
    return TSR_OK;
}

/* One task of tsr_attention_part: its parts go to the piece. */
static void attend_piece(const job *j, const tsr_attention_bench *b, const short_task *task)
{
    const tsr_attention_call *c = &j->call;
    const tsr_attention_rows *t = &task->t;
    const int value_dim = c->kv->layout->value_dim;
    const int64_t n_far = tsr_attention_far_runs(c->shape, c->batch->longest);
    const int64_t run = task->run < task->runs.n_far
                            ? task->runs.first_far + task->run
                            : n_far + task->runs.first_near + task->run - task->runs.n_far;

    attend_task(j, b, task, -1, b->parts);
    for (int q = 0; q < t->n_rows * t->n_heads; q++) {
        const float *part = b->parts + (int64_t)q * c->part_floats;
        const int64_t row = t->in.first_row + row_of(c, t, q);
        const int64_t column = (run - j->first_run) * c->shape->n_heads + head_of(t, q);

        tsr_rows_cpu_f32(j->piece->m, row)[column] = part[c->padded_dim];
        tsr_rows_cpu_f32(j->piece->l, row)[column] = part[c->padded_dim + 1];
        memcpy(tsr_rows_cpu_f32(j->piece->o, row) + column * value_dim, part,
               (size_t)value_dim * sizeof(*part));
    }
}

static void share_piece(void *ctx, int thread, int n_threads)
{
    job *j = ctx;
    tsr_attention_bench b;

    (void)n_threads;
    (void)lay_bench(&b, j->benches + (size_t)thread * j->bench_bytes,
                    head_dim_of(j->call.kv->layout));
    for (int64_t i; (i = take(&j->next_short, j->short_tasks[j->call.batch->n_seqs])) >= 0;) {
        const short_task task = short_task_at(j, i);

        attend_piece(j, &b, &task);
    }
}

tsr_status tsr_attention_part_cpu(tsr_device *dev, const tsr_attention_piece *piece, tsr_tensor q,
                                  const tsr_kv_view *kv, const tsr_batch *batch,
                                  const tsr_attention_shape *shape, int64_t first_run,
                                  int64_t n_runs)
{
    job j;

    TSR_TRY(prepare(&j, dev, q, kv, batch, shape));
    j.piece = piece;
    j.first_run = first_run;
    j.end_run = first_run + n_runs;
    for (int64_t row = 0; row < q.n_rows; row++) { // until something is seen
        memset(tsr_rows_cpu_f32(piece->l, row), 0, (size_t)piece->l.n_cols * sizeof(float));
    }
    run_job(dev, &j, share_piece);
    return TSR_OK;
}

typedef struct merging {
    tsr_attention_call call;
    tsr_tensor out;
    const tsr_attention_piece *pieces;
    int n_pieces;
} merging;

static void merge_rows(const void *ctx, int64_t first, int64_t end, int thread)
{
    const merging *w = ctx;
    const tsr_attention_call *c = &w->call;
    const int value_dim = c->kv->layout->value_dim;
    const int n_heads = c->shape->n_heads;
    float state[TSR_ATTENTION_MOST_PART];
    float part[TSR_ATTENTION_MOST_PART] = {0};

    (void)thread;
    for (int64_t i = first * n_heads; i < end * n_heads; i++) {
        const int64_t row = i / n_heads;

        memset(state, 0, sizeof(state));
        for (int p = 0; p < w->n_pieces; p++) {
            const tsr_attention_piece *piece = &w->pieces[p];

            for (int64_t k = i % n_heads; k < piece->l.n_cols; k += n_heads) {
                memcpy(part, tsr_rows_cpu_f32(piece->o, row) + k * value_dim,
                       (size_t)value_dim * sizeof(*part));
                part[c->padded_dim] = tsr_rows_cpu_f32(piece->m, row)[k];
                part[c->padded_dim + 1] = tsr_rows_cpu_f32(piece->l, row)[k];
                tsr_attention_tile_merge(c, state, part);
            }
        }
        tsr_attention_tile_finish(c, w->out, row, (int)(i % n_heads), state);
    }
}

tsr_status tsr_attention_merge_cpu(tsr_device *dev, tsr_tensor out,
                                   const tsr_attention_piece *pieces, int n_pieces,
                                   const tsr_kv_layout *layout, const tsr_attention_shape *shape)
{
    const tsr_kv_view kv = {.layout = layout};
    const int padded_dim = tsr_kv_layout_padded_dim(layout);
    const merging w = {.call = {.loops = TSR_ISA_PICK(dev->isa, tsr_attention_loops),
                                .kv = &kv,
                                .shape = shape,
                                .padded_dim = padded_dim,
                                .part_floats = padded_dim + TSR_ATTENTION_PART_TAIL},
                       .out = out,
                       .pieces = pieces,
                       .n_pieces = n_pieces};

    tsr_rows_cpu_run(dev, out.n_rows, out.n_cols, merge_rows, &w);
    return TSR_OK;
}
