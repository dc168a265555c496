/* A real GPU has one order of threads, its own: what tests ask of the emulated one is left out. */
#include "tests/emulator/simt.h"

static simt_order asked;

void simt_set_order(simt_order order, uint32_t seed)
{
    (void)seed;
    asked = order;
}

simt_order simt_get_order(void)
{
    return asked;
}

simt_counts simt_so_far(void)
{
    return (simt_counts){0};
}
