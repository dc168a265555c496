/*
 * engine/text/lexicon.h - which of many texts a text begins with.
 *
 * The texts are kept in order and narrowed down byte by byte, so that thousands that begin alike
 * cost no more than a few.
 *
 * Threads: read-only after create.
 */
#ifndef TSR_ENGINE_TEXT_LEXICON_H
#define TSR_ENGINE_TEXT_LEXICON_H

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_lexicon tsr_lexicon;

typedef struct tsr_lexicon_entry {
    tsr_text_view text; /* borrowed; not empty */
    int32_t id;
    uint32_t marks; /* whatever the owner wants to know of it */
} tsr_lexicon_entry;

/* entries [n_entries] are copied, their texts are borrowed and must outlive it. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_lexicon_create(tsr_lexicon **out, const tsr_lexicon_entry *entries,
                                             int n_entries);
void tsr_lexicon_destroy(tsr_lexicon *lexicon);

/* All marks of the entries that begin with this byte, joined; 0 if none has any. */
uint32_t tsr_lexicon_marks(const tsr_lexicon *lexicon, uint8_t first);

/* Where a search stands. Start with {0}. */
typedef struct tsr_lexicon_cursor {
    int low;
    int high;
    size_t depth;
} tsr_lexicon_cursor;

/* The next entry that text (n_bytes > 0, the same at each call) begins with, from the shortest to
 * the longest; NULL: there is no other. */
const tsr_lexicon_entry *tsr_lexicon_next(const tsr_lexicon *lexicon, tsr_lexicon_cursor *cursor,
                                          const char *text, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
