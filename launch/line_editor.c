#define _POSIX_C_SOURCE 200809L

#include "launch/line_editor.h"

#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <histedit.h>

#include "base/alloc.h"
#include "base/env.h"
#include "base/utf8.h"
#include "launch/out.h"
#include "launch/signals.h"

enum {
    REMEMBERED = 1000, // lines
    LOOK_UP_MS = 100,  // how late a signal to another thread may be noticed
    NO_CHARACTER = 0xFFFD
};

struct tsr_line_editor {
    EditLine *el; // owned, as the next
    History *history;
    bool goes_on;
    bool asked; // a signal came while waiting for a key
};

// Signals belong to the process: the terminal has another size; the process goes on after Ctrl-Z.
static volatile sig_atomic_t resized;
static volatile sig_atomic_t resumed;
static struct sigaction before_resize;
static struct sigaction before_resume;

static void note_change(int number)
{
    if (number == SIGWINCH) {
        resized = 1;
    } else {
        resumed = 1;
    }
}

static void watch_changes(void)
{
    struct sigaction action;

    memset(&action, 0, sizeof(action));
    (void)sigemptyset(&action.sa_mask);
    action.sa_handler = note_change;
    action.sa_flags = SA_RESTART;
    (void)sigaction(SIGWINCH, &action, &before_resize);
    (void)sigaction(SIGCONT, &action, &before_resume);
}

/* ---- keys ----------------------------------------------------------------------------------- */

static void follow_changes(EditLine *el)
{
    if (resized != 0) {
        resized = 0;
        el_resize(el);
    }
    if (resumed != 0) {
        resumed = 0;
        // The shell has had the terminal in between: it is taken anew.
        (void)el_set(el, EL_PREP_TERM, 0);
        (void)el_set(el, EL_PREP_TERM, 1);
        (void)el_set(el, EL_REFRESH);
    }
}

/* One byte; 0 at the end of the input, -1 when somebody wants this process to end. */
static int read_byte(tsr_line_editor *editor, char *byte)
{
    for (;;) {
        struct pollfd waiting = {.fd = STDIN_FILENO, .events = POLLIN};
        ssize_t got;

        follow_changes(editor->el);
        if (tsr_signals_asked()) {
            editor->asked = true;
            return -1;
        }
        if (poll(&waiting, 1, LOOK_UP_MS) <= 0) {
            continue;
        }
        got = read(STDIN_FILENO, byte, 1);
        if (got >= 0) {
            return (int)got;
        }
        if (errno != EINTR && errno != EAGAIN) {
            return 0; // a terminal that was hung up
        }
    }
}

/* The next character: libedit's own reader would sleep through a signal. */
static int read_character(EditLine *el, wchar_t *character)
{
    tsr_line_editor *editor = NULL;
    char bytes[4];
    size_t n = 0;
    int measured = TSR_UTF8_UNFINISHED;

    (void)el_get(el, EL_CLIENTDATA, &editor);
    while (n < sizeof(bytes) && measured == TSR_UTF8_UNFINISHED) {
        const int got = read_byte(editor, &bytes[n]);

        if (got <= 0) {
            return got;
        }
        n++;
        measured = tsr_utf8_measure(bytes, n);
    }
    *character = measured > 0 ? (wchar_t)tsr_utf8_decode(bytes) : NO_CHARACTER;
    return 1;
}

/* ---- the sign before a line ----------------------------------------------------------------- */

/* \1 stands around what takes no room on the screen. */
static char *sign(EditLine *el)
{
    static char plain[] = "> ";
    static char coloured[] = "\1\033[1;36m\1>\1\033[0m\1 ";
    static char further_plain[] = ". ";
    static char further_dim[] = "\1\033[2m\1.\1\033[0m\1 ";
    tsr_line_editor *editor = NULL;

    (void)el_get(el, EL_CLIENTDATA, &editor);
    if (tsr_env_wants_no_color()) {
        return editor->goes_on ? further_plain : plain;
    }
    return editor->goes_on ? further_dim : coloured;
}

