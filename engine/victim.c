#include "engine/victim.h"

/* Is putting back a better than putting back b, which stands before it? */
static bool is_better(const tsr_request *a, const tsr_request *b)
{
    const int64_t a_cost = a->n_cached * (1 + (int64_t)a->n_preempted);
    const int64_t b_cost = b->n_cached * (1 + (int64_t)b->n_preempted);

    if (a->priority != b->priority) {
        return a->priority < b->priority;
    }
    if (a->is_held != b->is_held) {
        return a->is_held;
    }
    return (double)a_cost * b->blocks.n_blocks <= (double)b_cost * a->blocks.n_blocks;
}

int tsr_victim_choose(tsr_request *const *running, int first, int n_running)
{
    int best = -1;

    for (int i = first; i < n_running; i++) {
        if (running[i]->blocks.n_blocks > 0 && (best < 0 || is_better(running[i], running[best]))) {
            best = i;
        }
    }
    return best;
}
