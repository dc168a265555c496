#define _GNU_SOURCE // close_range

#include "parallel/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"

enum {
    NOT_RUN = 127, // the exit status of what could not be executed, as shells have it
    LOOK_US = 10000
};

static const int64_t patience_ns = 5000000000; // from SIGTERM to SIGKILL

/* In the child, where only what is safe in a signal handler may be called. */
_Noreturn static void become(const char *const *words, int parent)
{
    const int nothing = open("/dev/null", O_RDONLY);
    sigset_t none;

    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent || nothing < 0) {
        _exit(NOT_RUN); // it has gone meanwhile, and no signal will come
    }
    (void)setpgid(0, 0);
    (void)signal(SIGPIPE, SIG_DFL); // what is ignored stays so in the new program
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)dup2(nothing, 0);
    (void)dup2(2, 1);
    (void)close_range(3, ~0U, 0); // sockets above all: whoever listens is listening alone
    (void)execvp(words[0], (char *const *)(uintptr_t)words);
    _exit(NOT_RUN);
}

tsr_status tsr_launcher_start(tsr_launcher *l, const char *const *words)
{
    const int parent = getpid();
    const int pid = fork();

    if (pid == 0) {
        become(words, parent);
    }
    if (pid < 0) {
        return tsr_fail(TSR_ERR_IO, "cannot start %s: %s", words[0], strerror(errno));
    }
    *l = (tsr_launcher){.pid = pid};
    return TSR_OK;
}

bool tsr_launcher_runs(tsr_launcher *l)
{
    int found;

    if (l->pid == 0) {
        return false;
    }
    do {
        found = waitpid(l->pid, &l->status, WNOHANG);
    } while (found < 0 && errno == EINTR);
    if (found != 0) {
        l->pid = 0;
        return false;
    }
    if (l->asked_ns != 0 && !l->is_killed && tsr_clock_ns() - l->asked_ns > patience_ns) {
        (void)kill(l->pid, SIGKILL);
        l->is_killed = true;
    }
    return true;
}

void tsr_launcher_ask_to_end(tsr_launcher *l)
{
    if (l->pid != 0 && l->asked_ns == 0) {
        (void)kill(l->pid, SIGTERM);
        (void)kill(l->pid, SIGCONT); // it may have been stopped
        l->asked_ns = tsr_clock_ns();
    }
}

void tsr_launcher_end(tsr_launcher *l, int64_t wait_us)
{
    for (; tsr_launcher_runs(l); wait_us -= LOOK_US) {
        if (wait_us <= 0) {
            tsr_launcher_ask_to_end(l);
        }
        tsr_clock_sleep_us(LOOK_US);
    }
}

tsr_launcher_words tsr_launcher_fate(const tsr_launcher *l)
{
    tsr_launcher_words words;

    if (WIFSIGNALED(l->status)) {
        (void)snprintf(words.text, sizeof(words.text), "signal %d", WTERMSIG(l->status));
    } else {
        const int status = WEXITSTATUS(l->status);

        (void)snprintf(words.text, sizeof(words.text), "status %d%s", status,
                       status == NOT_RUN ? " (can the launcher be run at all?)" : "");
    }
    return words;
}

char tsr_launcher_process_state(int pid)
{
    char path[32];
    char text[512];
    const char *behind_name;
    FILE *file;
    size_t n_read;

    if (kill(pid, 0) != 0 && errno == ESRCH) {
        return 0;
    }
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    file = fopen(path, "r");
    if (file == NULL) {
        return kill(pid, 0) != 0 && errno == ESRCH ? '\0' : '?';
    }
    n_read = fread(text, 1, sizeof(text) - 1, file);
    (void)fclose(file);
    text[n_read] = '\0';
    behind_name = strrchr(text, ')'); // the name in front may hold anything, brackets too
    return behind_name != NULL && behind_name[1] == ' ' ? behind_name[2] : '?';
}
