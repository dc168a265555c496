/*
 * What went wrong with caches over several tiers elsewhere, one after the other.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <dirent.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/alloc.h"
#include "base/log.h"
#include "kernels/task_queue.h"
#include "kv/kv_tiers_state.h"
#include "tests/support/kv_play.h"
#include "tests/support/scratch.h"
#include "tests/support/torture.h"

static const int nobody[PLAY_SEQS] = {0};

static tsr_kv_tiers *tiers_of(const play *p)
{
    return (tsr_kv_tiers *)(uintptr_t)tsr_kv_store_tiers(p->store);
}

static void step(play *p, bool waits)
{
    if (play_step(p, nobody, waits) != TSR_OK) {
        fail_msg("%s", tsr_status_message());
    }
    assert_true(tsr_kv_store_verify(p->store));
}

static void settle(play *p)
{
    assert_int_equal(tsr_kv_tiers_settle(tiers_of(p)), TSR_OK);
}

/* A running sequence of n_tokens. */
static int grown(play *p, int n_tokens)
{
    const int seq = play_begin(p);

    assert_true(play_call(p, seq));
    play_grow(p, seq, n_tokens, PLAY_TOKENS);
    return seq;
}

/* Blocks of a running sequence that are not on the device. */
static int n_away(const play *p, int seq)
{
    const int32_t *tables = tsr_kv_store_tables(p->store, 0).data;
    int n = 0;

    for (int b = 0; b < p->seqs[seq].n_blocks; b++) {
        n += tables[p->seqs[seq].table * PLAY_MOST_BLOCKS + b] < 0 ? 1 : 0;
    }
    return n;
}

static void assert_empty(play *p)
{
    tsr_kv_report r;

    step(p, false);
    settle(p);
    r = play_report(p);
    for (int t = 0; t < TSR_KV_TIER_COUNT; t++) {
        assert_int_equal(r.n_blocks[t], 0);
    }
    assert_true(tsr_kv_store_verify(p->store));
}

static void
a_block_freed_while_a_copy_reads_it_gives_its_slot_to_nobody_before_the_copy_ends(void **state)
{
    play p;
    tsr_kv_report r;
    int old;

    (void)state;
    play_open(&p, 8, 8, 0, NULL);
    old = grown(&p, 8 * PLAY_TOKENS); // the whole device
    tsr_task_queue_hold(true);
    play_rest(&p, old);
    step(&p, false); // nobody's blocks are written back: copies are under way
    assert_true(tsr_kv_mover_n_moves(tiers_of(&p)->mover) > 0);
    play_end(&p, old);
    step(&p, false);
    r = play_report(&p);
    assert_int_equal(r.n_blocks[TSR_KV_DEVICE], tsr_kv_mover_n_moves(tiers_of(&p)->mover));
    assert_int_equal(r.n_blocks[TSR_KV_HOST], tsr_kv_mover_n_moves(tiers_of(&p)->mover));
    // The other slots are free and are given out; the ids of the old blocks are, too.
    (void)grown(&p, (8 - r.n_blocks[TSR_KV_DEVICE]) * PLAY_TOKENS);
    assert_true(tsr_kv_store_verify(p.store));
    tsr_task_queue_hold(false);
    settle(&p);
    play_grow(&p, 0, 2 * PLAY_TOKENS, 1);
    assert_int_equal(p.n_wrong, 0);
    play_end(&p, 0);
    assert_empty(&p);
    play_close(&p);
}

static void lower_blocks_of_a_resting_sequence_that_is_cancelled_come_free(void **state)
{
    (void)state;
    for (int disk = 0; disk < 2; disk++) {
        play p;
        int old, young;

        play_open(&p, 8, disk ? 0 : 16, disk ? 16 : 0, scratch_folder());
        old = grown(&p, 7 * PLAY_TOKENS + 3);
        play_rest(&p, old);
        young = grown(&p, 8 * PLAY_TOKENS); // pushes the old one out
        settle(&p);
        assert_true(play_report(&p).n_blocks[disk ? TSR_KV_DISK : TSR_KV_HOST] >= 8);
        play_end(&p, old);
        play_end(&p, young);
        assert_empty(&p);
        play_close(&p);
    }
}

