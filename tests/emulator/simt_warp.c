#include "tests/emulator/simt_inside.h"

#include <string.h>

/* Collectives of a warp: the last lane to come does the work of all, so that each lane is switched
 * to once. */
enum collective {
    SYNC,
    SHUFFLE,
    VOTE,
    REDUCE,
    MMA,
    LOAD_MATRICES
};
static const char *const names[] = {
    [SYNC] = "__syncwarp",  [SHUFFLE] = "shuffle", [VOTE] = "vote",
    [REDUCE] = "reduction", [MMA] = "mma.sync",    [LOAD_MATRICES] = "ldmatrix"};

typedef struct shuffle {
    uint32_t value;
    uint32_t from; // lane
} shuffle;

typedef struct reduction {
    uint32_t value;
    simt_reduction what;
    bool is_signed;
} reduction;

typedef struct mma {
    simt_mma_kind kind;
    simt_mma_lane *lane;
} mma;

typedef struct matrices {
    uint16_t row[8]; // the one that this lane names
    uint32_t *out;
    int n;
    bool transposed;
} matrices;

static void *operands_of(const simt_warp *warp, uint32_t lane)
{
    return warp->threads[lane].wait.operands;
}

#define EACH_LANE(lane, lanes)           \
    for (uint32_t left_ = (lanes), lane; \
         left_ != 0 && (lane = (uint32_t)__builtin_ctz(left_), true); left_ &= left_ - 1)

/* ---- what they do
 * --------------------------------------------------------------------------------
 */

static void sync_lanes(simt_warp *warp, uint32_t lanes)
{
    uint32_t known[SIMT_LANES] = {0};

    EACH_LANE(lane, lanes)
    {
        simt_thread *t = &warp->threads[lane];

        t->clock++;
        warp->knows[lane][lane] = t->clock;
        for (uint32_t i = 0; i < SIMT_LANES; i++) {
            known[i] = warp->knows[lane][i] > known[i] ? warp->knows[lane][i] : known[i];
        }
    }
    EACH_LANE(lane, lanes)
    {
        memcpy(warp->knows[lane], known, sizeof(known));
    }
}

static void do_shuffle(simt_warp *warp, uint32_t lanes)
{
    uint32_t values[SIMT_LANES];

    EACH_LANE(lane, lanes)
    {
        values[lane] = ((shuffle *)operands_of(warp, lane))->value;
    }
    EACH_LANE(lane, lanes)
    {
        shuffle *s = operands_of(warp, lane);

        // The value of a lane that does not take part is undefined: something to stumble over.
        s->value = (lanes >> s->from & 1) != 0 ? values[s->from] : 0x7FC0DEAD;
    }
}

static void do_vote(simt_warp *warp, uint32_t lanes)
{
    uint32_t votes = 0;

    EACH_LANE(lane, lanes)
    {
        votes |= (*(uint32_t *)operands_of(warp, lane) & 1) << lane;
    }
    EACH_LANE(lane, lanes)
    {
        *(uint32_t *)operands_of(warp, lane) = votes;
    }
}

static bool is_less(const reduction *r, uint32_t a, uint32_t b)
{
    return r->is_signed ? (int32_t)a < (int32_t)b : a < b;
}

static void do_reduce(simt_warp *warp, uint32_t lanes)
{
    const reduction *first = operands_of(warp, (uint32_t)__builtin_ctz(lanes));
    uint32_t result = first->value;

    EACH_LANE(lane, lanes & (lanes - 1))
    {
        const uint32_t value = ((reduction *)operands_of(warp, lane))->value;

        if (first->what == SIMT_ADD) {
            result += value;
        } else if (is_less(first, value, result) == (first->what == SIMT_LEAST)) {
            result = value;
        }
    }
    EACH_LANE(lane, lanes)
    {
        ((reduction *)operands_of(warp, lane))->value = result;
    }
}

static void do_load_matrices(simt_warp *warp)
{
    const matrices *of[SIMT_LANES];

    for (uint32_t lane = 0; lane < SIMT_LANES; lane++) {
        of[lane] = operands_of(warp, lane);
    }
    for (uint32_t lane = 0; lane < SIMT_LANES; lane++) {
        const uint32_t row = lane / 4;
        const uint32_t column = lane % 4 * 2;

        for (uint32_t m = 0; m < (uint32_t)of[lane]->n; m++) {
            const uint16_t low =
                of[lane]->transposed ? of[8 * m + column]->row[row] : of[8 * m + row]->row[column];
            const uint16_t high = of[lane]->transposed ? of[8 * m + column + 1]->row[row]
                                                       : of[8 * m + row]->row[column + 1];

            of[lane]->out[m] = (uint32_t)low | (uint32_t)high << 16;
        }
    }
}

static void perform(simt_warp *warp, enum collective what, uint32_t lanes)
{
    switch (what) {
    case SYNC:
        sync_lanes(warp, lanes);
        break;
    case SHUFFLE:
        do_shuffle(warp, lanes);
        break;
    case VOTE:
        do_vote(warp, lanes);
        break;
    case REDUCE:
        do_reduce(warp, lanes);
        break;
    case LOAD_MATRICES:
        do_load_matrices(warp);
        break;
    case MMA: {
        simt_mma_lane *all[SIMT_LANES];

        for (uint32_t lane = 0; lane < SIMT_LANES; lane++) {
            all[lane] = ((mma *)operands_of(warp, lane))->lane;
        }
        simt_multiply(((mma *)operands_of(warp, 0))->kind, all);
    }
    }
}

/* ---- meeting
 * -------------------------------------------------------------------------------------
 */

