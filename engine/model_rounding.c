#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "engine/model_state.h"
#include "engine/settings.h"
#include "engine/weight_walk.h"
#include "kernels/cpu_pool.h"

enum {
    NAME_BYTES = TSR_WEIGHT_PLACE_NAME_BYTES
};

/* How far some values moved. */
typedef struct moved {
    uint64_t n;
    double error; // squares of the differences
    double size;  // squares of the values
    double largest;
} moved;

static void add(moved *to, const moved *m)
{
    to->n += m->n;
    to->error += m->error;
    to->size += m->size;
    to->largest = fmax(to->largest, m->largest);
}

/* One weight, rounded panel by panel by all threads. */
typedef struct job {
    tsr_weight_pack rounded;
    tsr_weight_pack exact;
    int64_t n_panels;
    moved *panels;        // [n_panels]: added up in order, whoever computed them
    tsr_status *statuses; // [n_panels]
} job;

/* Rows of one panel as they are and as they would be. */
static tsr_status compare_panel(const job *j, int64_t panel, tsr_weight_pack_bench *bench,
                                char *memory, moved *m)
{
    const int64_t n_cols = j->rounded.cols.count;
    const int64_t left = j->rounded.rows.count - TSR_PANEL_ROWS * panel;
    tsr_weight_pack packs[2] = {j->exact, j->rounded};
    tsr_weight weights[2];
    float *rows[2];

    for (int i = 0; i < 2; i++) {
        packs[i].rows.first += TSR_PANEL_ROWS * panel;
        packs[i].rows.count = left < TSR_PANEL_ROWS ? left : TSR_PANEL_ROWS;
        packs[i].panels = memory;
        weights[i] = (tsr_weight){.format = packs[i].format,
                                  .n_rows = packs[i].rows.count,
                                  .n_cols = n_cols,
                                  .tiles = memory};
        memory += packs[i].panel_bytes;
        TSR_TRY(tsr_weight_pack_one(&packs[i], bench, 0));
    }
    rows[0] = (float *)(void *)memory;
    rows[1] = rows[0] + n_cols;
    for (int64_t r = 0; r < weights[0].n_rows; r++) {
        tsr_weight_unpack_row(&weights[0], r, rows[0]);
        tsr_weight_unpack_row(&weights[1], r, rows[1]);
        for (int64_t c = 0; c < n_cols; c++) {
            const double value = (double)rows[0][c];
            const double miss = fabs((double)rows[1][c] - value);

            m->error += miss * miss;
            m->size += value * value;
            m->largest = fmax(m->largest, miss);
        }
        m->n += (uint64_t)n_cols;
    }
    return TSR_OK;
}

static void compare_share(void *ctx, int thread, int n_threads)
{
    const job *j = ctx;
    const size_t n_bytes = j->exact.panel_bytes + j->rounded.panel_bytes +
                           2 * (size_t)j->exact.cols.count * sizeof(float);
    char *memory = tsr_alloc_pages(n_bytes);
    tsr_weight_pack_bench bench = {0};

    for (int64_t p = thread; p < j->n_panels; p += n_threads) {
        j->statuses[p] = memory != NULL ? compare_panel(j, p, &bench, memory, &j->panels[p])
                                        : tsr_fail(TSR_ERR_NOMEM, "no memory for a panel");
    }
    tsr_weight_pack_clear(&bench);
    tsr_free_pages(memory, n_bytes);
}

static tsr_weight_pack pack_of(const tsr_weight_place *place, tsr_format as, int64_t n_rows,
                               int64_t n_cols)
{
    const tsr_format format = tsr_weight_pack_format(place, as, TSR_DEVICE_CPU);

    return (tsr_weight_pack){.place = *place,
                             .as = as,
                             .format = format,
                             .panel_bytes = tsr_weight_panel_bytes(format, n_cols),
                             .rows = {0, n_rows},
                             .cols = {0, n_cols}};
}

