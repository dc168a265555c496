#include "launch/args.h"

#include <stdio.h>
#include <string.h>

#include "launch/out.h"

enum {
    LINE_COLUMNS = 96,
    HELP_COLUMN = 28
};

/* Words of `text` [n_bytes] in lines from `column` on, the first line being at `column` already. */
static void wrap(const char *text, size_t n_bytes, int column)
{
    int at = column;

    for (size_t i = 0; i < n_bytes;) {
        size_t n = 0;

        while (i + n < n_bytes && text[i + n] != ' ') {
            n++;
        }
        if (at > column && at + (int)n + 1 > LINE_COLUMNS) {
            tsr_out_print("\n%*s", column, "");
            at = column;
        } else if (at > column) {
            tsr_out_print(" ");
            at++;
        }
        tsr_out_text(text + i, n);
        at += (int)n;
        i += n;
        while (i < n_bytes && text[i] == ' ') {
            i++;
        }
    }
    tsr_out_print("\n");
}

static void show_option(const tsr_args_option *option)
{
    char left[80];
    const char *value = option->kind == TSR_ARGS_CHOICE ? option->choices : option->value;
    int n;

    n = snprintf(left, sizeof(left), "  %s%s%s", option->name,
                 value != NULL && option->name[0] == '-' ? " " : "",
                 value != NULL && option->name[0] == '-' ? value : "");
    tsr_out_print("%s", left);
    if (n + 2 > HELP_COLUMN) {
        tsr_out_print("\n%*s", HELP_COLUMN, "");
    } else {
        tsr_out_print("%*s", HELP_COLUMN - n, "");
    }
    wrap(option->help, strlen(option->help), HELP_COLUMN);
}

void tsr_args_help(const tsr_args_spec *spec)
{
    char name[64];
    const int n = snprintf(name, sizeof(name), "usage: tessera %s ", spec->command);

    tsr_out_print("%s", name);
    wrap(spec->usage, strlen(spec->usage), n);
    tsr_out_print("\n");
    for (const char *line = spec->about; *line != '\0';) {
        const size_t n_bytes = strcspn(line, "\n");

        wrap(line, n_bytes, 0);
        line += n_bytes + (line[n_bytes] == '\n' ? 1 : 0);
    }
    for (int g = 0; g < spec->n_groups; g++) {
        tsr_out_print("\n%s\n", spec->groups[g].title);
        for (int i = 0; i < spec->groups[g].n_options; i++) {
            show_option(&spec->groups[g].options[i]);
        }
    }
    if (spec->examples != NULL) {
        tsr_out_print("\nExamples\n%s", spec->examples);
    }
}
