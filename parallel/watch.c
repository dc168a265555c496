#include "parallel/watch_table.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "parallel/launcher.h"

enum {
    LOOK_MS = 100,
    QUIET_LOOKS = 3, // without a beat before the process itself is looked at
    STOPPED_LOOKS =
        20, // 2 s; a job suspended as a whole stops its watches too, and they count nothing
    SILENT_LOOKS = 30, // 3 s
    FOLLOW_LOOKS = 4   // that the others are given to see a claim
};

/* What the own looks at one cell have shown so far. */
struct tsr_watch_seen {
    uint32_t n_beats;
    int n_quiet;   // looks since the last beat
    int n_stopped; // of those, the ones that found the process stopped
    bool met;      // the cell has been looked at before
    bool visible;  // its process can be asked for: not so in another container
};

typedef enum fate {
    ALIVE,
    GONE,
    STOPPED,
    SILENT
} fate;

static const char *const fates[] = {
    [GONE] = "its process is gone (killed, or crashed)",
    [STOPPED] = "its process is stopped",
    [SILENT] = "it gave no sign of life for 3 s",
};

// ---- the table ----------------------------------------------------------------------------------

size_t tsr_watch_table_bytes(int n_host_ranks)
{
    return sizeof(tsr_watch_table) + (size_t)n_host_ranks * sizeof(tsr_watch_cell);
}

void tsr_watch_table_read_note(const tsr_watch_cell *cell, char *text)
{
    for (int i = 0; i < TSR_WATCH_NOTE_WORDS; i++) {
        const uint64_t word = atomic_load_explicit(&cell->note[i], memory_order_relaxed);

        memcpy(text + 8 * i, &word, 8);
    }
    text[TSR_WATCH_NOTE_BYTES - 1] = '\0';
}

static tsr_watch_cell *own_cell(const tsr_watch *watch)
{
    return &watch->table->cells[watch->place.host_rank];
}

void tsr_watch_note(tsr_watch *watch, const char *what, int64_t number)
{
    tsr_watch_cell *cell = own_cell(watch);

    // The same text as last time, as step after step: the number alone has changed.
    if (atomic_load_explicit(&watch->noted, memory_order_relaxed) != what) {
        char text[TSR_WATCH_NOTE_BYTES] = {0};

        (void)snprintf(text, sizeof(text), "%s", what);
        for (int i = 0; i < TSR_WATCH_NOTE_WORDS; i++) {
            uint64_t word;

            memcpy(&word, text + 8 * i, 8);
            atomic_store_explicit(&cell->note[i], word, memory_order_relaxed);
        }
        atomic_store_explicit(&watch->noted, what, memory_order_relaxed);
    }
    atomic_store_explicit(&cell->number, number, memory_order_relaxed);
}

bool tsr_watch_asked_to_end(const tsr_watch *watch)
{
    return watch->place.n_ranks > 1
               ? atomic_load_explicit(&watch->table->asked_to_end, memory_order_relaxed) != 0
               : tsr_watch_signals_asked();
}

bool tsr_watch_claim(tsr_watch *watch)
{
    int32_t nobody = 0;

    return atomic_compare_exchange_strong(&watch->table->claimed, &nobody, watch->place.rank + 1);
}

// ---- the others ---------------------------------------------------------------------------------

static fate look_at(const tsr_watch_cell *cell, struct tsr_watch_seen *seen, bool on_time,
                    bool closely)
{
    const int pid = atomic_load(&cell->pid);
    const uint32_t n_beats = atomic_load(&cell->n_beats);
    char state;

    if (pid == 0 || atomic_load(&cell->finished) != 0) {
        return ALIVE;
    }
    if (!seen->met || seen->n_beats != n_beats) {
        if (!seen->met) {
            seen->visible = tsr_launcher_process_state(pid) != 0;
        }
        *seen = (struct tsr_watch_seen){.n_beats = n_beats, .met = true, .visible = seen->visible};
    } else if (on_time) {
        seen->n_quiet++;
    }
    if ((!closely && seen->n_quiet < QUIET_LOOKS) || !seen->visible) {
        return seen->n_quiet >= SILENT_LOOKS ? SILENT : ALIVE;
    }
    state = tsr_launcher_process_state(pid);
    if (state == 0 || state == 'Z' || state == 'X') {
        // It may have finished since the mark was read: only one that did not is lost.
        return atomic_load(&cell->finished) != 0 ? ALIVE : GONE;
    }
    if (state == 'T' && on_time && ++seen->n_stopped >= STOPPED_LOOKS) {
        return STOPPED;
    }
    // Under a debugger (t) a rank may well be quiet; a stopped one has its own limit.
    return seen->n_quiet >= SILENT_LOOKS && state != 't' && state != 'T' ? SILENT : ALIVE;
}

