#include "tests/support/device.h"

#include <math.h>

/*
 * What kernels/ops.c refuses: for every op a call that is right, and the same with one thing wrong.
 * A refused call writes nothing.
 */

static const tsr_ops_limits limits = {16, 64, 4, 16, 64, 4, 0};

/* All operands of all ops, right as they are; a case spoils one of them. */
typedef struct operands {
    tsr_device *dev;
    tsr_tensor x, out, sums, vector, ids, angles, positions, frequencies;
    tsr_tensor k, v, q, attended;
    tsr_tensor before, entry_rows, entry_ids, factors, adds;
    tsr_tensor best_ids, best_values, masses, logits, sharpness, rows;
    tsr_weight weight;
    tsr_product product;
    int n_products;
    tsr_activations activations;
    tsr_kv_layout layout;
    tsr_kv_view kv;
    tsr_batch batch;
    tsr_attention_shape shape;
    int head_dim;
    tsr_rope_pairs pairs;
    int64_t first_id;
    int64_t unit_cols;
} operands;

enum {
    ROWS = 3,
    COLS = 32,
    HEAD_DIM = 16,
    N_HEADS = 4,
    N_KV_HEADS = 2,
    N_BLOCKS = 2,
    VOCABULARY = 50
};

/* A whole window of zeros. */
static tsr_tensor zeros(tsr_dtype dtype, int64_t n_rows, int64_t n_cols)
{
    void *memory = tsr_alloc((size_t)(n_rows * n_cols), tsr_dtype_bytes(dtype));

    assert_non_null(memory);
    return tsr_tensor_of(memory, dtype, TSR_DEVICE_CPU, n_rows, n_cols);
}

static void make_operands(operands *o)
{
    static float tiles[2 * 512]; // [32, 32] in F32 tiles

    memset(o, 0, sizeof(*o));
    o->dev = open_device(2, &limits);
    o->x = zeros(TSR_DTYPE_F32, ROWS, COLS);
    o->out = zeros(TSR_DTYPE_F32, ROWS, COLS);
    o->sums = zeros(TSR_DTYPE_F64, ROWS, COLS);
    o->vector = zeros(TSR_DTYPE_F32, 1, COLS);
    o->ids = zeros(TSR_DTYPE_I32, 1, ROWS);
    o->rows = zeros(TSR_DTYPE_I32, 1, ROWS);
    o->angles = zeros(TSR_DTYPE_F32, ROWS, 8);
    o->positions = zeros(TSR_DTYPE_I32, 1, ROWS);
    o->frequencies = zeros(TSR_DTYPE_F64, 1, 4);
    o->k = zeros(TSR_DTYPE_F32, ROWS, N_KV_HEADS * HEAD_DIM);
    o->v = zeros(TSR_DTYPE_F32, ROWS, N_KV_HEADS * HEAD_DIM);
    o->q = zeros(TSR_DTYPE_F32, ROWS, N_HEADS * HEAD_DIM);
    o->attended = zeros(TSR_DTYPE_F32, ROWS, N_HEADS * HEAD_DIM);
    o->best_ids = zeros(TSR_DTYPE_I32, ROWS, 5);
    o->best_values = zeros(TSR_DTYPE_F32, ROWS, 5);
    o->masses = zeros(TSR_DTYPE_F32, ROWS, 2 * 4);
    o->logits = zeros(TSR_DTYPE_F32, ROWS, VOCABULARY);
    o->sharpness = zeros(TSR_DTYPE_F32, 1, ROWS);
    o->before = zeros(TSR_DTYPE_F32, 1, 2);
    o->entry_rows = zeros(TSR_DTYPE_I32, 1, 2);
    o->entry_ids = zeros(TSR_DTYPE_I32, 1, 2);
    i32_row(o->entry_ids, 0)[1] = VOCABULARY - 1;
    o->factors = zeros(TSR_DTYPE_F32, 1, 2);
    o->adds = zeros(TSR_DTYPE_F32, 1, 2);
    o->weight =
        (tsr_weight){.format = TSR_FORMAT_F32, .n_rows = COLS, .n_cols = COLS, .tiles = tiles};
    o->product = (tsr_product){&o->weight, o->out, o->vector};
    o->n_products = 1;
    o->activations = TSR_ACTIVATIONS_F32;
    o->layout =
        (tsr_kv_layout){2, N_KV_HEADS, HEAD_DIM, HEAD_DIM, 16, TSR_KV_TYPE_F16, false, false};
    o->kv = (tsr_kv_view){NULL, NULL, tsr_kv_layout_block_bytes(&o->layout), &o->layout, 1, NULL};
    o->kv.pool = tsr_alloc(N_BLOCKS, o->kv.block_bytes);
    assert_non_null(o->kv.pool);
    o->batch = (tsr_batch){.n_seqs = 1,
                           .row_start = zeros(TSR_DTYPE_I32, 1, 2),
                           .first_pos = zeros(TSR_DTYPE_I32, 1, 1),
                           .lanes = zeros(TSR_DTYPE_I32, 1, 1),
                           .tables = zeros(TSR_DTYPE_I32, 1, N_BLOCKS),
                           .longest = ROWS};
    i32_row(o->batch.row_start, 0)[1] = ROWS;
    o->shape = (tsr_attention_shape){.n_heads = N_HEADS, .group = 2, .scale = 0.25F};
    o->head_dim = HEAD_DIM;
    o->unit_cols = 16;
}

