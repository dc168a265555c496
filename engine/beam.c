#include "engine/beam.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"

enum {
    MOST_WIDTH = 4096,
    NOWHERE = -1
};

static const double MOST_PENALTY = 10; // any length to this power is a number

/* A token behind another. Beams that began alike share their first ones. */
typedef struct node {
    int32_t before; // NOWHERE: the first token; of a free node the next free one
    int32_t n_owners;
    int32_t token;
    int32_t n_top;
    double told;
} node;

typedef struct live_beam {
    int32_t last; // its node; NOWHERE: no token yet
    double sum;
    int n_offers;
    int n_top;
    bool has_offered;
} live_beam;

typedef struct finished_answer {
    int32_t last;
    tsr_beam_answer is;
} finished_answer;

struct tsr_beam {
    tsr_beam_rules rules;
    live_beam *live; // [width], as the next
    live_beam *next;
    finished_answer *finished; // by falling score
    int n_live;
    int n_finished;
    int64_t n_tokens;

    tsr_beam_candidate *offers; // [width][n_offers]
    tsr_top_token *offered_top; // [width][n_top]
    int *cursor;                // [width] how many of the offers were looked at

    node *nodes;
    tsr_top_token *top; // [n_nodes][n_top]
    int32_t n_nodes;
    int32_t first_free;
    int32_t n_free;
};

/* ---- life ---- */

tsr_status tsr_beam_create(tsr_beam **out, const tsr_beam_rules *rules)
{
    const size_t width = (size_t)rules->width;
    tsr_beam *b;

    if (rules->width < 1 || rules->width > MOST_WIDTH) {
        return tsr_fail(TSR_ERR_ARG, "%d beams; 1 to %d are possible", rules->width, MOST_WIDTH);
    }
    if (!(fabs(rules->length_penalty) <= MOST_PENALTY)) {
        return tsr_fail(TSR_ERR_ARG, "the length penalty is %g, it must be in [-%g, %g]",
                        rules->length_penalty, MOST_PENALTY, MOST_PENALTY);
    }
    b = tsr_alloc(1, sizeof(*b));
    if (b == NULL) {
        goto fail;
    }
    b->rules = *rules;
    b->first_free = NOWHERE;
    b->live = tsr_alloc(width, sizeof(*b->live));
    b->next = tsr_alloc(width, sizeof(*b->next));
    b->finished = tsr_alloc(width, sizeof(*b->finished));
    b->cursor = tsr_alloc(width, sizeof(*b->cursor));
    b->offers = tsr_alloc(width * (size_t)rules->n_offers, sizeof(*b->offers));
    b->offered_top = tsr_alloc(width * (size_t)rules->n_top, sizeof(*b->offered_top));
    if (b->live == NULL || b->next == NULL || b->finished == NULL || b->cursor == NULL ||
        b->offers == NULL || b->offered_top == NULL) {
        goto fail;
    }
    b->live[0] = (live_beam){.last = NOWHERE};
    b->n_live = 1;
    *out = b;
    return TSR_OK;

fail:
    tsr_beam_destroy(b);
    return tsr_fail(TSR_ERR_NOMEM, "no memory for %d beams", rules->width);
}

void tsr_beam_destroy(tsr_beam *b)
{
    if (b == NULL) {
        return;
    }
    tsr_free(b->top);
    tsr_free(b->nodes);
    tsr_free(b->offered_top);
    tsr_free(b->offers);
    tsr_free(b->cursor);
    tsr_free(b->finished);
    tsr_free(b->next);
    tsr_free(b->live);
    tsr_free(b);
}

int tsr_beam_n_offers(int width, int n_ends, int n_vocab)
{
    const int64_t n = 2 * (int64_t)width + n_ends;

    return n < n_vocab ? (int)n : n_vocab;
}

int tsr_beam_n_live(const tsr_beam *b)
{
    return b->n_live;
}

int64_t tsr_beam_n_tokens(const tsr_beam *b)
{
    return b->n_tokens;
}

/* ---- tokens behind each other ---- */

