#define _POSIX_C_SOURCE 200809L

#include "launch/signals.h"

#include <signal.h>
#include <stddef.h>
#include <string.h>

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

void tsr_signals_watch(void)
{
    watch_one(SIGINT, &before_int);
    watch_one(SIGTERM, &before_term);
}

int tsr_signals_last(void)
{
    return last;
}
