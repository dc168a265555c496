#include "tests/support/kv_play.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/alloc.h"

#ifdef TSR_PLAY_ON_GPU
#define PLAY_DEVICE TSR_DEVICE_CUDA
#else
#define PLAY_DEVICE TSR_DEVICE_CPU
#endif

enum {
    PLAY_MOST_CELL_BYTES = 64
};

/* 1 layer, 1 head of 8: keys 8, values 16 (padded) a token of 2 bytes: cells of 48 bytes. */
static const tsr_kv_layout layout = {
    .n_layers = 1,
    .n_kv_heads = 1,
    .key_dim = 8,
    .value_dim = 8,
    .block_tokens = PLAY_TOKENS,
    .type = TSR_KV_TYPE_BF16,
};

void play_open(play *p, int n_device, int n_host, int n_disk, const char *folder)
{
    const tsr_device_options device = {.kind = PLAY_DEVICE, .n_threads = 1};
    const tsr_kv_store_options options = {
        .layout = layout,
        .n_ids = n_device + n_host + n_disk,
        .n_device = n_device,
        .is_tiered = true,
        .n_host = n_host,
        .n_disk = n_disk,
        .folder = folder,
        .n_lanes = PLAY_TABLES,
        .n_groups = 1,
        .max_blocks = PLAY_MOST_BLOCKS,
    };

    *p = (play){.n_device = n_device, .n_host = n_host, .n_disk = n_disk, .n_ids = options.n_ids};
    assert_int_equal(tsr_device_open(&p->dev, &device), TSR_OK);
    if (tsr_kv_store_create(&p->store, p->dev, &options) != TSR_OK) {
        fail_msg("%s", tsr_status_message());
    }
    p->block_bytes = tsr_kv_layout_block_bytes(&layout);
    p->shadow = tsr_alloc((size_t)p->n_ids, p->block_bytes);
    p->free_ids = tsr_alloc((size_t)p->n_ids, sizeof(*p->free_ids));
    p->owners = tsr_alloc((size_t)p->n_ids, sizeof(*p->owners));
    p->dropped = tsr_alloc((size_t)p->n_ids, sizeof(*p->dropped));
    assert_true(p->shadow != NULL && p->free_ids != NULL && p->owners != NULL &&
                p->dropped != NULL);
    for (int id = p->n_ids - 1; id >= 0; id--) {
        p->free_ids[p->n_free++] = id;
    }
    for (int t = PLAY_TABLES - 1; t >= 0; t--) {
        p->free_tables[p->n_free_tables++] = t;
    }
}

void play_close(play *p)
{
    tsr_kv_store_destroy(p->store);
    tsr_device_close(p->dev);
    tsr_free(p->dropped);
    tsr_free(p->owners);
    tsr_free(p->free_ids);
    tsr_free(p->shadow);
}

int play_begin(play *p)
{
    for (int s = 0; s < PLAY_SEQS; s++) {
        if (!p->seqs[s].lives) {
            p->seqs[s] = (play_seq){.lives = true, .table = -1, .ticket = -1};
            return s;
        }
    }
    fail_msg("no sequence more");
    return -1;
}

static void give_up_blocks(play *p, play_seq *q)
{
    for (int b = 0; b < q->n_blocks; b++) {
        if (--p->owners[q->ids[b]] == 0) {
            p->dropped[p->n_dropped++] = q->ids[b];
            p->free_ids[p->n_free++] = q->ids[b];
        }
    }
    q->n_blocks = 0;
}

void play_rest(play *p, int seq)
{
    play_seq *q = &p->seqs[seq];

    if (q->table >= 0) {
        p->left[p->n_left++] = q->table;
        q->table = -1;
        q->ticket = -1;
        q->n_told = 0;
    }
}

void play_end(play *p, int seq)
{
    play_rest(p, seq);
    give_up_blocks(p, &p->seqs[seq]);
    p->seqs[seq].lives = false;
}

bool play_call(play *p, int seq)
{
    play_seq *q = &p->seqs[seq];

    if (p->n_free_tables == 0 || q->table >= 0) {
        return false;
    }
    q->table = p->free_tables[--p->n_free_tables];
    q->n_told = 0;
    q->ticket = -1;
    return true;
}

int play_fork(play *p, int seq)
{
    const int child = play_begin(p);
    const play_seq *q = &p->seqs[seq];
    play_seq *c = &p->seqs[child];

    c->n_blocks = q->n_tokens / PLAY_TOKENS;
    c->n_tokens = c->n_blocks * PLAY_TOKENS;
    for (int b = 0; b < c->n_blocks; b++) {
        c->ids[b] = q->ids[b];
        p->owners[c->ids[b]]++;
    }
    return child;
}

static void take_blocks(play *p, play_seq *q, int n_tokens)
{
    while (q->n_blocks * PLAY_TOKENS < n_tokens) {
        assert_true(p->n_free > 0 && q->n_blocks < PLAY_MOST_BLOCKS);
        q->ids[q->n_blocks] = p->free_ids[--p->n_free];
        p->owners[q->ids[q->n_blocks]] = 1;
        q->n_blocks++;
    }
}

/* Bytes of a block, from where the store says that it lies, or to it. */
static void read_block(const play *p, int32_t entry, unsigned char *bytes)
{
    const tsr_kv_view view = tsr_kv_store_view(p->store, 0);

    assert_true(entry < p->n_device && ~entry < p->n_host + TSR_KV_TIERS_EXCHANGE);
    if (entry < 0) {
        memcpy(bytes, (const char *)view.host_pool + (size_t)~entry * p->block_bytes,
               p->block_bytes);
    } else {
        assert_int_equal(tsr_device_download(p->dev, bytes,
                                             (char *)view.pool + (size_t)entry * p->block_bytes,
                                             p->block_bytes),
                         TSR_OK);
    }
}

