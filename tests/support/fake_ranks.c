#include "tests/support/fake_ranks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "tests/support/dice.h"

void fake_ranks_init(fake_ranks *ranks, const tsr_step_limits *limits, int64_t context)
{
    const size_t n_ids = (size_t)limits->n_block_ids;

    *ranks = (fake_ranks){.limits = *limits, .context = context};
    assert_int_equal(tsr_step_init(&ranks->step, limits), TSR_OK);
    ranks->message = tsr_alloc(tsr_step_max_ints(limits), sizeof(int32_t));
    ranks->tables =
        tsr_alloc((size_t)limits->max_seqs * (size_t)limits->max_blocks, sizeof(int32_t));
    ranks->owners = tsr_alloc(n_ids, sizeof(int64_t));
    ranks->slots = tsr_alloc(n_ids * (size_t)limits->block_tokens, sizeof(fake_slot));
    ranks->delays = tsr_alloc((size_t)limits->max_seqs, sizeof(int));
    ranks->ticket_lanes = tsr_alloc((size_t)limits->max_seqs, sizeof(int32_t));
    assert_true(ranks->delays != NULL && ranks->ticket_lanes != NULL);
    ranks->next = tsr_alloc((size_t)limits->max_seqs, sizeof(int32_t));
    assert_true(ranks->message != NULL && ranks->tables != NULL && ranks->owners != NULL &&
                ranks->slots != NULL && ranks->next != NULL);
    for (size_t i = 0; i < n_ids; i++) {
        ranks->owners[i] = -1;
    }
    for (int i = 0; i < limits->max_seqs * limits->max_blocks; i++) {
        ranks->tables[i] = -1;
    }
    for (size_t i = 0; i < n_ids * (size_t)limits->block_tokens; i++) {
        ranks->slots[i].writer = -1;
    }
}

void fake_ranks_clear(fake_ranks *ranks)
{
    tsr_step_clear(&ranks->step);
    tsr_free(ranks->message);
    tsr_free(ranks->tables);
    tsr_free(ranks->owners);
    tsr_free(ranks->slots);
    tsr_free(ranks->ticket_lanes);
    tsr_free(ranks->delays);
    tsr_free(ranks->next);
}

int32_t fake_ranks_next(const int32_t *tokens, int64_t n, int n_vocab)
{
    uint32_t hash = 2166136261u;

    for (int64_t i = 0; i < n; i++) {
        hash = (hash ^ (uint32_t)tokens[i]) * 16777619u;
    }
    return (int32_t)((hash >> 8) % (uint32_t)n_vocab);
}

static fake_slot *slot_at(fake_ranks *ranks, int32_t lane, int64_t position)
{
    const int bt = ranks->limits.block_tokens;
    const int32_t block = ranks->tables[(int64_t)lane * ranks->limits.max_blocks + position / bt];

    return &ranks->slots[(int64_t)block * bt + position % bt];
}

static void drop_blocks(fake_ranks *ranks, const tsr_step *step)
{
    for (int i = 0; i < step->n_dropped; i++) {
        const int32_t id = step->dropped[i];

        assert_true(ranks->owners[id] >= 0); // it was told of, and is not dropped twice
        ranks->owners[id] = -1;
        for (int k = 0; k < ranks->report.n_lost; k++) {
            if (ranks->report.lost[k] == id) {
                ranks->report.lost[k] = ranks->report.lost[--ranks->report.n_lost];
            }
        }
        for (int k = 0; k < ranks->limits.block_tokens; k++) {
            ranks->slots[(int64_t)id * ranks->limits.block_tokens + k].writer = -1;
        }
    }
}

static int32_t *table_of(fake_ranks *ranks, int32_t lane)
{
    return &ranks->tables[(int64_t)lane * ranks->limits.max_blocks];
}

static bool has_table(fake_ranks *ranks, int32_t lane)
{
    for (int b = 0; b < ranks->limits.max_blocks; b++) {
        if (table_of(ranks, lane)[b] >= 0) {
            return true;
        }
    }
    return false;
}

static void leave_lanes(fake_ranks *ranks, const tsr_step *step)
{
    for (int i = 0; i < step->n_left; i++) {
        for (int k = 0; k < ranks->n_open; k++) {
            if (ranks->ticket_lanes[k] == step->left[i]) {
                ranks->ticket_lanes[k] = -1; // nobody waits for it any more
                ranks->delays[k] = 0;
            }
        }
    }
    for (int i = 0; i < step->n_left; i++) {
        assert_true(has_table(ranks, step->left[i])); // a lane without one is not left
        for (int b = 0; b < ranks->limits.max_blocks; b++) {
            table_of(ranks, step->left[i])[b] = -1;
        }
    }
}

