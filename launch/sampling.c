#include "launch/sampling.h"

#define FIELD(name) offsetof(tsr_sampling_options, name)

static const tsr_args_option options_table[] = {
    {"--temperature", "T", TSR_ARGS_REAL, FIELD(temperature), 0, 100, NULL,
     "0 always takes the likeliest token; higher is bolder (default 0)"},
    {"--top-k", "K", TSR_ARGS_INTEGER, FIELD(top_k), 0, INT32_MAX, NULL,
     "choose among the K likeliest tokens; 0: all (default 0)"},
    {"--top-p", "P", TSR_ARGS_REAL, FIELD(top_p), 0, 1, NULL,
     "choose among the likeliest tokens that together have probability P; 0 or 1: all (default "
     "1)"},
    {"--min-p", "P", TSR_ARGS_REAL, FIELD(min_p), 0, 1, NULL,
     "leave out tokens less likely than P times the likeliest; 0: none (default 0)"},
    {"--seed", "S", TSR_ARGS_SEED, FIELD(seed), 0, 0, NULL,
     "where chance starts: the same seed gives the same text (default 0)"},
};

tsr_args_group tsr_sampling_group(const char *title, size_t at)
{
    return (tsr_args_group){
        .title = title,
        .options = options_table,
        .n_options = sizeof(options_table) / sizeof(options_table[0]),
        .at = at,
    };
}

void tsr_sampling_apply(const tsr_sampling_options *options, tsr_generation *generation)
{
    generation->temperature = (float)options->temperature;
    generation->top_k = (int)options->top_k;
    generation->top_p = (float)options->top_p;
    generation->min_p = (float)options->min_p;
    generation->seed = options->seed;
}
