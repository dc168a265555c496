#define _GNU_SOURCE // cpu_set_t

#include "parallel/world_mpi.h"

#include <assert.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/env.h"
#include "base/log.h"

enum {
    PIECE_BYTES = 1 << 30, // MPI counts are int
    GATHER_TAG = 1,
    VERDICT_TEXT_BYTES = 512,
    VERDICT_PLACE_BYTES = 96
};

// How long an end that another rank reports may take to arrive here.
static const int64_t end_arrives_us = 1500000;

// ---- MPI's errors and waiting -------------------------------------------------------------------

tsr_status tsr_world_mpi_failed(tsr_world *world, int code, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n_chars = 0;
    const size_t name = strcspn(call, "(");

    world->broken = true;
    (void)MPI_Error_string(code, text, &n_chars);
    return tsr_fail(TSR_ERR_COMM, "%.*s: %s", (int)name, call, text);
}

tsr_status tsr_world_late(tsr_world *world, const char *what)
{
    world->broken = true;
    return tsr_fail(TSR_ERR_COMM, "rank %d of %d waited %lld s for the others (%s)", world->rank,
                    world->n_ranks, (long long)(world->limit_ns / 1000000000), what);
}

tsr_wait_policy tsr_world_step_policy(const tsr_world *world)
{
    return tsr_wait_policy_step(world->crowded, world->limit_ns);
}

tsr_status tsr_world_wait(tsr_world *world, int n_requests, MPI_Request *requests,
                          const tsr_wait_policy *policy, const char *what)
{
    tsr_wait wait;
    int done = 0;

    tsr_wait_begin(&wait, *policy);
    for (;;) {
        TSR_WORLD_TRY_MPI(world, MPI_Testall(n_requests, requests, &done, MPI_STATUSES_IGNORE));
        if (done) {
            return TSR_OK;
        }
        if (!tsr_wait_turn(&wait)) {
            return tsr_world_late(world, what);
        }
    }
}

/* May the ranks still meet? */
static tsr_status check_whole(const tsr_world *world)
{
    if (world->broken) {
        return tsr_fail(TSR_ERR_COMM, "the ranks cannot meet after an earlier failure");
    }
    return TSR_OK;
}

// ---- meetings -----------------------------------------------------------------------------------

static int piece_of(size_t n_bytes, size_t first)
{
    const size_t left = n_bytes - first;

    return (int)(left < PIECE_BYTES ? left : PIECE_BYTES);
}

static tsr_status broadcast_from(tsr_world *world, int source, void *bytes, size_t n_bytes,
                                 const tsr_wait_policy *policy, const char *what)
{
    for (size_t first = 0; first < n_bytes; first += PIECE_BYTES) {
        MPI_Request request;

        TSR_WORLD_TRY_MPI(world, MPI_Ibcast((char *)bytes + first, piece_of(n_bytes, first),
                                            MPI_BYTE, source, world->all, &request));
        TSR_TRY(tsr_world_wait(world, 1, &request, policy, what));
    }
    return TSR_OK;
}

tsr_status tsr_world_broadcast(tsr_world *world, void *bytes, size_t n_bytes)
{
    // A follower waits for work, which may come tomorrow; the leader waits for followers that
    // should be there.
    const tsr_wait_policy policy =
        world->rank == 0 ? tsr_world_step_policy(world) : tsr_wait_policy_idle(world->crowded);

    if (world->n_ranks == 1) {
        return TSR_OK;
    }
    TSR_TRY(check_whole(world));
    return broadcast_from(world, 0, bytes, n_bytes, &policy, "a broadcast");
}

