#include "launch/args.h"

#include <string.h>

#include "base/alloc.h"
#include "launch/args_number.h"

enum {
    NAMES = 64,
    WORD_BYTES = 48
};

static bool is_operand(const tsr_args_option *option)
{
    return option->name[0] != '-';
}

/* The option called by the first n_bytes of `name`, and the struct that holds its field. */
static const tsr_args_option *find_option(const tsr_args_spec *spec, const char *name,
                                          size_t n_bytes, size_t *at)
{
    for (int g = 0; g < spec->n_groups; g++) {
        const tsr_args_group *group = &spec->groups[g];

        for (int i = 0; i < group->n_options; i++) {
            const tsr_args_option *option = &group->options[i];

            if (!is_operand(option) && strlen(option->name) == n_bytes &&
                memcmp(option->name, name, n_bytes) == 0) {
                *at = group->at + option->at;
                return option;
            }
        }
    }
    return NULL;
}

static const tsr_args_option *find_operand(const tsr_args_spec *spec, int place, size_t *at)
{
    for (int g = 0; g < spec->n_groups; g++) {
        const tsr_args_group *group = &spec->groups[g];

        for (int i = 0; i < group->n_options; i++) {
            if (is_operand(&group->options[i]) && place-- == 0) {
                *at = group->at + group->options[i].at;
                return &group->options[i];
            }
        }
    }
    return NULL;
}

static tsr_status append(tsr_args_list *list, const char *text, int most)
{
    if (list->values == NULL) {
        // No line holds more values than words, so this never has to grow.
        list->values = tsr_alloc((size_t)most, sizeof(*list->values));
        if (list->values == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for the command line");
        }
    }
    list->values[list->n++] = text;
    return TSR_OK;
}

static bool is_choice(const char *choices, const char *text)
{
    const size_t n_bytes = strlen(text);

    for (const char *at = choices; at != NULL;) {
        const char *end = strchr(at, '|');
        const size_t length = end != NULL ? (size_t)(end - at) : strlen(at);

        if (length == n_bytes && memcmp(at, text, n_bytes) == 0) {
            return true;
        }
        at = end != NULL ? end + 1 : NULL;
    }
    return false;
}

/* "4G" or "4G:/scratch" */
static tsr_status take_place(tsr_args_place *place, const char *name, const char *text)
{
    const char *colon = strchr(text, ':');
    const size_t n = colon == NULL ? strlen(text) : (size_t)(colon - text);
    char number[WORD_BYTES];

    if (n >= sizeof(number) || (colon != NULL && colon[1] == '\0')) {
        return tsr_fail(TSR_ERR_ARG, "%s wants bytes such as 4G, or 4G:FOLDER, not '%.100s'", name,
                        text);
    }
    memcpy(number, text, n);
    number[n] = '\0';
    TSR_TRY(tsr_args_number_bytes(name, number, &place->n_bytes));
    place->folder = colon == NULL ? NULL : colon + 1;
    return TSR_OK;
}

static tsr_status store(const tsr_args_option *option, const char *text, int argc, void *field)
{
    switch (option->kind) {
    case TSR_ARGS_FLAG:
        *(bool *)field = true;
        return TSR_OK;
    case TSR_ARGS_TEXT:
        *(const char **)field = text;
        return TSR_OK;
    case TSR_ARGS_LIST:
        return append(field, text, argc);
    case TSR_ARGS_CHOICE:
        if (!is_choice(option->choices, text)) {
            return tsr_fail(TSR_ERR_ARG, "%s wants one of %s, not '%s'", option->name,
                            option->choices, text);
        }
        *(const char **)field = text;
        return TSR_OK;
    case TSR_ARGS_INTEGER:
        return tsr_args_number_integer(option->name, text, (int64_t)option->least,
                                       (int64_t)option->most, field);
    case TSR_ARGS_SEED:
        return tsr_args_number_seed(option->name, text, field);
    case TSR_ARGS_REAL:
        return tsr_args_number_real(option->name, text, option->least, option->most, field);
    case TSR_ARGS_BYTES:
        return tsr_args_number_bytes(option->name, text, field);
    case TSR_ARGS_PLACE:
        return take_place(field, option->name, text);
    case TSR_ARGS_KIND_COUNT:
        break;
    }
    return tsr_fail(TSR_ERR_ARG, "%s has no kind", option->name);
}

