#include "parallel/placement.h"

#include <hwloc.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/env.h"
#include "parallel/shard.h"
#include "parallel/world_mpi.h"

enum {
    SET_WORDS = TSR_PLACEMENT_MOST / 64,
    LINE_BYTES = 512
};

/* The cpus of one rank, on the wire. */
typedef struct cpu_set {
    uint64_t words[SET_WORDS];
} cpu_set;

void tsr_placement_divide(tsr_placement *out, const tsr_placement_core *cores, int n_cores,
                          int index, int n_sharing, int n_wanted, int n_quota)
{
    const bool scarce = n_sharing > n_cores;
    const bool rationed = n_quota > 0 && n_quota < n_cores;
    const tsr_range own = tsr_shard_deal(n_cores, 1, index, n_sharing);
    int n_threads = scarce ? 1 : (int)own.count;
    int n_bound = 0;

    if (rationed && !scarce) {
        const int64_t ration = tsr_shard_deal(n_quota, 1, index, n_sharing).count;

        n_threads = ration > 1 ? (int)ration : 1;
    }
    out->n_threads = n_wanted > 0 ? n_wanted : n_threads;
    // First one cpu of every core, then the second ones.
    for (int i = 0; i < TSR_PLACEMENT_SMT && !scarce && !rationed; i++) {
        for (int64_t c = own.first; c < own.first + own.count; c++) {
            if (i < cores[c].n_cpus && n_bound < out->n_threads) {
                out->cpus[n_bound++] = cores[c].cpus[i];
            }
        }
    }
    out->n_cpus = n_bound == out->n_threads ? n_bound : 0;
}

/* Whole cpus' worth of time that the cgroup of this process allows; 0: no limit. */
static int read_quota(void)
{
    char line[LINE_BYTES];
    char path[LINE_BYTES + 64] = "";
    long long quota_us;
    long long period_us;
    int n_cpus = 0;
    FILE *file = fopen("/proc/self/cgroup", "r");

    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = '\0';
            (void)snprintf(path, sizeof(path), "/sys/fs/cgroup%s/cpu.max", line + 3);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    file = path[0] != '\0' ? fopen(path, "r") : NULL;
    if (file != NULL) {
        // "max 100000" is no limit and fails to scan.
        if (fscanf(file, "%lld %lld", &quota_us, &period_us) == 2 && quota_us > 0 &&
            period_us > 0) {
            const long long n = (quota_us + period_us - 1) / period_us;

            n_cpus = n < TSR_PLACEMENT_MOST ? (int)n : 0;
        }
        (void)fclose(file);
    }
    return n_cpus;
}

/* The cpus that this process may use. */
static tsr_status read_set(cpu_set *set, hwloc_topology_t topology)
{
    hwloc_bitmap_t bound = hwloc_bitmap_alloc();
    const hwloc_const_bitmap_t allowed = hwloc_topology_get_allowed_cpuset(topology);
    int cpu;

    if (bound == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "placement: a set of cpus");
    }
    if (tsr_env_bound_by_default() ||
        hwloc_get_cpubind(topology, bound, HWLOC_CPUBIND_THREAD) != 0 ||
        !hwloc_bitmap_intersects(bound, allowed)) {
        (void)hwloc_bitmap_copy(bound, allowed);
    }
    (void)hwloc_bitmap_and(bound, bound, allowed);
    memset(set, 0, sizeof(*set));
    hwloc_bitmap_foreach_begin(cpu, bound)
    {
        if (cpu < TSR_PLACEMENT_MOST) {
            set->words[cpu / 64] |= UINT64_C(1) << (cpu % 64);
        }
    }
    hwloc_bitmap_foreach_end();
    hwloc_bitmap_free(bound);
    return TSR_OK;
}

static bool has_cpu(const cpu_set *set, unsigned cpu)
{
    return cpu < TSR_PLACEMENT_MOST && (set->words[cpu / 64] >> (cpu % 64) & 1) != 0;
}

/* The cores of `set` in the machine's order, neighbours side by side: cores [TSR_PLACEMENT_MOST].
 */
