#include "parallel/watch_table.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNDER_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define UNDER_SANITIZER 1
#endif
#endif
#ifndef UNDER_SANITIZER
#define UNDER_SANITIZER 0
#endif

enum {
    BY_INTERRUPT = 1, // what has asked so far
    BY_OTHER = 2,
    SAME_ASK_NS = 200000000 // a launcher and a terminal may both pass on one Ctrl-C
};

static const struct {
    int number;
    bool fatal;
    bool sanitizers_own; // theirs say more
    const char *text;
} watched[] = {
    {SIGINT, false, false, ""},
    {SIGTERM, false, false, ""},
    {SIGBUS, true, false,
     "a page of a mapped file could not be read: the file was cut short, or its disk is failing"},
    {SIGSEGV, true, true, "invalid access to memory: a bug"},
    {SIGFPE, true, true, "invalid arithmetic: a bug"},
    {SIGILL, true, true, "unknown instruction: this build is not for this processor"},
};

enum {
    N_WATCHED = sizeof(watched) / sizeof(watched[0])
};

// Signals belong to the process, so who hears them is the one thing here that cannot live in an
// object.
static _Atomic(tsr_watch *) listener;
static _Atomic int64_t asked_ns;
static _Atomic int asked_by;
static struct sigaction before[N_WATCHED];

static void on_ask(int number)
{
    const int kept_errno = errno;
    tsr_watch *watch = atomic_load(&listener);
    const int64_t now = tsr_clock_ns();
    int64_t never = 0;
    const uint64_t one = 1;

    if (watch != NULL) {
        if (!atomic_compare_exchange_strong(&asked_ns, &never, now) && now - never > SAME_ASK_NS) {
            (void)tsr_watch_claim(watch); // the others follow without another report
            _exit(128 + number);
        }
        atomic_store(&watch->table->asked_to_end, 1);
        // Last, and what a rank alone goes by: who sees it may take all of it back, though the
        // signal came to another thread.
        (void)atomic_fetch_or(&asked_by, number == SIGINT ? BY_INTERRUPT : BY_OTHER);
        if (watch->bell >= 0) {
            // The launcher sends SIGTERM also when a rank has died: look who.
            (void)!write(watch->bell, &one, sizeof(one));
        }
    }
    errno = kept_errno;
}

bool tsr_watch_take_interrupt(tsr_watch *watch)
{
    int only = BY_INTERRUPT;

    if (watch->place.n_ranks > 1 || !atomic_compare_exchange_strong(&asked_by, &only, 0)) {
        return false;
    }
    atomic_store(&asked_ns, 0);
    return true;
}

bool tsr_watch_signals_asked(void)
{
    return atomic_load_explicit(&asked_by, memory_order_relaxed) != 0;
}

/* Lines are put together by hand: printf may not be called in a signal handler. */
static size_t put_text(char *line, size_t used, size_t room, const char *text)
{
    while (*text != '\0' && used < room) {
        line[used++] = *text++;
    }
    return used;
}

static size_t put_number(char *line, size_t used, size_t room, int64_t number)
{
    char digits[24];
    size_t at = sizeof(digits) - 1;

    digits[at] = '\0';
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return put_text(line, used, room, digits + at);
}

static void report_fatal(const tsr_watch *watch, const char *what)
{
    const tsr_watch_cell *cell = &watch->table->cells[watch->place.host_rank];
    const int64_t number = atomic_load(&cell->number);
    char note[TSR_WATCH_NOTE_BYTES];
    char line[512];
    const size_t room = sizeof(line) - 1;
    size_t used = 0;

    tsr_watch_table_read_note(cell, note);
    used = put_text(line, used, room, "rank ");
    used = put_number(line, used, room, watch->place.rank);
    used = put_text(line, used, room, " of ");
    used = put_number(line, used, room, watch->place.n_ranks);
    used = put_text(line, used, room, " (process ");
    used = put_number(line, used, room, getpid());
    used = put_text(line, used, room, ") is lost: ");
    used = put_text(line, used, room, what);
    used = put_text(line, used, room, ", while ");
    used = put_text(line, used, room, note);
    if (number >= 0) {
        used = put_text(line, used, room, " ");
        used = put_number(line, used, room, number);
    }
    used = put_text(line, used, room, "; ending the job");
    line[used++] = '\n';
    tsr_log_from_signal(line, used);
}

static void on_fault(int number)
{
    tsr_watch *watch = atomic_load(&listener);

    if (watch != NULL && tsr_watch_claim(watch)) {
        for (int i = 0; i < N_WATCHED; i++) {
            if (watched[i].number == number) {
                report_fatal(watch, watched[i].text);
            }
        }
    }
    // The default action was put back when the handler was entered (SA_RESETHAND): a core, if the
    // system keeps them.
    (void)raise(number);
}

tsr_status tsr_watch_signals_open(tsr_watch *watch)
{
    tsr_watch *nobody = NULL;

    if (!atomic_compare_exchange_strong(&listener, &nobody, watch)) {
        return tsr_fail(TSR_ERR_ARG, "a world is open in this process already");
    }
    watch->in_signals = true;
    atomic_store(&asked_ns, 0);
    atomic_store(&asked_by, 0);
    for (int i = 0; i < N_WATCHED; i++) {
        struct sigaction action;

        if (UNDER_SANITIZER && watched[i].sanitizers_own) {
            continue;
        }
        memset(&action, 0, sizeof(action));
        (void)sigemptyset(&action.sa_mask);
        action.sa_handler = watched[i].fatal ? on_fault : on_ask;
        action.sa_flags = watched[i].fatal ? (int)SA_RESETHAND : SA_RESTART;
        (void)sigaction(watched[i].number, &action, &before[i]); // fails for bad numbers only
    }
    return TSR_OK;
}

void tsr_watch_signals_close(tsr_watch *watch)
{
    if (!watch->in_signals) {
        return;
    }
    for (int i = 0; i < N_WATCHED; i++) {
        if (!(UNDER_SANITIZER && watched[i].sanitizers_own)) {
            (void)sigaction(watched[i].number, &before[i], NULL);
        }
    }
    atomic_store(&listener, NULL);
    watch->in_signals = false;
}
