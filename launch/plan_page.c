#include "launch/plan_page.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "launch/out.h"

enum {
    BAR_COLUMNS = 56,
    ADVICE_BYTES = 512,
    LABEL_BYTES = 32
};

/* ---- the table ---------------------------------------------------------------------------------
 */

static void print_row(const tsr_plan_page *page, const tsr_plan_row *row)
{
    const tsr_plan *p = &row->plan;
    const tsr_plan_share *s = &p->share;

    tsr_out_print("  %5d  %10s %10s %10s %11s  ", p->n_ranks, tsr_out_bytes(s->weight_bytes).text,
                  tsr_out_bytes(s->workspace_bytes).text, tsr_out_bytes(s->table_bytes).text,
                  tsr_out_bytes(s->kv_token_bytes).text);
    if (!p->fits) {
        tsr_out_print("does not fit: %s short\n", tsr_out_bytes(p->lacking_bytes).text);
        return;
    }
    tsr_out_print("%10s %16" PRId64 " %10" PRId64, tsr_out_bytes(s->kv_bytes).text,
                  p->longest_context, p->n_sequences);
    if (page->lower_bytes > 0) {
        tsr_out_print(" %10" PRId64, p->n_in_flight);
    }
    tsr_out_print("\n");
}

/* Layers that keep less than all, in the terms of the first row. */
static void print_windows(const tsr_plan_page *page)
{
    const tsr_plan *p = &page->rows[0].plan;
    const uint64_t whole = p->share.kv_token_bytes * (uint64_t)p->context;

    if (p->share.kv_sequence_bytes + p->share.kv_token_bytes * (uint64_t)p->block_tokens < whole) {
        tsr_out_print("  windows: on %d %s such a sequence holds %s, not %s: layers keep what they "
                      "see\n",
                      p->n_ranks, p->n_ranks == 1 ? "rank" : "ranks",
                      tsr_out_bytes(p->share.kv_sequence_bytes).text, tsr_out_bytes(whole).text);
    }
}

static void print_table(const tsr_plan_page *page)
{
    const tsr_plan *p = &page->rows[0].plan;

    tsr_out_print("what the busiest rank holds, and what that leaves for all\n");
    tsr_out_print("  %5s  %10s %10s %10s %11s  %10s %16s %10s%s\n", "ranks", "weights", "workspace",
                  "tables", "KV a token", "cache", "longest context", "sequences",
                  page->lower_bytes > 0 ? "  in flight" : "");
    for (int i = 0; i < page->n_rows; i++) {
        print_row(page, &page->rows[i]);
    }
    tsr_out_print(
        "\n  longest context: of one sequence that has the memory for itself; the model was "
        "made for %" PRId64 "\n",
        p->model_context);
    tsr_out_print("  sequences: of %" PRId64 " tokens each, in the cache at once\n", p->context);
    print_windows(page);
    if (page->lower_bytes > 0) {
        tsr_out_print(
            "  in flight: with %s a rank in the tiers below as well; those that the host's cannot "
            "hold either wait for their turn\n",
            tsr_out_bytes(page->lower_bytes).text);
    }
}

/* ---- the picture -------------------------------------------------------------------------------
 */

static int columns(uint64_t n_bytes, uint64_t all_bytes)
{
    return (int)((double)n_bytes / (double)all_bytes * BAR_COLUMNS + 0.5);
}

static void draw(int from, int to, char mark)
{
    for (int i = from; i < to && i < BAR_COLUMNS; i++) {
        tsr_out_print("%c", mark);
    }
}

