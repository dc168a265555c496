#include "engine/adjust.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

enum {
    FEW = 16 // tokens to be counted one by one; with more, all are sorted anew
};

static const float MOST = 1000.0F; // far beyond any use, and far from infinity

/* A token that may be changed: it was seen, has a bias, or is banned. */
typedef struct entry {
    int32_t id;
    bool is_banned;
    bool is_seen; // in the prompt or since
    int64_t n_generated;
    float bias;
} entry;

struct tsr_adjust {
    float repetition;
    float presence;
    float frequency;
    int64_t ban_until;
    entry *entries; // owned, by rising id
    int n_entries;
    int capacity;
    int64_t n_counted; // tokens of the sequence
    int64_t n_generated;
};

/* ---- settings ---- */

bool tsr_adjust_is_wanted(const tsr_adjust_settings *s)
{
    return s->repetition != 1.0F || s->presence != 0.0F || s->frequency != 0.0F ||
           s->n_biases != 0 || (s->n_banned > 0 && s->ban_until > 0);
}

static bool is_within(float value, float least)
{
    return value >= least && value <= MOST; // false for NaN
}

static tsr_status check(const tsr_adjust_settings *s, int n_vocab)
{
    if (!is_within(s->repetition, 1.0F / MOST)) {
        return tsr_fail(TSR_ERR_ARG, "the repetition penalty is %g, it must be in [0.001, 1000]",
                        (double)s->repetition);
    }
    if (!is_within(s->presence, -MOST)) {
        return tsr_fail(TSR_ERR_ARG, "the presence penalty is %g, it must be in [-1000, 1000]",
                        (double)s->presence);
    }
    if (!is_within(s->frequency, -MOST)) {
        return tsr_fail(TSR_ERR_ARG, "the frequency penalty is %g, it must be in [-1000, 1000]",
                        (double)s->frequency);
    }
    if (s->n_biases < 0 || s->n_biases > n_vocab || s->n_banned < 0) {
        return tsr_fail(TSR_ERR_ARG, "%d biases and %d banned tokens of a vocabulary of %d",
                        s->n_biases, s->n_banned, n_vocab);
    }
    for (int i = 0; i < s->n_biases; i++) {
        if (s->bias_ids[i] < 0 || s->bias_ids[i] >= n_vocab) {
            return tsr_fail(TSR_ERR_ARG, "a bias for token %d, which is not in [0, %d)",
                            (int)s->bias_ids[i], n_vocab);
        }
        if (!is_within(s->biases[i], -MOST)) {
            return tsr_fail(TSR_ERR_ARG, "the bias of token %d is %g, it must be in [-1000, 1000]",
                            (int)s->bias_ids[i], (double)s->biases[i]);
        }
    }
    for (int i = 0; i < s->n_banned; i++) {
        if (s->banned[i] < 0 || s->banned[i] >= n_vocab) {
            return tsr_fail(TSR_ERR_ARG, "a ban of token %d, which is not in [0, %d)",
                            (int)s->banned[i], n_vocab);
        }
    }
    return TSR_OK;
}

static int by_id(const void *left, const void *right)
{
    const entry *a = left;
    const entry *b = right;

    return a->id < b->id ? -1 : a->id > b->id;
}

/* Entries of the same token become one; they are sorted. */
static void join_equals(tsr_adjust *a)
{
    int n = 0;

    for (int i = 0; i < a->n_entries; i++) {
        if (n > 0 && a->entries[n - 1].id == a->entries[i].id) {
            entry *into = &a->entries[n - 1];

            into->is_banned = into->is_banned || a->entries[i].is_banned;
            into->is_seen = into->is_seen || a->entries[i].is_seen;
            into->n_generated += a->entries[i].n_generated;
            into->bias += a->entries[i].bias; // one of the two is 0
        } else {
            a->entries[n++] = a->entries[i];
        }
    }
    a->n_entries = n;
}

static tsr_status make_room(tsr_adjust *a, int64_t n)
{
    int64_t capacity = 2 * (int64_t)a->capacity;
    entry *grown;

    if (n <= a->capacity) {
        return TSR_OK;
    }
    capacity = capacity < n ? n : capacity;
    grown = capacity > INT32_MAX ? NULL
                                 : tsr_alloc_resize(a->entries, (size_t)capacity, sizeof(*grown));
    if (grown == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory to count %lld tokens", (long long)n);
    }
    a->entries = grown;
    a->capacity = (int)capacity;
    return TSR_OK;
}

