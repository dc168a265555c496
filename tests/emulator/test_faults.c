#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/dtype.h"
#include "tests/emulator/faults.h"
#include "tests/emulator/simt.h"
#include "tests/emulator/stream.h"

/*
 * Tests of the tests: mistakes made on purpose, each of which the emulated device must report, in
 * every order of threads or of works; and the same without the mistake, which must pass.
 */

enum {
    N = 256,
    WRONG = 98 // exit status of a child whose result is wrong
};

static cudaStream_t stream;
static uint32_t *in;
static uint32_t *out;

static void check(cudaError_t error)
{
    if (error != cudaSuccess) {
        _exit(SIMT_EXIT); // the stand-in has said why
    }
}

static void open_device(void)
{
    uint32_t numbers[N];

    for (uint32_t i = 0; i < N; i++) { // pairs of small bf16 numbers
        numbers[i] = (uint32_t)tsr_dtype_to_bf16((float)(i % 7)) |
                     (uint32_t)tsr_dtype_to_bf16((float)(i % 5)) << 16;
    }
    check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    check(cudaMalloc((void **)&in, sizeof(numbers)));
    check(cudaMalloc((void **)&out, sizeof(numbers)));
    check(cudaMemcpyAsync(in, numbers, sizeof(numbers), cudaMemcpyHostToDevice, stream));
    check(cudaMemsetAsync(out, 0, sizeof(numbers), stream));
    check(cudaStreamSynchronize(stream));
}

static void wrong_if(bool is_wrong)
{
    if (is_wrong) {
        (void)fprintf(stderr, "the result is wrong\n");
        _exit(WRONG);
    }
}

/* ---- mistakes of the host
 * ------------------------------------------------------------------------ */

static void kernel_gets_freed_memory(bool planted)
{
    uint32_t *memory;

    check(cudaMalloc((void **)&memory, N * sizeof(*memory)));
    run_plus_one(memory, in, stream);
    check(cudaStreamSynchronize(stream));
    check(cudaFree(memory));
    run_plus_one(planted ? memory : out, in, stream);
}

static void kernel_gets_host_memory(bool planted)
{
    static uint32_t memory[N];

    run_plus_one(out, planted ? memory : in, stream);
}

static void host_reads_device_memory(bool planted)
{
    static volatile uint32_t sink;

    if (planted) {
        sink = in[3];
    }
    (void)sink;
}

static void freed_twice(bool planted)
{
    uint32_t *memory;

    check(cudaMalloc((void **)&memory, 8));
    check(cudaFree(memory));
    if (planted) {
        check(cudaFree(memory));
    }
}

static void copy_too_long(bool planted)
{
    static uint32_t memory[2 * N];

    check(cudaMemcpyAsync(memory, in, (planted ? N + 1 : N) * sizeof(*in), cudaMemcpyDeviceToHost,
                          stream));
}

static void copy_of_the_wrong_kind(bool planted)
{
    check(cudaMemcpyAsync(out, in, 4, planted ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToDevice,
                          stream));
}

static void launch_without_stream(bool planted)
{
    run_plus_one(out, in, planted ? NULL : stream);
}

static void memory_of_another_device(bool planted)
{
    cudaStream_t other;

    check(cudaSetDevice(1));
    check(cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking));
    run_plus_one(out, in, planted ? other : stream);
    check(cudaStreamSynchronize(other));
}

static void result_read_too_early(bool planted)
{
    uint32_t *host;

    check(cudaMallocHost((void **)&host, N * sizeof(*host)));
    check(cudaMemcpyAsync(host, in, N * sizeof(*host), cudaMemcpyDeviceToHost, stream));
    if (!planted) {
        check(cudaStreamSynchronize(stream));
    }
    wrong_if(host[5] != ((uint32_t)tsr_dtype_to_bf16(5) | (uint32_t)tsr_dtype_to_bf16(0) << 16));
}

static void staging_used_again_too_early(bool planted)
{
    uint32_t *host;
    uint32_t got[N];

    check(cudaMallocHost((void **)&host, N * sizeof(*host)));
    memset(host, 0, N * sizeof(*host));
    check(cudaMemcpyAsync(out, host, N * sizeof(*host), cudaMemcpyHostToDevice, stream));
    if (!planted) {
        check(cudaStreamSynchronize(stream));
    }
    memset(host, 1, N * sizeof(*host));
    check(cudaMemcpyAsync(got, out, sizeof(got), cudaMemcpyDeviceToHost, stream));
    wrong_if(got[9] != 0);
}