static void report_lost(tsr_watch *watch, int host_rank, fate how)
{
    const tsr_watch_cell *cell = &watch->table->cells[host_rank];
    const int64_t number = atomic_load(&cell->number);
    char note[TSR_WATCH_NOTE_BYTES];
    char at[32] = "";

    tsr_watch_table_read_note(cell, note);
    if (number >= 0) {
        (void)snprintf(at, sizeof(at), " %lld", (long long)number);
    }
    tsr_log_error("rank %d of %d (process %d) is lost: %s, while %s%s; ending the job",
                  (int)atomic_load(&cell->rank), watch->place.n_ranks, (int)atomic_load(&cell->pid),
                  fates[how], note, at);
}

static bool others_run(const tsr_watch *watch, bool kill_them)
{
    bool any = false;

    for (int i = 0; i < watch->place.n_host_ranks; i++) {
        const tsr_watch_cell *cell = &watch->table->cells[i];
        const int pid = atomic_load(&cell->pid);
        char state;

        if (i == watch->place.host_rank || pid == 0 || !watch->seen[i].visible ||
            atomic_load(&cell->finished) != 0) {
            continue;
        }
        state = tsr_launcher_process_state(pid);
        if (state != 0 && state != 'Z' && state != 'X') {
            any = true;
            if (kill_them) {
                (void)kill(pid, SIGKILL);
            }
        }
    }
    return any;
}

/* Tell the other hosts, give the others here time to see the claim, kill those that do not follow
 * it, and end this process. */
_Noreturn static void leave(const tsr_watch *watch)
{
    tsr_watch_hosts_end(watch->place.hosts);
    for (int look = 0; look < FOLLOW_LOOKS && others_run(watch, false); look++) {
        tsr_clock_sleep_us(LOOK_MS * 1000);
    }
    (void)others_run(watch, true);
    _exit(1);
}

static void look_at_hosts(tsr_watch *watch, bool on_time)
{
    tsr_watch_sign sign = {.number = atomic_load(&own_cell(watch)->number)};
    tsr_watch_sign last;
    tsr_watch_host who;
    tsr_watch_news news;
    char others[48] = "";
    char at[32] = "";

    tsr_watch_table_read_note(own_cell(watch), sign.note);
    news = tsr_watch_hosts_look(watch->place.hosts, on_time, &sign, &who, &last);
    if (news == TSR_WATCH_NEWS_NONE || !tsr_watch_claim(watch)) {
        return;
    }
    if (news != TSR_WATCH_NEWS_ENDED) {
        if (who.n_ranks > 1) {
            (void)snprintf(others, sizeof(others), " and %d other%s", who.n_ranks - 1,
                           who.n_ranks > 2 ? "s" : "");
        }
        if (last.number >= 0) {
            (void)snprintf(at, sizeof(at), " %lld", (long long)last.number);
        }
        tsr_log_error("host %s (rank %d%s) is lost: %s, while %s%s; ending the job", who.name,
                      who.rank, others,
                      news == TSR_WATCH_NEWS_GONE ? "its first process has hung up"
                                                  : "it gave no sign of life for 3 s",
                      last.note[0] != '\0' ? last.note : "starting", at);
    }
    leave(watch);
}

/* One look at everything. on_time: a tick of the watch's own clock, and not a look in between. */
static void look_around(tsr_watch *watch, bool on_time, bool closely)
{
    if (atomic_load(&watch->table->claimed) != 0) {
        tsr_watch_hosts_end(watch->place.hosts);
        if (atomic_load(&watch->table->claimed) != watch->place.rank + 1) {
            _exit(1); // reported by another; nothing here is worth keeping
        }
        return; // this rank's own thread is leaving
    }
    if (watch->place.launched && getppid() != watch->parent) {
        if (tsr_watch_claim(watch)) {
            tsr_log_error("the launcher (process %d) is gone; ending the job", watch->parent);
            leave(watch);
        }
        return;
    }
    look_at_hosts(watch, on_time);
    for (int i = 0; i < watch->place.n_host_ranks; i++) {
        fate how;

        if (i == watch->place.host_rank) {
            continue;
        }
        how = look_at(&watch->table->cells[i], &watch->seen[i], on_time, closely);
        if (how != ALIVE && tsr_watch_claim(watch)) {
            report_lost(watch, i, how);
            if (watch->seen[i].visible) {
                (void)kill((pid_t)atomic_load(&watch->table->cells[i].pid), SIGKILL);
            }
            leave(watch);
        }
    }
}

