#define _POSIX_C_SOURCE 200809L

#include "launch/signals.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>

#include "base/clock.h"

enum {
    SETTLE_US = 20000
};

static tsr_world *watched;
static volatile sig_atomic_t last;
static struct sigaction before_int;
static struct sigaction before_term;

static void note(int number)
{
    const struct sigaction *before = number == SIGINT ? &before_int : &before_term;

    last = number;
    if (before->sa_handler != SIG_DFL && before->sa_handler != SIG_IGN) {
        before->sa_handler(number);
    }
}

void tsr_signals_ignore_pipe(void)
{
    (void)signal(SIGPIPE, SIG_IGN);
}

static void watch_one(int number, struct sigaction *before)
{
    struct sigaction action;

    (void)sigaction(number, NULL, before);
    if ((before->sa_flags & SA_SIGINFO) != 0 || before->sa_handler == SIG_IGN) {
        return; // ignored on purpose, as nohup does; or not a form that note() can pass on
    }
    memset(&action, 0, sizeof(action));
    (void)sigemptyset(&action.sa_mask);
    action.sa_handler = note;
    action.sa_flags = SA_RESTART;
    (void)sigaction(number, &action, NULL);
}

void tsr_signals_watch(tsr_world *world)
{
    watched = world;
    watch_one(SIGINT, &before_int);
    watch_one(SIGTERM, &before_term);
}

bool tsr_signals_asked(void)
{
    // A world knows at the same moment whether its interrupt can be taken back; `last` comes
    // sooner.
    return watched != NULL ? tsr_world_asked_to_end(watched) : last != 0;
}

bool tsr_signals_take_interrupt(void)
{
    if (watched == NULL || !tsr_world_take_interrupt(watched)) {
        return false;
    }
    if (last == SIGINT) {
        last = 0;
    }
    // A terminal that is told to stop drops what is on its way to the screen, some of it after it
    // has sent the signal: what is said next must not be among that.
    tsr_clock_sleep_us(SETTLE_US);
    return true;
}

int tsr_signals_number(void)
{
    return last != 0 ? last : SIGTERM;
}
