#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/runner_state.h"

enum {
    CHANGE_WORDS = 5 // of each changed logit
};

static size_t row_words(const tsr_runner *runner, int n_best)
{
    return 2 * (size_t)n_best + 1 + 2 * (size_t)runner->n_units;
}

static void free_found(tsr_runner *runner)
{
    if (runner->found != runner->words) {
        tsr_device_free(runner->parts.dev, runner->found,
                        runner->words_capacity * sizeof(*runner->found));
    }
    tsr_free(runner->fetched);
    runner->found = NULL;
    runner->fetched = NULL;
}

void tsr_runner_find_clear(tsr_runner *runner)
{
    free_found(runner);
    tsr_free(runner->words);
    tsr_free(runner->changes_host);
    tsr_device_free(runner->parts.dev, runner->changes,
                    CHANGE_WORDS * (size_t)runner->changes_room * sizeof(*runner->changes));
}

/* Room on a device whose memory is not the host's. */
static tsr_status grow_found(tsr_runner *runner, size_t n_words)
{
    tsr_device *dev = runner->parts.dev;

    if (tsr_device_is_host(dev)) {
        runner->found = runner->words;
        return TSR_OK;
    }
    free_found(runner);
    runner->found = tsr_device_alloc(dev, n_words * sizeof(*runner->found));
    runner->fetched = tsr_alloc(n_words, sizeof(*runner->fetched));
    if (runner->found == NULL || runner->fetched == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %zu words of candidates", n_words);
    }
    return TSR_OK;
}

/* Fetch n rows of findings, each of row_words words, of which the ids and values of n_best
 * candidates and the masses from word masses_at on were found. */
static tsr_status fetch_found(tsr_runner *runner, size_t first_word, int n, size_t n_row_words,
                              int n_best, size_t masses_at)
{
    const size_t word = sizeof(*runner->words);

    if (tsr_device_is_host(runner->parts.dev)) {
        return TSR_OK;
    }
    TSR_TRY(tsr_device_download(runner->parts.dev, runner->fetched, runner->found + first_word,
                                (size_t)n * n_row_words * word));
    for (int i = 0; i < n; i++) {
        const int32_t *from = runner->fetched + (size_t)i * n_row_words;
        int32_t *to = runner->words + first_word + (size_t)i * n_row_words;

        memcpy(to, from, 2 * (size_t)n_best * word);
        memcpy(to + masses_at, from + masses_at, 2 * (size_t)runner->own_units * word);
    }
    return TSR_OK;
}

tsr_status tsr_runner_find_room(tsr_runner *runner, const tsr_step *step, tsr_findings *findings)
{
    findings->n_best = step->n_best;
    findings->n_units = runner->n_units;
    findings->row_words = row_words(runner, step->n_best);
    findings->n_raw_best = step->n_raw_best;
    findings->raw_at = findings->row_words * (size_t)step->n_wanted;
    findings->raw_words =
        2 * (size_t)step->n_raw_best + (size_t)step->n_best + 2 * (size_t)runner->n_units;
    findings->report_at = findings->raw_at + findings->raw_words * (size_t)step->n_raw;
    findings->n_words =
        findings->report_at +
        (tsr_kv_store_tiers(runner->store) != NULL ? (size_t)TSR_MEMORY_REPORT_WORDS : 0);
    // Grows to the largest step that is met and stays: in the long run no step allocates.
    if (findings->n_words > runner->words_capacity) {
        int32_t *grown = tsr_alloc_resize(runner->words, findings->n_words, sizeof(*grown));

        if (grown == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for the candidates of %d rows",
                            step->n_wanted);
        }
        runner->words = grown;
        TSR_TRY(grow_found(runner, findings->n_words));
        runner->words_capacity = findings->n_words;
    }
    findings->words = runner->words;
    return TSR_OK;
}

/* Some wanted rows whose logits exist, and which of the step's lists are about them. */
typedef struct chunk {
    int first; // number of the first wanted row
    int n;
    tsr_tensor logits; // f32 [n, own vocabulary]
    int raw, raw_end;  // of step->raw
    int adjusted, adjusted_end;
    int n_changes; // of own logits
} chunk;

/* Masses that units of other ranks would take: nothing. */
static void fill_masses(const tsr_runner *runner, float *masses)
{
    for (int u = runner->own_units; u < runner->n_units; u++) {
        masses[2 * u] = -INFINITY;
        masses[2 * u + 1] = 0;
    }
}

static tsr_status find_targets(tsr_runner *runner, const tsr_step *step, const tsr_findings *f,
                               const chunk *c)
{
    const tsr_range vocab = runner->parts.shard->vocab;

    for (int i = 0; i < c->n; i++) {
        const int64_t target = step->targets[c->first + i] - vocab.first;
        float *row = (float *)(void *)(runner->words + (size_t)(c->first + i) * f->row_words);

        row[2 * f->n_best] = -INFINITY;
        if (step->targets[c->first + i] >= 0 && target >= 0 && target < vocab.count) {
            TSR_TRY(tsr_device_download(
                runner->parts.dev, &row[2 * f->n_best],
                (const float *)c->logits.data + i * c->logits.stride + target, sizeof(float)));
        }
    }
    return TSR_OK;
}