/* One bar; ranks whose shares are equal share it. */
static void draw_rank(const tsr_plan_row *row, int first, int end)
{
    const tsr_plan_share *s = &row->shares[first];
    const uint64_t rest_bytes = s->workspace_bytes + s->table_bytes;
    const int weights = columns(s->weight_bytes, row->device_bytes);
    const int rest = columns(s->weight_bytes + rest_bytes, row->device_bytes);
    const int cache = columns(s->weight_bytes + rest_bytes + s->kv_bytes, row->device_bytes);
    char label[LABEL_BYTES];

    if (end - first == 1) {
        (void)snprintf(label, sizeof(label), "rank %d", first);
    } else {
        (void)snprintf(label, sizeof(label), "ranks %d-%d", first, end - 1);
    }
    tsr_out_print("  %-11s [", label);
    draw(0, weights, 'W');
    draw(weights, rest, 'x');
    draw(rest, cache, 'K');
    draw(cache, BAR_COLUMNS, '.');
    tsr_out_print("] %s%s\n", tsr_out_bytes(s->weight_bytes + rest_bytes + s->kv_bytes).text,
                  row->plan.busiest >= first && row->plan.busiest < end &&
                          end - first < row->plan.n_ranks
                      ? ", the busiest"
                      : "");
}

static bool alike(const tsr_plan_share *a, const tsr_plan_share *b)
{
    // The leader's own tables are the only difference between some; a bar cannot show it.
    return a->weight_bytes == b->weight_bytes && a->workspace_bytes == b->workspace_bytes &&
           a->kv_bytes == b->kv_bytes;
}

static void draw_ranks(const tsr_plan_row *row)
{
    const int n_ranks = row->plan.n_ranks;
    int first = 0;

    tsr_out_print("\n%d %s of %s each: W weights, x workspace and tables, K cache, . free\n",
                  n_ranks, n_ranks == 1 ? "rank" : "ranks", tsr_out_bytes(row->device_bytes).text);
    for (int rank = 1; rank <= n_ranks; rank++) {
        if (rank == n_ranks || !alike(&row->shares[rank], &row->shares[first])) {
            draw_rank(row, first, rank);
            first = rank;
        }
    }
}

/* ---- the advice --------------------------------------------------------------------------------
 */

static const char *ranks_hold(int n_ranks)
{
    return n_ranks == 1 ? "1 rank holds" : NULL;
}

static void write_advice(const tsr_plan_page *page, char *advice)
{
    const tsr_plan_row *last = &page->rows[page->n_rows - 1];
    const tsr_plan_row *best = page->best >= 0 ? &page->rows[page->best] : NULL;
    char who[LABEL_BYTES];
    int n;

    if (best == NULL && !last->plan.fits) {
        (void)snprintf(advice, ADVICE_BYTES,
                       "%d %s not enough: each lacks %s; weights of fewer bits, larger devices or "
                       "more ranks would do.",
                       last->plan.n_ranks, last->plan.n_ranks == 1 ? "rank is" : "ranks are",
                       tsr_out_bytes(last->plan.lacking_bytes).text);
        return;
    }
    if (best == NULL) {
        (void)snprintf(advice, ADVICE_BYTES,
                       "%d %s the weights, but one sequence only up to %" PRId64
                       " tokens: give --ctx %" PRId64 " or less.",
                       last->plan.n_ranks, last->plan.n_ranks == 1 ? "rank holds" : "ranks hold",
                       last->plan.longest_context, last->plan.longest_context);
        return;
    }
    (void)snprintf(who, sizeof(who), "%d ranks hold", best->plan.n_ranks);
    n = snprintf(advice, ADVICE_BYTES,
                 "%s %" PRId64 " %s of %" PRId64 " tokens, or one of %" PRId64,
                 ranks_hold(best->plan.n_ranks) != NULL ? ranks_hold(best->plan.n_ranks) : who,
                 best->plan.n_sequences, best->plan.n_sequences == 1 ? "sequence" : "sequences",
                 best->plan.context, best->plan.longest_context);
    if (page->lower_bytes > 0) {
        n += snprintf(advice + n, (size_t)(ADVICE_BYTES - n),
                      ", and %" PRId64 " in flight with the tiers below", best->plan.n_in_flight);
    }
    if (page->best + 1 < page->n_rows &&
        page->rows[page->best + 1].plan.n_sequences > best->plan.n_sequences) {
        const tsr_plan *next = &page->rows[page->best + 1].plan;

        n += snprintf(advice + n, (size_t)(ADVICE_BYTES - n), "; %d ranks hold %" PRId64,
                      next->n_ranks, next->n_sequences);
    }
    (void)snprintf(advice + n, (size_t)(ADVICE_BYTES - n), ".");
}