static void a_sequence_that_rested_is_on_the_device_as_a_whole_when_its_ticket_is_done(void **state)
{
    (void)state;
    for (int disk = 0; disk < 2; disk++) {
        play p;
        int old, young;
        int64_t n_stalls;

        play_open(&p, 8, disk ? 0 : 16, disk ? 16 : 0, scratch_folder());
        old = grown(&p, 6 * PLAY_TOKENS + 3);
        play_rest(&p, old);
        young = grown(&p, 8 * PLAY_TOKENS);
        play_end(&p, young);
        assert_true(play_call(&p, old));
        while (p.seqs[old].ticket >= 0 || p.n_tickets == 0) {
            step(&p, true); // waits
        }
        n_stalls = play_report(&p).n_stalls;
        play_grow(&p, old, 12, 1);
        assert_int_equal(n_away(&p, old), 0);
        assert_int_equal(play_report(&p).n_late, 0);
        assert_int_equal(play_report(&p).n_stalls, n_stalls); // and nothing more is waited for
        assert_int_equal(p.n_wrong, 0);
        play_end(&p, old);
        assert_empty(&p);
        play_close(&p);
    }
}

static void
what_had_to_be_read_in_host_memory_comes_back_when_the_device_has_room_again(void **state)
{
    play p;
    int a, b;

    (void)state;
    play_open(&p, 16, 32, 0, NULL);
    a = grown(&p, 12 * PLAY_TOKENS);
    b = grown(&p, 12 * PLAY_TOKENS); // both run, and 24 blocks do not fit
    play_grow(&p, a, 1, 1);
    assert_true(n_away(&p, a) > 0);
    play_end(&p, b);
    for (int i = 0; i < 30; i++) {
        play_grow(&p, a, 1, 1);
        settle(&p);
    }
    assert_int_equal(n_away(&p, a), 0);
    assert_int_equal(p.n_wrong, 0);
    play_end(&p, a);
    assert_empty(&p);
    play_close(&p);
}

static void nothing_waits_and_nothing_moves_while_the_device_has_room(void **state)
{
    play p;
    tsr_kv_report r;

    (void)state;
    play_open(&p, 64, 64, 64, scratch_folder());
    for (int round = 0; round < 20; round++) {
        const int a = grown(&p, 20 * PLAY_TOKENS - 3);
        const int b = grown(&p, 20 * PLAY_TOKENS);

        play_rest(&p, a);
        step(&p, false);
        assert_true(play_call(&p, a));
        step(&p, false);
        assert_int_equal(p.seqs[a].ticket, -1); // done at once
        play_grow(&p, a, 40, 1);
        play_end(&p, a);
        play_end(&p, b);
    }
    step(&p, false);
    r = play_report(&p);
    assert_int_equal(r.n_stalls, 0);
    assert_int_equal(r.n_late, 0);
    for (int from = 0; from < TSR_KV_TIER_COUNT; from++) {
        for (int to = 0; to < TSR_KV_TIER_COUNT; to++) {
            assert_int_equal(r.n_moves[from][to], 0);
        }
    }
    assert_int_equal(p.n_wrong, 0);
    assert_empty(&p);
    play_close(&p);
}

static void a_partial_last_block_comes_back_with_all_its_tokens_and_goes_on(void **state)
{
    (void)state;
    for (int n_last = 1; n_last < PLAY_TOKENS; n_last += 7) {
        for (int disk = 0; disk < 2; disk++) {
            play p;
            int old, young;

            play_open(&p, 4, disk ? 0 : 8, disk ? 8 : 0, scratch_folder());
            old = grown(&p, PLAY_TOKENS + n_last);
            play_rest(&p, old);
            young = grown(&p, 4 * PLAY_TOKENS);
            play_end(&p, young);
            assert_true(play_call(&p, old));
            step(&p, true);
            play_grow(&p, old, PLAY_TOKENS, 1);
            assert_int_equal(p.n_wrong, 0);
            // All PLAY_TOKENS steps read every cell before them.
            assert_true(p.n_read > (PLAY_TOKENS + n_last) * PLAY_TOKENS);
            play_end(&p, old);
            assert_empty(&p);
            play_close(&p);
        }
    }
}