/* The next piece of every part that has one, from `first` on; *more tells whether there was any. */
static tsr_status gather_pieces(tsr_world *world, char *received, const size_t *n_received,
                                size_t n_each, size_t first, bool *more)
{
    const tsr_wait_policy policy = tsr_world_step_policy(world);
    size_t at = 0;
    int n_requests = 0;

    for (int rank = 0; rank < world->n_ranks; rank++) {
        const size_t n_bytes = n_received != NULL ? n_received[rank] : n_each;

        if (rank != 0 && first < n_bytes) {
            TSR_WORLD_TRY_MPI(world, MPI_Irecv(received + at + first, piece_of(n_bytes, first),
                                               MPI_BYTE, rank, GATHER_TAG, world->all,
                                               &world->requests[n_requests]));
            n_requests++;
        }
        at += n_bytes;
    }
    *more = n_requests > 0;
    return tsr_world_wait(world, n_requests, world->requests, &policy, "a gather");
}

static tsr_status gather(tsr_world *world, void *received, const size_t *n_received,
                         const void *sent, size_t n_bytes)
{
    const tsr_wait_policy policy = tsr_world_step_policy(world);
    bool more = world->n_ranks > 1;

    if (n_bytes > 0 && world->rank == 0) {
        memcpy(received, sent, n_bytes);
    }
    if (world->n_ranks == 1) {
        return TSR_OK;
    }
    TSR_TRY(check_whole(world));
    if (world->rank == 0) {
        for (size_t first = 0; more; first += PIECE_BYTES) {
            TSR_TRY(gather_pieces(world, received, n_received, n_bytes, first, &more));
        }
        return TSR_OK;
    }
    for (size_t first = 0; first < n_bytes; first += PIECE_BYTES) {
        TSR_WORLD_TRY_MPI(world, MPI_Isend((const char *)sent + first, piece_of(n_bytes, first),
                                           MPI_BYTE, 0, GATHER_TAG, world->all, world->requests));
        TSR_TRY(tsr_world_wait(world, 1, world->requests, &policy, "a gather"));
    }
    return TSR_OK;
}

tsr_status tsr_world_gather(tsr_world *world, void *received, const void *sent, size_t n_bytes)
{
    return gather(world, received, NULL, sent, n_bytes);
}

tsr_status tsr_world_gather_parts(tsr_world *world, void *received, const size_t *n_received,
                                  const void *sent, size_t n_bytes)
{
    assert(world->rank != 0 || n_received[0] == n_bytes);
    return gather(world, received, n_received, sent, n_bytes);
}

static tsr_status combine(tsr_world *world, int64_t *value, MPI_Op how)
{
    const tsr_wait_policy policy = tsr_world_step_policy(world);
    int64_t combined = 0;
    MPI_Request request;

    if (world->n_ranks == 1) {
        return TSR_OK;
    }
    TSR_TRY(check_whole(world));
    TSR_WORLD_TRY_MPI(world,
                      MPI_Iallreduce(value, &combined, 1, MPI_INT64_T, how, world->all, &request));
    TSR_TRY(tsr_world_wait(world, 1, &request, &policy, "agreeing on a number"));
    *value = combined;
    return TSR_OK;
}

tsr_status tsr_world_min(tsr_world *world, int64_t *value)
{
    return combine(world, value, MPI_MIN);
}

tsr_status tsr_world_max(tsr_world *world, int64_t *value)
{
    return combine(world, value, MPI_MAX);
}

/* How one rank failed, on its way to the others. */
typedef struct verdict {
    int32_t status;
    char message[VERDICT_TEXT_BYTES];
    char place[VERDICT_PLACE_BYTES]; // "kv/kv_store.c:41"
} verdict;

static tsr_status take_over(const verdict *failure, int rank)
{
    char file[VERDICT_PLACE_BYTES];
    int line = 0;
    const size_t n_file = strcspn(failure->place, ":");

    memcpy(file, failure->place, n_file);
    file[n_file] = '\0';
    for (const char *at = failure->place + n_file; *at != '\0'; at++) {
        line = *at == ':' ? 0 : line * 10 + (*at - '0');
    }
    return tsr_status_fail(file, line, (tsr_status)failure->status, "rank %d: %s", rank,
                           failure->message);
}