/* So many nodes can be made without memory. */
static tsr_status reserve_nodes(tsr_beam *b, int n)
{
    const int32_t n_nodes = b->n_nodes < n ? b->n_nodes + 8 * n : 2 * b->n_nodes;
    node *nodes;
    tsr_top_token *top;

    if (b->n_free >= n) {
        return TSR_OK;
    }
    nodes = tsr_alloc_resize(b->nodes, (size_t)n_nodes, sizeof(*nodes));
    b->nodes = nodes != NULL ? nodes : b->nodes;
    top = tsr_alloc_resize(b->top, (size_t)n_nodes * (size_t)b->rules.n_top, sizeof(*top));
    b->top = top != NULL ? top : b->top;
    if (nodes == NULL || top == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d tokens of beams", (int)n_nodes);
    }
    for (int32_t i = n_nodes - 1; i >= b->n_nodes; i--) {
        nodes[i] = (node){.before = b->first_free};
        b->first_free = i;
    }
    b->n_free += n_nodes - b->n_nodes;
    b->n_nodes = n_nodes;
    return TSR_OK;
}

static tsr_top_token *top_of(const tsr_beam *b, int32_t at)
{
    return b->top + (size_t)at * (size_t)b->rules.n_top;
}

/* The node of a continuation of a live beam, with one owner. */
static int32_t put_behind(tsr_beam *b, int parent, const tsr_beam_candidate *c)
{
    const live_beam *from = &b->live[parent];
    const int32_t at = b->first_free;

    b->first_free = b->nodes[at].before;
    b->n_free--;
    b->nodes[at] = (node){
        .before = from->last, .n_owners = 1, .token = c->id, .n_top = from->n_top, .told = c->told};
    if (from->n_top > 0) {
        memcpy(top_of(b, at), b->offered_top + (size_t)parent * (size_t)b->rules.n_top,
               (size_t)from->n_top * sizeof(*b->top));
    }
    if (from->last != NOWHERE) {
        b->nodes[from->last].n_owners++;
    }
    return at;
}

static void share(tsr_beam *b, int32_t at)
{
    if (at != NOWHERE) {
        b->nodes[at].n_owners++;
    }
}

static void let_go(tsr_beam *b, int32_t at)
{
    while (at != NOWHERE && --b->nodes[at].n_owners == 0) {
        const int32_t before = b->nodes[at].before;

        b->nodes[at].before = b->first_free;
        b->first_free = at;
        b->n_free++;
        at = before;
    }
}

/* ---- offers ---- */

static tsr_beam_candidate *offers_of(const tsr_beam *b, int i)
{
    return b->offers + (size_t)i * (size_t)b->rules.n_offers;
}

void tsr_beam_offer(tsr_beam *b, int i, const tsr_beam_candidate *candidates, int n,
                    const tsr_top_token *top, int n_top)
{
    live_beam *from = &b->live[i];

    assert(i >= 0 && i < b->n_live && n >= 0 && n <= b->rules.n_offers);
    assert(n_top >= 0 && n_top <= b->rules.n_top);
    memcpy(offers_of(b, i), candidates, (size_t)n * sizeof(*candidates));
    if (n_top > 0) {
        memcpy(b->offered_top + (size_t)i * (size_t)b->rules.n_top, top,
               (size_t)n_top * sizeof(*top));
    }
    from->n_offers = n;
    from->n_top = n_top;
    from->has_offered = true;
}

bool tsr_beam_has_offered(const tsr_beam *b, int i)
{
    return b->live[i].has_offered;
}

/* The best offer that has not been looked at, and whose it is; NULL: none is possible. */
static const tsr_beam_candidate *take_best(tsr_beam *b, int *parent, double *sum)
{
    const tsr_beam_candidate *best = NULL;

    for (int i = 0; i < b->n_live; i++) {
        const live_beam *from = &b->live[i];
        const tsr_beam_candidate *c = offers_of(b, i) + b->cursor[i];

        if (b->cursor[i] < from->n_offers && c->logprob > -INFINITY &&
            (best == NULL || from->sum + c->logprob > *sum)) {
            best = c;
            *parent = i;
            *sum = from->sum + c->logprob;
        }
    }
    if (best != NULL) {
        b->cursor[*parent]++;
    }
    return best;
}

/* ---- answers ---- */

static double score_of(const tsr_beam *b, double sum, int64_t length)
{
    return length > 0 ? sum / pow((double)length, b->rules.length_penalty) : 0.0;
}

/* Keep an answer if it is good enough: takes part in its tokens. length is what its score counts.
 */