static int sequence_of_lane(const tsr_step *step, int32_t lane)
{
    for (int s = 0; s < step->n_seqs; s++) {
        if (step->lanes[s] == lane) {
            return s;
        }
    }
    return -1;
}

/* The oldest tickets whose time has come are done; one at least, if the step is there for it. */
static void advance_tickets(fake_ranks *ranks, bool waits)
{
    int n_done = 0;

    assert_true(!waits || ranks->n_open > 0);
    if (waits) {
        ranks->delays[0] = 0;
    }
    while (n_done < ranks->n_open && ranks->delays[n_done] <= 0) {
        n_done++;
    }
    ranks->report.n_tickets_done += n_done;
    ranks->n_open -= n_done;
    for (int k = 0; k < ranks->n_open; k++) {
        ranks->delays[k] = ranks->delays[k + n_done] - 1;
        ranks->ticket_lanes[k] = ranks->ticket_lanes[k + n_done];
    }
}

void fake_ranks_lose(fake_ranks *ranks, int32_t block)
{
    assert_true(ranks->owners[block] >= 0 && ranks->report.n_lost < TSR_STEP_MOST_LOST);
    ranks->report.lost[ranks->report.n_lost++] = block;
    for (int k = 0; k < ranks->limits.block_tokens; k++) {
        ranks->slots[(int64_t)block * ranks->limits.block_tokens + k].writer = -1;
        ranks->slots[(int64_t)block * ranks->limits.block_tokens + k].token = -1;
    }
}

static bool is_dropped(const tsr_step *step, int32_t id)
{
    for (int k = 0; k < step->n_dropped; k++) {
        if (step->dropped[k] == id) {
            return true;
        }
    }
    return false;
}

static void append_blocks(fake_ranks *ranks, const tsr_scheduler *scheduler, const tsr_step *step)
{
    for (int i = 0; i < step->n_appended; i++) {
        const int32_t id = step->append_block[i];
        const int s = sequence_of_lane(step, step->append_lane[i]);
        const int64_t n_positions =
            s < 0 ? INT64_MAX : step->first_pos[s] + step->row_start[s + 1] - step->row_start[s];
        int32_t *entry = &table_of(ranks, step->append_lane[i])[step->append_index[i]];

        if (s < 0 && !has_table(ranks, step->append_lane[i])) { // a ticket
            assert_true(ranks->is_tiered && ranks->n_open < ranks->limits.max_seqs);
            ranks->ticket_lanes[ranks->n_open] = step->append_lane[i];
            ranks->delays[ranks->n_open++] = dice_below(&ranks->dice, ranks->max_delay + 1);
        }
        assert_true(ranks->shares || ranks->is_tiered || ranks->owners[id] == -1); // free
        // Nothing is told twice, unless it was given up meanwhile, or one before it was replaced.
        assert_true(ranks->shares || *entry != id || is_dropped(step, id));
        // None is taken ahead of the rows that fill it.
        assert_true((int64_t)step->append_index[i] * ranks->limits.block_tokens < n_positions);
        ranks->owners[id] = s < 0 ? 0 : tsr_scheduler_request_of(scheduler, s)->id;
        *entry = id;
        ranks->n_given_over += is_dropped(step, id) ? 1 : 0;
    }
}

static void copy_blocks(fake_ranks *ranks, const tsr_step *step)
{
    const int bt = ranks->limits.block_tokens;

    for (int i = 0; i < step->n_copied; i++) {
        bool is_appended = false;

        assert_true(ranks->owners[step->copy_from[i]] >= 0); // dropped it would not be
        for (int k = 0; k < step->n_appended; k++) {
            is_appended = is_appended || step->append_block[k] == step->copy_to[i];
        }
        assert_true(is_appended);
        for (int k = 0; k < bt; k++) {
            ranks->slots[(int64_t)step->copy_to[i] * bt + k] =
                ranks->slots[(int64_t)step->copy_from[i] * bt + k];
        }
        ranks->n_copied++;
    }
}

/* Nobody else's table has this block. */
static void assert_sole(fake_ranks *ranks, int32_t lane, int32_t block)
{
    for (int32_t other = 0; other < ranks->limits.max_seqs; other++) {
        for (int b = 0; other != lane && b < ranks->limits.max_blocks; b++) {
            assert_int_not_equal(table_of(ranks, other)[b], block);
        }
    }
}

/* Is the block at this position lost? */
static bool is_lost(fake_ranks *ranks, int32_t lane, int64_t position)
{
    for (int k = 0; k < ranks->report.n_lost; k++) {
        if (table_of(ranks, lane)[position / ranks->limits.block_tokens] == ranks->report.lost[k]) {
            return true;
        }
    }
    return false;
}