tsr_status tsr_world_agree(tsr_world *world, tsr_status mine)
{
    const tsr_wait_policy policy = tsr_world_step_policy(world);
    int64_t lowest = mine != TSR_OK ? world->rank : world->n_ranks;
    verdict failure = {.status = (int32_t)mine};

    if (world->n_ranks == 1) {
        return mine;
    }
    if (mine != TSR_OK) {
        (void)strncpy(failure.message, tsr_status_message(), sizeof(failure.message) - 1);
        (void)strncpy(failure.place, tsr_status_place(), sizeof(failure.place) - 1);
    }
    TSR_TRY(tsr_world_min(world, &lowest));
    if (lowest == world->n_ranks) {
        return TSR_OK;
    }
    TSR_TRY(broadcast_from(world, (int)lowest, &failure, sizeof(failure), &policy,
                           "agreeing how it went"));
    return lowest == world->rank ? mine : take_over(&failure, (int)lowest);
}

// ---- opening and closing ------------------------------------------------------------------------

/* A mapping begins at a page in every process, so that all of them round alike. */
static void *whole_line(void *memory)
{
    char *bytes = memory;

    return bytes +
           (TSR_WORLD_LINE_BYTES - (uintptr_t)bytes % TSR_WORLD_LINE_BYTES) % TSR_WORLD_LINE_BYTES;
}

tsr_status tsr_world_share(tsr_world *world, MPI_Win *win, void **base, size_t n_bytes,
                           size_t n_zeroed)
{
    MPI_Aint own_bytes = world->host_rank == 0 ? (MPI_Aint)(n_bytes + TSR_WORLD_LINE_BYTES) : 0;
    MPI_Aint shared_bytes;
    MPI_Win made = MPI_WIN_NULL;
    MPI_Request request;
    const tsr_wait_policy policy = tsr_world_step_policy(world);
    int unit;
    void *memory = NULL;

    TSR_WORLD_TRY_MPI(
        world, MPI_Win_allocate_shared(own_bytes, 1, MPI_INFO_NULL, world->host, &memory, &made));
    *win = made;
    TSR_WORLD_TRY_MPI(world, MPI_Win_shared_query(made, 0, &shared_bytes, &unit, &memory));
    memory = whole_line(memory);
    if (world->host_rank == 0) {
        memset(memory, 0, n_zeroed);
    }
    TSR_WORLD_TRY_MPI(world, MPI_Ibarrier(world->host, &request));
    TSR_TRY(tsr_world_wait(world, 1, &request, &policy, "sharing memory"));
    *base = memory;
    return TSR_OK;
}

/* Are there more ranks on this host than cpus that any of them may use? */
static tsr_status find_crowding(tsr_world *world)
{
    cpu_set_t mine;
    cpu_set_t all;

    CPU_ZERO(&mine);
    (void)sched_getaffinity(0, sizeof(mine),
                            &mine); // failing, it leaves none: crowded is the safe guess
    TSR_WORLD_TRY_MPI(
        world, MPI_Allreduce(&mine, &all, (int)sizeof(mine), MPI_BYTE, MPI_BOR, world->host));
    world->crowded = world->n_host_ranks > CPU_COUNT(&all);
    return TSR_OK;
}

static tsr_status open_mpi(tsr_world *world)
{
    int begun = 0;
    int ended = 0;
    int level;

    (void)MPI_Finalized(&ended);
    if (ended) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "MPI was ended in this process and cannot begin again");
    }
    (void)MPI_Initialized(&begun);
    if (!begun) {
        TSR_WORLD_TRY_MPI(world, MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level));
        world->owns_mpi = true;
    }
    world->over_mpi = true;
    // Handed on to what is derived from it: from here every failure comes back as a code.
    TSR_WORLD_TRY_MPI(world, MPI_Comm_dup(MPI_COMM_WORLD, &world->all));
    TSR_WORLD_TRY_MPI(world, MPI_Comm_set_errhandler(world->all, MPI_ERRORS_RETURN));
    TSR_WORLD_TRY_MPI(world, MPI_Comm_rank(world->all, &world->rank));
    TSR_WORLD_TRY_MPI(world, MPI_Comm_size(world->all, &world->n_ranks));
    tsr_log_set_rank(world->rank, world->n_ranks);
    TSR_WORLD_TRY_MPI(world, MPI_Comm_split_type(world->all, MPI_COMM_TYPE_SHARED, world->rank,
                                                 MPI_INFO_NULL, &world->host));
    TSR_WORLD_TRY_MPI(world, MPI_Comm_set_errhandler(world->host, MPI_ERRORS_RETURN));
    TSR_WORLD_TRY_MPI(world, MPI_Comm_rank(world->host, &world->host_rank));
    TSR_WORLD_TRY_MPI(world, MPI_Comm_size(world->host, &world->n_host_ranks));
    return find_crowding(world);
}