static void keep(tsr_beam *b, int32_t last, int64_t length, tsr_beam_answer answer)
{
    int at = b->n_finished;

    answer.score = score_of(b, answer.sum, length);
    while (at > 0 && answer.score > b->finished[at - 1].is.score) {
        at--;
    }
    if (at == b->rules.width) {
        return;
    }
    if (b->n_finished == b->rules.width) {
        let_go(b, b->finished[--b->n_finished].last);
    }
    memmove(&b->finished[at + 1], &b->finished[at],
            (size_t)(b->n_finished - at) * sizeof(*b->finished));
    b->finished[at] = (finished_answer){.last = last, .is = answer};
    b->n_finished++;
    share(b, last);
}

static void keep_end(tsr_beam *b, int parent, const tsr_beam_candidate *c, double sum,
                     tsr_beam_end end)
{
    const int64_t length = b->n_tokens + 1;

    if (end == TSR_BEAM_ENDS_WITH) {
        const int32_t last = put_behind(b, parent, c);

        keep(b, last, length, (tsr_beam_answer){.n_tokens = length, .sum = sum});
        let_go(b, last);
    } else {
        keep(b, b->live[parent].last, length,
             (tsr_beam_answer){.n_tokens = b->n_tokens, .sum = sum});
    }
}

/* best: the best sum of the round that brought the beams to n_tokens. */
static bool is_over(const tsr_beam *b, double best)
{
    int64_t length = b->n_tokens;

    if (b->n_finished < b->rules.width) {
        return false;
    }
    if (b->rules.stopping == TSR_STOPPING_EARLY) {
        return true;
    }
    if (b->rules.stopping == TSR_STOPPING_NEVER && b->rules.length_penalty > 0) {
        length = b->rules.max_tokens; // where a sum below 0 scores most
    }
    return b->finished[b->n_finished - 1].is.score >= score_of(b, best, length);
}

static void drop_live(tsr_beam *b)
{
    for (int i = 0; i < b->n_live; i++) {
        let_go(b, b->live[i].last);
    }
    b->n_live = 0;
}

void tsr_beam_finish(tsr_beam *b)
{
    for (int i = 0; i < b->n_live; i++) {
        keep(b, b->live[i].last, b->n_tokens,
             (tsr_beam_answer){.n_tokens = b->n_tokens, .is_open = true, .sum = b->live[i].sum});
    }
    drop_live(b);
}

/* ---- a round ---- */

tsr_status tsr_beam_advance(tsr_beam *b, tsr_beam_step *steps)
{
    const int width = b->rules.width;
    double best = -INFINITY;
    double sum = 0.0;
    int parent = 0;
    int n_next = 0;
    const tsr_beam_candidate *c;
    live_beam *swap;

    TSR_TRY(reserve_nodes(b, 2 * width + 1)); // new beams, answers, and one that is not kept
    memset(b->cursor, 0, (size_t)width * sizeof(*b->cursor));
    for (int rank = 0; n_next < width && (c = take_best(b, &parent, &sum)) != NULL; rank++) {
        const tsr_beam_end end = b->rules.ends(b->rules.ctx, parent, c->id);

        best = rank == 0 ? sum : best;
        if (end == TSR_BEAM_GOES_ON) {
            steps[n_next] = (tsr_beam_step){.parent = parent, .token = c->id};
            b->next[n_next++] = (live_beam){.last = put_behind(b, parent, c), .sum = sum};
        } else if (rank < width) {
            keep_end(b, parent, c, sum, end);
        }
    }
    if (n_next == 0 && b->n_finished == 0) {
        tsr_beam_finish(b); // nothing is possible any more
        return TSR_OK;
    }
    drop_live(b);
    swap = b->live;
    b->live = b->next;
    b->next = swap;
    b->n_live = n_next;
    b->n_tokens++;
    if (is_over(b, best)) {
        drop_live(b);
    } else if (b->n_tokens >= b->rules.max_tokens) {
        tsr_beam_finish(b);
    }
    return TSR_OK;
}

/* ---- results ---- */

int tsr_beam_n_answers(const tsr_beam *b)
{
    return b->n_finished;
}

tsr_beam_answer tsr_beam_answer_at(const tsr_beam *b, int i)
{
    assert(i >= 0 && i < b->n_finished);
    return b->finished[i].is;
}

void tsr_beam_read(const tsr_beam *b, int i, tsr_beam_place *places)
{
    int32_t at = b->finished[i].last;

    for (int64_t t = b->finished[i].is.n_tokens - 1; t >= 0; t--) {
        const node *n = &b->nodes[at];

        places[t] = (tsr_beam_place){
            .token = n->token, .told = n->told, .top = top_of(b, at), .n_top = n->n_top};
        at = n->before;
    }
}
