#include "launch/manual.h"

#include <string.h>

#include "base/env.h"
#include "engine/tessera.h"
#include "launch/out.h"

/* Words that mean themselves: a hyphen is a minus, and nothing at a line's beginning is a request.
 */
static void plain(const char *text, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if ((text[i] == '.' || text[i] == '\'') && (i == 0 || text[i - 1] == '\n')) {
            tsr_out_print("\\&");
        }
        if (text[i] == '\\') {
            tsr_out_print("\\e");
        } else if (text[i] == '-') {
            tsr_out_print("\\-");
        } else {
            tsr_out_text(text + i, 1);
        }
    }
}

static void words(const char *text)
{
    plain(text, strlen(text));
}

static void section(const char *title)
{
    tsr_out_print(".SH %s\n", title);
}

/* The letters of a name, for the heading, which is in capitals. */
static void heading(const char *command)
{
    tsr_out_print(".TH TESSERA%s", command[0] != '\0' ? "\\-" : "");
    for (const char *at = command; *at != '\0'; at++) {
        tsr_out_print("%c", *at >= 'a' && *at <= 'z' ? *at - 'a' + 'A' : *at);
    }
    tsr_out_print(" 1 \"%s\" \"tessera %s\"\n", TSR_TESSERA_DATE, tsr_tessera_version());
}

static void show_option(const tsr_args_option *option)
{
    const char *value = option->kind == TSR_ARGS_CHOICE ? option->choices : option->value;

    tsr_out_print(".TP\n\\fB");
    words(option->name);
    tsr_out_print("\\fR");
    if (value != NULL && option->name[0] == '-') {
        tsr_out_print(" \\fI");
        words(value);
        tsr_out_print("\\fR");
    }
    tsr_out_print("\n");
    words(option->help);
    tsr_out_print(".\n");
}

/* Lines as they are. */
static void verbatim(const char *lines)
{
    tsr_out_print(".nf\n");
    words(lines);
    tsr_out_print(".fi\n");
}

static void show_command(void *ctx, const tsr_args_spec *spec)
{
    const tsr_command *command = ctx;

    heading(spec->command);
    section("NAME");
    tsr_out_print("tessera\\-%s \\- ", spec->command);
    words(command->summary);
    tsr_out_print("\n");
    section("SYNOPSIS");
    tsr_out_print(".B tessera %s\n", spec->command);
    words(spec->usage);
    tsr_out_print("\n");
    section("DESCRIPTION");
    for (const char *line = spec->about; *line != '\0';) {
        const size_t n_bytes = strcspn(line, "\n");

        tsr_out_print("%s", line != spec->about ? ".PP\n" : "");
        plain(line, n_bytes);
        tsr_out_print("\n");
        line += n_bytes + (line[n_bytes] == '\n' ? 1 : 0);
    }
    section("OPTIONS");
    for (int g = 0; g < spec->n_groups; g++) {
        tsr_out_print(".SS %s\n", spec->groups[g].title);
        for (int i = 0; i < spec->groups[g].n_options; i++) {
            show_option(&spec->groups[g].options[i]);
        }
    }
    if (spec->examples != NULL) {
        section("EXAMPLES");
        verbatim(spec->examples);
    }
    section("SEE ALSO");
    tsr_out_print(".BR tessera (1)\n");
}

void tsr_manual_command(const tsr_command *command)
{
    tsr_commands_describe(command, show_command, (void *)(uintptr_t)command);
}

void tsr_manual_program(void)
{
    heading("");
    section("NAME");
    tsr_out_print("tessera \\- one language model across many ranks\n");
    section("SYNOPSIS");
    tsr_out_print("[\\fBmpirun \\-n\\fR \\fIRANKS\\fR] \\fBtessera\\fR \\fICOMMAND\\fR "
                  "[\\fIOPTIONS\\fR]\n");
    section("DESCRIPTION");
    tsr_out_print("Runs one transformer language model, cut among as many ranks as mpirun or srun "
                  "start.\nWhat it says does not depend on their number.\nEach command has a page "
                  "of its own, named behind it.\n");
    section("COMMANDS");
    for (const tsr_command *c = tsr_commands_all(); c->name != NULL; c++) {
        tsr_out_print(".TP\n.BR tessera\\-%s (1)\n", c->name);
        words(c->summary);
        tsr_out_print("\n");
    }
    section("ENVIRONMENT");
    for (int i = 0; i < TSR_ENV_COUNT; i++) {
        const tsr_env_entry *entry = tsr_env_describe((tsr_env_id)i);

        tsr_out_print(".TP\n.B %s\n", entry->name);
        words(entry->help);
        tsr_out_print("\n");
    }
    section("EXIT STATUS");
    words(TSR_EXIT_WORDS);
    tsr_out_print("\n");
    section("SEE ALSO");
    tsr_out_print(".BR libtessera (3),\n.BR mpirun (1)\n");
}
