#include "engine/runner.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"

struct tsr_runner {
    tsr_decoder *decoder; /* owned */
    tsr_decoder_parts parts;
    tsr_kv_store *store; /* borrowed */
    tsr_step_limits limits;
    int64_t unit_cols; /* vocabulary columns a unit */
    int n_units;       /* of the rank that has most */
    int own_units;

    int32_t *host; /* [host_ints] what is uploaded each step, gathered here first; owned */
    size_t host_ints;
    int32_t *tables; /* i32 [max_seqs, max_blocks] pool slots, on the device; owned */
    int32_t *inputs; /* i32 [host_ints] on the device; owned */
    int32_t *words;  /* findings; owned */
    size_t words_capacity;
    float *row;        /* [own vocabulary] on the host; owned */
    tsr_tensor wanted; /* i32 [1, n_wanted] of the step run last, on the device */
};

/* One step's integers on the device. Order in `inputs`: tokens, positions, row_start, first_pos,
 * lanes, wanted, sharpness. */
typedef struct inputs {
    tsr_tensor tokens;
    tsr_tensor positions;
    tsr_tensor wanted;
    tsr_tensor sharpness; /* f32 */
    tsr_batch batch;
} inputs;

static size_t table_ints(const tsr_step_limits *limits)
{
    return (size_t)limits->max_seqs * (size_t)limits->max_blocks;
}

static size_t row_words(const tsr_runner *runner, int n_best)
{
    return 2 * (size_t)n_best + 1 + 2 * (size_t)runner->n_units;
}

static int units_of(const tsr_config *config, int rank, int n_ranks)
{
    const int64_t unit = tsr_shard_vocab_unit(config->shape.n_vocab);
    const tsr_shard shard = tsr_shard_of(&config->shape, rank, n_ranks);

    return (int)((shard.vocab.count + unit - 1) / unit);
}

tsr_status tsr_runner_create(tsr_runner **out, const tsr_decoder_parts *parts, tsr_kv_store *store,
                             const tsr_step_limits *limits, int n_ranks)
{
    tsr_runner *runner = tsr_alloc(1, sizeof(*runner));
    tsr_status st = TSR_OK;

    if (runner == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the runner");
    }
    runner->parts = *parts;
    runner->store = store;
    runner->limits = *limits;
    runner->unit_cols = tsr_shard_vocab_unit(parts->config->shape.n_vocab);
    runner->own_units =
        (int)((parts->shard->vocab.count + runner->unit_cols - 1) / runner->unit_cols);
    for (int rank = 0; rank < n_ranks; rank++) {
        const int n_units = units_of(parts->config, rank, n_ranks);

        runner->n_units = n_units > runner->n_units ? n_units : runner->n_units;
    }
    runner->host_ints = 4 * (size_t)limits->max_rows + 3 * (size_t)limits->max_seqs + 1;
    runner->host = tsr_alloc(runner->host_ints, sizeof(*runner->host));
    runner->row = tsr_alloc((size_t)parts->shard->vocab.count, sizeof(*runner->row));
    runner->tables = tsr_device_alloc(parts->dev, table_ints(limits) * sizeof(*runner->tables));
    runner->inputs = tsr_device_alloc(parts->dev, runner->host_ints * sizeof(*runner->inputs));
    if (runner->host == NULL || runner->row == NULL || runner->tables == NULL ||
        runner->inputs == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for the tables of %d sequences of %d blocks",
                      limits->max_seqs, limits->max_blocks);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, tsr_decoder_create(&runner->decoder, parts));
    *out = runner;
    return TSR_OK;

fail:
    tsr_runner_destroy(runner);
    return st;
}

void tsr_runner_destroy(tsr_runner *runner)
{
    if (runner == NULL) {
        return;
    }
    tsr_decoder_destroy(runner->decoder);
    tsr_free(runner->words);
    tsr_device_free(runner->parts.dev, runner->inputs, runner->host_ints * sizeof(*runner->inputs));
    tsr_device_free(runner->parts.dev, runner->tables,
                    table_ints(&runner->limits) * sizeof(*runner->tables));
    tsr_free(runner->row);
    tsr_free(runner->host);
    tsr_free(runner);
}

/* Blocks that became free go first: a block may be dropped and given out again in the same step. */
static tsr_status apply_changes(tsr_runner *runner, const tsr_step *step)
{
    for (int i = 0; i < step->n_dropped; i++) {
        TSR_TRY(tsr_kv_store_drop(runner->store, step->dropped[i]));
    }
    for (int i = 0; i < step->n_appended; i++) {
        const size_t at = (size_t)step->append_lane[i] * (size_t)runner->limits.max_blocks +
                          (size_t)step->append_index[i];
        int32_t slot;

        TSR_TRY(tsr_kv_store_place(runner->store, step->append_block[i], &slot));
        TSR_TRY(tsr_device_upload(runner->parts.dev, runner->tables + at, &slot, sizeof(slot)));
    }
    return TSR_OK;
}

/* Copies n ints behind *used on the host and gives their window on the device. */
static tsr_tensor put(tsr_runner *runner, size_t *used, const void *ints, int n)
{
    int32_t *at = runner->inputs + *used;

    if (n > 0) {
        memcpy(runner->host + *used, ints, (size_t)n * sizeof(int32_t));
    }
    *used += (size_t)n;
    return tsr_tensor_of(at, TSR_DTYPE_I32, tsr_device_kind_of(runner->parts.dev), 1, n);
}

