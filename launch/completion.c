#include "launch/completion.h"

#include <string.h>

#include "launch/out.h"

/* Every option of a command in turn. */
typedef void option_fn(const char *command, const tsr_args_option *option);

static void each_option(const tsr_args_spec *spec, option_fn *show)
{
    for (int g = 0; g < spec->n_groups; g++) {
        for (int i = 0; i < spec->groups[g].n_options; i++) {
            show(spec->command, &spec->groups[g].options[i]);
        }
    }
}

static void each_command(tsr_args_show *show)
{
    for (const tsr_command *c = tsr_commands_all(); c->name != NULL; c++) {
        tsr_commands_describe(c, show, NULL);
    }
}

static bool is_operand(const tsr_args_option *option)
{
    return option->name[0] != '-';
}

static bool is_file(const tsr_args_option *option)
{
    return option->choices == NULL &&
           (is_operand(option) || (option->value != NULL && (strcmp(option->value, "M") == 0 ||
                                                             strcmp(option->value, "F") == 0)));
}

static void command_names(void)
{
    for (const tsr_command *c = tsr_commands_all(); c->name != NULL; c++) {
        tsr_out_print("%s ", c->name);
    }
}

/* "f32|f16" with blanks. */
static void choices(const tsr_args_option *option)
{
    for (const char *at = option->choices; *at != '\0'; at++) {
        tsr_out_print("%c", *at == '|' ? ' ' : *at);
    }
}

/* Text within single quotes, with `escape` before what is in `special`. */
static void quoted(const char *text, const char *special, const char *escape)
{
    for (; *text != '\0'; text++) {
        tsr_out_print("%s%c", strchr(special, *text) != NULL ? escape : "", *text);
    }
}

/* ---- bash ------------------------------------------------------------------------------------ */

static void bash_value(const char *command, const tsr_args_option *option)
{
    (void)command;
    if (is_operand(option) || option->kind == TSR_ARGS_FLAG) {
        return;
    }
    tsr_out_print("        %s) ", option->name);
    if (option->choices != NULL) {
        tsr_out_print("words='");
        choices(option);
        tsr_out_print("' ;;\n");
    } else {
        tsr_out_print("%s ;;\n", is_file(option) ? "files=1" : "return");
    }
}

static void bash_name(const char *command, const tsr_args_option *option)
{
    (void)command;
    if (!is_operand(option)) {
        tsr_out_print("%s ", option->name);
    } else if (option->choices != NULL) {
        choices(option);
        tsr_out_print(" ");
    }
}

static void bash_files(const char *command, const tsr_args_option *option)
{
    (void)command;
    if (is_operand(option) && is_file(option)) {
        tsr_out_print("; files=1");
    }
}

static void bash_command(void *ctx, const tsr_args_spec *spec)
{
    (void)ctx;
    tsr_out_print("    %s)\n        case $option in\n", spec->command);
    each_option(spec, bash_value);
    tsr_out_print("        *) words='");
    each_option(spec, bash_name);
    tsr_out_print("--help'");
    each_option(spec, bash_files);
    tsr_out_print(" ;;\n        esac ;;\n");
}

void tsr_completion_bash(void)
{
    tsr_out_print(
        "# bash completion for tessera, written by 'tessera completion bash'\n"
        "_tessera()\n{\n"
        "    local word=${COMP_WORDS[COMP_CWORD]} option=${COMP_WORDS[COMP_CWORD-1]} "
        "words= files=\n"
        "    COMPREPLY=()\n"
        "    if [[ $word == = ]]; then\n        word=\n"
        "    elif [[ $option == = ]]; then\n"
        "        option=${COMP_WORDS[COMP_CWORD-2]}\n    fi\n"
        "    if ((COMP_CWORD == 1)); then\n        mapfile -t COMPREPLY < <(compgen -W '");
    command_names();
    tsr_out_print("help --help --version' -- \"$word\")\n        return\n    fi\n"
                  "    case ${COMP_WORDS[1]} in\n    help) words='");
    command_names();
    tsr_out_print("' ;;\n");
    each_command(bash_command);
    tsr_out_print("    esac\n"
                  "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
                  "    if [[ $files && $word != -* ]]; then\n"
                  "        compopt -o filenames 2>/dev/null\n"
                  "        mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- \"$word\")\n"
                  "    fi\n}\ncomplete -F _tessera tessera\n");
}