/* The first look at those rows that are looked at twice: neighbours together. */
static tsr_status find_raw(tsr_runner *runner, const tsr_step *step, const tsr_runner_inputs *in,
                           const tsr_findings *f, const chunk *c)
{
    const tsr_device_kind kind = tsr_device_kind_of(runner->parts.dev);
    const int64_t stride = (int64_t)f->raw_words;
    int n;

    for (int r = c->raw; r < c->raw_end; r += n) {
        const size_t at = f->raw_at + (size_t)r * f->raw_words;
        int32_t *words = runner->found + at;
        tsr_tensor logits = c->logits;
        tsr_tensor ids, values, masses;

        for (n = 1; r + n < c->raw_end && step->raw[r + n] == step->raw[r] + n; n++) {
        }
        logits.data = (float *)logits.data + (step->raw[r] - c->first) * logits.stride;
        logits.n_rows = n;
        ids = (tsr_tensor){words, TSR_DTYPE_I32, kind, n, f->n_raw_best, stride};
        values = (tsr_tensor){words + f->n_raw_best, TSR_DTYPE_F32, kind, n, f->n_raw_best, stride};
        masses = (tsr_tensor){words + 2 * f->n_raw_best + f->n_best, TSR_DTYPE_F32, kind, n,
                              2 * (int64_t)runner->own_units,        stride};
        TSR_TRY(tsr_top_k(runner->parts.dev, ids, values, masses, logits,
                          tsr_runner_columns(in->ones, 0, n), runner->parts.shard->vocab.first,
                          runner->unit_cols));
        TSR_TRY(fetch_found(runner, at, n, f->raw_words, f->n_raw_best,
                            2 * (size_t)f->n_raw_best + (size_t)f->n_best));
    }
    return TSR_OK;
}

