#include "kv/kv_tiers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/log.h"
#include "kernels/task_queue.h"
#include "tests/support/dice.h"
#include "tests/support/kv_play.h"
#include "tests/support/scratch.h"
#include "tests/support/torture.h"

/* ---- somebody who does all that is allowed, in any order ---- */

static int claim(const play *p, int n_blocks)
{
    return n_blocks < p->n_device / 2 ? n_blocks : p->n_device / 2;
}

/* What the tables hold, and what it would be with `more` blocks for sequence `seq`. */
static bool allows(const play *p, int seq, int more)
{
    int claims = 0;
    int n_blocks = 0;

    for (int s = 0; s < PLAY_SEQS; s++) {
        const play_seq *q = &p->seqs[s];

        if (q->lives && (q->table >= 0 || s == seq)) {
            const int n = q->n_blocks + (s == seq ? more : 0);

            claims += claim(p, n);
            n_blocks += n;
        }
    }
    return claims <= p->n_device && n_blocks <= p->n_device + p->n_host && more <= p->n_free;
}

static int blocks_more(const play_seq *q, int n_rows)
{
    return (q->n_tokens + n_rows + PLAY_TOKENS - 1) / PLAY_TOKENS - q->n_blocks;
}

/* Rows for the sequences that have a table and no open ticket. */
static void give_rows(play *p, uint64_t *dice, int n_rows[PLAY_SEQS])
{
    int n_writes = 0;

    memset(n_rows, 0, PLAY_SEQS * sizeof(*n_rows));
    for (int s = 0; s < PLAY_SEQS; s++) {
        play_seq *q = &p->seqs[s];
        int want = dice_below(dice, 4) == 0 ? 1 + dice_below(dice, 40) : 1;
        int more, writes;

        if (!q->lives || q->table < 0 || q->ticket >= 0 || q->was_spoilt) {
            continue;
        }
        more = blocks_more(q, want);
        writes = more + 1;
        if (n_writes + writes > p->n_device / 2 || q->n_blocks + more > PLAY_MOST_BLOCKS ||
            !allows(p, s, more)) {
            continue;
        }
        // Blocks are taken here, so that the next sequence is told what is left.
        while (q->n_blocks * PLAY_TOKENS < q->n_tokens + want) {
            q->ids[q->n_blocks] = p->free_ids[--p->n_free];
            p->owners[q->ids[q->n_blocks++]] = 1;
        }
        n_writes += writes;
        n_rows[s] = want;
    }
}

static void change_something(play *p, uint64_t *dice)
{
    const int s = dice_below(dice, PLAY_SEQS);
    play_seq *q = &p->seqs[s];
    const int n_lives = PLAY_SEQS - 4;
    int n = 0;

    for (int i = 0; i < PLAY_SEQS; i++) {
        n += p->seqs[i].lives ? 1 : 0;
    }
    if (!q->lives) {
        if (n < n_lives) {
            (void)play_begin(p);
        }
    } else if (q->was_spoilt || dice_below(dice, 12) == 0) {
        play_end(p, s);
    } else if (q->table >= 0 && dice_below(dice, 4) == 0) {
        play_rest(p, s);
    } else if (q->table < 0 && allows(p, s, 0)) {
        (void)play_call(p, s);
    } else if (n < n_lives && q->n_blocks > 1 && dice_below(dice, 3) == 0) {
        (void)play_fork(p, s);
    }
}

/* Ends everything; the store is as it was at first. */
static void end_all(play *p)
{
    const int none[PLAY_SEQS] = {0};
    tsr_kv_report r;

    for (int s = 0; s < PLAY_SEQS; s++) {
        if (p->seqs[s].lives) {
            play_end(p, s);
        }
    }
    assert_int_equal(play_step(p, none, false), TSR_OK);
    assert_int_equal(tsr_kv_tiers_settle((tsr_kv_tiers *)(uintptr_t)tsr_kv_store_tiers(p->store)),
                     TSR_OK);
    r = play_report(p);
    for (int t = 0; t < TSR_KV_TIER_COUNT; t++) {
        assert_int_equal(r.n_blocks[t], 0);
    }
    assert_int_equal(r.n_lost, 0);
    assert_int_equal(r.n_tickets_done, p->n_tickets);
    assert_int_equal(p->n_free, p->n_ids);
    assert_true(tsr_kv_store_verify(p->store));
}

static tsr_kv_report play_at_random(play *p, uint64_t seed, int n_steps)
{
    uint64_t dice = seed;
    tsr_kv_report r;

    for (int step = 0; step < n_steps; step++) {
        int n_rows[PLAY_SEQS];
        bool any = false;

        change_something(p, &dice);
        change_something(p, &dice);
        give_rows(p, &dice, n_rows);
        for (int s = 0; s < PLAY_SEQS; s++) {
            any = any || n_rows[s] > 0;
        }
        if (play_step(p, n_rows, !any) != TSR_OK) {
            fail_msg("step %d: %s", step, tsr_status_message());
        }
        if (!tsr_kv_store_verify(p->store)) {
            fail_msg("step %d: the books are wrong", step);
        }
    }
    r = play_report(p);
    end_all(p);
    return r;
}

static const struct room {
    int n_device, n_host, n_disk;
} rooms[] = {
    {16, 40, 0}, {16, 0, 60}, {16, 24, 60}, {4, 12, 40}, {40, 8, 8}, {6, 100, 0}, {24, 4, 200},
};

enum {
    N_ROOMS = sizeof(rooms) / sizeof(rooms[0])
};