/* Work of a second stream that needs the first one's. */
static void event_not_waited_for(bool planted)
{
    cudaStream_t second;
    cudaEvent_t event;
    uint32_t *between;
    uint32_t before[N];
    uint32_t got[N];

    check(cudaMemcpyAsync(before, in, sizeof(before), cudaMemcpyDeviceToHost, stream));
    check(cudaMalloc((void **)&between, sizeof(got)));
    check(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    run_plus_one(between, in, stream);
    check(cudaEventRecord(event, stream));
    if (!planted) {
        check(cudaStreamWaitEvent(second, event, 0));
    }
    run_plus_one(out, between, second);
    check(cudaMemcpyAsync(got, out, sizeof(got), cudaMemcpyDeviceToHost, second));
    for (int i = 0; i < N; i++) {
        wrong_if(got[i] != before[i] + 2);
    }
}

/* A copy stream beside the kernels: what it fetches, and what it overwrites, is theirs before. */
static void copied_aside_too_early(bool planted)
{
    cudaStream_t aside;
    cudaEvent_t event;
    uint32_t before[N];
    uint32_t got[N];
    uint32_t *host;

    check(cudaMemcpyAsync(before, in, sizeof(before), cudaMemcpyDeviceToHost, stream));
    check(cudaMallocHost((void **)&host, sizeof(got)));
    memset(host, 0, sizeof(got));
    check(cudaStreamCreateWithFlags(&aside, cudaStreamNonBlocking));
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    run_plus_one(out, in, stream);
    check(cudaEventRecord(event, stream));
    if (!planted) {
        check(cudaStreamWaitEvent(aside, event, 0));
    }
    check(cudaMemcpyAsync(in, host, sizeof(got), cudaMemcpyHostToDevice, aside));
    check(cudaStreamSynchronize(aside));
    check(cudaMemcpyAsync(got, out, sizeof(got), cudaMemcpyDeviceToHost, stream));
    for (int i = 0; i < N; i++) {
        wrong_if(got[i] != before[i] + 1);
    }
}

static void copy_aside_not_waited_for(bool planted)
{
    cudaStream_t aside;
    cudaEvent_t event;
    uint32_t got[N];
    uint32_t *host;

    check(cudaMallocHost((void **)&host, sizeof(got)));
    memset(host, 0, sizeof(got));
    check(cudaStreamCreateWithFlags(&aside, cudaStreamNonBlocking));
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    check(cudaMemcpyAsync(in, host, sizeof(got), cudaMemcpyHostToDevice, aside));
    check(cudaEventRecord(event, aside));
    if (!planted) {
        check(cudaEventSynchronize(event));
    }
    run_plus_one(out, in, stream);
    check(cudaMemcpyAsync(got, out, sizeof(got), cudaMemcpyDeviceToHost, stream));
    for (int i = 0; i < N; i++) {
        wrong_if(got[i] != 1);
    }
}

/* A graph of two branches, replayed. */
static void branch_not_joined(bool planted)
{
    cudaStream_t second;
    cudaEvent_t fork;
    cudaEvent_t join;
    cudaGraph_t graph;
    cudaGraphExec_t exec;

    check(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    check(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    check(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    check(cudaEventRecord(fork, stream));
    check(cudaStreamWaitEvent(second, fork, 0));
    run_plus_one(out, in, second);
    check(cudaEventRecord(join, second));
    if (!planted) {
        check(cudaStreamWaitEvent(stream, join, 0));
    }
    check(cudaStreamEndCapture(stream, &graph));
    check(cudaGraphInstantiate(&exec, graph, 0));
    check(cudaGraphDestroy(graph));
    check(cudaGraphLaunch(exec, stream));
    check(cudaStreamSynchronize(stream));
    check(cudaGraphExecDestroy(exec));
}

/* In a graph two works on the same memory, one after the other only where an edge says so. */
static void edge_missing(bool planted)
{
    cudaStream_t second;
    cudaEvent_t fork;
    cudaEvent_t middle;
    cudaEvent_t join;
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    uint32_t *between;
    uint32_t before[N];

    check(cudaMemcpyAsync(before, in, sizeof(before), cudaMemcpyDeviceToHost, stream));
    check(cudaMalloc((void **)&between, N * sizeof(*between)));
    check(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking));
    check(cudaEventCreateWithFlags(&fork, cudaEventDisableTiming));
    check(cudaEventCreateWithFlags(&middle, cudaEventDisableTiming));
    check(cudaEventCreateWithFlags(&join, cudaEventDisableTiming));
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    check(cudaEventRecord(fork, stream));
    check(cudaStreamWaitEvent(second, fork, 0));
    run_plus_one(between, in, stream);
    check(cudaEventRecord(middle, stream));
    if (!planted) {
        check(cudaStreamWaitEvent(second, middle, 0));
    }
    run_plus_one(out, between, second);
    check(cudaEventRecord(join, second));
    check(cudaStreamWaitEvent(stream, join, 0));
    check(cudaStreamEndCapture(stream, &graph));
    check(cudaGraphInstantiate(&exec, graph, 0));
    for (int replay = 0; replay < 20; replay++) {
        uint32_t got[N];

        check(cudaMemsetAsync(between, 0xFF, sizeof(got), stream));
        check(cudaGraphLaunch(exec, stream));
        check(cudaMemcpyAsync(got, out, sizeof(got), cudaMemcpyDeviceToHost, stream));
        for (int i = 0; i < N; i++) {
            wrong_if(got[i] != before[i] + 2);
        }
    }
}

static void wait_in_a_capture(bool planted)
{
    cudaGraph_t graph;

    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    run_plus_one(out, in, stream);
    if (planted) {
        check(cudaStreamSynchronize(stream));
    }
    check(cudaStreamEndCapture(stream, &graph));
}

/* ---- the table
 * ----------------------------------------------------------------------------------- */

typedef void kernel_fn(uint32_t *out, const uint32_t *in, bool planted, cudaStream_t stream);
typedef void host_fn(bool planted);

/* By a kernel, by the host, and by the host where it shows only when streams run late. */
#define KERNEL(name, fn, report)            \
    {                                       \
        name, run_##fn, NULL, report, false \
    }
#define HOST(name, fn, report)        \
    {                                 \
        name, NULL, fn, report, false \
    }
#define LATE(name, fn, report)       \
    {                                \
        name, NULL, fn, report, true \
    }

static const struct fault {
    const char *name;
    kernel_fn *kernel; // one of the two
    host_fn *host;
    const char *report; // what must be on stderr
    bool is_lazy_only;  // nothing is wrong when streams happen to be in time
} faults[] = {
    KERNEL("missing __syncthreads", neighbour, "shared memory"),
    KERNEL("missing __syncwarp", lane_neighbour, "shared memory"),
    KERNEL("buffer filled again too early", two_stages, "race: this thread"),
    KERNEL("barrier in two branches", divergent_barrier, "divergent barrier"),
    KERNEL("return before a barrier", early_return, "return"),
    KERNEL("mask names lanes that left", lanes_that_left, "that have returned"),
    KERNEL("mask without its caller", mask_without_caller, "does not name it"),
    KERNEL("shuffles of two branches", branches_shuffle_apart, "lanes disagree"),
    KERNEL("half a warp at a barrier", half_at_barrier, "deadlock"),
    KERNEL("shared memory overrun", shared_overrun, "shared memory at 1024; the block has 1024"),
    KERNEL("shared memory unwritten", shared_unwritten, "nobody of the block has written"),
    KERNEL("cp.async without a wait", copy_not_waited, "nobody waited for"),
    KERNEL("cp.async, one wait too few", copy_waited_too_little, "nobody waited for"),
    KERNEL("cp.async left behind", copy_left_behind, "never waited for"),
    KERNEL("matrices of others' cp.async", matrices_of_other_threads, "shared memory"),
    KERNEL("cp.async over what is read", copy_over_matrices, "race: this thread"),
    KERNEL("row of ldmatrix misaligned", matrix_row_misaligned, "misaligned"),
    KERNEL("mma.sync of half a warp", half_a_warp_multiplies, "have returned"),
    KERNEL("misaligned vector", misaligned_vector, "misaligned: 16 bytes"),
    KERNEL("device memory overrun", global_overrun, "behind the end of allocation"),
    KERNEL("blocks write one word", blocks_share_a_word, "of another block wrote"),
    KERNEL("block reads another's output", block_reads_what_others_write, "of another block"),
    KERNEL("plain write beside atomics", atomic_and_plain, "race: this thread"),
    KERNEL("swapped operands of mma.sync", swapped_operands, "the result is wrong"),
    KERNEL("more threads than launch bounds", few_threads, "__launch_bounds__"),
    KERNEL("shared memory not asked for", much_shared, "cudaFuncSetAttribute"),
    HOST("freed memory", kernel_gets_freed_memory, "inside freed allocation"),
    HOST("host memory in a kernel", kernel_gets_host_memory, "not device memory"),
    HOST("device memory on the host", host_reads_device_memory, "the host touches device memory"),
    HOST("freed twice", freed_twice, "no live allocation"),
    HOST("copy too long", copy_too_long, "a copy of 1028 bytes"),
    HOST("copy of the wrong kind", copy_of_the_wrong_kind, "does not fit"),
    HOST("launch without a stream", launch_without_stream, "without a stream"),
    HOST("memory of another device", memory_of_another_device, "of device 0 on device 1"),
    LATE("result read too early", result_read_too_early, "the result is wrong"),
    LATE("staging used too early", staging_used_again_too_early, "the result is wrong"),
    LATE("event not waited for", event_not_waited_for, "the result is wrong"),
    LATE("copied aside too early", copied_aside_too_early, "the result is wrong"),
    LATE("copy aside not waited for", copy_aside_not_waited_for, "the result is wrong"),
    HOST("branch not joined", branch_not_joined, "does not come after all works"),
    HOST("edge missing in a graph", edge_missing, "the result is wrong"),
    HOST("wait in a capture", wait_in_a_capture, "captured stream"),
};

/* What mma.sync makes of numbers whose order does not matter is known: the sum over all outputs. */
static void check_product(void)
{
    uint32_t got[N];
    uint32_t numbers[N];
    float all = 0;
    float expected = 0;

    check(cudaMemcpyAsync(got, out, sizeof(got), cudaMemcpyDeviceToHost, stream));
    check(cudaMemcpyAsync(numbers, in, sizeof(numbers), cudaMemcpyDeviceToHost, stream));
    for (int i = 0; i < 128; i++) {
        float sum;

        memcpy(&sum, &got[i], sizeof(sum));
        all += sum;
    }
    // Sum over k of (sum of A's column k) (sum of B's row k).
    for (int k = 0; k < 16; k++) {
        float column = 0;
        float row = 0;

        for (int lane = 0; lane < 32; lane++) {
            for (int r = 0; r < 4; r++) {
                if (lane % 4 * 2 + r / 2 * 8 + k % 2 == k) {
                    column += tsr_dtype_from_bf16(
                        (uint16_t)(numbers[32 * r + lane] >> (k % 2 != 0 ? 16 : 0)));
                }
            }
            for (int r = 0; r < 2; r++) {
                if (lane % 4 * 2 + r * 8 + k % 2 == k) {
                    row += tsr_dtype_from_bf16(
                        (uint16_t)(numbers[128 + 32 * r + lane] >> (k % 2 != 0 ? 16 : 0)));
                }
            }
        }
        expected += column * row;
    }
    wrong_if(all != expected);
}

static void child(const struct fault *fault, bool planted, simt_order order, stream_mode mode)
{
    simt_set_order(order, 3);
    stream_set_mode(mode, 3);
    open_device();
    if (fault->kernel != NULL) {
        fault->kernel(out, in, planted, stream);
        check(cudaGetLastError());
        check(cudaStreamSynchronize(stream));
        if (fault->kernel == run_swapped_operands) {
            check_product();
        }
    } else {
        fault->host(planted);
        check(cudaStreamSynchronize(stream));
    }
    _exit(0);
}

/* The exit status of a child, and what it said. */
static int run(const struct fault *fault, bool planted, simt_order order, stream_mode mode,
               char *said, size_t room)
{
    int ends[2];
    int status = 0;
    size_t n = 0;
    pid_t pid;

    assert_int_equal(pipe(ends), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)dup2(ends[1], STDERR_FILENO);
        (void)close(ends[0]);
        child(fault, planted, order, mode);
    }
    (void)close(ends[1]);
    for (;;) {
        const ssize_t got = read(ends[0], said + n, room - 1 - n);

        if (got <= 0) {
            break;
        }
        n += (size_t)got;
    }
    said[n] = '\0';
    (void)close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void every_planted_fault_is_reported_and_nothing_without_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        const struct fault *fault = &faults[i];

        for (int order = 0; order < SIMT_ORDER_COUNT; order++) {
            const stream_mode mode = (stream_mode)(order % 3);
            const bool in_time = fault->is_lazy_only && mode != STREAM_LAZY;
            char said[8192];

            if (run(fault, false, (simt_order)order, mode, said, sizeof(said)) != 0) {
                fail_msg("%s, not planted, order %d: %s", fault->name, order, said);
            }
            if (in_time) {
                continue;
            }
            if (run(fault, true, (simt_order)order, mode, said, sizeof(said)) == 0 ||
                strstr(said, fault->report) == NULL) {
                fail_msg("%s, order %d, is not reported: '%s'", fault->name, order, said);
            }
            if (fault->kernel != NULL && strstr(said, "race") != NULL &&
                strstr(said, "faults.cu:") == NULL) {
                fail_msg("%s: the report names no line: %s", fault->name, said);
            }
            if (getenv("FAULTS_SHOWN") != NULL && order == 0) {
                (void)printf("%-32s %s", fault->name, said);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_planted_fault_is_reported_and_nothing_without_one),
    };

    (void)setenv("EMULATOR_DEVICES", "2", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