static void clear_operands(operands *o)
{
    void *const all[] = {o->x.data,
                         o->out.data,
                         o->sums.data,
                         o->vector.data,
                         o->ids.data,
                         o->rows.data,
                         o->angles.data,
                         o->positions.data,
                         o->frequencies.data,
                         o->k.data,
                         o->v.data,
                         o->q.data,
                         o->attended.data,
                         o->best_ids.data,
                         o->best_values.data,
                         o->masses.data,
                         o->logits.data,
                         o->sharpness.data,
                         o->kv.pool,
                         o->before.data,
                         o->entry_rows.data,
                         o->entry_ids.data,
                         o->factors.data,
                         o->adds.data,
                         o->batch.row_start.data,
                         o->batch.first_pos.data,
                         o->batch.lanes.data,
                         o->batch.tables.data};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        tsr_free(all[i]);
    }
    tsr_device_close(o->dev);
}

typedef tsr_status op_fn(operands *o);

static tsr_status embed(operands *o)
{
    return tsr_embed(o->dev, o->sums, o->ids, &o->weight, 0, false);
}
static tsr_status narrow(operands *o)
{
    return tsr_narrow(o->dev, o->x, &o->sums, 1, (tsr_tensor){0});
}
static tsr_status add_sums(operands *o)
{
    return tsr_add_sums(o->dev, o->x, &o->sums, 1, o->vector);
}
static tsr_status rmsnorm(operands *o)
{
    return tsr_rmsnorm(o->dev, o->out, o->x, o->vector, 1e-5F);
}
static tsr_status matmul(operands *o)
{
    tsr_product products[TSR_MAX_PRODUCTS + 1];

    for (int i = 0; i <= TSR_MAX_PRODUCTS; i++) {
        products[i] = o->product;
        products[i].out = o->out;
        products[i].bias = o->vector;
    }
    return tsr_matmul(o->dev, products, o->n_products, o->x, o->activations);
}
static tsr_status activate(operands *o)
{
    return tsr_activate(o->dev, o->out, o->x, o->x, (tsr_tensor){0}, TSR_ACTIVATION_SILU);
}
static tsr_status rope_angles(operands *o)
{
    return tsr_rope_angles(o->dev, o->angles, o->positions, o->frequencies, 1.0F);
}
static tsr_status rope(operands *o)
{
    return tsr_rope(o->dev, o->q, o->angles, o->head_dim, 0, o->pairs);
}
static tsr_status kv_write(operands *o)
{
    return tsr_kv_write(o->dev, &o->kv, o->k, o->v, &o->batch);
}
static tsr_status attention(operands *o)
{
    return tsr_attention(o->dev, o->attended, o->q, &o->kv, &o->batch, &o->shape);
}
static tsr_status gather_rows(operands *o)
{
    return tsr_gather_rows(o->dev, o->out, o->x, o->rows);
}
static tsr_status adjust_logits(operands *o)
{
    return tsr_adjust_logits(o->dev, o->logits, o->before, o->entry_rows, o->entry_ids, o->factors,
                             o->adds, o->first_id);
}
static tsr_status top_k(operands *o)
{
    return tsr_top_k(o->dev, o->best_ids, o->best_values, o->masses, o->logits, o->sharpness,
                     o->first_id, o->unit_cols);
}

/* ---- what can be wrong with any window --------------------------------------------------------
 */

#define WINDOW(op, member)                              \
    {                                                   \
        op, #op " " #member, offsetof(operands, member) \
    }

