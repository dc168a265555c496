#include "engine/text/special.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

typedef struct entry {
    tsr_gguf_text text; /* in the vocabulary */
    int32_t id;
    bool is_control;
} entry;

struct tsr_special {
    entry *entries; /* [n_entries] by their bytes, a shorter text before those that it begins */
    int n_entries;
    int begins[257];            /* entries of first byte b are [begins[b], begins[b + 1]) */
    bool has_user_defined[256]; /* of this first byte: the only ones when control is not matched */
};

static int by_bytes(const void *a, const void *b)
{
    const tsr_gguf_text x = ((const entry *)a)->text;
    const tsr_gguf_text y = ((const entry *)b)->text;
    const int order = memcmp(x.bytes, y.bytes, x.n_bytes < y.n_bytes ? x.n_bytes : y.n_bytes);

    return order != 0 ? order : (x.n_bytes > y.n_bytes) - (x.n_bytes < y.n_bytes);
}

static bool stands_for_itself(const tsr_vocab *vocab, int32_t id)
{
    return (tsr_vocab_is_control(vocab, id) ||
            tsr_vocab_kind(vocab, id) == TSR_TOKEN_KIND_USER_DEFINED) &&
           tsr_vocab_text(vocab, id).n_bytes > 0;
}

tsr_status tsr_special_create(tsr_special **out, const tsr_vocab *vocab)
{
    tsr_special *special = tsr_alloc(1, sizeof(*special));
    int n_entries = 0;

    for (int32_t id = 0; id < tsr_vocab_n_tokens(vocab); id++) {
        n_entries += stands_for_itself(vocab, id);
    }
    if (special != NULL) {
        special->entries = tsr_alloc((size_t)n_entries, sizeof(*special->entries));
    }
    if (special == NULL || special->entries == NULL) {
        tsr_special_destroy(special);
        return tsr_fail(TSR_ERR_NOMEM, "%d special tokens", n_entries);
    }
    for (int32_t id = 0; id < tsr_vocab_n_tokens(vocab); id++) {
        if (stands_for_itself(vocab, id)) {
            entry *added = &special->entries[special->n_entries++];

            added->text = tsr_vocab_text(vocab, id);
            added->id = id;
            added->is_control = tsr_vocab_is_control(vocab, id);
        }
    }
    qsort(special->entries, (size_t)n_entries, sizeof(*special->entries), by_bytes);
    for (int i = 0; i < n_entries; i++) {
        const uint8_t first = (uint8_t)special->entries[i].text.bytes[0];

        special->begins[first + 1]++;
        special->has_user_defined[first] |= !special->entries[i].is_control;
    }
    for (int byte = 0; byte < 256; byte++) {
        special->begins[byte + 1] += special->begins[byte];
    }
    *out = special;
    return TSR_OK;
}

void tsr_special_destroy(tsr_special *special)
{
    if (special == NULL) {
        return;
    }
    tsr_free(special->entries);
    tsr_free(special);
}

/* Of the entries [low, high), which agree up to `depth` and are longer, the first whose byte there
 * is at least `byte`. */
static int first_from(const tsr_special *special, int low, int high, size_t depth, int byte)
{
    while (low < high) {
        const int middle = low + (high - low) / 2;

        if ((uint8_t)special->entries[middle].text.bytes[depth] < byte) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest entry that text begins with; NULL if there is none. */
static const entry *longest_at(const tsr_special *special, const char *text, size_t n_bytes,
                               bool match_control)
{
    const uint8_t first = (uint8_t)text[0];
    const entry *best = NULL;
    int low = special->begins[first];
    int high = special->begins[first + 1];

    for (size_t depth = 1; low < high; depth++) {
        const entry *shortest = &special->entries[low];

        if (shortest->text.n_bytes == depth) { // all the others of the range go on
            if (match_control || !shortest->is_control) {
                best = shortest;
            }
            low++;
        }
        if (depth == n_bytes) {
            break;
        }
        low = first_from(special, low, high, depth, (uint8_t)text[depth]);
        high = first_from(special, low, high, depth, (uint8_t)text[depth] + 1);
    }
    return best;
}

tsr_special_match tsr_special_find(const tsr_special *special, const char *text, size_t n_bytes,
                                   size_t from, bool match_control)
{
    for (size_t at = from; at < n_bytes; at++) {
        const uint8_t first = (uint8_t)text[at];
        const entry *found;

        if (special->begins[first] == special->begins[first + 1] ||
            (!match_control && !special->has_user_defined[first])) {
            continue;
        }
        found = longest_at(special, text + at, n_bytes - at, match_control);
        if (found != NULL) {
            return (tsr_special_match){
                .start = at, .n_bytes = found->text.n_bytes, .id = found->id};
        }
    }
    return (tsr_special_match){.start = n_bytes, .id = -1};
}
