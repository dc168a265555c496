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

bool tsr_env_under_mpi(void)
{
    // What Open MPI's mpirun, PMIx launchers (srun --mpi=pmix) and PMI launchers set for a process.
    static const char *const marks[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"};

    for (size_t i = 0; i < sizeof(marks) / sizeof(marks[0]); i++) {
        if (getenv(marks[i]) != NULL) {
            return true;
        }
    }
    return false;
}