static int list_cores(tsr_placement_core *cores, hwloc_topology_t topology, const cpu_set *set)
{
    hwloc_obj_t core_before = NULL;
    hwloc_obj_t cpu = NULL;
    int n_cores = 0;

    while ((cpu = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_PU, cpu)) != NULL) {
        hwloc_obj_t core = hwloc_get_ancestor_obj_by_type(topology, HWLOC_OBJ_CORE, cpu);
        tsr_placement_core *last;

        if (!has_cpu(set, cpu->os_index)) {
            continue;
        }
        // Some machines do not tell their cores: then each cpu is one.
        if (core == NULL || core != core_before) {
            cores[n_cores++].n_cpus = 0;
        }
        core_before = core;
        last = &cores[n_cores - 1];
        if (last->n_cpus < TSR_PLACEMENT_SMT) {
            last->cpus[last->n_cpus++] = (int)cpu->os_index;
        }
    }
    return n_cores;
}

/* The sets of all ranks of this host, sets [n_host_ranks], from each one's own. */
static tsr_status exchange(tsr_world *world, cpu_set *sets, const cpu_set *own)
{
    const tsr_wait_policy policy = tsr_world_step_policy(world);
    MPI_Request request;

    if (world->n_host_ranks == 1) {
        sets[0] = *own;
        return TSR_OK;
    }
    TSR_WORLD_TRY_MPI(world, MPI_Iallgather(own, (int)sizeof(*own), MPI_BYTE, sets,
                                            (int)sizeof(*own), MPI_BYTE, world->host, &request));
    return tsr_world_wait(world, 1, &request, &policy, "placing threads");
}

/* What this rank knows by itself: its cpus and its cores. */
static tsr_status read_machine(cpu_set *set, tsr_placement_core *cores, int *n_cores)
{
    tsr_status st;
    hwloc_topology_t topology;

    if (hwloc_topology_init(&topology) != 0) {
        return tsr_fail(TSR_ERR_NOMEM, "placement: hwloc");
    }
    if (hwloc_topology_load(topology) != 0) {
        st = tsr_fail(TSR_ERR_IO, "placement: hwloc cannot read this machine");
    } else {
        st = read_set(set, topology);
        *n_cores = st == TSR_OK ? list_cores(cores, topology, set) : 0;
        if (st == TSR_OK && *n_cores == 0) {
            st = tsr_fail(TSR_ERR_IO, "placement: no cpu below number %d may be used",
                          (int)TSR_PLACEMENT_MOST);
        }
    }
    hwloc_topology_destroy(topology);
    return st;
}

tsr_status tsr_placement_find(tsr_placement *out, tsr_world *world, int n_wanted)
{
    tsr_status st = TSR_OK;
    tsr_placement_core *cores = tsr_alloc(TSR_PLACEMENT_MOST, sizeof(*cores));
    cpu_set *sets = tsr_alloc((size_t)world->n_host_ranks, sizeof(*sets));
    cpu_set own;
    int n_cores = 0;
    int n_sharing = 0;
    int index = 0;

    if (n_wanted < 0 || n_wanted > TSR_PLACEMENT_MOST) {
        st = tsr_fail(TSR_ERR_ARG, "%d threads a rank: 1 to %d can be had", n_wanted,
                      (int)TSR_PLACEMENT_MOST);
    } else if (cores == NULL || sets == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "placement: the list of cores");
    } else {
        st = read_machine(&own, cores, &n_cores);
    }
    TSR_TRY_GOTO(st, end, tsr_world_agree(world, st));
    TSR_TRY_GOTO(st, end, exchange(world, sets, &own));
    for (int i = 0; i < world->n_host_ranks; i++) {
        if (memcmp(&sets[i], &own, sizeof(own)) == 0) {
            index += i < world->host_rank ? 1 : 0;
            n_sharing++;
        }
    }
    tsr_placement_divide(out, cores, n_cores, index, n_sharing, n_wanted, read_quota());

end:
    tsr_free(sets);
    tsr_free(cores);
    return st;
}
