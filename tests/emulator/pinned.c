#include "tests/emulator/pinned.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum {
    MAX_PIECES = 4096
};

static struct {
    char *begin;
    size_t n_bytes;
} pieces[MAX_PIECES];
static int n_pieces;

void *pinned_take(size_t n_bytes)
{
    char *memory = n_pieces < MAX_PIECES ? malloc(n_bytes) : NULL;

    if (memory != NULL) {
        memset(memory, 0xFF, n_bytes);
        pieces[n_pieces].begin = memory;
        pieces[n_pieces++].n_bytes = n_bytes;
    }
    return memory;
}

bool pinned_give_back(void *memory)
{
    for (int i = 0; i < n_pieces; i++) {
        if (pieces[i].begin == memory) {
            free(memory);
            pieces[i] = pieces[--n_pieces];
            return true;
        }
    }
    return false;
}

bool pinned_holds(const void *memory, size_t n_bytes)
{
    for (int i = 0; i < n_pieces; i++) {
        const uintptr_t offset = (uintptr_t)memory - (uintptr_t)pieces[i].begin;

        if (offset < pieces[i].n_bytes && n_bytes <= pieces[i].n_bytes - offset) {
            return true;
        }
    }
    return false;
}