/* The first ranks of all hosts get to know each other; *hosts stays NULL elsewhere. Without that
 * the job runs as well. */
static tsr_status open_hosts(tsr_world *world, tsr_watch_hosts **hosts)
{
    const tsr_wait_policy policy = tsr_world_step_policy(world);
    tsr_watch_host self = {.rank = world->rank, .n_ranks = world->n_host_ranks};
    tsr_watch_invitation invitation = {0};
    int64_t n_hosts = world->host_rank == 0 ? 1 : 0;
    int64_t well = 1;
    tsr_status st = TSR_OK;

    TSR_TRY(combine(world, &n_hosts, MPI_SUM));
    if (n_hosts < 2) {
        return TSR_OK;
    }
    (void)gethostname(self.name, sizeof(self.name) - 1);
    if (world->rank == 0) {
        st = tsr_watch_hosts_invite(hosts, (int)n_hosts - 1, &invitation);
        invitation.n_addresses = st == TSR_OK ? invitation.n_addresses : 0;
    }
    TSR_TRY(broadcast_from(world, 0, &invitation, sizeof(invitation), &policy, "hosts to watch"));
    if (world->host_rank == 0 && invitation.n_addresses > 0) {
        st = tsr_watch_hosts_meet(hosts, &self, &invitation);
    }
    if (st != TSR_OK) {
        tsr_log_warn("%s: should a host be lost, it is for the launcher to notice",
                     tsr_status_message());
    }
    well = st == TSR_OK ? 1 : 0;
    TSR_TRY(tsr_world_min(world, &well));
    if (well == 0) {
        tsr_watch_hosts_close(*hosts);
        *hosts = NULL;
    }
    return TSR_OK;
}

/* The watch and the table that it needs, shared where ranks share a host. */
static tsr_status open_watch(tsr_world *world)
{
    tsr_watch_place place = {.rank = world->rank,
                             .n_ranks = world->n_ranks,
                             .host_rank = world->host_rank,
                             .n_host_ranks = world->n_host_ranks,
                             .launched = world->owns_mpi && tsr_env_under_mpi()};

    const size_t n_bytes = tsr_watch_table_bytes(world->n_host_ranks);

    if (world->n_host_ranks > 1) {
        TSR_TRY(tsr_world_share(world, &world->table_win, &world->table, n_bytes, n_bytes));
    } else {
        world->table_block = tsr_alloc(n_bytes + TSR_WORLD_LINE_BYTES, 1);
        if (world->table_block == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "world: the watch's table");
        }
        world->table = whole_line(world->table_block);
    }
    TSR_TRY(open_hosts(world, &place.hosts));
    return tsr_watch_open(&world->watch, world->table, &place);
}

/* Let go of everything, without meeting the others first. */
static void tear_down(tsr_world *world)
{
    if (world == NULL) {
        return;
    }
    tsr_watch_close(world->watch);
    tsr_free(world->table_block);
    if (world->over_mpi && !world->broken) {
        if (world->table_win != MPI_WIN_NULL) {
            (void)MPI_Win_free(&world->table_win);
        }
        if (world->host != MPI_COMM_NULL) {
            (void)MPI_Comm_free(&world->host);
        }
        if (world->all != MPI_COMM_NULL) {
            (void)MPI_Comm_free(&world->all);
        }
        if (world->owns_mpi) {
            (void)MPI_Finalize();
        }
    }
    tsr_log_set_rank(0, 1);
    tsr_free(world->requests);
    tsr_free(world);
}

