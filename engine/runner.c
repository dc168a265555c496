#include <string.h>

#include "base/alloc.h"
#include "engine/runner_state.h"

/* What is uploaded each step, at most. */
static size_t input_ints(const tsr_step_limits *limits)
{
    return 4 * (size_t)limits->max_rows + 3 * (size_t)limits->max_seqs + 1 + TSR_DECODER_HEAD_ROWS;
}

size_t tsr_runner_table_bytes(const tsr_step_limits *limits, const tsr_shard *shard)
{
    // Inputs lie on both sides; a row of logits comes to the host.
    return 2 * input_ints(limits) * sizeof(int32_t) + (size_t)shard->vocab.count * sizeof(float);
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
    runner->host_ints = input_ints(limits);
    runner->host = tsr_alloc(runner->host_ints, sizeof(*runner->host));
    runner->row = tsr_alloc((size_t)parts->shard->vocab.count, sizeof(*runner->row));
    runner->inputs = tsr_device_alloc(parts->dev, runner->host_ints * sizeof(*runner->inputs));
    if (runner->host == NULL || runner->row == NULL || runner->inputs == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for steps of %d rows and %d sequences",
                      limits->max_rows, limits->max_seqs);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, tsr_decoder_create(&runner->decoder, parts));
    TSR_TRY_GOTO(st, fail, tsr_replays_create(&runner->replays, runner->decoder, parts));
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
    tsr_replays_destroy(runner->replays);
    tsr_decoder_destroy(runner->decoder);
    tsr_runner_find_clear(runner);
    tsr_device_free(runner->parts.dev, runner->inputs, runner->host_ints * sizeof(*runner->inputs));
    tsr_free(runner->row);
    tsr_free(runner->host);
    tsr_free(runner);
}

/* Blocks that became free go first: a block may be dropped and given out again in the same step. */
static tsr_status apply_changes(tsr_runner *runner, const tsr_step *step)
{
    const tsr_kv_visit visit = {
        .block_tokens = runner->limits.block_tokens,
        .n_seqs = step->n_seqs,
        .lanes = step->lanes,
        .first_pos = step->first_pos,
        .row_start = step->row_start,
        .waits = step->waits != 0,
    };

    for (int i = 0; i < step->n_dropped; i++) {
        TSR_TRY(tsr_kv_store_drop(runner->store, step->dropped[i]));
    }
    for (int i = 0; i < step->n_left; i++) {
        TSR_TRY(tsr_kv_store_leave(runner->store, step->left[i]));
    }
    for (int i = 0; i < step->n_appended; i++) {
        TSR_TRY(tsr_kv_store_append(runner->store, step->append_lane[i], step->append_index[i],
                                    step->append_block[i]));
    }
    for (int i = 0; i < step->n_copied; i++) {
        TSR_TRY(tsr_kv_store_copy(runner->store, step->copy_from[i], step->copy_to[i]));
    }
    return tsr_kv_store_visit(runner->store, &visit);
}

/* Copies n ints behind *used on the host, fills them up to n_all, and gives their window on the
 * device. */
static tsr_tensor put_all(tsr_runner *runner, size_t *used, const void *ints, int n, int n_all,
                          int32_t filling)
{
    int32_t *at = runner->host + *used;
    const size_t first = *used;

    if (n > 0) {
        memcpy(at, ints, (size_t)n * sizeof(int32_t));
    }
    for (int i = n; i < n_all; i++) {
        at[i] = filling;
    }
    *used += (size_t)n_all;
    return tsr_tensor_of(runner->inputs + first, TSR_DTYPE_I32,
                         tsr_device_kind_of(runner->parts.dev), 1, n_all);
}

static tsr_tensor put(tsr_runner *runner, size_t *used, const void *ints, int n)
{
    return put_all(runner, used, ints, n, n, 0);
}

