#include "kv/kv_mover.h"

#include "base/alloc.h"

enum {
    N_BUFFERS = 4 // blocks between device and disk
};

/* Through host memory, or not yet there. */
typedef enum stage {
    COPYING_OUT, // device to host memory
    WRITING,
    READING,
    COPYING_IN // host memory to device
} stage;

typedef struct flight {
    tsr_kv_move move;
    bool is_used;
    bool is_over; // nothing more to do: `ended` says how
    tsr_status ended;
    stage stage;
    int64_t ticket;
    int64_t number; // of all moves
    int buffer;     // or -1
} flight;

struct tsr_kv_mover {
    tsr_kv_ground ground;
    tsr_copy_queue *copies; // owned
    char *buffers;          // [N_BUFFERS * block_bytes] host memory, owned; NULL without a disk
    bool buffer_used[N_BUFFERS];
    flight flights[TSR_KV_MOVER_MOST];
    int n_used;
    int64_t n_started;
    int64_t n_done[TSR_KV_TIER_COUNT][TSR_KV_TIER_COUNT];
};

size_t tsr_kv_mover_buffer_bytes(size_t block_bytes)
{
    return N_BUFFERS * block_bytes;
}

tsr_status tsr_kv_mover_create(tsr_kv_mover **out, const tsr_kv_ground *ground)
{
    tsr_status st = TSR_OK;
    tsr_kv_mover *mover = tsr_alloc(1, sizeof(*mover));

    if (mover == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "kv mover");
    }
    mover->ground = *ground;
    if (ground->disk != NULL) {
        mover->buffers = tsr_device_alloc_host(
            ground->dev, tsr_kv_mover_buffer_bytes(mover->ground.block_bytes));
        if (mover->buffers == NULL) {
            st = tsr_fail(TSR_ERR_NOMEM, "kv mover: no memory for %d blocks of %zu bytes",
                          N_BUFFERS, ground->block_bytes);
            goto fail;
        }
    }
    TSR_TRY_GOTO(st, fail, tsr_copy_queue_create(&mover->copies, ground->dev, TSR_KV_MOVER_DEPTH));
    *out = mover;
    return TSR_OK;

fail:
    tsr_kv_mover_destroy(mover);
    return st;
}

void tsr_kv_mover_destroy(tsr_kv_mover *mover)
{
    if (mover == NULL) {
        return;
    }
    while (mover->n_used > 0) {
        tsr_kv_move move;
        tsr_status ended;

        (void)tsr_kv_mover_take(mover, tsr_kv_mover_oldest(mover), &move, &ended);
    }
    tsr_copy_queue_destroy(mover->copies);
    tsr_device_free_host(mover->ground.dev, mover->buffers,
                         tsr_kv_mover_buffer_bytes(mover->ground.block_bytes));
    tsr_free(mover);
}

static char *block_in(void *pool, size_t block_bytes, int32_t slot)
{
    return (char *)pool + (size_t)slot * block_bytes;
}

/* The host memory that a move passes through. */
static char *host_side(const tsr_kv_mover *mover, const flight *f)
{
    const tsr_kv_ground *g = &mover->ground;

    if (f->buffer >= 0) {
        return block_in(mover->buffers, g->block_bytes, f->buffer);
    }
    return block_in(g->host_pool, g->block_bytes,
                    f->move.from == TSR_KV_HOST ? f->move.from_slot : f->move.to_slot);
}

static tsr_status start_stage(tsr_kv_mover *mover, flight *f)
{
    const tsr_kv_ground *g = &mover->ground;
    char *host = host_side(mover, f);

    switch (f->stage) {
    case COPYING_OUT:
        return tsr_copy_queue_put(mover->copies, TSR_COPY_TO_HOST, host,
                                  block_in(g->device_pool, g->block_bytes, f->move.from_slot),
                                  g->block_bytes, &f->ticket);
    case COPYING_IN:
        return tsr_copy_queue_put(mover->copies, TSR_COPY_TO_DEVICE,
                                  block_in(g->device_pool, g->block_bytes, f->move.to_slot), host,
                                  g->block_bytes, &f->ticket);
    case WRITING:
        return tsr_kv_disk_write(g->disk, f->move.to_slot, host, &f->ticket);
    default:
        return tsr_kv_disk_read(g->disk, f->move.from_slot, host, &f->ticket);
    }
}