/* The entries [*first, *end) of a changed row that are about this rank's part of the vocabulary. */
static void own_entries(const tsr_runner *runner, const tsr_step *step, int adjusted, int *first,
                        int *end)
{
    const tsr_range vocab = runner->parts.shard->vocab;
    const int64_t edges[] = {vocab.first, vocab.first + vocab.count};
    int found[2];

    for (int edge = 0; edge < 2; edge++) {
        int low = step->adjust_start[adjusted];
        int high = step->adjust_start[adjusted + 1];

        while (low < high) {
            const int middle = low + (high - low) / 2;

            if (step->entry_ids[middle] < edges[edge]) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        found[edge] = low;
    }
    *first = found[0];
    *end = found[1];
}

static tsr_status make_changes_room(tsr_runner *runner, int n)
{
    tsr_device *dev = runner->parts.dev;
    const size_t n_ints = CHANGE_WORDS * (size_t)n;

    if (n <= runner->changes_room) {
        return TSR_OK;
    }
    tsr_free(runner->changes_host);
    tsr_device_free(dev, runner->changes,
                    CHANGE_WORDS * (size_t)runner->changes_room * sizeof(*runner->changes));
    runner->changes_room = n;
    runner->changes_host = tsr_alloc(n_ints, sizeof(*runner->changes_host));
    runner->changes = tsr_device_alloc(dev, n_ints * sizeof(*runner->changes));
    if (runner->changes_host == NULL || runner->changes == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to change %d logits", n);
    }
    return TSR_OK;
}

/* Part `which` of the changes on the device. */
static tsr_tensor changes_part(const tsr_runner *runner, const chunk *c, int which, tsr_dtype dtype)
{
    return tsr_tensor_of(runner->changes + which * c->n_changes, dtype,
                         tsr_device_kind_of(runner->parts.dev), 1, c->n_changes);
}

/* The changes to own logits of the chunk are made; what those were comes back to the host. */
static tsr_status adjust(tsr_runner *runner, const tsr_step *step, chunk *c)
{
    const size_t word = sizeof(int32_t);
    tsr_device *dev = runner->parts.dev;
    int first, end;
    int at = 0;
    size_t n;

    c->n_changes = 0;
    for (int a = c->adjusted; a < c->adjusted_end; a++) {
        own_entries(runner, step, a, &first, &end);
        c->n_changes += end - first;
    }
    if (c->n_changes == 0) {
        return TSR_OK;
    }
    n = (size_t)c->n_changes;
    TSR_TRY(make_changes_room(runner, 2 * c->n_changes));
    for (int a = c->adjusted; a < c->adjusted_end; a++) {
        own_entries(runner, step, a, &first, &end);
        for (int i = first; i < end; i++, at++) {
            runner->changes_host[at] = step->adjusted[a] - c->first;
            runner->changes_host[n + (size_t)at] = step->entry_ids[i];
            memcpy(&runner->changes_host[2 * n + (size_t)at], &step->entry_factors[i], word);
            memcpy(&runner->changes_host[3 * n + (size_t)at], &step->entry_adds[i], word);
        }
    }
    TSR_TRY(tsr_device_upload(dev, runner->changes, runner->changes_host, 4 * n * word));
    TSR_TRY(tsr_adjust_logits(
        dev, c->logits, changes_part(runner, c, 4, TSR_DTYPE_F32),
        changes_part(runner, c, 0, TSR_DTYPE_I32), changes_part(runner, c, 1, TSR_DTYPE_I32),
        changes_part(runner, c, 2, TSR_DTYPE_F32), changes_part(runner, c, 3, TSR_DTYPE_F32),
        runner->parts.shard->vocab.first));
    return c->raw < c->raw_end ? tsr_device_download(dev, runner->changes_host + 4 * n,
                                                     runner->changes + 4 * n, n * word)
                               : TSR_OK;
}

/* What the logit of a candidate of a wanted row was before it was changed, if it was. */
static int32_t logit_before(const tsr_runner *runner, const chunk *c, int row, int32_t id,
                            int32_t now)
{
    const int32_t *rows = runner->changes_host;
    const int32_t *ids = rows + c->n_changes;
    int low = 0;
    int high = c->n_changes;

    while (low < high) {
        const int middle = low + (high - low) / 2;

        if (rows[middle] < row || (rows[middle] == row && ids[middle] < id)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < c->n_changes && rows[low] == row && ids[low] == id ? rows[4 * c->n_changes + low]
                                                                    : now;
}

/* The candidates of rows that are looked at twice get the logits that they had at first. */
static void trace_back(tsr_runner *runner, const tsr_step *step, const tsr_findings *f,
                       const chunk *c)
{
    for (int r = c->raw; r < c->raw_end; r++) {
        const int32_t *found = runner->words + (size_t)step->raw[r] * f->row_words;
        int32_t *words = runner->words + f->raw_at + (size_t)r * f->raw_words;

        for (int k = 0; k < f->n_best; k++) {
            words[2 * f->n_raw_best + k] =
                logit_before(runner, c, step->raw[r] - c->first, found[k], found[f->n_best + k]);
        }
        fill_masses(runner, (float *)(void *)(words + 2 * f->n_raw_best + f->n_best));
    }
}

/* The part of a rising list that lies below `end`, from *from on. */
static int end_below(const int32_t *list, int from, int n, int end)
{
    while (from < n && list[from] < end) {
        from++;
    }
    return from;
}

/* All that is to be found of the chunk's rows; c->raw_end and c->adjusted_end are then where the
 * next chunk begins. */
static tsr_status find_best(tsr_runner *runner, const tsr_step *step, const tsr_runner_inputs *in,
                            const tsr_findings *f, chunk *c)
{
    const tsr_device_kind kind = tsr_device_kind_of(runner->parts.dev);
    const size_t at = (size_t)c->first * f->row_words;
    int32_t *words = runner->found + at;
    const int64_t stride = (int64_t)f->row_words;
    const tsr_tensor ids = {words, TSR_DTYPE_I32, kind, c->n, f->n_best, stride};
    const tsr_tensor values = {words + f->n_best, TSR_DTYPE_F32, kind, c->n, f->n_best, stride};
    const tsr_tensor masses = {words + 2 * f->n_best + 1,      TSR_DTYPE_F32, kind, c->n,
                               2 * (int64_t)runner->own_units, stride};

    c->raw_end = end_below(step->raw, c->raw, step->n_raw, c->first + c->n);
    c->adjusted_end = end_below(step->adjusted, c->adjusted, step->n_adjusted, c->first + c->n);
    TSR_TRY(tsr_decoder_logits(runner->decoder, &c->logits,
                               tsr_runner_columns(in->wanted, c->first, c->n)));
    TSR_TRY(find_targets(runner, step, f, c));
    TSR_TRY(find_raw(runner, step, in, f, c));
    TSR_TRY(adjust(runner, step, c));
    TSR_TRY(tsr_top_k(runner->parts.dev, ids, values, masses, c->logits,
                      tsr_runner_columns(in->sharpness, c->first, c->n),
                      runner->parts.shard->vocab.first, runner->unit_cols));
    TSR_TRY(fetch_found(runner, at, c->n, f->row_words, f->n_best, 2 * (size_t)f->n_best + 1));
    trace_back(runner, step, f, c);
    for (int i = 0; i < c->n; i++) {
        fill_masses(runner, (float *)(void *)(runner->words + at + (size_t)i * f->row_words +
                                              2 * (size_t)f->n_best + 1));
    }
    return TSR_OK;
}

tsr_status tsr_runner_find(tsr_runner *runner, const tsr_step *step, const tsr_findings *findings)
{
    chunk c = {0};

    for (; c.first < step->n_wanted; c.first += c.n) {
        const int left = step->n_wanted - c.first;

        c.n = left < TSR_DECODER_HEAD_ROWS ? left : TSR_DECODER_HEAD_ROWS;
        c.raw = c.raw_end;
        c.adjusted = c.adjusted_end;
        TSR_TRY(find_best(runner, step, &runner->in, findings, &c));
        runner->first_kept = c.first;
        runner->logits = tsr_tensor_rows(c.logits, c.adjusted == c.adjusted_end ? c.n : 0);
    }
    return TSR_OK;
}