static const struct {
    op_fn *op;
    const char *name;
    size_t at;
} windows[] = {
    WINDOW(embed, sums),
    WINDOW(embed, ids),
    WINDOW(narrow, x),
    WINDOW(narrow, sums),
    WINDOW(add_sums, x),
    WINDOW(add_sums, sums),
    WINDOW(add_sums, vector),
    WINDOW(rmsnorm, x),
    WINDOW(rmsnorm, out),
    WINDOW(rmsnorm, vector),
    WINDOW(matmul, x),
    WINDOW(matmul, out),
    WINDOW(matmul, vector),
    WINDOW(activate, x),
    WINDOW(activate, out),
    WINDOW(rope_angles, angles),
    WINDOW(rope_angles, positions),
    WINDOW(rope_angles, frequencies),
    WINDOW(rope, q),
    WINDOW(rope, angles),
    WINDOW(kv_write, k),
    WINDOW(kv_write, v),
    WINDOW(kv_write, batch.row_start),
    WINDOW(kv_write, batch.first_pos),
    WINDOW(kv_write, batch.lanes),
    WINDOW(kv_write, batch.tables),
    WINDOW(attention, q),
    WINDOW(attention, attended),
    WINDOW(attention, batch.row_start),
    WINDOW(attention, batch.first_pos),
    WINDOW(attention, batch.lanes),
    WINDOW(attention, batch.tables),
    WINDOW(gather_rows, x),
    WINDOW(gather_rows, out),
    WINDOW(gather_rows, rows),
    WINDOW(adjust_logits, logits),
    WINDOW(adjust_logits, before),
    WINDOW(adjust_logits, entry_rows),
    WINDOW(adjust_logits, entry_ids),
    WINDOW(adjust_logits, factors),
    WINDOW(adjust_logits, adds),
    WINDOW(top_k, best_ids),
    WINDOW(top_k, best_values),
    WINDOW(top_k, masses),
    WINDOW(top_k, logits),
    WINDOW(top_k, sharpness),
};

enum spoil {
    OTHER_TYPE,
    OTHER_DEVICE,
    NEGATIVE_ROWS,
    OVERLAPPING_ROWS,
    NO_MEMORY,
    N_SPOILS
};

static void any_window_of_the_wrong_type_place_or_shape_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(windows) / sizeof(windows[0]); i++) {
        for (int spoil = 0; spoil < N_SPOILS; spoil++) {
            operands o;
            tsr_tensor kept;
            tsr_tensor *t;

            make_operands(&o);
            t = (tsr_tensor *)(void *)((char *)&o + windows[i].at);
            kept = *t;
            assert_int_equal(windows[i].op(&o), TSR_OK);
            switch ((enum spoil)spoil) {
            case OTHER_TYPE:
                t->dtype = TSR_DTYPE_F16; // no op takes it
                break;
            case OTHER_DEVICE:
                t->on = TSR_DEVICE_CUDA;
                break;
            case NEGATIVE_ROWS:
                t->n_rows = -1;
                break;
            case OVERLAPPING_ROWS:
                t->stride = t->n_cols - 1;
                break;
            default:
                t->data = NULL;
            }
            if (windows[i].at == offsetof(operands, vector) && spoil == NO_MEMORY &&
                windows[i].op != rmsnorm) {
                assert_int_equal(windows[i].op(&o), TSR_OK); // a bias may be absent
            } else if (windows[i].op(&o) != TSR_ERR_ARG) {
                fail_msg("%s: spoil %d is not refused", windows[i].name, spoil);
            }
            *t = kept;
            clear_operands(&o);
        }
    }
}

/* ---- what can be wrong with an op -------------------------------------------------------------
 */

