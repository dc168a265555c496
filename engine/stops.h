/*
 * engine/stops.h - finds the first of several texts in a stream of bytes.
 *
 * All texts are looked for at once, in a time that grows with the stream alone, however the stream
 * is cut (Aho and Corasick, "Efficient string matching", CACM 18(6), 1975). The match that ends
 * first counts; of several that end there, the longest.
 *
 * A matcher knows the texts and no stream; a stream is one int, its state, and starts at 0.
 *
 * Threads: a matcher is read-only and may be used by several.
 */
#ifndef TSR_ENGINE_STOPS_H
#define TSR_ENGINE_STOPS_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_stops tsr_stops;

enum {
    TSR_STOPS_MOST = 64,        /* texts */
    TSR_STOPS_MOST_BYTES = 4096 /* of all texts together */
};

/* texts [n] of n_bytes [n] bytes each, any bytes; n_bytes NULL: they end with a 0. Errors: ARG (an
 * empty text, too many, too long), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_stops_create(tsr_stops **out, const char *const *texts,
                                           const size_t *n_bytes, int n);
void tsr_stops_destroy(tsr_stops *stops); /* NULL is fine */

/*
 * Feed bytes until a match ends. True: it ended with byte *used - 1 of these, and it is
 * *match_bytes long; it may have begun in bytes fed before. False: all were used.
 */
bool tsr_stops_feed(const tsr_stops *stops, int *state, const char *bytes, size_t n_bytes,
                    size_t *used, size_t *match_bytes);

/* How many of the last bytes fed may yet turn out to be the beginning of a match. */
size_t tsr_stops_held(const tsr_stops *stops, int state);

#ifdef __cplusplus
}
#endif

#endif
