/*
 * NCCL as this project calls it, between processes of one machine, compiled against NVIDIA's
 * header.
 *
 * The ranks of a communicator share a piece of memory that is named by the unique id. A collective
 * is a work of its stream: piece by piece each rank puts its part there with a note of what it was
 * called for, waits for the same note of all others, and takes what it needs. Notes that differ are
 * reported; so is a rank that never comes, by whoever waits for it (stream.c).
 *
 * A communicator that may not block says "in progress" first: only when it is asked how things are
 * is the work queued, so that who does not ask queues what follows too early.
 *
 * EMULATOR_NCCL_FAULT: RANK:error@N or RANK:hang@N, on that rank at its N-th collective (from 1).
 */
#include <nccl.h>

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/emulator/arena.h"
#include "tests/emulator/stream_inside.h"

enum {
    MAX_RANKS = 16,
    PIECE_BYTES = 1 << 16,
    N_SETS = 2, // who writes to a set again has met the others in the other one since
    NAME_BYTES = sizeof(ncclUniqueId)
};

/* What a rank was called for; all ranks' must be the same, to the last byte. */
typedef struct note {
    int32_t what;
    int32_t type;
    int32_t op;
    int32_t root;
    uint64_t count;
    uint64_t call; /* number of the call, from 1 */
    uint64_t done; /* elements before this piece */
} note;

typedef struct shared {
    _Atomic int n_come;
    _Atomic bool has_failed;
    int devices[MAX_RANKS];
    struct {
        _Atomic uint64_t n_posts;
        note notes[N_SETS];
        _Alignas(64) char parts[N_SETS][PIECE_BYTES];
    } ranks[];
} shared;

struct ncclComm {
    shared *shared;
    size_t n_bytes;
    char name[NAME_BYTES];
    int rank;
    int n_ranks;
    bool has_met;
    bool is_aborted;
    uint64_t n_calls;
    uint64_t n_posts;
    ncclResult_t state;
    stream_work *late; /* a call in progress: to be queued in `stream` */
    cudaStream_t stream;
};

enum {
    ALL_REDUCE,
    ALL_GATHER,
    BROADCAST
};
static const char *const what_names[] = {"ncclAllReduce", "ncclAllGather", "ncclBroadcast"};

/* A collective under way. */
typedef struct meeting {
    ncclComm_t comm;
    note note;
    const char *from;
    char *to;
    size_t elem_bytes;
    bool has_posted;
} meeting;

static char last_error[200];

static ncclResult_t refuse(ncclResult_t code, const char *why)
{
    (void)snprintf(last_error, sizeof(last_error), "%s", why);
    return code;
}

/* ---- what goes wrong on purpose ------------------------------------------------------------- */

static bool fault_is(ncclComm_t comm, const char *what)
{
    const char *planned = getenv("EMULATOR_NCCL_FAULT");
    int rank = -1;
    char name[8] = "";
    unsigned long long call = 0;

    return planned != NULL && sscanf(planned, "%d:%7[a-z]@%llu", &rank, name, &call) == 3 &&
           rank == comm->rank && call == comm->n_calls && strcmp(name, what) == 0;
}

/* ---- a collective ---------------------------------------------------------------------------- */

static char *contents(const void *address, size_t n_bytes, const char *what)
{
    char *at = n_bytes == 0 ? "" : arena_contents(address, n_bytes);
    char text[160];

    if (at == NULL) {
        stream_die("%s of %zu bytes at %p, %s", what, n_bytes, address,
                   arena_is_device_address((uint64_t)(uintptr_t)address)
                       ? arena_describe((uint64_t)(uintptr_t)address, text)
                       : "which is host memory");
    }
    return at;
}

static void describe(char text[static 96], const note *n)
{
    static const char *const types[] = {
        [ncclInt32] = "i32", [ncclFloat32] = "f32", [ncclFloat64] = "f64"};

    (void)snprintf(text, 96, "%s #%llu of %llu %s, op %d, root %d", what_names[n->what],
                   (unsigned long long)n->call, (unsigned long long)n->count, types[n->type], n->op,
                   n->root);
}

static void check_notes(const meeting *m, int set)
{
    const shared *s = m->comm->shared;

    for (int rank = 0; rank < m->comm->n_ranks; rank++) {
        const note *other = &s->ranks[rank].notes[set];

        if (memcmp(other, &m->note, sizeof(*other)) != 0) {
            char ours[96];
            char theirs[96];

            describe(ours, &m->note);
            describe(theirs, other);
            stream_die("collective mismatch: rank %d calls %s; rank %d calls %s", m->comm->rank,
                       ours, rank, theirs);
        }
    }
}

