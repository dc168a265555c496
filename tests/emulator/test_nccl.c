#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <nccl.h>

#include "tests/emulator/simt.h"
#include "tests/emulator/stream.h"

/*
 * The stand-in for NCCL between processes: what it gives, and the mistakes that it must report.
 * A rank is a child of the test.
 */

enum {
    N = 20000, // several pieces
    WRONG = 98 // exit status of a child whose result is wrong
};

static int self;
static int n_ranks;
static ncclComm_t comm;
static cudaStream_t stream;
static double *numbers; // [N] on the device: rank + 1 + i
static double *results; // [4 N]

static void check(cudaError_t error)
{
    if (error != cudaSuccess) {
        _exit(SIMT_EXIT);
    }
}

static void settle(ncclResult_t code)
{
    while (code == ncclInProgress) {
        if (ncclCommGetAsyncError(comm, &code) != ncclSuccess) {
            _exit(SIMT_EXIT);
        }
    }
    if (code != ncclSuccess) {
        (void)fprintf(stderr, "%s: %s\n", ncclGetErrorString(code), ncclGetLastError(comm));
        _exit(SIMT_EXIT);
    }
}

static void open_rank(ncclUniqueId id)
{
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    static double host[N];
    int n_devices = 0;

    for (int i = 0; i < N; i++) {
        host[i] = self + 1 + i;
    }
    check(cudaGetDeviceCount(&n_devices));
    check(cudaSetDevice(self % n_devices));
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    check(cudaMalloc((void **)&numbers, sizeof(host)));
    check(cudaMalloc((void **)&results, 4 * sizeof(host)));
    check(cudaMemcpyAsync(numbers, host, sizeof(host), cudaMemcpyHostToDevice, stream));
    config.blocking = 0;
    settle(ncclCommInitRankConfig(&comm, n_ranks, id, self, &config));
}

/* results[i] = first + step i for i < n, or the child says that it is wrong. */
static void expect(double first, double step, int n)
{
    static double host[4 * N];

    check(
        cudaMemcpyAsync(host, results, (size_t)n * sizeof(*host), cudaMemcpyDeviceToHost, stream));
    for (int i = 0; i < n; i++) {
        if (host[i] != first + step * (double)i) {
            (void)fprintf(stderr, "the result is wrong\n");
            _exit(WRONG);
        }
    }
}

static void sum(size_t n)
{
    settle(ncclAllReduce(numbers, results, n, ncclFloat64, ncclSum, comm, stream));
}

/* ---- what it gives -------------------------------------------------------------------------- */

static void collectives(bool planted)
{
    const double all = n_ranks * (n_ranks + 1) / 2.0;

    (void)planted;
    sum(N);
    expect(all, n_ranks, N);
    sum(0);
    settle(ncclBroadcast(numbers, results, N, ncclFloat64, n_ranks - 1, comm, stream));
    expect(n_ranks, 1, N);
    settle(ncclAllGather(numbers, results, 1, ncclFloat64, comm, stream));
    expect(1, 1, n_ranks);
}

static void in_a_graph(bool planted)
{
    cudaGraph_t graph;
    cudaGraphExec_t exec;

    (void)planted;
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    sum(N);
    settle(ncclAllReduce(results, results, N, ncclFloat64, ncclSum, comm, stream));
    check(cudaStreamEndCapture(stream, &graph));
    check(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 3; i++) {
        check(cudaMemsetAsync(results, 0, N * sizeof(*results), stream));
        check(cudaGraphLaunch(exec, stream));
        expect(n_ranks * (n_ranks * (n_ranks + 1) / 2.0), n_ranks * n_ranks, N);
    }
}

/* ---- mistakes; the last rank makes them ------------------------------------------------------ */

static bool is_mine(bool planted)
{
    return planted && self == n_ranks - 1;
}

static void count_differs(bool planted)
{
    sum(is_mine(planted) ? N / 2 : N);
}

static void type_differs(bool planted)
{
    settle(ncclAllReduce(numbers, results, 8, is_mine(planted) ? ncclFloat32 : ncclFloat64, ncclSum,
                         comm, stream));
}

static void root_differs(bool planted)
{
    settle(ncclBroadcast(numbers, results, 8, ncclFloat64, is_mine(planted) ? 1 : 0, comm, stream));
}

static void collective_differs(bool planted)
{
    settle(is_mine(planted)
               ? ncclAllGather(numbers, results, 8, ncclFloat64, comm, stream)
               : ncclAllReduce(numbers, results, 8, ncclFloat64, ncclSum, comm, stream));
}

static void one_is_skipped(bool planted)
{
    if (!is_mine(planted)) {
        sum(8);
    }
    settle(ncclBroadcast(numbers, results, 8, ncclFloat64, 0, comm, stream));
}

static void the_last_is_skipped(bool planted)
{
    if (!is_mine(planted)) {
        sum(8);
    }
}

static void a_call_on_top_of_another(bool planted)
{
    const ncclResult_t code =
        ncclAllReduce(numbers, results, 8, ncclFloat64, ncclSum, comm, stream);

    if (!planted) {
        settle(code);
    }
    settle(ncclAllReduce(numbers, results, 8, ncclFloat64, ncclSum, comm, stream));
}

static void what_follows_is_queued_too_early(bool planted)
{
    const ncclResult_t code =
        ncclAllReduce(numbers, results, 8, ncclFloat64, ncclSum, comm, stream);

    if (!planted) {
        settle(code);
    }
    expect(n_ranks * (n_ranks + 1) / 2.0, n_ranks, 8);
    if (planted) {
        settle(code);
    }
}

