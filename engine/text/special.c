#include "engine/text/special.h"

#include <string.h>

#include "base/alloc.h"
#include "engine/text/code_point.h"
#include "engine/text/lexicon.h"

struct tsr_special {
    tsr_lexicon *lexicon; // owned, as the letters
    char *letters;
};

tsr_status tsr_special_create(tsr_special **out, const tsr_special_token *tokens, int n_tokens)
{
    tsr_special *special = tsr_alloc(1, sizeof(*special));
    tsr_lexicon_entry *entries = NULL;
    tsr_status st = TSR_OK;
    size_t n_bytes = 0;
    int n_entries = 0;

    for (int i = 0; i < n_tokens; i++) {
        n_bytes += tokens[i].text.n_bytes;
    }
    entries = tsr_alloc((size_t)n_tokens, sizeof(*entries));
    if (special != NULL) {
        special->letters = tsr_alloc(n_bytes, 1);
    }
    if (special == NULL || special->letters == NULL || entries == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "%d special tokens", n_tokens);
        goto done;
    }
    n_bytes = 0;
    for (int i = 0; i < n_tokens; i++) {
        const tsr_text_view text = tokens[i].text;

        if (text.n_bytes > 0) {
            memcpy(special->letters + n_bytes, text.bytes, text.n_bytes);
            entries[n_entries++] = (tsr_lexicon_entry){
                .text = {.bytes = special->letters + n_bytes, .n_bytes = text.n_bytes},
                .id = tokens[i].id,
                .marks = tokens[i].marks};
            n_bytes += text.n_bytes;
        }
    }
    st = tsr_lexicon_create(&special->lexicon, entries, n_entries);

done:
    tsr_free(entries);
    if (st != TSR_OK) {
        tsr_special_destroy(special);
        return st;
    }
    *out = special;
    return TSR_OK;
}

void tsr_special_destroy(tsr_special *special)
{
    if (special == NULL) {
        return;
    }
    tsr_lexicon_destroy(special->lexicon);
    tsr_free(special->letters);
    tsr_free(special);
}

static bool is_sought(uint32_t marks, tsr_special_filter filter)
{
    if ((marks & TSR_SPECIAL_NORMALIZED) != 0) {
        return (marks & TSR_SPECIAL_CONTROL) != 0 ? filter.normalized_control : filter.normalized;
    }
    return filter.control || (marks & TSR_SPECIAL_CONTROL) == 0;
}

/* The longest sought entry that text begins with; NULL if there is none. */
static const tsr_lexicon_entry *longest_at(const tsr_special *special, const char *text,
                                           size_t n_bytes, tsr_special_filter filter)
{
    const tsr_lexicon_entry *best = NULL;
    const tsr_lexicon_entry *entry;
    tsr_lexicon_cursor cursor = {0};

    while ((entry = tsr_lexicon_next(special->lexicon, &cursor, text, n_bytes)) != NULL) {
        if (is_sought(entry->marks, filter)) {
            best = entry;
        }
    }
    return best;
}

tsr_special_match tsr_special_find(const tsr_special *special, const char *text, size_t n_bytes,
                                   size_t from, size_t limit, tsr_special_filter filter)
{
    for (size_t at = from; at < limit; at++) {
        const uint32_t marks = tsr_lexicon_marks(special->lexicon, (uint8_t)text[at]);
        const tsr_lexicon_entry *found;
        tsr_special_match match;

        if (marks == 0 || (!filter.control && (marks & TSR_SPECIAL_DEFINED) == 0 &&
                           (marks & TSR_SPECIAL_NORMALIZED) == 0)) {
            continue;
        }
        found = longest_at(special, text + at, limit - at, filter);
        if (found == NULL) {
            continue;
        }
        match = (tsr_special_match){.start = at,
                                    .end = at + found->text.n_bytes,
                                    .at = at,
                                    .next = at + found->text.n_bytes,
                                    .id = found->id};
        if ((found->marks & TSR_SPECIAL_WORD) != 0 &&
            (tsr_code_point_word_ends(text, match.start) ||
             tsr_code_point_word_begins(text + match.end, n_bytes - match.end))) {
            at = match.end - 1; // no token, and what it covers is not looked at again
            continue;
        }
        match.takes_left = (found->marks & TSR_SPECIAL_TAKES_LEFT) != 0;
        if (match.takes_left) {
            match.start -= tsr_code_point_spaces_behind(text, match.start);
        }
        if ((found->marks & TSR_SPECIAL_TAKES_RIGHT) != 0) {
            match.end += tsr_code_point_spaces_before(text + match.end, n_bytes - match.end);
        }
        return match;
    }
    return (tsr_special_match){n_bytes, n_bytes, n_bytes, n_bytes, -1, false};
}