tsr_status tsr_kv_mover_start(tsr_kv_mover *mover, const tsr_kv_move *move, int *place)
{
    const bool wants_buffer = move->from != TSR_KV_HOST && move->to != TSR_KV_HOST;
    flight *f = NULL;
    int buffer = -1;

    for (int i = 0; i < TSR_KV_MOVER_MOST && f == NULL; i++) {
        f = mover->flights[i].is_used ? NULL : &mover->flights[i];
    }
    for (int b = 0; wants_buffer && b < N_BUFFERS && buffer < 0; b++) {
        buffer = mover->buffer_used[b] ? -1 : b;
    }
    if (f == NULL || (wants_buffer && buffer < 0)) {
        return TSR_ERR_FULL;
    }
    *f = (flight){.move = *move, .buffer = buffer, .number = mover->n_started};
    f->stage = move->from == TSR_KV_DISK     ? READING
               : move->from == TSR_KV_DEVICE ? COPYING_OUT
               : move->to == TSR_KV_DISK     ? WRITING
                                             : COPYING_IN;
    TSR_TRY(start_stage(mover, f)); // the queues are as deep as there are moves
    f->is_used = true;
    if (buffer >= 0) {
        mover->buffer_used[buffer] = true;
    }
    mover->n_used++;
    mover->n_started++;
    *place = (int)(f - mover->flights);
    return TSR_OK;
}

int tsr_kv_mover_n_moves(const tsr_kv_mover *mover)
{
    return mover->n_used;
}

tsr_kv_move *tsr_kv_mover_at(tsr_kv_mover *mover, int place)
{
    return mover->flights[place].is_used ? &mover->flights[place].move : NULL;
}

static bool uses_disk(const flight *f)
{
    return f->stage == WRITING || f->stage == READING;
}

/* Is the stage under way behind it? Waits for that if it may. */
static bool ends_stage(tsr_kv_mover *mover, flight *f, bool waits)
{
    const bool is_done = uses_disk(f) ? tsr_kv_disk_is_done(mover->ground.disk, f->ticket)
                                      : tsr_copy_queue_is_done(mover->copies, f->ticket);

    if (!is_done && !waits) {
        return false;
    }
    f->ended = uses_disk(f) ? tsr_kv_disk_wait(mover->ground.disk, f->ticket)
                            : tsr_copy_queue_wait(mover->copies, f->ticket);
    return true;
}

static void drive(tsr_kv_mover *mover, flight *f, bool waits)
{
    while (!f->is_over && ends_stage(mover, f, waits)) {
        if (f->ended == TSR_OK && f->stage == COPYING_OUT && f->move.to == TSR_KV_DISK) {
            f->stage = WRITING;
        } else if (f->ended == TSR_OK && f->stage == READING && f->move.to == TSR_KV_DEVICE) {
            f->stage = COPYING_IN;
        } else {
            f->is_over = true;
            return;
        }
        f->ended = start_stage(mover, f);
        f->is_over = f->ended != TSR_OK;
    }
}

bool tsr_kv_mover_take(tsr_kv_mover *mover, int waits_for, tsr_kv_move *move, tsr_status *ended)
{
    for (int i = 0; i < TSR_KV_MOVER_MOST && mover->n_used > 0; i++) {
        flight *f = &mover->flights[i];

        if (f->is_used) {
            drive(mover, f, i == waits_for);
        }
    }
    for (int i = 0; i < TSR_KV_MOVER_MOST && mover->n_used > 0; i++) {
        flight *f = &mover->flights[i];

        if (!f->is_used || !f->is_over) {
            continue;
        }
        *move = f->move;
        *ended = f->ended;
        mover->n_done[f->move.from][f->move.to] += f->ended == TSR_OK ? 1 : 0;
        if (f->buffer >= 0) {
            mover->buffer_used[f->buffer] = false;
        }
        f->is_used = false;
        mover->n_used--;
        return true;
    }
    return false;
}

int tsr_kv_mover_oldest(const tsr_kv_mover *mover)
{
    int oldest = -1;

    for (int i = 0; i < TSR_KV_MOVER_MOST && mover->n_used > 0; i++) {
        const flight *f = &mover->flights[i];

        if (f->is_used && (oldest < 0 || f->number < mover->flights[oldest].number)) {
            oldest = i;
        }
    }
    return oldest;
}

int64_t tsr_kv_mover_n_done(const tsr_kv_mover *mover, tsr_kv_tier from, tsr_kv_tier to)
{
    return mover->n_done[from][to];
}

int64_t tsr_kv_mover_busy_us(const tsr_kv_mover *mover)
{
    const int64_t disk_ns =
        mover->ground.disk == NULL ? 0 : tsr_kv_disk_busy_ns(mover->ground.disk);

    return (tsr_copy_queue_busy_ns(mover->copies) + disk_ns) / 1000;
}