tsr_status tsr_world_open(tsr_world **out)
{
    tsr_status st = TSR_OK;
    tsr_world *world = tsr_alloc(1, sizeof(*world));
    int begun = 0;

    if (world == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "world record");
    }
    world->n_ranks = 1;
    world->n_host_ranks = 1;
    world->all = MPI_COMM_NULL;
    world->host = MPI_COMM_NULL;
    world->table_win = MPI_WIN_NULL;
    world->limit_ns = tsr_env_number(TSR_ENV_TIMEOUT) * 1000000000;
    TSR_TRY_GOTO(st, fail, tsr_fault_parse(&world->fault, tsr_env_text(TSR_ENV_FAULT)));
    (void)MPI_Initialized(&begun);
    if (begun || tsr_env_under_mpi()) {
        TSR_TRY_GOTO(st, fail, open_mpi(world));
    } else if (tsr_env_srun_copies() > 0) {
        tsr_log_warn(
            "srun started %lld copies of this program that know nothing of each other; for one "
            "job of as many ranks: srun --mpi=pmix",
            (long long)tsr_env_srun_copies());
    }
    world->requests = tsr_alloc((size_t)world->n_ranks, sizeof(MPI_Request));
    if (world->requests == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "world of %d ranks", world->n_ranks);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, open_watch(world));
    *out = world;
    return TSR_OK;

fail:
    // The others are in the middle of opening, and MPI has no way to leave them there and go on.
    if (world->n_ranks > 1) {
        world->broken = true;
    }
    tear_down(world);
    return st;
}

void tsr_world_close(tsr_world *world)
{
    if (world == NULL) {
        return;
    }
    if (world->over_mpi && !world->broken) {
        const tsr_wait_policy policy = tsr_world_step_policy(world);
        MPI_Request request;

        // Until all are here a rank that vanishes is a lost one.
        if (MPI_Ibarrier(world->all, &request) != MPI_SUCCESS ||
            tsr_world_wait(world, 1, &request, &policy, "the end") != TSR_OK) {
            tsr_log_error("closing: %s", tsr_status_message());
            world->broken = true;
        }
    }
    tear_down(world);
}

int tsr_world_rank(const tsr_world *world)
{
    return world->rank;
}

int tsr_world_size(const tsr_world *world)
{
    return world->n_ranks;
}

bool tsr_world_is_leader(const tsr_world *world)
{
    return world->rank == 0;
}

int tsr_world_host_rank(const tsr_world *world)
{
    return world->host_rank;
}

int tsr_world_host_size(const tsr_world *world)
{
    return world->n_host_ranks;
}

// ---- life and death -----------------------------------------------------------------------------

void tsr_world_note(tsr_world *world, const char *what, int64_t number)
{
    tsr_watch_note(world->watch, what, number);
}

bool tsr_world_take_interrupt(tsr_world *world)
{
    return tsr_watch_take_interrupt(world->watch);
}

bool tsr_world_asked_to_end(const tsr_world *world)
{
    return tsr_watch_asked_to_end(world->watch);
}

_Noreturn void tsr_world_abort(tsr_world *world, tsr_status status)
{
    if (status == TSR_ERR_COMM) {
        // A broken connection is the echo of a lost rank: let the watch name it, if it is one of
        // this host.
        tsr_watch_look_for(world->watch, end_arrives_us / 3);
    }
    if (!tsr_watch_claim(world->watch)) {
        tsr_clock_sleep_us(
            end_arrives_us); // another has told it; its watch and ours end this process
        _exit(1);
    }
    tsr_log_error("%s: %s (%s); ending the job", tsr_status_place(), tsr_status_message(),
                  tsr_status_name(status));
    if (world->over_mpi && world->n_ranks > 1) {
        (void)MPI_Abort(world->all, 1);
    }
    _exit(1);
}
