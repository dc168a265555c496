#include "launch/decoding.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "launch/args_number.h"

#define FIELD(name) offsetof(tsr_decoding_options, name)

static const tsr_args_option table[] = {
    {"--typical-p", "P", TSR_ARGS_REAL, FIELD(typical_p), 0, 1, NULL,
     "choose among the tokens whose surprise is nearest to the expected one and that together have "
     "probability P; 0 or 1: all (default 1)"},
    {"--repetition-penalty", "R", TSR_ARGS_REAL, FIELD(repetition_penalty), 0.001, 1000, NULL,
     "divide the logit of tokens of the prompt and the answer by R, or multiply it when it is "
     "negative (default 1: off)"},
    {"--presence-penalty", "P", TSR_ARGS_REAL, FIELD(presence_penalty), -1000, 1000, NULL,
     "take P off the logit of every token that the answer has (default 0)"},
    {"--frequency-penalty", "P", TSR_ARGS_REAL, FIELD(frequency_penalty), -1000, 1000, NULL,
     "take P off for each time that the answer has it (default 0)"},
    {"--logit-bias", "ID:B,...", TSR_ARGS_TEXT, FIELD(logit_bias), 0, 0, NULL,
     "add B to the logit of token ID, for each such pair"},
    {"--min-tokens", "N", TSR_ARGS_INTEGER, FIELD(min_tokens), 0, INT32_MAX, NULL,
     "before N tokens nothing ends the answer: end tokens and stop ids are impossible (default 0)"},
    {"--stop", "TEXT", TSR_ARGS_LIST, FIELD(stops), 0, 0, NULL,
     "end the answer before this text; may be given several times"},
    {"--stop-ids", "LIST", TSR_ARGS_TEXT, FIELD(stop_ids), 0, 0, NULL,
     "token ids such as 1,2,3 that end the answer like an end token"},
    {"--include-stop", NULL, TSR_ARGS_FLAG, FIELD(include_stop), 0, 0, NULL,
     "the stop text or stop id is part of the answer"},
};

/* What comes with the answer, for commands that give it in JSON. */
static const tsr_args_option telling_table[] = {
    {"--logprobs", "K", TSR_ARGS_INTEGER, FIELD(logprobs), 0, TSR_MOST_TOP, NULL,
     "with --json: how likely each token was, and the K likeliest at its place; natural "
     "logarithms, "
     "before temperature, filters, penalties and biases"},
    {"--echo", NULL, TSR_ARGS_FLAG, FIELD(echo), 0, 0, NULL,
     "the prompt's text before the answer; with --json: prompt_logprobs, how likely each of its "
     "tokens was"},
};

tsr_decoding_options tsr_decoding_defaults(void)
{
    return (tsr_decoding_options){.typical_p = 1.0, .repetition_penalty = 1.0, .logprobs = -1};
}

tsr_args_group tsr_decoding_group(size_t at)
{
    return (tsr_args_group){"Which tokens, and where it ends", table,
                            sizeof(table) / sizeof(table[0]), at};
}

tsr_args_group tsr_decoding_telling_group(size_t at)
{
    return (tsr_args_group){"What is told of it", telling_table,
                            sizeof(telling_table) / sizeof(telling_table[0]), at};
}

/* One "ID:B" of n_bytes. */
static tsr_status read_bias(const char *text, size_t n_bytes, int32_t *id, float *bias)
{
    char words[64];
    char *colon;
    int64_t number;
    double real;

    if (n_bytes >= sizeof(words)) {
        return tsr_fail(TSR_ERR_ARG, "--logit-bias wants pairs such as 42:-1.5, not '%.40s...'",
                        text);
    }
    memcpy(words, text, n_bytes);
    words[n_bytes] = '\0';
    colon = strchr(words, ':');
    if (colon == NULL) {
        return tsr_fail(TSR_ERR_ARG, "--logit-bias wants pairs such as 42:-1.5, not '%s'", words);
    }
    *colon = '\0';
    TSR_TRY(tsr_args_number_integer("--logit-bias", words, 0, INT32_MAX, &number));
    TSR_TRY(tsr_args_number_real("--logit-bias", colon + 1, -1000, 1000, &real));
    *id = (int32_t)number;
    *bias = (float)real;
    return TSR_OK;
}

static tsr_status read_biases(tsr_decoding *d, const char *text)
{
    const size_t room = strlen(text) / 4 + 1; // "1:2,"

    d->bias_ids = tsr_alloc(room, sizeof(*d->bias_ids));
    d->biases = tsr_alloc(room, sizeof(*d->biases));
    if (d->bias_ids == NULL || d->biases == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %zu biases", room);
    }
    for (;;) {
        const size_t n = strcspn(text, ",");

        TSR_TRY(read_bias(text, n, &d->bias_ids[d->n_biases], &d->biases[d->n_biases]));
        d->n_biases++;
        if (text[n] == '\0') {
            return TSR_OK;
        }
        text += n + 1;
    }
}

tsr_status tsr_decoding_read(tsr_decoding *out, const tsr_decoding_options *options)
{
    tsr_decoding made = {0};
    tsr_status st = TSR_OK;
    int64_t n = 0;

    if (options->logit_bias != NULL) {
        TSR_TRY_GOTO(st, fail, read_biases(&made, options->logit_bias));
    }
    if (options->stop_ids != NULL) {
        TSR_TRY_GOTO(st, fail,
                     tsr_args_number_ids("--stop-ids", options->stop_ids, strlen(options->stop_ids),
                                         &made.stop_ids, &n));
        made.n_stop_ids = n > INT32_MAX ? INT32_MAX : (int)n;
    }
    *out = made;
    return TSR_OK;

fail:
    tsr_decoding_clear(&made);
    return st;
}

void tsr_decoding_clear(tsr_decoding *d)
{
    tsr_free(d->bias_ids);
    tsr_free(d->biases);
    tsr_free(d->stop_ids);
    *d = (tsr_decoding){0};
}

void tsr_decoding_put(tsr_generation *g, const tsr_decoding_options *options, const tsr_decoding *d)
{
    g->typical_p = (float)options->typical_p;
    g->repetition_penalty = (float)options->repetition_penalty;
    g->presence_penalty = (float)options->presence_penalty;
    g->frequency_penalty = (float)options->frequency_penalty;
    g->bias_ids = d->bias_ids;
    g->biases = d->biases;
    g->n_biases = d->n_biases;
    g->min_tokens = (int)options->min_tokens;
    g->stop_ids = d->stop_ids;
    g->n_stop_ids = d->n_stop_ids;
    g->stops = options->stops.values;
    g->n_stops = options->stops.n;
    g->include_stop = options->include_stop;
    g->want_logprobs = options->logprobs >= 0;
    g->n_top = options->logprobs > 0 ? (int)options->logprobs : 0;
}