static void
a_sequence_of_eight_times_the_device_is_written_on_the_device_and_read_below(void **state)
{
    for (int at_once = 1; at_once <= 40; at_once += 39) {
        play p;
        int seq;

        (void)state;
        play_open(&p, 8, 64, 0, NULL);
        seq = play_begin(&p);
        assert_true(play_call(&p, seq));
        play_grow(&p, seq, 64 * PLAY_TOKENS, at_once);
        assert_int_equal(p.n_wrong, 0);
        assert_in_range(n_away(&p, seq), 64 - 8, 64 - 4);
        // Each block went down once, and none came up again.
        assert_in_range(play_report(&p).n_moves[TSR_KV_DEVICE][TSR_KV_HOST], 56, 64);
        assert_int_equal(play_report(&p).n_moves[TSR_KV_HOST][TSR_KV_DEVICE], 0);
        play_end(&p, seq);
        assert_empty(&p);
        play_close(&p);
    }
}

static void a_thousand_cancelled_sequences_leave_every_tier_empty(void **state)
{
    play p;

    (void)state;
    play_open(&p, 8, 8, 16, scratch_folder());
    for (int i = 0; i < 1000; i++) {
        const int a = grown(&p, 1 + i % (3 * PLAY_TOKENS));
        int b;

        play_rest(&p, a);
        b = grown(&p, 4 * PLAY_TOKENS + i % PLAY_TOKENS);
        if (i % 3 == 0) {
            assert_true(play_call(&p, a)); // ends with an open ticket
            step(&p, false);
        }
        play_end(&p, i % 2 == 0 ? a : b);
        step(&p, false);
        play_end(&p, i % 2 == 0 ? b : a);
    }
    assert_int_equal(p.n_wrong, 0);
    assert_empty(&p);
    play_close(&p);
}

static void a_block_that_comes_back_changed_from_the_disk_is_lost_and_not_read(void **state)
{
    const unsigned char garbage[] = "not what was written";
    play p;
    tsr_kv_report r;
    int old, young, fd;

    (void)state;
    tsr_log_set_level(TSR_LOG_ERROR);
    play_open(&p, 4, 0, 8, scratch_folder());
    old = grown(&p, 3 * PLAY_TOKENS);
    play_rest(&p, old);
    young = grown(&p, 4 * PLAY_TOKENS);
    settle(&p);
    fd = tsr_kv_disk_file(tiers_of(&p)->ground.disk);
    for (int slot = 0; slot < 8 + TSR_KV_TIERS_EXCHANGE; slot++) {
        // Through a second door: the file itself may be open for direct writes only.
        char path[64];
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        file = fopen(path, "r+b");
        assert_non_null(file);
        assert_int_equal(fseek(file, slot * (long)tsr_kv_disk_slot_bytes(p.block_bytes), SEEK_SET),
                         0);
        assert_int_equal(fwrite(garbage, sizeof(garbage), 1, file), 1);
        assert_int_equal(fclose(file), 0);
    }
    play_end(&p, young);
    assert_true(play_call(&p, old));
    step(&p, true);
    r = play_report(&p);
    assert_true(r.n_lost > 0);
    assert_int_equal(r.n_ever_lost, r.n_lost);
    for (int i = 0; i < r.n_lost; i++) {
        bool is_of_old = false;

        for (int b = 0; b < p.seqs[old].n_blocks; b++) {
            is_of_old = is_of_old || p.seqs[old].ids[b] == r.lost[i];
        }
        assert_true(is_of_old);
    }
    play_grow(&p, old, 1, 1); // whoever runs it all the same is told not to trust it
    assert_int_equal(p.n_spoilt, 1);
    play_end(&p, old);
    assert_empty(&p);
    assert_int_equal(play_report(&p).n_lost, 0);
    play_close(&p);
    tsr_log_set_level(TSR_LOG_WARN);
}