tsr_status tsr_adjust_create(tsr_adjust **out, const tsr_adjust_settings *s, int n_vocab)
{
    tsr_status st = TSR_OK;
    tsr_adjust *a;

    TSR_TRY(check(s, n_vocab));
    a = tsr_alloc(1, sizeof(*a));
    if (a == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for penalties");
    }
    a->repetition = s->repetition;
    a->presence = s->presence;
    a->frequency = s->frequency;
    a->ban_until = s->ban_until;
    TSR_TRY_GOTO(st, fail, make_room(a, (int64_t)s->n_biases + s->n_banned + 1));
    for (int i = 0; i < s->n_biases; i++) {
        a->entries[a->n_entries++] = (entry){.id = s->bias_ids[i], .bias = s->biases[i]};
    }
    qsort(a->entries, (size_t)a->n_entries, sizeof(entry), by_id);
    for (int i = 1; i < a->n_entries; i++) {
        if (a->entries[i].id == a->entries[i - 1].id) {
            st = tsr_fail(TSR_ERR_ARG, "token %d has two biases", (int)a->entries[i].id);
            goto fail;
        }
    }
    for (int i = 0; i < s->n_banned; i++) {
        a->entries[a->n_entries++] = (entry){.id = s->banned[i], .is_banned = true};
    }
    qsort(a->entries, (size_t)a->n_entries, sizeof(entry), by_id);
    join_equals(a);
    *out = a;
    return TSR_OK;

fail:
    tsr_adjust_destroy(a);
    return st;
}

void tsr_adjust_destroy(tsr_adjust *a)
{
    if (a != NULL) {
        tsr_free(a->entries);
        tsr_free(a);
    }
}

tsr_status tsr_adjust_become(tsr_adjust *to, const tsr_adjust *from)
{
    TSR_TRY(make_room(to, from->n_entries));
    if (from->n_entries > 0) {
        memcpy(to->entries, from->entries, (size_t)from->n_entries * sizeof(entry));
    }
    to->n_entries = from->n_entries;
    to->n_counted = from->n_counted;
    to->n_generated = from->n_generated;
    return TSR_OK;
}

tsr_status tsr_adjust_copy(tsr_adjust **out, const tsr_adjust *from)
{
    tsr_adjust *a = tsr_alloc(1, sizeof(*a));
    tsr_status st = TSR_OK;

    if (a == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for penalties");
    }
    a->repetition = from->repetition;
    a->presence = from->presence;
    a->frequency = from->frequency;
    a->ban_until = from->ban_until;
    TSR_TRY_GOTO(st, fail, tsr_adjust_become(a, from));
    *out = a;
    return TSR_OK;

fail:
    tsr_adjust_destroy(a);
    return st;
}

/* ---- counting ---- */

/* Room for one more entry is there. */
static void count_one(tsr_adjust *a, int32_t id, bool generated)
{
    int low = 0;
    int high = a->n_entries;

    while (low < high) {
        const int middle = low + (high - low) / 2;

        if (a->entries[middle].id < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    if (low == a->n_entries || a->entries[low].id != id) {
        memmove(&a->entries[low + 1], &a->entries[low],
                (size_t)(a->n_entries - low) * sizeof(entry));
        a->entries[low] = (entry){.id = id};
        a->n_entries++;
    }
    a->entries[low].is_seen = true;
    a->entries[low].n_generated += generated ? 1 : 0;
}

tsr_status tsr_adjust_count(tsr_adjust *a, const int32_t *tokens, int64_t n_prompt,
                            int64_t n_tokens)
{
    const int64_t n_new = n_tokens - a->n_counted;

    if (a->repetition == 1.0F && a->presence == 0.0F && a->frequency == 0.0F) {
        a->n_counted = n_tokens; // whoever has come changes nothing
        a->n_generated = n_tokens - n_prompt;
        return TSR_OK;
    }
    TSR_TRY(make_room(a, a->n_entries + n_new));
    for (int64_t i = a->n_counted; i < n_tokens; i++) {
        if (n_new <= FEW) {
            count_one(a, tokens[i], i >= n_prompt);
        } else {
            a->entries[a->n_entries++] =
                (entry){.id = tokens[i], .is_seen = true, .n_generated = i >= n_prompt ? 1 : 0};
        }
    }
    if (n_new > FEW) {
        qsort(a->entries, (size_t)a->n_entries, sizeof(entry), by_id);
        join_equals(a);
    }
    a->n_counted = n_tokens;
    a->n_generated = n_tokens - n_prompt;
    return TSR_OK;
}

/* ---- giving ---- */

int tsr_adjust_most(const tsr_adjust *a)
{
    return a->n_entries;
}

int tsr_adjust_list(const tsr_adjust *a, int32_t *ids, float *factors, float *adds)
{
    int n = 0;

    for (int i = 0; i < a->n_entries; i++) {
        const entry *e = &a->entries[i];
        const bool is_banned = e->is_banned && a->n_generated < a->ban_until;
        const double penalty = (e->n_generated > 0 ? (double)a->presence : 0.0) +
                               (double)a->frequency * (double)e->n_generated;

        ids[n] = e->id;
        factors[n] = e->is_seen ? a->repetition : 1.0F;
        adds[n] = is_banned ? -INFINITY : (float)((double)e->bias - penalty);
        n += factors[n] != 1.0F || adds[n] != 0.0F ? 1 : 0;
    }
    return n;
}

float tsr_adjust_apply(float logit, float factor, float add)
{
    const float turned = logit > 0.0F ? logit / factor : logit * factor;

    return turned + add;
}