static void add(char *to, const char *part, size_t n, int type)
{
    for (size_t i = 0; i < n; i++) {
        if (type == ncclFloat64) {
            ((double *)(void *)to)[i] += ((const double *)(const void *)part)[i];
        } else if (type == ncclFloat32) {
            ((float *)(void *)to)[i] += ((const float *)(const void *)part)[i];
        } else {
            ((int32_t *)(void *)to)[i] += ((const int32_t *)(const void *)part)[i];
        }
    }
}

static void take(const meeting *m, size_t n, int set)
{
    const shared *s = m->comm->shared;
    const int n_ranks = m->comm->n_ranks;
    const size_t n_bytes = n * m->elem_bytes;
    const size_t at = m->note.done * m->elem_bytes;

    if (m->note.what == BROADCAST) {
        memcpy(contents(m->to + at, n_bytes, "ncclBroadcast"), s->ranks[m->note.root].parts[set],
               n_bytes);
    }
    for (int i = 0; i < n_ranks && m->note.what == ALL_GATHER; i++) {
        memcpy(contents(m->to + (size_t)i * m->note.count * m->elem_bytes + at, n_bytes,
                        "ncclAllGather"),
               s->ranks[i].parts[set], n_bytes);
    }
    for (int i = 0; i < n_ranks && m->note.what == ALL_REDUCE; i++) {
        // The same order on all ranks, and another one each time: it is NCCL's, not the caller's.
        const char *part = s->ranks[((uint64_t)i + m->note.call) % (uint64_t)n_ranks].parts[set];
        char *to = contents(m->to + at, n_bytes, "ncclAllReduce");

        if (i == 0) {
            memcpy(to, part, n_bytes);
        } else {
            add(to, part, n, m->note.type);
        }
    }
}

static bool run_meeting(stream_work *work)
{
    meeting *m = work->operands;
    ncclComm_t comm = m->comm;
    shared *s = comm->shared;
    const size_t most = PIECE_BYTES / m->elem_bytes;

    do {
        const size_t left = m->note.count - m->note.done;
        const size_t n = left < most ? left : most;
        int set;

        if (comm->is_aborted) {
            break;
        }
        if (!m->has_posted) {
            comm->n_posts++;
        }
        set = (int)(comm->n_posts % N_SETS);
        if (!m->has_posted) {
            memcpy(s->ranks[comm->rank].parts[set],
                   contents(m->from + m->note.done * m->elem_bytes, n * m->elem_bytes,
                            what_names[m->note.what]),
                   n * m->elem_bytes);
            s->ranks[comm->rank].notes[set] = m->note;
            atomic_store(&s->ranks[comm->rank].n_posts, comm->n_posts);
            m->has_posted = true;
        }
        for (int rank = 0; rank < comm->n_ranks; rank++) {
            if (atomic_load(&s->ranks[rank].n_posts) < comm->n_posts) {
                return false;
            }
        }
        check_notes(m, set);
        take(m, n, set);
        m->note.done += n;
        m->has_posted = false;
    } while (m->note.done < m->note.count);
    m->note.done = 0; // a graph runs it again
    return true;
}

static bool never(stream_work *work)
{
    return ((meeting *)work->operands)->comm->is_aborted;
}

static ncclResult_t call(ncclComm_t comm, note n, const void *from, void *to, cudaStream_t stream)
{
    stream_work *work;

    if (comm->late != NULL || !comm->has_met) {
        stream_die(
            "%s while another call is in progress: ncclCommGetAsyncError tells when it has ended",
            what_names[n.what]);
    }
    if ((n.type != ncclFloat64 && n.type != ncclFloat32 && n.type != ncclInt32) ||
        (n.what == ALL_REDUCE && n.op != ncclSum)) {
        return refuse(ncclInvalidArgument, "a type or operation that the emulator does not know");
    }
    n.call = ++comm->n_calls;
    work = stream_work_make(what_names[n.what], fault_is(comm, "hang") ? never : run_meeting,
                            sizeof(meeting));
    *(meeting *)work->operands = (meeting){.comm = comm,
                                           .note = n,
                                           .from = from,
                                           .to = to,
                                           .elem_bytes = n.type == ncclFloat64 ? 8 : 4};
    comm->late = work;
    comm->stream = stream;
    if (fault_is(comm, "error")) {
        comm->state = refuse(ncclRemoteError, "an error on purpose");
    }
    return ncclInProgress;
}