/* Every position up to the last has a block, of this request's own unless they may be shared, and
 * in it what belongs there. False: some of it is lost. */
static bool read_back(fake_ranks *ranks, const tsr_request *r, int32_t lane, int64_t n_positions)
{
    for (int64_t p = 0; p < n_positions; p++) {
        const int32_t block =
            ranks
                ->tables[(int64_t)lane * ranks->limits.max_blocks + p / ranks->limits.block_tokens];
        const fake_slot *slot = slot_at(ranks, lane, p);

        if (is_lost(ranks, lane, p)) {
            return false;
        }
        assert_true(ranks->owners[block] == r->id ||
                    ((ranks->shares || ranks->is_tiered) && ranks->owners[block] >= 0));
        assert_true(slot->writer == r->id || ranks->shares);
        assert_int_equal(slot->position, p);
        assert_int_equal(slot->token, r->tokens[p]);
    }
    return true;
}

static void check_wanted(const tsr_scheduler *scheduler, const tsr_step *step)
{
    int w = 0;

    for (int s = 0; s < step->n_seqs; s++) {
        const tsr_request *r = tsr_scheduler_request_of(scheduler, s);

        for (int row = step->row_start[s]; row < step->row_start[s + 1]; row++) {
            const int64_t p = step->first_pos[s] + row - step->row_start[s];
            const bool sampled =
                row + 1 == step->row_start[s + 1] && tsr_scheduler_samples(scheduler, s);
            const bool scored = r->score && p < r->n_prompt && p >= r->n_scored;

            if (sampled || scored) {
                assert_true(w < step->n_wanted);
                assert_int_equal(step->wanted[w], row);
                assert_int_equal(step->targets[w],
                                 scored && p + 1 < r->n_prompt ? r->tokens[p + 1] : -1);
                assert_true(step->sharpness[w] ==
                            (sampled ? tsr_sampler_sharpness(&r->sampling) : 1.0f));
                w++;
            }
        }
    }
    assert_int_equal(w, step->n_wanted);
}

void fake_ranks_run(fake_ranks *ranks, const tsr_scheduler *scheduler, const tsr_step *planned)
{
    const size_t n_ints = tsr_step_pack(planned, ranks->message);
    const tsr_step *step = &ranks->step;

    assert_int_equal(tsr_step_unpack(&ranks->step, ranks->message, n_ints), TSR_OK);
    ranks->report.is_spoilt = false;
    drop_blocks(ranks, step);
    leave_lanes(ranks, step);
    append_blocks(ranks, scheduler, step);
    copy_blocks(ranks, step);
    check_wanted(scheduler, step);
    for (int s = 0; s < step->n_seqs; s++) {
        const tsr_request *r = tsr_scheduler_request_of(scheduler, s);
        const int32_t lane = step->lanes[s];
        const int32_t first = step->row_start[s];
        const int32_t n_rows = step->row_start[s + 1] - first;

        assert_int_equal(step->first_pos[s], r->n_cached); // in order, each once a life
        assert_int_equal(lane, r->lane);
        for (int k = 0; k < ranks->n_open; k++) {
            assert_int_not_equal(ranks->ticket_lanes[k], lane); // it is awake
        }
        for (int32_t k = 0; k < n_rows; k++) {
            fake_slot *slot = slot_at(ranks, lane, r->n_cached + k);

            assert_true(ranks->shares || slot->writer == -1 || slot->position != r->n_cached + k ||
                        slot->writer != r->id);
            assert_sole(ranks, lane,
                        table_of(ranks, lane)[(r->n_cached + k) / ranks->limits.block_tokens]);
            *slot = (fake_slot){r->id, (int32_t)r->n_cached + k, step->tokens[first + k]};
        }
    }
    // Only when all have written: nobody may have written into another's block.
    for (int s = 0; s < step->n_seqs; s++) {
        const tsr_request *r = tsr_scheduler_request_of(scheduler, s);
        const int64_t n = step->first_pos[s] + step->row_start[s + 1] - step->row_start[s];
        const bool is_sound = read_back(ranks, r, step->lanes[s], n);

        ranks->report.is_spoilt = ranks->report.is_spoilt || !is_sound;
        // One more than its tokens: it was planned before it was known that it has ended.
        assert_int_equal(tsr_scheduler_samples(scheduler, s),
                         n >= r->n_tokens && n < r->n_prompt + r->max_tokens && n < ranks->context);
        ranks->next[s] = tsr_scheduler_samples(scheduler, s) && is_sound
                             ? fake_ranks_next(r->tokens, n, ranks->limits.n_vocab)
                             : -12345; // must not be read
    }
    ranks->n_rows += step->n_rows;
    if (ranks->is_tiered) {
        advance_tickets(ranks, step->waits != 0);
    }
}
