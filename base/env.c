#include "base/env.h"

#include <errno.h>
#include <stdlib.h>

#include "base/log.h"

static const tsr_env_entry entries[TSR_ENV_COUNT] = {
#define TSR_ENV_ENTRY(id, name, fallback, help) [TSR_ENV_##id] = {name, fallback, help},
    TSR_ENV_TABLE(TSR_ENV_ENTRY)
#undef TSR_ENV_ENTRY
};

const tsr_env_entry *tsr_env_describe(tsr_env_id id)
{
    return &entries[id];
}

const char *tsr_env_text(tsr_env_id id)
{
    const char *value = getenv(entries[id].name);

    return value != NULL ? value : entries[id].fallback;
}

int64_t tsr_env_number(tsr_env_id id)
{
    const char *text = tsr_env_text(id);
    char *end;
    long long number;

    errno = 0;
    number = strtoll(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0') {
        tsr_log_warn("%s=%s is not a number; using %s", entries[id].name, text,
                     entries[id].fallback);
        return strtoll(entries[id].fallback, NULL, 10);
    }
    return number;
}

static bool any_set(const char *const *names, size_t n_names)
{
    for (size_t i = 0; i < n_names; i++) {
        if (getenv(names[i]) != NULL) {
            return true;
        }
    }
    return false;
}

bool tsr_env_wants_no_color(void)
{
    const char *value = getenv("NO_COLOR");

    return value != NULL && *value != '\0';
}

bool tsr_env_under_mpi(void)
{
    // What Open MPI's mpirun, PMIx launchers (srun --mpi=pmix) and PMI launchers set for a process.
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};

    return any_set(marks, sizeof(marks) / sizeof(marks[0]));
}

/* What Slurm says in a variable; -1: nothing. */
static int64_t slurm_number(const char *name)
{
    const char *text = getenv(name);
    char *end = NULL;
    const long long number = text != NULL ? strtoll(text, &end, 10) : -1;

    return end != NULL && end != text && *end == '\0' && number >= 0 ? number : -1;
}

int64_t tsr_env_srun_copies(void)
{
    const int64_t n_copies = slurm_number("SLURM_STEP_NUM_TASKS");

    return n_copies > 1 && slurm_number("SLURM_PROCID") == 0 ? n_copies : 0;
}

int64_t tsr_env_slurm_end_s(void)
{
    const int64_t end_s = slurm_number("SLURM_JOB_END_TIME");

    return end_s > 0 ? end_s : 0;
}

bool tsr_env_bound_by_default(void)
{
    // What mpirun (4.1) hands to the processes of its options --bind-to, --map-by, --cpu-set and
    // --rankfile.
    static const char *const wishes[] = {
        "OMPI_MCA_hwloc_base_binding_policy", "OMPI_MCA_rmaps_base_mapping_policy",
        "OMPI_MCA_hwloc_base_cpu_set", "OMPI_MCA_rmaps_rank_file_path", "OMPI_MCA_orte_rankfile"};

    return getenv("OMPI_MCA_orte_bound_at_launch") != NULL &&
           !any_set(wishes, sizeof(wishes) / sizeof(wishes[0]));
}
