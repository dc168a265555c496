#include "launch/answers.h"

#include <string.h>

#define FIELD(name) offsetof(tsr_answers_options, name)

enum {
    MOST = 4096
};

static const tsr_args_option table[] = {
    {"--n", "N", TSR_ARGS_INTEGER, FIELD(n), 1, MOST, NULL,
     "so many answers, each sampled by a seed of its own; the first is what it is alone (default "
     "1)"},
    {"--best-of", "N", TSR_ARGS_INTEGER, FIELD(best_of), 1, MOST, NULL,
     "sample so many and give the --n likeliest for each token, best first, when all are there"},
    {"--beams", "W", TSR_ARGS_INTEGER, FIELD(beams), 1, MOST, NULL,
     "no chance: search with W beams, and give the best answers when it is over; nothing streams"},
    {"--num-return", "N", TSR_ARGS_INTEGER, FIELD(num_return), 1, MOST, NULL,
     "with --beams: how many answers, at most W (default 1)"},
    {"--length-penalty", "P", TSR_ARGS_REAL, FIELD(length_penalty), -10, 10, NULL,
     "with --beams: an answer scores the sum of its tokens' log-probabilities / their number ^ P; "
     "the end token counts as one (default 1)"},
    {"--early-stopping", NULL, TSR_ARGS_CHOICE, FIELD(early_stopping), 0, 0, "yes|no|never",
     "with --beams: with W answers complete, stop at once; when better ones are unlikely; or only "
     "when there can be none (default no)"},
};

tsr_answers_options tsr_answers_defaults(void)
{
    return (tsr_answers_options){.length_penalty = 1.0};
}

tsr_args_group tsr_answers_group(size_t at)
{
    return (tsr_args_group){"Several answers", table, sizeof(table) / sizeof(table[0]), at};
}

const char *tsr_answers_fault(const tsr_answers_options *o, double temperature)
{
    if (o->beams == 0 &&
        (o->num_return > 0 || o->early_stopping != NULL || o->length_penalty != 1.0)) {
        return "--num-return, --length-penalty and --early-stopping need --beams";
    }
    if (o->beams > 0 && (o->n > 0 || o->best_of > 0)) {
        return "--beams takes --num-return, not --n or --best-of";
    }
    if (o->beams > 0 && temperature > 0) {
        return "--beams are not sampled: --temperature must be 0";
    }
    if (o->beams > 0 && o->num_return > o->beams) {
        return "--num-return is at most --beams";
    }
    if (o->best_of > 0 && o->best_of < o->n) {
        return "--best-of is at least --n";
    }
    return NULL;
}

int tsr_answers_n(const tsr_answers_options *o)
{
    const int64_t n = o->beams > 0 ? o->num_return : o->n;

    return n > 0 ? (int)n : 1;
}

bool tsr_answers_are_scored(const tsr_answers_options *o)
{
    return o->beams > 0 || o->best_of > tsr_answers_n(o);
}

void tsr_answers_put(tsr_generation *g, const tsr_answers_options *o)
{
    const char *stopping = o->early_stopping != NULL ? o->early_stopping : "no";

    g->n = tsr_answers_n(o);
    g->best_of = (int)o->best_of;
    g->beams = (int)o->beams;
    g->length_penalty = o->length_penalty;
    g->stopping = strcmp(stopping, "yes") == 0     ? TSR_STOPPING_EARLY
                  : strcmp(stopping, "never") == 0 ? TSR_STOPPING_NEVER
                                                   : TSR_STOPPING_USUAL;
}
