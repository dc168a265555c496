/*
 * Any bytes as the step that a leader sends its ranks: refused in one sentence, with the step as it
 * was, or read; what was read is sent on just as it came.
 */
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "engine/step.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    static const tsr_step_limits limits = {.max_rows = 24,
                                           .max_seqs = 5,
                                           .max_blocks = 6,
                                           .n_groups = 2,
                                           .block_tokens = 16,
                                           .n_block_ids = 11,
                                           .n_vocab = 100};
    const long live = tsr_alloc_live();
    const size_t n_ints = n_bytes / sizeof(int32_t);
    int32_t *message = tsr_alloc(n_ints, sizeof(*message));
    tsr_step step = {0};

    must(message != NULL && tsr_step_init(&step, &limits) == TSR_OK);
    memcpy(message, bytes, n_ints * sizeof(*message));
    if (tsr_step_unpack(&step, message, n_ints) == TSR_OK) {
        const size_t n_read = tsr_step_n_ints(&step);
        int32_t *again = tsr_alloc(n_read, sizeof(*again));

        must(again != NULL && n_read == (size_t)message[0] && n_read <= n_ints);
        must(tsr_step_pack(&step, again) == n_read);
        must(memcmp(again, message, n_read * sizeof(*again)) == 0);
        tsr_free(again);
    } else {
        must(tsr_status_message()[0] != '\0' && step.n_rows == 0 && step.n_seqs == 0);
    }
    tsr_step_clear(&step);
    tsr_free(message);
    must(tsr_alloc_live() == live);
    return 0;
}
