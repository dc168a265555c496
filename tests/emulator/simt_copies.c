#include "tests/emulator/simt_inside.h"

#include <stdlib.h>
#include <string.h>

/* A copy that was begun and not waited for. The source is looked at when the copy is begun, and
 * read when it is waited for: as late as it may be. */
struct simt_copy {
    uint32_t to;
    const char *from;
    uint32_t n_bytes, n_given;
    uint32_t group;
    uint32_t place;
    char *target;
};

void simt_copy_async(simt_thread *t, uint32_t to, uint64_t from, uint32_t n_bytes, uint32_t n_given,
                     uint32_t place)
{
    struct simt_copy *copy;

    if (n_given > n_bytes) {
        simt_fail(t, place, "cp.async of %u bytes of which %u come from the source", n_bytes,
                  n_given);
    }
    if ((from & (n_bytes - 1)) != 0) {
        simt_fail(t, place, "misaligned: cp.async of %u bytes from address %#llx", n_bytes,
                  (unsigned long long)from);
    }
    if (t->n_copies == t->n_copies_room) {
        t->n_copies_room = 2 * t->n_copies_room + 16;
        t->copies = realloc(t->copies, (size_t)t->n_copies_room * sizeof(*t->copies));
        if (t->copies == NULL) {
            simt_fail(t, place, "the emulator is out of memory");
        }
    }
    copy = &t->copies[t->n_copies++];
    *copy = (struct simt_copy){
        .to = to, .n_bytes = n_bytes, .n_given = n_given, .group = t->copy_group, .place = place};
    copy->target = simt_access_copy_target(t, to, n_bytes, place);
    for (uint32_t i = 0; i < n_given; i += 4) {
        const char *at = simt_global(t, from + i, 4, SIMT_READ, place);

        copy->from = i == 0 ? at : copy->from;
    }
    memset(copy->target, 0xFF, n_bytes);
}

void simt_copies_commit(simt_thread *t)
{
    t->copy_group++;
}

void simt_copies_wait(simt_thread *t, uint32_t n_groups_left)
{
    int n_left = 0;

    for (int i = 0; i < t->n_copies; i++) {
        struct simt_copy *copy = &t->copies[i];

        if (copy->group + n_groups_left >= t->copy_group) {
            t->copies[n_left++] = *copy;
            continue;
        }
        memset(copy->target, 0, copy->n_bytes);
        if (copy->n_given > 0) {
            memcpy(copy->target, copy->from, copy->n_given);
        }
        simt_access_copy_arrives(t, copy->to, copy->n_bytes, copy->place);
    }
    t->n_copies = n_left;
}

void simt_copies_thread_ends(simt_thread *t)
{
    if (t->n_copies > 0) {
        simt_fail(t, t->copies[0].place, "the thread returns and never waited for this cp.async");
    }
}