static void sum_of_host_memory(bool planted)
{
    static double host[8];

    settle(ncclAllReduce(planted ? host : numbers, results, 8, ncclFloat64, ncclSum, comm, stream));
}

static void sum_past_the_end(bool planted)
{
    sum(planted ? N + 1 : N);
}

/* An error that another GPU or the network makes: it is said when asked. */
static void a_lost_rank(bool planted)
{
    if (is_mine(planted)) {
        (void)ncclCommAbort(comm);
        _exit(0);
    }
    if (planted) {
        ncclResult_t code = ncclSuccess;

        while (code == ncclSuccess) {
            settle(ncclCommGetAsyncError(comm, &code));
        }
        settle(code);
    }
}

static const struct fault {
    const char *name;
    void (*run)(bool planted);
    const char *report;
} faults[] = {
    {"a count differs", count_differs, "collective mismatch"},
    {"a type differs", type_differs, "collective mismatch"},
    {"a root differs", root_differs, "collective mismatch"},
    {"a collective differs", collective_differs, "collective mismatch"},
    {"one rank skips one", one_is_skipped, "collective mismatch"},
    {"one rank skips the last", the_last_is_skipped, "hang: stream 0 waits in ncclAllReduce"},
    {"a call on top of another", a_call_on_top_of_another, "while another call is in progress"},
    {"what follows queued too early", what_follows_is_queued_too_early, "the result is wrong"},
    {"a sum of host memory", sum_of_host_memory, "which is host memory"},
    {"a sum past the end", sum_past_the_end, "inside allocation 0 of 160000 bytes, at byte 131072"},
    {"a lost rank", a_lost_rank, "another rank has ended the communicator"},
};

/* The ranks' worst exit status, and what they said. */
static int run(void (*fn)(bool), bool planted, int ranks, stream_mode mode, char *said, size_t room)
{
    ncclUniqueId id;
    pid_t pids[4];
    int ends[2];
    int worst = 0;
    size_t n = 0;
    ssize_t got;

    assert_int_equal(pipe(ends), 0);
    assert_int_equal(ncclGetUniqueId(&id), ncclSuccess);
    for (int rank = 0; rank < ranks; rank++) {
        pids[rank] = fork();
        assert_true(pids[rank] >= 0);
        if (pids[rank] == 0) {
            (void)dup2(ends[1], STDERR_FILENO);
            (void)close(ends[0]);
            self = rank;
            n_ranks = ranks;
            stream_set_mode(mode, (uint32_t)rank + 7);
            open_rank(id);
            fn(planted);
            check(cudaStreamSynchronize(stream));
            _exit(0);
        }
    }
    (void)close(ends[1]);
    while ((got = read(ends[0], said + n, room - 1 - n)) > 0) {
        n += (size_t)got;
    }
    said[n] = '\0';
    (void)close(ends[0]);
    for (int rank = 0; rank < ranks; rank++) {
        int status;

        assert_int_equal(waitpid(pids[rank], &status, 0), pids[rank]);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
            worst = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        }
    }
    return worst;
}

static const stream_mode modes[] = {STREAM_LAZY, STREAM_EAGER, STREAM_RANDOM};

static void ranks_get_what_the_collectives_promise(void **state)
{
    char said[8192];

    (void)state;
    for (int ranks = 1; ranks <= 4; ranks++) {
        for (int m = 0; m < 3; m++) {
            if (run(collectives, false, ranks, modes[m], said, sizeof(said)) != 0 ||
                run(in_a_graph, false, ranks, modes[m], said, sizeof(said)) != 0) {
                fail_msg("%d ranks, mode %d: %s", ranks, m, said);
            }
        }
    }
}

static void every_planted_fault_is_reported_and_nothing_without_one(void **state)
{
    char said[8192];

    (void)state;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        for (int m = 0; m < 3; m++) {
            const struct fault *fault = &faults[i];

            if (run(fault->run, false, 2, modes[m], said, sizeof(said)) != 0) {
                fail_msg("%s, not planted, mode %d: %s", fault->name, m, said);
            }
            if (run(fault->run, true, 2, modes[m], said, sizeof(said)) == 0 ||
                strstr(said, fault->report) == NULL) {
                fail_msg("%s, mode %d, is not reported: '%s'", fault->name, m, said);
            }
            if (getenv("FAULTS_SHOWN") != NULL && m == 0) {
                (void)printf("%-32s %s", fault->name, said);
            }
        }
    }
}

static void two_ranks_on_one_gpu_are_refused(void **state)
{
    char said[8192];

    (void)state;
    assert_int_equal(setenv("EMULATOR_DEVICES", "1", 1), 0);
    assert_int_not_equal(run(collectives, false, 2, STREAM_LAZY, said, sizeof(said)), 0);
    assert_non_null(strstr(said, "Duplicate GPU detected"));
    assert_int_equal(setenv("EMULATOR_DEVICES", "4", 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_get_what_the_collectives_promise),
        cmocka_unit_test(every_planted_fault_is_reported_and_nothing_without_one),
        cmocka_unit_test(two_ranks_on_one_gpu_are_refused),
    };

    (void)setenv("EMULATOR_DEVICES", "4", 1);
    (void)setenv("EMULATOR_PATIENCE", "1", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