/* A weight of a role that may be rounded; *m stays when it is not. */
static tsr_status round_place(moved *m, tsr_cpu_pool *pool, const tsr_weight_place *place,
                              tsr_format as, int64_t n_rows, int64_t n_cols)
{
    job j = {.n_panels = (n_rows + TSR_PANEL_ROWS - 1) / TSR_PANEL_ROWS};
    tsr_status st = TSR_OK;

    j.rounded = pack_of(place, as, n_rows, n_cols);
    j.exact = pack_of(place, TSR_FORMAT_F32, n_rows, n_cols);
    if (j.rounded.format != as || j.exact.format != TSR_FORMAT_F32) {
        return TSR_OK; // it is in fewer bits already
    }
    j.panels = tsr_alloc((size_t)j.n_panels, sizeof(*j.panels));
    j.statuses = tsr_alloc((size_t)j.n_panels, sizeof(*j.statuses));
    if (j.panels == NULL || j.statuses == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "no memory for %lld panels", (long long)j.n_panels);
    } else {
        tsr_cpu_pool_run(pool, compare_share, &j);
    }
    for (int64_t p = 0; st == TSR_OK && p < j.n_panels; p++) {
        if (j.statuses[p] != TSR_OK) {
            st = tsr_fail(j.statuses[p], "row %lld and those behind it cannot be rounded to %s",
                          (long long)(TSR_PANEL_ROWS * p), tsr_weight_format_name(as));
        } else {
            add(m, &j.panels[p]);
        }
    }
    tsr_free(j.panels);
    tsr_free(j.statuses);
    return st;
}

/* Whom to tell; parts of a fused or stacked tensor are told as one. */
typedef struct teller {
    tsr_model_rounded_fn *each;
    void *ctx;
    char name[NAME_BYTES]; // of the tensor whose parts are being added
    moved tensor;
    moved total;
} teller;

static void tell(const teller *t, const char *name, const moved *m)
{
    const tsr_model_rounded rounded = {.name = name,
                                       .n_elements = m->n,
                                       .relative = m->size > 0 ? sqrt(m->error / m->size) : 0,
                                       .largest = m->largest};

    t->each(t->ctx, &rounded);
}

static void end_tensor(teller *t)
{
    if (t->tensor.n > 0) {
        tell(t, t->name, &t->tensor);
        add(&t->total, &t->tensor);
    }
    t->tensor = (moved){0};
}

static tsr_status round_role(teller *t, tsr_cpu_pool *pool, const tsr_model *model, tsr_format as,
                             int layer, tsr_shard_role role)
{
    const tsr_config *c = &model->config;
    const bool numbered =
        role == TSR_ROLE_EXPERT_GATE || role == TSR_ROLE_EXPERT_UP || role == TSR_ROLE_EXPERT_DOWN;
    char name[NAME_BYTES];
    int64_t n_rows;
    int64_t n_cols;

    tsr_weight_place_shape(c, role, &n_rows, &n_cols);
    if (!tsr_config_has(c, role) || !tsr_weight_walk_layer_has(&c->layers[layer], role) ||
        tsr_weight_walk_wish(as, role, n_cols) != as) {
        return TSR_OK;
    }
    for (int64_t e = 0; e < (numbered ? c->shape.n_experts : 1); e++) {
        tsr_weight_place place;

        TSR_TRY(tsr_weight_place_find(&place, model->checkpoint, c, role, layer, e, false, name));
        if (place.source == NULL) {
            return tsr_fail(TSR_ERR_FORMAT, "the model lacks the tensor %s", name);
        }
        if (strcmp(name, t->name) != 0) {
            end_tensor(t);
            memcpy(t->name, name, sizeof(name));
        }
        TSR_TRY(round_place(&t->tensor, pool, &place, as, n_rows, n_cols));
    }
    return TSR_OK;
}

tsr_status tsr_model_round(const tsr_model *model, const char *to, tsr_model_rounded_fn *each,
                           void *ctx)
{
    const long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    teller t = {.each = each, .ctx = ctx};
    tsr_cpu_pool *pool = NULL;
    tsr_format as;
    tsr_status st = TSR_OK;

    TSR_TRY(tsr_settings_weights(&as, NULL, to));
    TSR_TRY(tsr_cpu_pool_create(&pool, n_cpus > 1 ? (int)n_cpus : 1, NULL));
    for (int layer = 0; layer < model->config.n_layers; layer++) {
        for (int role = 0; role < TSR_ROLE_COUNT && st == TSR_OK; role++) {
            st = round_role(&t, pool, model, as, layer, (tsr_shard_role)role);
        }
        tsr_checkpoint_release_pages(model->checkpoint);
    }
    tsr_cpu_pool_destroy(pool);
    if (st == TSR_OK) {
        end_tensor(&t);
        tell(&t, NULL, &t.total);
    }
    return st;
}
