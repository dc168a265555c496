/*
 * base/env.h - every environment variable that Tessera reads, in one table.
 *
 * Nothing else calls getenv. Ten of our own at most: the eleventh must replace one.
 */
#ifndef TSR_BASE_ENV_H
#define TSR_BASE_ENV_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* name, default, help: X(id, "NAME", "default", "what it does") */
#define TSR_ENV_TABLE(X)                                                                       \
    X(LOG, "TSR_LOG", "warn", "how much to say on stderr: error, warn, info or debug")         \
    X(ISA, "TSR_ISA", "auto", "CPU instructions to use: auto, plain, avx2 or avx512")          \
    X(TIMEOUT, "TSR_TIMEOUT", "300", "seconds without progress after which a job ends itself") \
    X(FAULT, "TSR_FAULT", "", "for tests: RANK:WHAT@STEP, what goes wrong on purpose, and when")

typedef enum tsr_env_id {
#define TSR_ENV_ID(id, name, fallback, help) TSR_ENV_##id,
    TSR_ENV_TABLE(TSR_ENV_ID)
#undef TSR_ENV_ID
    TSR_ENV_COUNT
} tsr_env_id;

typedef struct tsr_env_entry {
    const char *name;
    const char *fallback;
    const char *help;
} tsr_env_entry;

const tsr_env_entry *tsr_env_describe(tsr_env_id id);

/* The variable's value, or its default when unset. Never NULL. */
const char *tsr_env_text(tsr_env_id id);

/* The same as a whole number; the default, with a warning in the log, when it is not one. */
int64_t tsr_env_number(tsr_env_id id);

/* Does whoever runs this want no colours (NO_COLOR, see no-color.org)? */
bool tsr_env_wants_no_color(void);

/* Was this process started by mpirun, srun or another MPI launcher? */
bool tsr_env_under_mpi(void);

/* Of how many copies that srun started this process is the first; 0: it is not, or there is one. */
int64_t tsr_env_srun_copies(void);

/* When the Slurm job that this process is part of will be ended, in seconds since 1970; 0: it is in
 * none, or that is not known (SLURM_JOB_END_TIME). */
int64_t tsr_env_slurm_end_s(void);

/* Did Open MPI bind this process to a core or socket only because nobody said what to bind to? */
bool tsr_env_bound_by_default(void);

#ifdef __cplusplus
}
#endif

#endif
