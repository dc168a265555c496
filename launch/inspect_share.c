#include "launch/inspect_share.h"

#include <inttypes.h>
#include <stdio.h>

#include "launch/out.h"

enum {
    MOST_HEADS = 64 /* that a picture is drawn of */
};

typedef struct words {
    char text[48];
} words;

/* "0-4", "7", "none" */
static words run_words(int64_t first, int64_t n)
{
    words w;

    if (n <= 0) {
        (void)snprintf(w.text, sizeof(w.text), "none");
    } else if (n == 1) {
        (void)snprintf(w.text, sizeof(w.text), "%" PRId64, first);
    } else {
        (void)snprintf(w.text, sizeof(w.text), "%" PRId64 "-%" PRId64, first, first + n - 1);
    }
    return w;
}

/* A cell a head, '#' where it is the rank's; a bar between heads that read different KV heads. */
static void draw_heads(const tsr_model_share *share, int n_heads, int n_kv_heads)
{
    const int readers = n_heads / n_kv_heads;

    for (int head = 0; head < n_heads; head++) {
        const bool owned = head >= share->first_head && head < share->first_head + share->n_heads;

        if (head % readers == 0) {
            tsr_out_print("|");
        }
        tsr_out_print(owned ? "#" : ".");
    }
    tsr_out_print("|\n");
}

void tsr_inspect_share_print(const tsr_model_share *shares, int n_ranks, int n_heads,
                             int n_kv_heads)
{
    tsr_out_print("\nwhat each of %d ranks would own\n", n_ranks);
    tsr_out_print("  %4s  %-9s %-9s %-15s %-17s %10s %13s\n", "rank", "heads", "KV heads",
                  "feed-forward", "vocabulary", "weights", "KV a token");
    for (int r = 0; r < n_ranks; r++) {
        const tsr_model_share *s = &shares[r];

        tsr_out_print(
            "  %4d  %-9s %-9s %-15s %-17s %10s %13s\n", r,
            run_words(s->first_head, s->n_heads).text,
            run_words(s->first_kv_head, s->n_kv_heads).text, run_words(s->first_ff, s->n_ff).text,
            run_words(s->first_vocab, s->n_vocab).text, tsr_out_bytes(s->weight_bytes).text,
            tsr_out_bytes(s->kv_bytes_per_token).text);
    }
    if (n_heads > MOST_HEADS || n_kv_heads < 1) {
        return;
    }
    tsr_out_print("\n  heads, between bars those that read one KV head\n");
    for (int r = 0; r < n_ranks; r++) {
        tsr_out_print("  %4d  ", r);
        draw_heads(&shares[r], n_heads, n_kv_heads);
    }
}

json_t *tsr_inspect_share_json(const tsr_model_share *shares, int n_ranks)
{
    json_t *array = json_array();

    for (int r = 0; array != NULL && r < n_ranks; r++) {
        const tsr_model_share *s = &shares[r];
        json_t *rank = json_pack(
            "{s:i, s:[II], s:[II], s:[II], s:[II], s:I, s:I}", "rank", r, "heads",
            (json_int_t)s->first_head, (json_int_t)(s->first_head + s->n_heads), "kv_heads",
            (json_int_t)s->first_kv_head, (json_int_t)(s->first_kv_head + s->n_kv_heads), "ff",
            (json_int_t)s->first_ff, (json_int_t)(s->first_ff + s->n_ff), "vocabulary",
            (json_int_t)s->first_vocab, (json_int_t)(s->first_vocab + s->n_vocab), "weight_bytes",
            (json_int_t)s->weight_bytes, "kv_bytes_per_token", (json_int_t)s->kv_bytes_per_token);

        if (json_array_append_new(array, rank) != 0) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}