static tsr_status load_inputs(tsr_runner *runner, const tsr_step *step, inputs *in)
{
    int32_t *positions;
    size_t used = 0;

    in->tokens = put(runner, &used, step->tokens, step->n_rows);
    positions = runner->host + used;
    in->positions = put(runner, &used, step->tokens, step->n_rows); // overwritten just below
    in->batch.longest = 0;
    for (int s = 0; s < step->n_seqs; s++) {
        const int n = step->row_start[s + 1] - step->row_start[s];

        for (int r = 0; r < n; r++) {
            positions[step->row_start[s] + r] = step->first_pos[s] + r;
        }
        if (step->first_pos[s] + n > in->batch.longest) {
            in->batch.longest = step->first_pos[s] + n;
        }
    }
    in->batch.n_seqs = step->n_seqs;
    in->batch.row_start = put(runner, &used, step->row_start, step->n_seqs + 1);
    in->batch.first_pos = put(runner, &used, step->first_pos, step->n_seqs);
    in->batch.lanes = put(runner, &used, step->lanes, step->n_seqs);
    in->batch.tables =
        tsr_tensor_of(runner->tables, TSR_DTYPE_I32, tsr_device_kind_of(runner->parts.dev),
                      runner->limits.max_seqs, runner->limits.max_blocks);
    in->wanted = put(runner, &used, step->wanted, step->n_wanted);
    in->sharpness = put(runner, &used, step->sharpness, step->n_wanted);
    in->sharpness.dtype = TSR_DTYPE_F32;
    return tsr_device_upload(runner->parts.dev, runner->inputs, runner->host,
                             used * sizeof(int32_t));
}

static tsr_status make_room(tsr_runner *runner, const tsr_step *step, tsr_findings *findings)
{
    findings->n_best = step->n_best;
    findings->n_units = runner->n_units;
    findings->row_words = row_words(runner, step->n_best);
    findings->n_words = findings->row_words * (size_t)step->n_wanted;
    // Grows to the largest step that is met and stays: in the long run no step allocates.
    if (findings->n_words > runner->words_capacity) {
        int32_t *grown = tsr_alloc_resize(runner->words, findings->n_words, sizeof(*grown));

        if (grown == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for the candidates of %d rows",
                            step->n_wanted);
        }
        runner->words = grown;
        runner->words_capacity = findings->n_words;
    }
    findings->words = runner->words;
    return TSR_OK;
}

/* Columns [first, first + n) of a run of items. */
static tsr_tensor columns(tsr_tensor row, int64_t first, int64_t n)
{
    row.data = (char *)row.data + (size_t)first * tsr_dtype_bytes(row.dtype);
    row.n_cols = n;
    row.stride = n;
    return row;
}

/* The candidates, target logits and masses of `n` wanted rows that begin with number `first`. */
static tsr_status find_best(tsr_runner *runner, const tsr_step *step, const inputs *in,
                            const tsr_findings *f, int first, int n)
{
    const tsr_device_kind kind = tsr_device_kind_of(runner->parts.dev);
    const tsr_range vocab = runner->parts.shard->vocab;
    int32_t *words = runner->words + (size_t)first * f->row_words;
    const int64_t stride = (int64_t)f->row_words;
    const tsr_tensor ids = {words, TSR_DTYPE_I32, kind, n, f->n_best, stride};
    const tsr_tensor values = {words + f->n_best, TSR_DTYPE_F32, kind, n, f->n_best, stride};
    const tsr_tensor masses = {words + 2 * f->n_best + 1,      TSR_DTYPE_F32, kind, n,
                               2 * (int64_t)runner->own_units, stride};
    tsr_tensor logits;

    TSR_TRY(tsr_decoder_logits(runner->decoder, &logits, columns(in->wanted, first, n)));
    TSR_TRY(tsr_top_k(runner->parts.dev, ids, values, masses, logits,
                      columns(in->sharpness, first, n), vocab.first, runner->unit_cols));
    for (int i = 0; i < n; i++) {
        const int64_t target = step->targets[first + i] - vocab.first;
        float *row = (float *)(void *)(words + (size_t)i * f->row_words);
        float *rest = row + 2 * f->n_best + 1;

        row[2 * f->n_best] = -INFINITY;
        if (step->targets[first + i] >= 0 && target >= 0 && target < vocab.count) {
            TSR_TRY(tsr_device_download(runner->parts.dev, &row[2 * f->n_best],
                                        (const float *)logits.data + i * logits.stride + target,
                                        sizeof(float)));
        }
        for (int u = runner->own_units; u < runner->n_units; u++) {
            rest[2 * u] = -INFINITY;
            rest[2 * u + 1] = 0;
        }
    }
    return TSR_OK;
}

tsr_status tsr_runner_run(tsr_runner *runner, const tsr_step *step, tsr_findings *findings)
{
    inputs in;

    TSR_TRY(apply_changes(runner, step));
    TSR_TRY(make_room(runner, step, findings));
    if (step->n_rows == 0) {
        return TSR_OK;
    }
    TSR_TRY(load_inputs(runner, step, &in));
    TSR_TRY(tsr_decoder_forward(runner->decoder, in.tokens, in.positions, &in.batch));
    for (int first = 0; first < step->n_wanted; first += TSR_DECODER_HEAD_ROWS) {
        const int left = step->n_wanted - first;

        TSR_TRY(find_best(runner, step, &in, findings, first,
                          left < TSR_DECODER_HEAD_ROWS ? left : TSR_DECODER_HEAD_ROWS));
    }
    runner->wanted = in.wanted;
    return tsr_device_sync(runner->parts.dev);
}

tsr_status tsr_runner_row(tsr_runner *runner, int i, const float **logits)
{
    tsr_tensor row;

    TSR_TRY(tsr_decoder_logits(runner->decoder, &row, columns(runner->wanted, i, 1)));
    TSR_TRY(tsr_device_download(runner->parts.dev, runner->row, row.data,
                                (size_t)row.n_cols * sizeof(float)));
    *logits = runner->row;
    return TSR_OK;
}