static void write_cell(const play *p, int32_t entry, size_t at, const void *bytes, size_t n_bytes)
{
    const tsr_kv_view view = tsr_kv_store_view(p->store, 0);

    assert_in_range(entry, 0, p->n_device - 1);
    assert_int_equal(tsr_device_upload(p->dev,
                                       (char *)view.pool + (size_t)entry * p->block_bytes + at,
                                       bytes, n_bytes),
                     TSR_OK);
}

/* What rows of a sequence read is compared; then they are written. */
static void compute(play *p, play_seq *q, int n_rows)
{
    const size_t cell_bytes = p->block_bytes / PLAY_TOKENS;
    const int32_t *table = (const int32_t *)tsr_kv_store_tables(p->store, 0).data;
    int32_t entries[PLAY_MOST_BLOCKS];
    unsigned char block[PLAY_TOKENS * PLAY_MOST_CELL_BYTES];

    assert_int_equal(
        tsr_device_download(p->dev, entries, table + q->table * PLAY_MOST_BLOCKS, sizeof(entries)),
        TSR_OK);
    for (int pos = 0; pos < q->n_tokens + n_rows; pos++) {
        const int b = pos / PLAY_TOKENS;
        const size_t cell = (size_t)(pos % PLAY_TOKENS) * cell_bytes;
        unsigned char *known = p->shadow + (size_t)q->ids[b] * p->block_bytes + cell;

        if (pos >= q->n_tokens) {
            p->next_byte++;
            memset(known, (int)(p->next_byte % 251) + 1, cell_bytes);
            memcpy(known, &p->next_byte, sizeof(p->next_byte));
            write_cell(p, entries[b], cell, known, cell_bytes);
        } else {
            if (pos % PLAY_TOKENS == 0) {
                read_block(p, entries[b], block);
            }
            p->n_read++;
            p->n_wrong += memcmp(block + cell, known, cell_bytes) != 0 && !q->was_spoilt ? 1 : 0;
        }
    }
    q->n_tokens += n_rows;
}

static void tell_table(play *p, play_seq *q, bool has_rows)
{
    if (q->n_told == 0 && q->n_blocks > 0 && !has_rows) {
        q->ticket = p->n_tickets++;
    }
    for (; q->n_told < q->n_blocks; q->n_told++) {
        assert_int_equal(tsr_kv_store_append(p->store, q->table, q->n_told, q->ids[q->n_told]),
                         TSR_OK);
    }
}

static void tell_changes(play *p)
{
    for (int i = 0; i < p->n_dropped; i++) {
        assert_int_equal(tsr_kv_store_drop(p->store, p->dropped[i]), TSR_OK);
    }
    p->n_dropped = 0;
    for (int i = 0; i < p->n_left; i++) {
        assert_int_equal(tsr_kv_store_leave(p->store, p->left[i]), TSR_OK);
        p->free_tables[p->n_free_tables++] = p->left[i];
    }
    p->n_left = 0;
}

tsr_status play_step(play *p, const int n_rows[PLAY_SEQS], bool waits)
{
    int32_t tables[PLAY_TABLES], first_pos[PLAY_TABLES], row_start[PLAY_TABLES + 1] = {0};
    int of[PLAY_TABLES];
    tsr_kv_visit visit = {.block_tokens = PLAY_TOKENS,
                          .lanes = tables,
                          .first_pos = first_pos,
                          .row_start = row_start,
                          .waits = waits};
    tsr_kv_report report;

    tell_changes(p);
    for (int s = 0; s < PLAY_SEQS; s++) {
        play_seq *q = &p->seqs[s];

        if (!q->lives || q->table < 0) {
            continue;
        }
        take_blocks(p, q, q->n_tokens + n_rows[s]);
        tell_table(p, q, n_rows[s] > 0);
        if (n_rows[s] > 0) {
            of[visit.n_seqs] = s;
            tables[visit.n_seqs] = q->table;
            first_pos[visit.n_seqs] = q->n_tokens;
            row_start[visit.n_seqs + 1] = row_start[visit.n_seqs] + n_rows[s];
            visit.n_seqs++;
        }
    }
    TSR_TRY(tsr_kv_store_visit(p->store, &visit));
    for (int i = 0; i < visit.n_seqs; i++) {
        play_seq *q = &p->seqs[of[i]];

        q->was_spoilt = tsr_kv_tiers_is_spoilt(tsr_kv_store_tiers(p->store), i);
        p->n_spoilt += q->was_spoilt ? 1 : 0;
        compute(p, q, n_rows[of[i]]);
    }
    TSR_TRY(tsr_device_sync(p->dev));
    report = play_report(p);
    for (int s = 0; s < PLAY_SEQS; s++) {
        if (p->seqs[s].ticket >= 0 && p->seqs[s].ticket < report.n_tickets_done) {
            p->seqs[s].ticket = -1;
        }
    }
    return TSR_OK;
}

void play_grow(play *p, int seq, int n, int at_once)
{
    int n_rows[PLAY_SEQS] = {0};

    for (; n > 0; n -= at_once) {
        n_rows[seq] = n < at_once ? n : at_once;
        if (play_step(p, n_rows, false) != TSR_OK) {
            fail_msg("%s", tsr_status_message());
        }
    }
}

tsr_kv_report play_report(const play *p)
{
    return tsr_kv_tiers_report(tsr_kv_store_tiers(p->store));
}