static void a_block_dropped_from_under_a_running_table_is_refused_and_not_read(void **state)
{
    int n_rows[PLAY_SEQS] = {0};
    play p;
    int seq;

    (void)state;
    play_open(&p, 8, 8, 0, NULL);
    seq = grown(&p, 3 * PLAY_TOKENS - 8);
    n_rows[seq] = 1;
    assert_int_equal(tsr_kv_store_drop(p.store, p.seqs[seq].ids[1]), TSR_OK);
    assert_int_equal(play_step(&p, n_rows, false), TSR_ERR_ARG);
    assert_non_null(strstr(tsr_status_message(), "was dropped"));
    play_close(&p);
}

/* A device that a sequence fills to the last block, with nothing but a disk below it: the copy of a
 * tail, whose source no table has any more, still finds room. */
static void a_tail_is_copied_though_the_sequence_fills_the_device(void **state)
{
    (void)state;
    for (int n_device = 2; n_device <= 8; n_device++) {
        play p;
        tsr_kv_visit visit;
        const int32_t zero = 0;
        int32_t row_start[2] = {0, 1};
        int32_t first_pos;
        play_seq *q;
        int32_t from, to;
        unsigned char *at;

        play_open(&p, n_device, 0, 8, scratch_folder());
        q = &p.seqs[grown(&p, n_device * PLAY_TOKENS - 3)];
        from = q->ids[n_device - 1];
        to = p.free_ids[p.n_free - 1];
        first_pos = n_device * PLAY_TOKENS - 3;
        visit = (tsr_kv_visit){.block_tokens = PLAY_TOKENS,
                               .n_seqs = 1,
                               .lanes = q->table == 0 ? &zero : &q->table,
                               .first_pos = &first_pos,
                               .row_start = row_start};
        assert_int_equal(tsr_kv_store_append(p.store, q->table, n_device - 1, to), TSR_OK);
        assert_int_equal(tsr_kv_store_copy(p.store, from, to), TSR_OK);
        if (tsr_kv_store_visit(p.store, &visit) != TSR_OK) {
            fail_msg("%d blocks: %s", n_device, tsr_status_message());
        }
        at = (unsigned char *)tsr_kv_store_view(p.store, 0).pool +
             (size_t)((const int32_t *)tsr_kv_store_tables(p.store, 0)
                          .data)[q->table * PLAY_MOST_BLOCKS + n_device - 1] *
                 p.block_bytes;
        assert_memory_equal(at, p.shadow + (size_t)from * p.block_bytes,
                            p.block_bytes / PLAY_TOKENS * (PLAY_TOKENS - 3));
        assert_true(tsr_kv_store_verify(p.store));
        play_close(&p);
    }
}

static void the_file_of_the_disk_tier_has_no_name(void **state)
{
    struct dirent *entry;
    play p;
    DIR *folder;

    (void)state;
    play_open(&p, 4, 0, 8, scratch_folder());
    folder = opendir(scratch_folder());
    assert_non_null(folder);
    while ((entry = readdir(folder)) != NULL) {
        assert_int_equal(entry->d_name[0], '.');
    }
    (void)closedir(folder);
    play_close(&p);
}

/* ---- what cannot be had ---- */

static tsr_status make_store(tsr_device *dev, int n_host, int n_disk, const char *folder)
{
    const tsr_kv_store_options options = {
        .layout = {1, 1, 8, 8, 16, TSR_KV_TYPE_BF16, false},
        .n_ids = 4 + n_host + n_disk,
        .n_device = 4,
        .is_tiered = true,
        .n_host = n_host,
        .n_disk = n_disk,
        .folder = folder,
        .n_lanes = 2,
        .n_groups = 1,
        .max_blocks = 4,
    };
    tsr_kv_store *store = NULL;

    TSR_TRY(tsr_kv_store_create(&store, dev, &options));
    tsr_kv_store_destroy(store);
    return TSR_OK;
}