void tsr_watch_look_for(tsr_watch *watch, int64_t wait_us)
{
    const uint64_t one = 1;

    // The thread looks, and ends the process if there is anything to see: `seen` is its own.
    if (!watch->has_thread) {
        return;
    }
    for (int64_t left = wait_us; left > 0; left -= LOOK_MS * 1000) {
        (void)!write(watch->bell, &one, sizeof(one));
        tsr_clock_sleep_us(LOOK_MS * 1000);
    }
}

static void *run(void *argument)
{
    tsr_watch *watch = argument;
    tsr_watch_cell *cell = own_cell(watch);
    int64_t next_ns = tsr_clock_ns();

    while (atomic_load(&watch->stop) == 0) {
        const int64_t now = tsr_clock_ns();
        const bool on_time = now >= next_ns;
        struct pollfd bell = {.fd = watch->bell, .events = POLLIN};
        bool rung;
        uint64_t n_rung;

        if (on_time) {
            atomic_fetch_add(&cell->n_beats, 1);
            next_ns = now + LOOK_MS * 1000000;
        }
        look_around(watch, on_time, false);
        rung = poll(&bell, 1, LOOK_MS) > 0;
        if (rung && atomic_load(&watch->stop) == 0) {
            (void)!read(watch->bell, &n_rung, sizeof(n_rung));
            look_around(watch, false, true);
        }
    }
    return NULL;
}

// ---- life ---------------------------------------------------------------------------------------

static tsr_status start_thread(tsr_watch *watch)
{
    sigset_t all;
    sigset_t before;
    int error;

    watch->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (watch->bell < 0) {
        return tsr_fail(TSR_ERR_IO, "watch: eventfd: %s", strerror(errno));
    }
    // Signals are for the threads that work: the watch must stay awake to see what they do.
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&watch->thread, NULL, run, watch);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        return tsr_fail(TSR_ERR_NOMEM, "watch: no thread: %s", strerror(error));
    }
    watch->has_thread = true;
    return TSR_OK;
}

tsr_status tsr_watch_open(tsr_watch **out, void *table, const tsr_watch_place *place)
{
    tsr_status st = TSR_OK;
    tsr_watch *watch = tsr_alloc(1, sizeof(*watch));

    if (watch == NULL) {
        tsr_watch_hosts_close(place->hosts);
        return tsr_fail(TSR_ERR_NOMEM, "watch record");
    }
    watch->place = *place;
    watch->table = table;
    watch->bell = -1;
    watch->parent = getppid();
    watch->seen = tsr_alloc((size_t)place->n_host_ranks, sizeof(*watch->seen));
    if (watch->seen == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "watch: %d ranks on this host", place->n_host_ranks);
        goto fail;
    }
    tsr_watch_note(watch, "starting", -1);
    atomic_store(&own_cell(watch)->rank, place->rank);
    atomic_store(&own_cell(watch)->finished, 0);
    atomic_store(&own_cell(watch)->pid, getpid());
    if (place->launched || place->n_host_ranks > 1 || place->hosts != NULL) {
        TSR_TRY_GOTO(st, fail, start_thread(watch));
    }
    TSR_TRY_GOTO(st, fail, tsr_watch_signals_open(watch));
    *out = watch;
    return TSR_OK;

fail:
    tsr_watch_close(watch);
    return st;
}

void tsr_watch_close(tsr_watch *watch)
{
    const uint64_t one = 1;

    if (watch == NULL) {
        return;
    }
    tsr_watch_signals_close(watch);
    atomic_store(&own_cell(watch)->finished, 1);
    if (watch->has_thread) {
        atomic_store(&watch->stop, 1);
        (void)!write(watch->bell, &one, sizeof(one));
        (void)pthread_join(watch->thread, NULL);
    }
    if (watch->bell >= 0) {
        (void)close(watch->bell);
    }
    tsr_watch_hosts_close(watch->place.hosts);
    tsr_free(watch->seen);
    tsr_free(watch);
}