static tsr_status load_inputs(tsr_runner *runner, const tsr_step *step, tsr_runner_inputs *in)
{
    const bool are_single = step->n_rows == step->n_seqs; // then rows of nobody may stand behind
    const int n_rows = are_single ? tsr_replays_rows(runner->replays, step->n_rows) : step->n_rows;
    const int n_seqs = are_single ? n_rows : step->n_seqs;
    int32_t *positions;
    size_t used = 0;

    in->tokens = put_all(runner, &used, step->tokens, step->n_rows, n_rows, 0);
    positions = runner->host + used;
    in->positions = put_all(runner, &used, NULL, 0, n_rows, 0);
    in->batch = (tsr_batch){0};
    for (int s = 0; s < step->n_seqs; s++) {
        const int n = step->row_start[s + 1] - step->row_start[s];

        for (int r = 0; r < n; r++) {
            positions[step->row_start[s] + r] = step->first_pos[s] + r;
        }
        if (step->first_pos[s] + n > in->batch.longest) {
            in->batch.longest = step->first_pos[s] + n;
        }
        if (n > in->batch.most_rows) {
            in->batch.most_rows = n;
        }
    }
    in->batch.n_seqs = n_seqs;
    in->batch.row_start =
        put_all(runner, &used, step->row_start, step->n_seqs + 1, n_seqs + 1, step->n_rows);
    in->batch.first_pos = put_all(runner, &used, step->first_pos, step->n_seqs, n_seqs, 0);
    in->batch.lanes = put_all(runner, &used, step->lanes, step->n_seqs, n_seqs, 0);
    in->wanted = put(runner, &used, step->wanted, step->n_wanted);
    in->sharpness = put(runner, &used, step->sharpness, step->n_wanted);
    in->sharpness.dtype = TSR_DTYPE_F32;
    if (step->n_raw > 0) {
        float ones[TSR_DECODER_HEAD_ROWS];

        for (int i = 0; i < TSR_DECODER_HEAD_ROWS; i++) {
            ones[i] = 1.0F;
        }
        in->ones = put(runner, &used, ones, TSR_DECODER_HEAD_ROWS);
        in->ones.dtype = TSR_DTYPE_F32;
    }
    return tsr_device_upload(runner->parts.dev, runner->inputs, runner->host,
                             used * sizeof(int32_t));
}

tsr_status tsr_runner_start(tsr_runner *runner, const tsr_step *step)
{
    const tsr_runner_inputs *in = &runner->in;

    TSR_TRY(apply_changes(runner, step));
    TSR_TRY(tsr_runner_find_room(runner, step, &runner->findings));
    if (tsr_kv_store_tiers(runner->store) != NULL) {
        tsr_memory_report_write(&runner->said, runner->words + runner->findings.report_at,
                                tsr_kv_store_tiers(runner->store));
    }
    if (step->n_rows == 0) {
        return TSR_OK;
    }
    runner->in.spans = (tsr_decoder_spans){step->n_seqs, step->row_start, step->first_pos,
                                           step->lanes, step->is_long};
    TSR_TRY(tsr_decoder_look(runner->decoder, &in->spans));
    TSR_TRY(load_inputs(runner, step, &runner->in));
    return tsr_replays_forward(runner->replays, in->tokens, in->positions, &in->batch, &in->spans);
}

tsr_status tsr_runner_finish(tsr_runner *runner, const tsr_step *step, tsr_findings *findings)
{
    *findings = runner->findings;
    if (step->n_rows == 0) {
        return TSR_OK;
    }
    TSR_TRY(tsr_runner_find(runner, step, findings));
    return tsr_device_sync(runner->parts.dev);
}

tsr_status tsr_runner_row(tsr_runner *runner, int i, const float **logits)
{
    const int kept = i - runner->first_kept;
    tsr_tensor row = runner->logits;

    if (kept >= 0 && kept < runner->logits.n_rows) {
        row.data = (float *)row.data + kept * row.stride;
    } else {
        runner->logits.n_rows = 0; // this takes their place
        TSR_TRY(
            tsr_decoder_logits(runner->decoder, &row, tsr_runner_columns(runner->in.wanted, i, 1)));
    }
    TSR_TRY(tsr_device_download(runner->parts.dev, runner->row, row.data,
                                (size_t)row.n_cols * sizeof(float)));
    *logits = runner->row;
    return TSR_OK;
}

tsr_status tsr_runner_hidden(tsr_runner *runner, float *hidden, int first, int n)
{
    tsr_tensor rows;

    TSR_TRY(tsr_decoder_hidden(runner->decoder, &rows, first, n));
    return tsr_device_download(runner->parts.dev, hidden, rows.data,
                               (size_t)(rows.n_rows * rows.n_cols) * sizeof(float));
}
