#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include <cmocka.h>

#include "base/status.h"

static char folder[] = "/tmp/tessera_test_XXXXXX";

int scratch_make(void **state)
{
    (void)state;
    return mkdtemp(folder) != NULL ? 0 : -1;
}

int scratch_remove(void **state)
{
    (void)state;
    return rmdir(folder);
}

const char *scratch_folder(void)
{
    return folder;
}

const char *scratch_path(const char *name)
{
    static char paths[2][256];
    static int which;

    which = 1 - which;
    (void)snprintf(paths[which], sizeof(paths[which]), "%s/%s", folder, name);
    return paths[which];
}

void assert_sentence(const char *name, const char *part)
{
    const char *message = tsr_status_message();

    if (strstr(message, name) == NULL || strstr(message, part) == NULL) {
        fail_msg("\"%s\" does not name \"%s\" and say \"%s\"", message, name, part);
    }
    assert_true(strlen(message) > 15 && strlen(message) < 420);
    assert_null(strchr(message, '\n'));
}
