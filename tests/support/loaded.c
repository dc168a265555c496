#include "tests/support/loaded.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

enum {
    MOST_COLS = 2048
};

void loaded_close(loaded *l)
{
    tsr_weights_clear(&l->weights);
    tsr_config_clear(&l->config);
    tsr_checkpoint_close(l->checkpoint);
    *l = (loaded){0};
}

tsr_status loaded_open(loaded *l, tsr_device *dev, const char *path, int rank, int n_ranks)
{
    tsr_status st = tsr_checkpoint_open(&l->checkpoint, path);

    if (st == TSR_OK) {
        st = tsr_config_read(&l->config, l->checkpoint);
    }
    if (st == TSR_OK) {
        l->shard = tsr_shard_of(&l->config.shape, rank, n_ranks);
        st = tsr_weights_load(&l->weights, dev, l->checkpoint, &l->config, &l->shard,
                              TSR_FORMAT_COUNT);
    }
    if (st != TSR_OK) {
        loaded_close(l);
    }
    return st;
}

/* 1 if a is packed. */
static int compare(const tsr_linear *a, const tsr_linear *b)
{
    static float of_a[MOST_COLS];
    static float of_b[MOST_COLS];
    const tsr_weight *w = &a->weight;

    assert_int_equal(w->n_rows, b->weight.n_rows);
    assert_int_equal(w->n_cols, b->weight.n_cols);
    assert_true(w->n_cols <= MOST_COLS);
    for (int64_t r = 0; w->n_cols > 0 && r < w->n_rows; r++) {
        tsr_weight_unpack_row(w, r, of_a);
        tsr_weight_unpack_row(&b->weight, r, of_b);
        for (int64_t c = 0; c < w->n_cols; c++) {
            assert_true(of_a[c] == of_b[c]);
        }
    }
    return w->format == TSR_FORMAT_Q8_WIDE || w->format == TSR_FORMAT_Q8_MIXED ||
           w->format == TSR_FORMAT_FP4;
}

static int compare_list(const tsr_linear *a, const tsr_linear *b, int64_t n)
{
    int n_packed = 0;

    for (int64_t i = 0; a != NULL && i < n; i++) {
        n_packed += compare(&a[i], &b[i]);
    }
    return n_packed;
}

int loaded_compare(const loaded *of_a, const loaded *of_b, int layer)
{
    const tsr_layer_weights *a = &of_a->weights.layers[layer];
    const tsr_layer_weights *b = &of_b->weights.layers[layer];
    const int64_t n_heads = of_a->shard.heads.count;
    const int64_t n_experts = of_a->shard.experts.count;
    const tsr_linear *const ones[][2] = {
        {&a->q, &b->q},
        {&a->k, &b->k},
        {&a->v, &b->v},
        {&a->o, &b->o},
        {&a->q_low, &b->q_low},
        {&a->kv_low, &b->kv_low},
        {&a->gate, &b->gate},
        {&a->up, &b->up},
        {&a->down, &b->down},
        {&a->shared_gate, &b->shared_gate},
        {&a->shared_up, &b->shared_up},
        {&a->shared_down, &b->shared_down},
    };
    int n_packed = 0;

    for (size_t i = 0; i < sizeof(ones) / sizeof(ones[0]); i++) {
        n_packed += compare(ones[i][0], ones[i][1]);
    }
    n_packed += compare_list(a->k_up, b->k_up, n_heads);
    n_packed += compare_list(a->v_up, b->v_up, n_heads);
    n_packed += compare_list(a->expert_gate, b->expert_gate, n_experts);
    n_packed += compare_list(a->expert_up, b->expert_up, n_experts);
    return n_packed + compare_list(a->expert_down, b->expert_down, n_experts);
}
