/*
 * engine/gguf_names.h - names of a GGUF file, sorted, so that one is found quickly and twins are
 * seen. Private to the engine/gguf files.
 *
 * Sorted and not hashed: a hostile file cannot make a search slow.
 */
#ifndef TSR_ENGINE_GGUF_NAMES_H
#define TSR_ENGINE_GGUF_NAMES_H

#include "engine/gguf.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_gguf_name {
    tsr_gguf_text text;
    int i; /* whose name it is, as the caller counts */
} tsr_gguf_name;

typedef struct tsr_gguf_names {
    tsr_gguf_name *sorted; /* [n], owned */
    int n;
} tsr_gguf_names;

/* Room for n names, to be filled by the caller and then sorted. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_gguf_names_init(tsr_gguf_names *names, int n);

void tsr_gguf_names_clear(tsr_gguf_names *names);

/* Two that have the same name, or NULL when there are none: the address of the first of them. */
const tsr_gguf_name *tsr_gguf_names_sort(tsr_gguf_names *names);

int tsr_gguf_names_find(const tsr_gguf_names *names, const char *text); /* its i, or -1 */

#ifdef __cplusplus
}
#endif

#endif