ncclResult_t ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream)
{
    return call(comm, (note){ALL_REDUCE, type, op, 0, count, 0, 0}, from, to, stream);
}

ncclResult_t ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream)
{
    return call(comm, (note){ALL_GATHER, type, 0, 0, count, 0, 0}, from, to, stream);
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream)
{
    return call(comm, (note){BROADCAST, type, 0, root, count, 0, 0}, from, to, stream);
}

/* ---- communicators ----------------------------------------------------------------------------
 */

ncclResult_t ncclGetUniqueId(ncclUniqueId *id)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    memset(id, 0, sizeof(*id));
    (void)snprintf(id->internal, sizeof(id->internal), "/emulated-nccl-%ld-%ld-%ld", (long)getpid(),
                   (long)now.tv_sec, now.tv_nsec);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int n_ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t *config)
{
    ncclComm_t comm = calloc(1, sizeof(*comm));
    void *memory;
    int file;

    if (comm == NULL) {
        stream_die("out of memory");
    }
    if (config->blocking != 0 || n_ranks > MAX_RANKS || rank < 0 || rank >= n_ranks) {
        free(comm);
        return refuse(ncclInvalidArgument,
                      "only communicators of up to 16 ranks that do not block");
    }
    comm->rank = rank;
    comm->n_ranks = n_ranks;
    comm->n_bytes = sizeof(shared) + (size_t)n_ranks * sizeof(((shared *)NULL)->ranks[0]);
    memcpy(comm->name, id.internal, sizeof(comm->name));
    comm->name[sizeof(comm->name) - 1] = '\0';
    file = shm_open(comm->name, O_CREAT | O_RDWR, 0600);
    if (file < 0 || ftruncate(file, (off_t)comm->n_bytes) != 0) {
        stream_die("no shared memory named %s", comm->name);
    }
    memory = mmap(NULL, comm->n_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    (void)close(file);
    if (memory == MAP_FAILED) {
        stream_die("no shared memory named %s", comm->name);
    }
    comm->shared = memory;
    comm->shared->devices[rank] = stream_device();
    atomic_fetch_add(&comm->shared->n_come, 1);
    *out = comm;
    return ncclInProgress;
}

static ncclResult_t meet(ncclComm_t comm)
{
    const shared *s = comm->shared;

    if (atomic_load(&s->n_come) < comm->n_ranks) {
        return ncclInProgress;
    }
    (void)shm_unlink(comm->name);
    comm->has_met = true;
    for (int i = 0; i < comm->n_ranks; i++) {
        for (int j = 0; j < i; j++) {
            if (s->devices[i] == s->devices[j]) {
                return refuse(ncclInvalidUsage, "Duplicate GPU detected");
            }
        }
    }
    return ncclSuccess;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state)
{
    if (!comm->has_met) {
        comm->state = meet(comm);
    } else if (comm->late != NULL) {
        stream_work *work = comm->late;

        comm->late = NULL;
        stream_add(comm->stream, work);
    }
    if (comm->state == ncclSuccess && atomic_load(&comm->shared->has_failed)) {
        comm->state = refuse(ncclRemoteError, "another rank has ended the communicator");
    }
    *state = comm->state;
    return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t comm)
{
    return comm->late == NULL ? ncclSuccess : refuse(ncclInvalidUsage, "a call is in progress");
}

/* What is queued may still name it: the record stays. */
ncclResult_t ncclCommDestroy(ncclComm_t comm)
{
    stream_wait_all();
    (void)munmap(comm->shared, comm->n_bytes);
    comm->is_aborted = true;
    return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm)
{
    (void)shm_unlink(comm->name);
    atomic_store(&comm->shared->has_failed, true);
    comm->is_aborted = true;
    if (comm->late != NULL) {
        stream_work_free(comm->late);
        comm->late = NULL;
    }
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t code)
{
    switch (code) {
    case ncclSuccess:
        return "no error";
    case ncclRemoteError:
        return "remote process exited or there was a network error";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclInvalidUsage:
        return "invalid usage";
    default:
        return "an error";
    }
}

const char *ncclGetLastError(ncclComm_t comm)
{
    (void)comm;
    return last_error;
}
