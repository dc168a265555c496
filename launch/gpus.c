#include "launch/gpus.h"

#include <stdio.h>
#include <strings.h>

enum {
    KEPT_MIB = 1024,
    LIST_BYTES = 512
};

typedef struct gpu {
    const char *name;
    int mib; /* as the driver reports it, with error correction on where the card has it */
} gpu;

static const gpu gpus[] = {
    {"h200", 143771},   {"h100", 81559},    {"h100-nvl", 95830}, {"a100", 81920},
    {"a100-80", 81920}, {"a100-40", 40960}, {"l40s", 46068},     {"l40", 46068},
    {"l4", 23034},      {"a40", 46068},     {"a10", 23028},      {"t4", 15360},
    {"v100", 16384},    {"v100-32", 32768}, {"a6000", 49140},    {"5090", 32607},
    {"4090", 24564},    {"4080", 16376},    {"3090", 24576},     {"b200", 183359},
};

enum {
    N_GPUS = sizeof(gpus) / sizeof(gpus[0])
};

tsr_status tsr_gpus_find(uint64_t *usable_bytes, const char *name)
{
    char list[LIST_BYTES] = "";
    size_t used = 0;

    for (int i = 0; i < N_GPUS; i++) {
        if (strcasecmp(gpus[i].name, name) == 0) {
            *usable_bytes = (uint64_t)(gpus[i].mib - KEPT_MIB) << 20;
            return TSR_OK;
        }
    }
    for (int i = 0; i < N_GPUS && used < sizeof(list); i++) {
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i > 0 ? ", " : "",
                                 gpus[i].name);
    }
    return tsr_fail(TSR_ERR_ARG,
                    "no GPU is called '%.40s'; known are %s; for another say --device-memory BYTES",
                    name, list);
}
