#include "engine/text/lexicon.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

struct tsr_lexicon {
    tsr_lexicon_entry *entries; /* [n_entries] by their bytes, a shorter text before those that it
                                   begins */
    int begins[257];            /* entries of first byte b are [begins[b], begins[b + 1]) */
    uint32_t marks[256];        /* of all entries of this first byte */
};

static int by_bytes(const void *a, const void *b)
{
    const tsr_text_view x = ((const tsr_lexicon_entry *)a)->text;
    const tsr_text_view y = ((const tsr_lexicon_entry *)b)->text;
    const int order = memcmp(x.bytes, y.bytes, x.n_bytes < y.n_bytes ? x.n_bytes : y.n_bytes);

    return order != 0 ? order : (x.n_bytes > y.n_bytes) - (x.n_bytes < y.n_bytes);
}

tsr_status tsr_lexicon_create(tsr_lexicon **out, const tsr_lexicon_entry *entries, int n_entries)
{
    tsr_lexicon *lexicon = tsr_alloc(1, sizeof(*lexicon));

    if (lexicon != NULL) {
        lexicon->entries = tsr_alloc((size_t)n_entries, sizeof(*lexicon->entries));
    }
    if (lexicon == NULL || lexicon->entries == NULL) {
        tsr_lexicon_destroy(lexicon);
        return tsr_fail(TSR_ERR_NOMEM, "a lexicon of %d texts", n_entries);
    }
    for (int i = 0; i < n_entries; i++) {
        lexicon->entries[i] = entries[i];
    }
    qsort(lexicon->entries, (size_t)n_entries, sizeof(*lexicon->entries), by_bytes);
    for (int i = 0; i < n_entries; i++) {
        const uint8_t first = (uint8_t)lexicon->entries[i].text.bytes[0];

        lexicon->begins[first + 1]++;
        lexicon->marks[first] |= lexicon->entries[i].marks;
    }
    for (int byte = 0; byte < 256; byte++) {
        lexicon->begins[byte + 1] += lexicon->begins[byte];
    }
    *out = lexicon;
    return TSR_OK;
}

void tsr_lexicon_destroy(tsr_lexicon *lexicon)
{
    if (lexicon == NULL) {
        return;
    }
    tsr_free(lexicon->entries);
    tsr_free(lexicon);
}

uint32_t tsr_lexicon_marks(const tsr_lexicon *lexicon, uint8_t first)
{
    return lexicon->marks[first];
}

/* Of the entries [low, high), which agree up to `depth` and are longer, the first whose byte there
 * is at least `byte`. */
static int first_from(const tsr_lexicon *lexicon, int low, int high, size_t depth, int byte)
{
    while (low < high) {
        const int middle = low + (high - low) / 2;

        if ((uint8_t)lexicon->entries[middle].text.bytes[depth] < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

const tsr_lexicon_entry *tsr_lexicon_next(const tsr_lexicon *lexicon, tsr_lexicon_cursor *cursor,
                                          const char *text, size_t n_bytes)
{
    if (cursor->depth == 0) {
        const uint8_t first = (uint8_t)text[0];

        *cursor = (tsr_lexicon_cursor){lexicon->begins[first], lexicon->begins[first + 1], 1};
    }
    // The range holds the entries that agree with the text in `depth` bytes.
    while (cursor->low < cursor->high) {
        const tsr_lexicon_entry *shortest = &lexicon->entries[cursor->low];

        if (shortest->text.n_bytes == cursor->depth) {
            cursor->low++; // all the others of the range go on
            return shortest;
        }
        if (cursor->depth == n_bytes) {
            break;
        }
        cursor->low = first_from(lexicon, cursor->low, cursor->high, cursor->depth,
                                 (uint8_t)text[cursor->depth]);
        cursor->high = first_from(lexicon, cursor->low, cursor->high, cursor->depth,
                                  (uint8_t)text[cursor->depth] + 1);
        cursor->depth++;
    }
    cursor->high = cursor->low;
    return NULL;
}
