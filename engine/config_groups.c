/*
 * Which layers of the cache share blocks. Layers that are seen as far back as one another lie
 * together, so that what no row can reach any more goes as a whole. All blocks have the same size,
 * so that any free one serves anybody: where some layers see a window and others everything, a
 * block has so many layers that little of it stays unused.
 */
#include "engine/config_read.h"

#include "base/alloc.h"

enum {
    LONG_WEIGHT = 8 // what is unused in blocks that are kept for all positions counts so much more
};

/* Layers of the cache that are seen equally far back. */
typedef struct reach_class {
    int64_t reach; // 0: everything
    int n_layers;
    int first_group;
} reach_class;

/* A layer of the cache. */
typedef struct kv_layer {
    bool is_seen;
    bool by_token;
    int64_t reach; // of the reader that sees furthest
    int group, layer;
} kv_layer;

static bool is_further(int64_t a, int64_t b)
{
    return b != 0 && (a == 0 || a > b);
}

/* The class of that reach, the furthest first; n of them are there. Where there would be too many,
 * a layer joins one that is seen further. */
static int find_class(reach_class *classes, int *n, int64_t reach)
{
    int at = 0;

    while (at < *n && is_further(classes[at].reach, reach)) {
        at++;
    }
    if (at < *n && classes[at].reach == reach) {
        return at;
    }
    if (*n == TSR_CONFIG_GROUPS) {
        if (at > 0) {
            return at - 1;
        }
        classes[0].reach = reach;
        return 0;
    }
    for (int i = (*n)++; i > at; i--) {
        classes[i] = classes[i - 1];
    }
    classes[at] = (reach_class){.reach = reach};
    return at;
}

/* Groups that there are with so many layers in a block, and what is spent on them. */
static int count_groups(const reach_class *classes, int n, int group_layers, int *cost)
{
    int n_groups = 0;

    *cost = 0;
    for (int i = 0; i < n; i++) {
        const int n_of = (classes[i].n_layers + group_layers - 1) / group_layers;

        n_groups += n_of;
        *cost += n_of * group_layers * (classes[i].reach == 0 ? LONG_WEIGHT : 1);
    }
    return n_groups;
}

static int choose_layers(const reach_class *classes, int n, int most)
{
    int best = most;
    int least;

    (void)count_groups(classes, n, most, &least); // a group a class
    for (int layers = most - 1; layers >= 1; layers--) {
        int cost;

        if (count_groups(classes, n, layers, &cost) <= TSR_CONFIG_GROUPS && cost < least) {
            best = layers;
            least = cost;
        }
    }
    return best;
}

/* Groups for all classes; their layers are yet to be given places. */
static void make_groups(tsr_config *c, reach_class *classes, int n)
{
    int most = 0;

    for (int i = 0; i < n; i++) {
        most = classes[i].n_layers > most ? classes[i].n_layers : most;
    }
    c->group_layers = choose_layers(classes, n, most);
    c->n_groups = 0;
    for (int i = 0; i < n; i++) {
        classes[i].first_group = c->n_groups;
        for (; classes[i].n_layers > 0; classes[i].n_layers -= c->group_layers) {
            c->reach[c->n_groups++] = classes[i].reach;
        }
        classes[i].n_layers = 0;
    }
}

tsr_status tsr_config_groups_find(tsr_config *c)
{
    kv_layer *cached = tsr_alloc((size_t)c->n_kv_layers, sizeof(*cached));
    reach_class classes[TSR_CONFIG_GROUPS] = {0};
    int n = 0;

    if (cached == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d layers", c->n_kv_layers);
    }
    for (int i = 0; i < c->n_layers; i++) {
        kv_layer *k = &cached[c->layers[i].kv_layer];

        if (!k->is_seen || is_further(c->layers[i].window, k->reach)) {
            k->is_seen = true;
            k->reach = c->layers[i].window;
        }
        k->by_token = k->by_token || c->layers[i].stride > 0;
    }
    for (int k = 0; k < c->n_kv_layers; k++) {
        (void)find_class(classes, &n, cached[k].reach);
    }
    for (int k = 0; k < c->n_kv_layers; k++) {
        classes[find_class(classes, &n, cached[k].reach)].n_layers++;
    }
    make_groups(c, classes, n);
    for (int k = 0; k < c->n_kv_layers; k++) {
        reach_class *of = &classes[find_class(classes, &n, cached[k].reach)];

        cached[k].group = of->first_group + of->n_layers / c->group_layers;
        cached[k].layer = of->n_layers++ % c->group_layers;
    }
    for (int i = 0; i < c->n_layers; i++) {
        c->layers[i].group = cached[c->layers[i].kv_layer].group;
        c->layers[i].group_layer = cached[c->layers[i].kv_layer].layer;
        c->layers[i].by_token = cached[c->layers[i].kv_layer].by_token;
    }
    tsr_free(cached);
    return TSR_OK;
}