static void what_rows_read_is_what_was_written_wherever_it_was_meanwhile(void **state)
{
    (void)state;
    for (int i = 0; i < N_ROOMS; i++) {
        play p;
        tsr_kv_report r;

        play_open(&p, rooms[i].n_device, rooms[i].n_host, rooms[i].n_disk, scratch_folder());
        r = play_at_random(&p, 7 + (uint64_t)i, 3000);
        assert_int_equal(p.n_wrong, 0);
        assert_int_equal(p.n_spoilt, 0); // no fault, no loss
        assert_true(r.n_moves[TSR_KV_DEVICE][TSR_KV_HOST] + r.n_moves[TSR_KV_DEVICE][TSR_KV_DISK] >
                    100);
        play_close(&p);
    }
}

static void copies_and_transfers_that_fail_now_and_then_change_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < N_ROOMS; i++) {
        for (int kind = 0; kind < TSR_TASK_KIND_COUNT; kind++) {
            play p;

            play_open(&p, rooms[i].n_device, rooms[i].n_host, rooms[i].n_disk, scratch_folder());
            for (int round = 0; round < 40; round++) {
                uint64_t dice = (uint64_t)(1000 * i + round);

                tsr_task_queue_fail((tsr_task_kind)kind, 1 + round, 1);
                for (int step = 0; step < 30; step++) {
                    int n_rows[PLAY_SEQS];

                    change_something(&p, &dice);
                    give_rows(&p, &dice, n_rows);
                    assert_int_equal(play_step(&p, n_rows, step % 10 == 9), TSR_OK);
                    assert_true(tsr_kv_store_verify(p.store));
                }
            }
            tsr_task_queue_fail((tsr_task_kind)kind, 1, 0);
            end_all(&p);
            assert_int_equal(p.n_wrong, 0);
            assert_int_equal(p.n_spoilt, 0); // each is tried again
            play_close(&p);
        }
    }
}

static void a_disk_that_fails_for_good_costs_blocks_and_never_shows_a_wrong_one(void **state)
{
    (void)state;
    tsr_log_set_level(TSR_LOG_ERROR); // what it warns of is meant here
    for (int i = 1; i < N_ROOMS; i++) {
        for (int kind = TSR_TASK_READ; kind <= TSR_TASK_WRITE; kind++) {
            play p;

            play_open(&p, rooms[i].n_device, rooms[i].n_host, rooms[i].n_disk, scratch_folder());
            tsr_task_queue_fail((tsr_task_kind)kind, 40, 1000000);
            (void)play_at_random(&p, 50 + (uint64_t)i, 1500);
            tsr_task_queue_fail((tsr_task_kind)kind, 1, 0);
            assert_int_equal(p.n_wrong, 0);
            play_close(&p);
        }
    }
    tsr_log_set_level(TSR_LOG_WARN);
}

/* The same play again and again; each time one transfer later fails, `n_failures` in a row. */
static void fail_at_every_point(const struct room *room, tsr_task_kind kind, int n_failures,
                                bool may_lose)
{
    enum {
        N_STEPS = 300
    };
    int n_points = 1;

    for (int at = 0; at <= n_points; at++) {
        play p;
        tsr_kv_report r;

        play_open(&p, room->n_device, room->n_host, room->n_disk, scratch_folder());
        tsr_task_queue_fail(kind, at, at == 0 ? 0 : n_failures); // the first play is without
        r = play_at_random(&p, 21, N_STEPS);
        tsr_task_queue_fail(kind, 1, 0);
        assert_int_equal(p.n_wrong, 0);
        assert_true(may_lose || p.n_spoilt == 0);
        if (at == 0) {
            n_points = 0;
            for (int from = 0; from < TSR_KV_TIER_COUNT; from++) {
                for (int to = 0; to < TSR_KV_TIER_COUNT; to++) {
                    const bool counts = kind == TSR_TASK_READ    ? from == TSR_KV_DISK
                                        : kind == TSR_TASK_WRITE ? to == TSR_KV_DISK
                                                                 : true;

                    n_points += counts ? (int)r.n_moves[from][to] : 0;
                }
            }
            assert_true(n_points > 10);
        }
        play_close(&p);
    }
}

static void each_copy_read_and_write_may_fail_once(void **state)
{
    (void)state;
    for (int kind = 0; kind < TSR_TASK_KIND_COUNT; kind++) {
        // Without a host pool what lies on the disk has to come back.
        fail_at_every_point(&rooms[kind == TSR_TASK_COPY ? 3 : 1], (tsr_task_kind)kind, 1, false);
    }
}

static void the_disk_may_be_full_from_any_write_on(void **state)
{
    (void)state;
    tsr_log_set_level(TSR_LOG_ERROR); // what it warns of is meant here
    fail_at_every_point(&rooms[1], TSR_TASK_WRITE, 1000000, true);
    fail_at_every_point(&rooms[3], TSR_TASK_WRITE, 1000000, true);
    tsr_log_set_level(TSR_LOG_WARN);
}

#define PLAIN(test) cmocka_unit_test(test)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PLAIN(what_rows_read_is_what_was_written_wherever_it_was_meanwhile),
        PLAIN(copies_and_transfers_that_fail_now_and_then_change_nothing),
        PLAIN(each_copy_read_and_write_may_fail_once),
        PLAIN(the_disk_may_be_full_from_any_write_on),
        PLAIN(a_disk_that_fails_for_good_costs_blocks_and_never_shows_a_wrong_one),
    };

    return cmocka_run_group_tests_name("kv_tiers", tests, scratch_make, scratch_remove);
}