/* Calls the op with one thing spoiled by each statement. */
#define REFUSES(op, spoiling)                                        \
    do {                                                             \
        operands o_;                                                 \
        operands *o = &o_;                                           \
        operands kept;                                               \
        make_operands(o);                                            \
        kept = *o;                                                   \
        assert_int_equal(op(o), TSR_OK);                             \
        spoiling;                                                    \
        if (op(o) != TSR_ERR_ARG) {                                  \
            fail_msg("%s is not refused after: %s", #op, #spoiling); \
        }                                                            \
        kept.kv.layout = &o->layout;                                 \
        *o = kept;                                                   \
        clear_operands(o);                                           \
    } while (0)

static void row_ops_refuse_shapes_that_do_not_fit(void **state)
{
    (void)state;
    REFUSES(embed, o->sums.n_cols = COLS - 1);
    REFUSES(embed, o->sums.n_rows = ROWS - 1);
    REFUSES(embed, o->ids.n_rows = 2);
    REFUSES(embed, o->weight.on = TSR_DEVICE_CUDA);
    REFUSES(embed, o->weight.tiles = NULL);
    REFUSES(embed, o->weight.format = TSR_FORMAT_COUNT);
    REFUSES(embed, o->weight.n_rows = -1);
    REFUSES(narrow, o->x.n_cols = COLS - 1);
    REFUSES(narrow, o->sums.n_rows = ROWS - 1);
    REFUSES(add_sums, o->sums.n_cols = COLS - 1);
    REFUSES(add_sums, o->vector.n_cols = COLS - 1);
    REFUSES(rmsnorm, o->vector.n_cols = COLS - 1);
    REFUSES(rmsnorm, o->out.n_rows = ROWS - 1);
    REFUSES(activate, o->out.n_cols = COLS - 1);
    REFUSES(adjust_logits, o->before.n_cols = 1);
    REFUSES(adjust_logits, o->entry_ids.n_cols = 1);
    REFUSES(adjust_logits, o->factors.n_cols = 1);
    REFUSES(adjust_logits, o->adds.n_cols = 1);
    REFUSES(adjust_logits, o->first_id = -1);
    REFUSES(adjust_logits, o->first_id = 1);
    REFUSES(adjust_logits, i32_row(o->entry_rows, 0)[1] = ROWS);
    REFUSES(adjust_logits, i32_row(o->entry_rows, 0)[1] = -1);
    REFUSES(adjust_logits, i32_row(o->entry_ids, 0)[1] = VOCABULARY);
    REFUSES(adjust_logits, i32_row(o->entry_ids, 0)[0] = -1);
    REFUSES(gather_rows, o->rows.n_cols = ROWS - 1);
    REFUSES(gather_rows, o->out.n_cols = COLS - 1);
    REFUSES(gather_rows, i32_row(o->rows, 0)[2] = ROWS);
    REFUSES(gather_rows, i32_row(o->rows, 0)[2] = -1);
}

static void matmul_refuses_products_that_do_not_fit(void **state)
{
    (void)state;
    REFUSES(matmul, o->n_products = 0);
    REFUSES(matmul, o->n_products = TSR_MAX_PRODUCTS + 1);
    REFUSES(matmul, o->activations = TSR_ACTIVATIONS_COUNT);
    REFUSES(matmul, o->x.n_cols = COLS - 1);
    REFUSES(matmul, o->out.n_cols = COLS - 1);
    REFUSES(matmul, o->out.n_rows = ROWS - 1);
    REFUSES(matmul, o->vector.n_cols = COLS - 1);
    REFUSES(matmul, o->weight.grain_cols = 32); // then out must be f64, and have no bias
    REFUSES(matmul, (o->weight.grain_cols = 32, o->out.dtype = TSR_DTYPE_F64));
    REFUSES(matmul,
            (o->weight.grain_cols = 8, o->out.dtype = TSR_DTYPE_F64, o->vector.data = NULL));
    REFUSES(matmul, o->weight.grain_cols = -32);
    REFUSES(matmul, o->weight.on = TSR_DEVICE_CUDA);
}

static void rope_refuses_heads_that_do_not_fit(void **state)
{
    (void)state;
    REFUSES(rope_angles, o->angles.n_cols = 7);
    REFUSES(rope_angles, o->positions.n_cols = ROWS - 1);
    REFUSES(rope_angles, o->frequencies.n_cols = 3);
    REFUSES(rope, o->head_dim = 0);
    REFUSES(rope, o->head_dim = 12);
    REFUSES(rope, o->head_dim = 4); // fewer than turn
    REFUSES(rope, o->angles.n_cols = 7);
    REFUSES(rope, o->angles.n_rows = ROWS - 1);
    REFUSES(rope, o->pairs = TSR_ROPE_PAIRS_COUNT);
}

static void the_cache_is_refused_when_it_does_not_fit(void **state)
{
    (void)state;
    REFUSES(kv_write, o->layout.block_tokens = 20);
    REFUSES(kv_write, o->kv.layer = 2);
    REFUSES(kv_write, o->kv.layer = -1);
    REFUSES(kv_write, o->kv.block_bytes -= 2);
    REFUSES(kv_write, o->kv.block_bytes += 1);
    REFUSES(kv_write, o->kv.pool = NULL);
    REFUSES(kv_write, o->layout.type = TSR_KV_TYPE_INT2); // means, and nothing says how keys drift
    REFUSES(kv_write, o->k.n_cols = HEAD_DIM);
    REFUSES(kv_write, o->v.n_rows = ROWS - 1);
    REFUSES(kv_write, o->batch.n_seqs = -1);
    REFUSES(kv_write, o->batch.n_seqs = 0);
    REFUSES(kv_write, o->batch.n_seqs = 2);
    REFUSES(kv_write, o->batch.row_start.n_cols = 1);
    REFUSES(kv_write, o->batch.longest = N_BLOCKS * 16 + 1);
    REFUSES(kv_write, o->batch.longest = 0);
    REFUSES(attention, o->kv.layer = 2);
    REFUSES(attention, o->layout.type = TSR_KV_TYPE_COUNT);
    REFUSES(attention, o->layout.type = TSR_KV_TYPE_INT4);
    REFUSES(attention, o->batch.longest = N_BLOCKS * 16 + 1);
    REFUSES(attention, o->shape.softcap = -1);
    REFUSES(attention, o->shape.softcap = INFINITY);
    REFUSES(attention, o->shape.window = -1);
    REFUSES(attention, o->shape.stride = -1);
    REFUSES(attention, o->shape.local = 4); // without a stride
    REFUSES(attention, o->shape.slopes = o->q);
    REFUSES(attention, o->shape.sinks = o->q);
    REFUSES(attention, o->shape.group = 0);
    REFUSES(attention, o->shape.group = 1); // four KV heads would be read
    REFUSES(attention, o->shape.first_head = 1);
    REFUSES(attention, o->shape.first_head = 2);
    REFUSES(attention, o->shape.first_head = -1);
    REFUSES(attention, o->shape.n_heads = 3);
    REFUSES(attention, o->shape.n_heads = -1);
    REFUSES(attention, o->attended.n_rows = ROWS - 1);
    REFUSES(attention, o->dev->scratch_bytes = 0);
}

static void top_k_refuses_numbers_out_of_range(void **state)
{
    (void)state;
    REFUSES(top_k, o->unit_cols = 0);
    REFUSES(top_k, o->unit_cols = 10);
    REFUSES(top_k, o->first_id = -1);
    REFUSES(top_k, o->first_id = INT32_MAX);
    REFUSES(top_k, o->best_ids.n_cols = 0);
    REFUSES(top_k, (o->best_ids.n_cols = 1025, o->best_ids.stride = 1025));
    REFUSES(top_k, o->best_values.n_cols = 4);
    REFUSES(top_k, o->masses.n_cols = 6);
    REFUSES(top_k, o->sharpness.n_cols = ROWS - 1);
    REFUSES(top_k, o->dev->scratch_bytes = 0);
}

static void a_refusal_names_op_operand_and_numbers(void **state)
{
    operands o;

    (void)state;
    make_operands(&o);
    o.vector.n_cols = 31;
    assert_int_equal(rmsnorm(&o), TSR_ERR_ARG);
    assert_string_equal(tsr_status_message(), "rmsnorm: weight has 31 columns; 32 are expected");
    clear_operands(&o);
}

static void operands_of_no_rows_need_no_memory(void **state)
{
    const tsr_tensor f32 = tsr_tensor_of(NULL, TSR_DTYPE_F32, TSR_DEVICE_CPU, 0, COLS);
    const tsr_tensor f64 = tsr_tensor_of(NULL, TSR_DTYPE_F64, TSR_DEVICE_CPU, 0, COLS);
    const tsr_tensor heads = tsr_tensor_of(NULL, TSR_DTYPE_F32, TSR_DEVICE_CPU, 0, 64);
    const tsr_tensor none = {.data = NULL};
    operands o;
    tsr_batch batch = {.n_seqs = 0};

    (void)state;
    make_operands(&o);
    assert_int_equal(tsr_narrow(o.dev, f32, &f64, 1, (tsr_tensor){0}), TSR_OK);
    assert_int_equal(tsr_add_sums(o.dev, f32, &f64, 1, none), TSR_OK);
    assert_int_equal(tsr_rmsnorm(o.dev, f32, f32, o.vector, 0), TSR_OK);
    assert_int_equal(tsr_activate(o.dev, f32, f32, f32, (tsr_tensor){0}, TSR_ACTIVATION_SILU),
                     TSR_OK);
    assert_int_equal(tsr_attention(o.dev, heads, heads, &o.kv, &batch, &o.shape), TSR_OK);
    clear_operands(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_window_of_the_wrong_type_place_or_shape_is_refused),
        cmocka_unit_test(row_ops_refuse_shapes_that_do_not_fit),
        cmocka_unit_test(matmul_refuses_products_that_do_not_fit),
        cmocka_unit_test(rope_refuses_heads_that_do_not_fit),
        cmocka_unit_test(the_cache_is_refused_when_it_does_not_fit),
        cmocka_unit_test(top_k_refuses_numbers_out_of_range),
        cmocka_unit_test(a_refusal_names_op_operand_and_numbers),
        cmocka_unit_test(operands_of_no_rows_need_no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