/* Does the collective that t waits in happen now? Then it does. */
static bool try_collective(simt_thread *t)
{
    simt_warp *warp = t->warp;
    const uint32_t lanes = t->wait.mask & ~warp->ended;
    char here[128];
    char there[128];

    if (lanes != t->wait.mask && t->wait.collective != SYNC) {
        simt_fail(t, t->wait.place, "%s names lanes %08x that have returned",
                  names[t->wait.collective], t->wait.mask & warp->ended);
    }
    if ((warp->waiting & lanes) != lanes) {
        return false;
    }
    EACH_LANE(lane, lanes)
    {
        const simt_wait *other = &warp->threads[lane].wait;

        if (other->mask != t->wait.mask || other->collective != t->wait.collective ||
            !simt_same_place(other->place, t->wait.place)) {
            simt_fail(t, t->wait.place,
                      "lanes disagree: lane %u is in a %s at %s, mask %08x; lane %u in a %s at %s, "
                      "mask %08x",
                      t->lane, names[t->wait.collective], simt_place_name(t->wait.place, here),
                      t->wait.mask, lane, names[other->collective],
                      simt_place_name(other->place, there), other->mask);
        }
    }
    perform(warp, (enum collective)t->wait.collective, lanes);
    warp->waiting &= ~lanes;
    return true;
}

static void make_ready(simt_warp *warp, uint32_t lanes)
{
    EACH_LANE(lane, lanes)
    {
        simt_make_ready(&warp->threads[lane]);
    }
}

static void meet(simt_thread *t, enum collective what, uint32_t mask, void *operands,
                 uint32_t place)
{
    simt_warp *warp = t->warp;
    const uint32_t all = warp->n_lanes == SIMT_LANES ? ~0U : (1U << warp->n_lanes) - 1;

    mask &= all;
    if ((mask >> t->lane & 1) == 0) {
        simt_fail(t, place, "lane %u calls a %s whose mask %08x does not name it", t->lane,
                  names[what], mask);
    }
    t->wait.place = place;
    t->wait.mask = mask;
    t->wait.collective = (int)what;
    t->wait.operands = operands;
    warp->waiting |= 1U << t->lane;
    if (!try_collective(t)) {
        t->wait.state = SIMT_IN_WARP;
        simt_make_wait(t);
        simt_give_way(t);
        return;
    }
    make_ready(warp, mask & ~warp->ended & ~(1U << t->lane));
}

void simt_warp_lane_left(simt_warp *warp)
{
    EACH_LANE(lane, warp->waiting)
    {
        simt_thread *t = &warp->threads[lane];

        // Another lane's collective may have taken this one along.
        if ((warp->waiting >> lane & 1) != 0 && try_collective(t)) {
            make_ready(warp, t->wait.mask & ~warp->ended);
        }
    }
}

/* ---- one function each
 * ---------------------------------------------------------------------------
 */

void simt_warp_sync(simt_thread *t, uint32_t mask, uint32_t place)
{
    meet(t, SYNC, mask, NULL, place);
}

uint32_t simt_shuffle(simt_thread *t, simt_shuffle_mode mode, uint32_t value, uint32_t lane,
                      uint32_t clamp, uint32_t mask, bool *within, uint32_t place)
{
    // As the PTX manual has it: the clamp's upper half cuts the warp into segments.
    const uint32_t segment = clamp >> 8 & 31;
    const uint32_t largest = (t->lane & segment) | (clamp & 31 & ~segment);
    const uint32_t least = t->lane & segment;
    const uint32_t by = lane & 31;
    shuffle s = {.value = value};
    uint32_t from;

    switch (mode) {
    case SIMT_UP:
        from = t->lane - by;
        *within = (int32_t)from >= (int32_t)largest;
        break;
    case SIMT_DOWN:
        from = t->lane + by;
        *within = from <= largest;
        break;
    case SIMT_BUTTERFLY:
        from = t->lane ^ by;
        *within = from <= largest;
        break;
    default:
        from = least | (by & ~segment);
        *within = from <= largest;
    }
    s.from = *within ? from : t->lane;
    meet(t, SHUFFLE, mask, &s, place);
    return s.value;
}

uint32_t simt_vote(simt_thread *t, bool vote, uint32_t mask, uint32_t place)
{
    uint32_t votes = vote;

    meet(t, VOTE, mask, &votes, place);
    return votes;
}

uint32_t simt_reduce(simt_thread *t, simt_reduction what, bool is_signed, uint32_t value,
                     uint32_t mask, uint32_t place)
{
    reduction r = {value, what, is_signed};

    meet(t, REDUCE, mask, &r, place);
    return r.value;
}

static void need_whole_warp(simt_thread *t, const char *what, uint32_t place)
{
    if (t->warp->n_lanes < SIMT_LANES) {
        simt_fail(t, place, "%s in a warp of %u lanes", what, t->warp->n_lanes);
    }
}

void simt_mma(simt_thread *t, simt_mma_kind kind, simt_mma_lane *lane, uint32_t place)
{
    mma m = {kind, lane};

    need_whole_warp(t, names[MMA], place);
    meet(t, MMA, ~0U, &m, place);
}

void simt_load_matrices(simt_thread *t, uint32_t *out, int n_matrices, bool transposed,
                        uint32_t offset, uint32_t place)
{
    matrices m = {.out = out, .n = n_matrices, .transposed = transposed};

    need_whole_warp(t, names[LOAD_MATRICES], place);
    if (t->lane < 8 * (uint32_t)n_matrices) {
        memcpy(m.row, simt_shared(t, offset, sizeof(m.row), SIMT_READ, place), sizeof(m.row));
    }
    meet(t, LOAD_MATRICES, ~0U, &m, place);
}
