#include "engine/admission.h"

static const int64_t MOST_PRIORITY_NS = 1000000000000000; // so that no standing overflows

tsr_status tsr_admission_check_options(const tsr_scheduler_options *o)
{
    if (o->max_batch_tokens < 1 || o->max_seqs < 1 || o->block_tokens < 1 || o->n_blocks < 1 ||
        o->n_vocab < 1) {
        return tsr_fail(TSR_ERR_ARG,
                        "scheduler: %d rows, %d sequences, %d blocks of %d tokens and %d tokens "
                        "must all be positive",
                        o->max_batch_tokens, o->max_seqs, o->n_blocks, o->block_tokens, o->n_vocab);
    }
    if (o->n_device_blocks < 0 || o->n_host_blocks < 0 || o->n_device_blocks > o->n_blocks ||
        o->n_host_blocks > o->n_blocks - o->n_device_blocks || o->preempt < 0 ||
        o->preempt >= TSR_PREEMPT_COUNT) {
        return tsr_fail(TSR_ERR_ARG,
                        "scheduler: %d blocks on the device and %d of the host, of %d in all",
                        o->n_device_blocks, o->n_host_blocks, o->n_blocks);
    }
    if (o->groups.n < 0 || o->groups.n > TSR_BLOCK_MOST_GROUPS ||
        (o->n_device_blocks > 0 && o->n_device_blocks / 2 < o->groups.n)) {
        return tsr_fail(TSR_ERR_ARG,
                        "scheduler: %d groups of layers; at most %d are possible, and half of the "
                        "device's blocks, %d in all",
                        o->groups.n, TSR_BLOCK_MOST_GROUPS, o->n_device_blocks);
    }
    if (o->context < 1 || o->context > INT32_MAX - o->block_tokens) {
        return tsr_fail(TSR_ERR_ARG, "scheduler: a context of %lld positions",
                        (long long)o->context);
    }
    if (o->max_queue < 0 || o->target_itl_us < 0 || o->priority_ns < 0 ||
        o->priority_ns > MOST_PRIORITY_NS) {
        return tsr_fail(TSR_ERR_ARG,
                        "scheduler: a queue of %d, steps of %lld us, priorities of %lld ns",
                        o->max_queue, (long long)o->target_itl_us, (long long)o->priority_ns);
    }
    return TSR_OK;
}

tsr_block_groups tsr_admission_groups(const tsr_scheduler_options *o)
{
    tsr_block_groups groups = o->groups;

    if (groups.n == 0) {
        groups.n = 1;
        groups.behind[0] = INT32_MAX;
    }
    groups.block_tokens = o->block_tokens;
    return groups;
}

int tsr_admission_most_blocks(const tsr_scheduler_options *o)
{
    return o->n_device_blocks > 0 ? o->n_device_blocks + o->n_host_blocks : o->n_blocks;
}

tsr_status tsr_admission_check_request(const tsr_scheduler_options *o, const tsr_request *r,
                                       int n_waiting)
{
    const tsr_block_groups groups = tsr_admission_groups(o);
    const int64_t n_blocks = tsr_block_groups_most(&groups, r->n_prompt, 0);
    const int n_usable = tsr_admission_most_blocks(o);

    TSR_TRY(tsr_sampler_check(&r->sampling));
    if (r->n_tokens > o->context) {
        return tsr_fail(TSR_ERR_ARG, "the prompt has %lld tokens, the context is %lld",
                        (long long)r->n_tokens, (long long)o->context);
    }
    for (int64_t i = 0; i < r->n_tokens; i++) {
        if (r->tokens[i] < 0 || r->tokens[i] >= o->n_vocab) {
            return tsr_fail(TSR_ERR_ARG, "token %lld of the prompt is %d, not in [0, %d)",
                            (long long)i, (int)r->tokens[i], o->n_vocab);
        }
    }
    if (r->priority < -TSR_SCHEDULER_PRIORITIES || r->priority > TSR_SCHEDULER_PRIORITIES) {
        return tsr_fail(TSR_ERR_ARG, "priority %d; it must lie in %d..%d", r->priority,
                        -TSR_SCHEDULER_PRIORITIES, TSR_SCHEDULER_PRIORITIES);
    }
    if (n_blocks > n_usable) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "the prompt of %lld tokens takes %lld cache blocks and there are %d: at "
                        "most %lld tokens fit",
                        (long long)r->n_prompt, (long long)n_blocks, n_usable,
                        (long long)tsr_block_groups_longest(&groups, n_usable, o->context));
    }
    if (o->max_queue > 0 && n_waiting >= o->max_queue) {
        return tsr_fail(TSR_ERR_FULL, "%d requests wait already, the queue takes %d", n_waiting,
                        o->max_queue);
    }
    return TSR_OK;
}