static void what_cannot_be_had_is_refused_in_words(void **state)
{
    const tsr_device_options cpu = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    tsr_device *dev = NULL;
    tsr_kv_disk *disk = NULL;

    (void)state;
    assert_int_equal(tsr_device_open(&dev, &cpu), TSR_OK);
    assert_int_equal(make_store(dev, 0, 4, "/nowhere/at/all"), TSR_ERR_IO);
    assert_sentence("/nowhere/at/all", "no file for cache blocks can be made");
    assert_int_equal(tsr_kv_disk_create(&disk, scratch_folder(), 1 << 20, (size_t)1 << 30, 1, NULL),
                     TSR_ERR_IO); // a petabyte
    assert_sentence(scratch_folder(), "has no room for");
    assert_int_equal(make_store(dev, 0, 4, NULL), TSR_ERR_ARG);
    assert_int_equal(make_store(dev, -1, 0, NULL), TSR_ERR_ARG);
    assert_int_equal(tsr_kv_disk_create(&disk, scratch_folder(), 0, 1, 1, NULL), TSR_ERR_ARG);
    assert_int_equal(tsr_kv_disk_create(&disk, scratch_folder(), 1, 0, 1, NULL), TSR_ERR_ARG);
    assert_null(disk);
    tsr_device_close(dev);
}

static tsr_status make_and_drop(void *dev)
{
    return make_store(dev, 3, 4, scratch_folder());
}

static void running_out_of_memory_leaks_nothing(void **state)
{
    const tsr_device_options cpu = {.kind = TSR_DEVICE_CPU, .n_threads = 1};
    tsr_device *dev = NULL;

    (void)state;
    assert_int_equal(tsr_device_open(&dev, &cpu), TSR_OK);
    // Store 1, tables 5, pool 1, tiers 1, host pool 1, disk 4 and its queue 2, places 7, lists 3,
    // mover 2 and its queue 4.
    assert_int_equal(torture(make_and_drop, dev), 31);
    tsr_device_close(dev);
}

static int let_go(void **state)
{
    (void)state;
    tsr_task_queue_hold(false);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(
            a_block_freed_while_a_copy_reads_it_gives_its_slot_to_nobody_before_the_copy_ends,
            let_go),
        cmocka_unit_test(lower_blocks_of_a_resting_sequence_that_is_cancelled_come_free),
        cmocka_unit_test(
            a_sequence_that_rested_is_on_the_device_as_a_whole_when_its_ticket_is_done),
        cmocka_unit_test(
            what_had_to_be_read_in_host_memory_comes_back_when_the_device_has_room_again),
        cmocka_unit_test(nothing_waits_and_nothing_moves_while_the_device_has_room),
        cmocka_unit_test(a_partial_last_block_comes_back_with_all_its_tokens_and_goes_on),
        cmocka_unit_test(
            a_sequence_of_eight_times_the_device_is_written_on_the_device_and_read_below),
        cmocka_unit_test(a_thousand_cancelled_sequences_leave_every_tier_empty),
        cmocka_unit_test(a_block_that_comes_back_changed_from_the_disk_is_lost_and_not_read),
        cmocka_unit_test(a_block_dropped_from_under_a_running_table_is_refused_and_not_read),
        cmocka_unit_test(a_tail_is_copied_though_the_sequence_fills_the_device),
        cmocka_unit_test(the_file_of_the_disk_tier_has_no_name),
        cmocka_unit_test(what_cannot_be_had_is_refused_in_words),
        cmocka_unit_test(running_out_of_memory_leaks_nothing),
    };

    return cmocka_run_group_tests_name("kv_dangers", tests, scratch_make, scratch_remove);
}
