#include "parallel/fault.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "parallel/world_mpi.h"

enum {
    PAGE_BYTES = 4096
};

static const char *const kinds[TSR_FAULT_COUNT] = {
    [TSR_FAULT_NONE] = "",       [TSR_FAULT_KILL] = "kill", [TSR_FAULT_STOP] = "stop",
    [TSR_FAULT_ALLOC] = "alloc", [TSR_FAULT_PAGE] = "page", [TSR_FAULT_SEGV] = "segv",
};

/* A whole number at *text, which moves behind it. */
static bool read_number(const char **text, int64_t most, int64_t *number)
{
    char *end;

    if (**text < '0' || **text > '9') {
        return false;
    }
    errno = 0;
    *number = strtoll(*text, &end, 10);
    *text = end;
    return errno == 0 && *number <= most;
}

tsr_status tsr_fault_parse(tsr_fault *out, const char *text)
{
    const char *at = text;
    tsr_fault fault = {.kind = TSR_FAULT_NONE};
    int64_t rank;

    if (*text == '\0') {
        *out = fault;
        return TSR_OK;
    }
    if (read_number(&at, INT_MAX, &rank) && *at == ':') {
        fault.rank = (int)rank;
        at++;
        for (int i = TSR_FAULT_NONE + 1; i < TSR_FAULT_COUNT; i++) {
            const size_t n_chars = strlen(kinds[i]);

            if (strncmp(at, kinds[i], n_chars) == 0 && at[n_chars] == '@') {
                fault.kind = (tsr_fault_kind)i;
                at += n_chars + 1;
                break;
            }
        }
    }
    if (fault.kind == TSR_FAULT_NONE || !read_number(&at, INT64_MAX, &fault.step) || *at != '\0') {
        return tsr_fail(TSR_ERR_ARG,
                        "fault \"%s\" is not RANK:WHAT@STEP with WHAT one of kill, stop, alloc, "
                        "page, segv",
                        text);
    }
    *out = fault;
    return TSR_OK;
}

/* Read a page of a file that was cut short after it was mapped. */
static void touch_lost_page(void)
{
    char path[] = "/tmp/tsr-fault-XXXXXX";
    const int file = mkstemp(path);
    volatile const char *page;

    if (file < 0) {
        tsr_log_error("fault: %s: %s", path, strerror(errno));
        return;
    }
    (void)unlink(path);
    (void)!ftruncate(file, PAGE_BYTES);
    page = mmap(NULL, PAGE_BYTES, PROT_READ, MAP_SHARED, file, 0);
    (void)!ftruncate(file, 0);
    if (page != MAP_FAILED) {
        (void)page[0];
    }
}

void tsr_fault_maybe(const tsr_world *world, int64_t step)
{
    const tsr_fault *fault = &world->fault;

    if (fault->kind == TSR_FAULT_NONE || fault->rank != world->rank || fault->step != step) {
        return;
    }
    switch (fault->kind) {
    case TSR_FAULT_KILL:
        (void)raise(SIGKILL);
        break;
    case TSR_FAULT_STOP:
        (void)raise(SIGSTOP);
        break;
    case TSR_FAULT_ALLOC:
        tsr_alloc_fail_nth(1);
        break;
    case TSR_FAULT_PAGE:
        touch_lost_page();
        break;
    case TSR_FAULT_SEGV:
        (void)raise(SIGSEGV);
        break;
    case TSR_FAULT_NONE:
    case TSR_FAULT_COUNT:
        break;
    }
}