static size_t least_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Letters to add, drop or change to make one word of the other. */
static size_t distance(const char *a, const char *b)
{
    size_t row[WORD_BYTES + 1];
    const size_t n_a = strlen(a);
    const size_t n_b = strlen(b);

    if (n_a > WORD_BYTES || n_b > WORD_BYTES) {
        return WORD_BYTES;
    }
    for (size_t j = 0; j <= n_b; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= n_a; i++) {
        size_t corner = row[0];

        row[0] = i;
        for (size_t j = 1; j <= n_b; j++) {
            const size_t changed = corner + (a[i - 1] == b[j - 1] ? 0 : 1);

            corner = row[j];
            row[j] = least_of(changed, least_of(row[j - 1], row[j]) + 1);
        }
    }
    return row[n_b];
}

const char *tsr_args_nearest(const char *word, const char *const *names, int n)
{
    const size_t n_bytes = strlen(word);
    const char *best = NULL;
    size_t best_distance = n_bytes / 3 + 2;

    for (int i = 0; i < n; i++) {
        // The beginning of a name is a better guess than a name of other letters.
        const bool begins = n_bytes > 2 && strncmp(word, names[i], n_bytes) == 0;
        const size_t d = begins ? 1 : distance(word, names[i]);

        if (d < best_distance) {
            best_distance = d;
            best = names[i];
        }
    }
    return best;
}

static tsr_status unknown(const tsr_args_spec *spec, const char *word, size_t n_bytes)
{
    const char *names[NAMES];
    char typed[WORD_BYTES + 1] = {0};
    const char *nearest;
    int n = 0;

    for (int g = 0; g < spec->n_groups; g++) {
        for (int i = 0; i < spec->groups[g].n_options && n < NAMES; i++) {
            if (!is_operand(&spec->groups[g].options[i])) {
                names[n++] = spec->groups[g].options[i].name;
            }
        }
    }
    memcpy(typed, word, least_of(n_bytes, WORD_BYTES));
    nearest = tsr_args_nearest(typed, names, n);
    if (nearest != NULL) {
        return tsr_fail(TSR_ERR_ARG, "unknown option %s; did you mean %s?", typed, nearest);
    }
    return tsr_fail(TSR_ERR_ARG, "unknown option %s", typed);
}

/* One option and its value; *used counts the words it takes. */
static tsr_status take_option(const tsr_args_spec *spec, int argc, char **argv, int i, void *into,
                              int *used)
{
    const char *word = argv[i];
    const char *equals = strchr(word, '=');
    const size_t n_bytes = equals != NULL ? (size_t)(equals - word) : strlen(word);
    const char *text = equals != NULL ? equals + 1 : NULL;
    size_t at = 0;
    const tsr_args_option *option = find_option(spec, word, n_bytes, &at);

    if (option == NULL) {
        return unknown(spec, word, n_bytes);
    }
    *used = 1;
    if (option->kind == TSR_ARGS_FLAG) {
        if (text != NULL) {
            return tsr_fail(TSR_ERR_ARG, "%s takes no value", option->name);
        }
    } else if (text == NULL) {
        size_t ignored;

        // A value may begin with dashes, but another option's exact name is a forgotten value.
        if (i + 1 >= argc || find_option(spec, argv[i + 1], strlen(argv[i + 1]), &ignored)) {
            return tsr_fail(TSR_ERR_ARG, "%s needs a value: %s %s", option->name, option->name,
                            option->value);
        }
        text = argv[i + 1];
        *used = 2;
    }
    return store(option, text, argc, (char *)into + at);
}

tsr_status tsr_args_parse(const tsr_args_spec *spec, int argc, char **argv, void *into, bool *help)
{
    bool options = true;
    int n_operands = 0;
    int used;

    *help = false;
    for (int i = 0; i < argc; i += used) {
        const char *word = argv[i];

        used = 1;
        if (options && strcmp(word, "--") == 0) {
            options = false;
        } else if (options && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
            *help = true;
            return TSR_OK;
        } else if (options && word[0] == '-' && word[1] != '\0') {
            TSR_TRY(take_option(spec, argc, argv, i, into, &used));
        } else {
            size_t at = 0;
            const tsr_args_option *operand = find_operand(spec, n_operands++, &at);

            if (operand == NULL) {
                return tsr_fail(TSR_ERR_ARG, "'%.200s' is one word too many", word);
            }
            TSR_TRY(store(operand, word, argc, (char *)into + at));
        }
    }
    return TSR_OK;
}

void tsr_args_clear(const tsr_args_spec *spec, void *into)
{
    for (int g = 0; g < spec->n_groups; g++) {
        for (int i = 0; i < spec->groups[g].n_options; i++) {
            const tsr_args_option *option = &spec->groups[g].options[i];

            if (option->kind == TSR_ARGS_LIST) {
                tsr_args_list *list =
                    (tsr_args_list *)(void *)((char *)into + spec->groups[g].at + option->at);

                tsr_free(list->values);
                *list = (tsr_args_list){0};
            }
        }
    }
}