/* The line that makes the plan true. */
static void print_start(const tsr_plan_page *page)
{
    const tsr_plan *p = &page->rows[page->best].plan;

    tsr_out_print("  mpirun -n %d tessera generate --model ", p->n_ranks);
    tsr_out_words(page->model);
    tsr_out_print(" --ctx %" PRId64 " --kv-dtype %s --kv-memory %" PRIu64 "M\n", p->context,
                  page->kv_dtype, p->share.kv_bytes >> 20);
}

void tsr_plan_page_print(const tsr_plan_page *page)
{
    char advice[ADVICE_BYTES];

    tsr_out_words(page->title);
    tsr_out_print(", keys and values in %s, %s\n\n", page->kv_dtype, page->memory);
    print_table(page);
    if (page->best >= 0) {
        draw_ranks(&page->rows[page->best]);
    }
    write_advice(page, advice);
    tsr_out_print("\n%s\n", advice);
    if (page->best >= 0 && page->model != NULL &&
        page->rows[page->best].plan.share.kv_bytes >> 20) {
        print_start(page);
    }
}

/* ---- JSON --------------------------------------------------------------------------------------
 */

static json_t *share_json(const tsr_plan_share *s)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "weight_bytes",
                     (json_int_t)s->weight_bytes, "workspace_bytes", (json_int_t)s->workspace_bytes,
                     "table_bytes", (json_int_t)s->table_bytes, "kv_bytes_per_token",
                     (json_int_t)s->kv_token_bytes, "kv_bytes_per_sequence",
                     (json_int_t)s->kv_sequence_bytes, "kv_bytes", (json_int_t)s->kv_bytes,
                     "kv_host_bytes", (json_int_t)s->host_bytes);
}

static json_t *row_json(const tsr_plan_row *row)
{
    const tsr_plan *p = &row->plan;
    json_t *shares = json_array();

    for (int rank = 0; shares != NULL && rank < p->n_ranks; rank++) {
        if (json_array_append_new(shares, share_json(&row->shares[rank])) != 0) {
            json_decref(shares);
            return NULL;
        }
    }
    return json_pack("{s:i, s:b, s:I, s:I, s:i, s:I, s:i, s:I, s:I, s:I, s:o}", "ranks", p->n_ranks,
                     "fits", (int)p->fits, "lacking_bytes", (json_int_t)p->lacking_bytes,
                     "device_bytes", (json_int_t)row->device_bytes, "busiest", p->busiest, "blocks",
                     (json_int_t)p->n_blocks, "block_tokens", p->block_tokens, "longest_context",
                     (json_int_t)p->longest_context, "sequences", (json_int_t)p->n_sequences,
                     "in_flight", (json_int_t)p->n_in_flight, "rank", shares);
}

json_t *tsr_plan_page_json(const tsr_plan_page *page)
{
    const tsr_plan *p = &page->rows[0].plan;
    json_t *rows = json_array();
    char advice[ADVICE_BYTES];

    for (int i = 0; rows != NULL && i < page->n_rows; i++) {
        if (json_array_append_new(rows, row_json(&page->rows[i])) != 0) {
            json_decref(rows);
            return NULL;
        }
    }
    write_advice(page, advice);
    return json_pack("{s:o, s:s, s:I, s:I, s:I, s:o, s:s}", "model",
                     tsr_out_json_text(page->title, strlen(page->title)), "kv_dtype",
                     page->kv_dtype, "context", (json_int_t)p->context, "model_context",
                     (json_int_t)p->model_context, "lower_bytes", (json_int_t)page->lower_bytes,
                     "plans", rows, "advice", advice);
}
