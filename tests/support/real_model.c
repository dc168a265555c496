#include "tests/support/real_model.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    SKIPPED = 77
};

const char *real_model_path(void)
{
    const char *path = getenv("TSR_TEST_MODEL");

    if (path == NULL || path[0] == '\0') {
        printf("skipped: TSR_TEST_MODEL is not set (tests/run.sh gets the model)\n");
        exit(SKIPPED);
    }
    return path;
}