/* ---- zsh ------------------------------------------------------------------------------------- */

static void zsh_option(const char *command, const tsr_args_option *option)
{
    (void)command;
    tsr_out_print(" \\\n        '");
    if (is_operand(option)) {
        tsr_out_print(":%s", option->name);
    } else {
        tsr_out_print("%s%s%s[", option->kind == TSR_ARGS_LIST ? "*" : "", option->name,
                      option->kind == TSR_ARGS_FLAG ? "" : "=");
        for (const char *at = option->help; *at != '\0'; at++) {
            tsr_out_print(*at == '\'' ? "'\\''" : *at == '[' || *at == ']' ? "\\%c" : "%c", *at);
        }
        tsr_out_print("]%s", option->kind == TSR_ARGS_FLAG ? "" : ":value");
    }
    if (option->choices != NULL) {
        tsr_out_print(":(");
        choices(option);
        tsr_out_print(")");
    } else if (option->kind != TSR_ARGS_FLAG) {
        tsr_out_print(":%s", is_file(option) ? "_files" : " ");
    }
    tsr_out_print("'");
}

static void zsh_command(void *ctx, const tsr_args_spec *spec)
{
    (void)ctx;
    tsr_out_print("    %s)\n        _arguments '--help[all about this command]'", spec->command);
    each_option(spec, zsh_option);
    tsr_out_print(" ;;\n");
}

void tsr_completion_zsh(void)
{
    tsr_out_print("#compdef tessera\n# zsh completion, written by 'tessera completion zsh'\n"
                  "_tessera()\n{\n    local -a commands=(\n");
    for (const tsr_command *c = tsr_commands_all(); c->name != NULL; c++) {
        tsr_out_print("        '%s:", c->name);
        quoted(c->summary, "'", "'\\'");
        tsr_out_print("'\n");
    }
    tsr_out_print("    )\n    if (( CURRENT == 2 )); then\n"
                  "        _describe command commands\n        return\n    fi\n"
                  "    shift words\n    (( CURRENT-- ))\n    case $words[1] in\n"
                  "    help) _describe command commands ;;\n");
    each_command(zsh_command);
    tsr_out_print("    esac\n}\n_tessera \"$@\"\n");
}

/* ---- fish ------------------------------------------------------------------------------------ */

static void fish_option(const char *command, const tsr_args_option *option)
{
    tsr_out_print("complete -c tessera -n '__fish_seen_subcommand_from %s'", command);
    if (!is_operand(option)) {
        tsr_out_print(" -l %s -d '", option->name + 2);
        quoted(option->help, "'\\", "\\");
        tsr_out_print("'");
    }
    if (option->choices != NULL) {
        tsr_out_print(" -x -a '");
        choices(option);
        tsr_out_print("'");
    } else if (is_file(option)) {
        tsr_out_print(is_operand(option) ? " -F" : " -r -F");
    } else if (option->kind != TSR_ARGS_FLAG) {
        tsr_out_print(" -x");
    }
    tsr_out_print("\n");
}

static void fish_command(void *ctx, const tsr_args_spec *spec)
{
    (void)ctx;
    each_option(spec, fish_option);
}

void tsr_completion_fish(void)
{
    tsr_out_print("# fish completion for tessera, written by 'tessera completion fish'\n"
                  "complete -c tessera -f\ncomplete -c tessera -l help -d 'all about a command'\n");
    for (const tsr_command *c = tsr_commands_all(); c->name != NULL; c++) {
        tsr_out_print("complete -c tessera -n __fish_use_subcommand -a %s -d '", c->name);
        quoted(c->summary, "'\\", "\\");
        tsr_out_print("'\n");
    }
    each_command(fish_command);
}