static void bind_keys(EditLine *el)
{
    static const char *const keys[][2] = {
        {"^R", "em-inc-search-prev"},      {"^W", "ed-delete-prev-word"},
        {"\\e[3~", "ed-delete-next-char"}, {"\\e[1;5C", "em-next-word"},
        {"\\e[1;5D", "ed-prev-word"},
    };

    (void)el_set(el, EL_EDITOR, "emacs");
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        (void)el_set(el, EL_BIND, keys[i][0], keys[i][1], NULL);
    }
}

tsr_status tsr_line_editor_create(tsr_line_editor **out)
{
    tsr_line_editor *editor = tsr_alloc(1, sizeof(*editor));
    HistEvent event;

    if (editor == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for the line editor");
    }
    // libedit counts characters by the locale. Texts are UTF-8 here, whatever the environment says.
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    editor->history = history_init();
    editor->el = el_init("tessera", stdin, stdout, stdout);
    if (editor->history == NULL || editor->el == NULL) {
        tsr_line_editor_destroy(editor);
        return tsr_fail(TSR_ERR_NOMEM, "the line editor could not be made");
    }
    (void)history(editor->history, &event, H_SETSIZE, (int)REMEMBERED);
    (void)history(editor->history, &event, H_SETUNIQUE, 1);
    (void)el_set(editor->el, EL_CLIENTDATA, editor);
    (void)el_set(editor->el, EL_PROMPT_ESC, sign, '\1');
    (void)el_set(editor->el, EL_HIST, history, editor->history);
    (void)el_set(editor->el, EL_GETCFN, read_character);
    bind_keys(editor->el);
    watch_changes();
    *out = editor;
    return TSR_OK;
}

void tsr_line_editor_destroy(tsr_line_editor *editor)
{
    if (editor == NULL) {
        return;
    }
    if (editor->el != NULL && editor->history != NULL) {
        (void)sigaction(SIGWINCH, &before_resize, NULL);
        (void)sigaction(SIGCONT, &before_resume, NULL);
    }
    if (editor->el != NULL) {
        el_end(editor->el);
    }
    if (editor->history != NULL) {
        history_end(editor->history);
    }
    tsr_free(editor);
}

/* ---- a line --------------------------------------------------------------------------------- */

static tsr_status end_asked(tsr_line_editor *editor, tsr_line_end *end)
{
    const LineInfo *info = el_line(editor->el);
    const bool typed = info->lastchar > info->buffer;

    editor->asked = false;
    tsr_out_print("^C\n");
    if (!tsr_signals_take_interrupt()) {
        return tsr_fail(TSR_ERR_CANCELLED, "stopped while waiting for a line");
    }
    *end = typed ? TSR_LINE_CLEARED : TSR_LINE_INTERRUPT;
    return TSR_OK;
}

tsr_status tsr_line_editor_read(tsr_line_editor *editor, bool goes_on, tsr_text *text,
                                tsr_line_end *end)
{
    HistEvent event;
    const char *typed;
    size_t n_bytes;
    int n = 0;

    editor->goes_on = goes_on;
    editor->asked = false;
    resumed = 0;
    tsr_out_flush();
    typed = el_gets(editor->el, &n);
    if (editor->asked) {
        return end_asked(editor, end);
    }
    if (typed == NULL || n <= 0) {
        tsr_out_print("\n");
        *end = TSR_LINE_CLOSED;
        return TSR_OK;
    }
    n_bytes = strlen(typed);
    if (n_bytes > 0 && typed[n_bytes - 1] == '\n') {
        n_bytes--;
    }
    if (n_bytes > 0) {
        (void)history(editor->history, &event, H_ENTER, typed);
    }
    *end = TSR_LINE_TYPED;
    return tsr_text_append(text, typed, n_bytes);
}
