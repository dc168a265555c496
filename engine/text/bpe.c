#include "engine/text/bpe.h"

#include <stdatomic.h>
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "engine/text/byte_alphabet.h"

/* What is known of a token: does its text, merged, become this token and no other? */
enum {
    NOT_TRIED = 0,
    BECOMES_ITSELF,
    BECOMES_OTHERS
};

struct tsr_bpe {
    const tsr_vocab *vocab; /* borrowed */
    bool of_bytes;
    bool keeps_whole;
    bool fuses_unknown;
    bool cuts_at_spaces; /* no rule joins anything with a space sign behind it */
    int32_t unknown;
    int32_t byte_ids[256]; /* -1: this byte has no token */
    char *affixes;         /* prefix and suffix, one behind the other; owned, as all below */
    tsr_text_view prefix;
    tsr_text_view suffix;
    tsr_bpe_rule *slots; /* [n_slots] by left and right; rank NO_RULE is empty; open addressing,
                            linear probing */
    uint32_t n_slots;    /* a power of two, at least twice the rules */
    _Atomic uint8_t *becomes; /* [n_tokens], learned on the way */
};

/* What is left of a piece: a list of tokens, linked both ways. One that was merged away has id -1.
 */
typedef struct tsr_bpe_symbol {
    int32_t id;
    int32_t prev; /* -1: none */
    int32_t next; /* -1: none */
} symbol;

static const uint32_t NO_RULE = UINT32_MAX;

/* How SentencePiece writes a space: U+2581. */
static const char SPACE_SIGN[] = "\xe2\x96\x81";

enum {
    SIGN_BYTES = 3,
    MOST_LETTERS = 256 /* of a piece that is looked up as a whole */
};

/* ---- which pairs merge -------------------------------------------------------------------------
 */

static uint32_t first_slot(const tsr_bpe *bpe, int32_t left, int32_t right)
{
    uint64_t hash = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    hash = (hash ^ hash >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(hash >> 32) & (bpe->n_slots - 1);
}

/* The slot of a pair; an empty one if the model never merges it. */
static uint32_t slot_of(const tsr_bpe *bpe, int32_t left, int32_t right)
{
    uint32_t s = first_slot(bpe, left, right);

    while (bpe->slots[s].rank != NO_RULE &&
           (bpe->slots[s].left != left || bpe->slots[s].right != right)) {
        s = (s + 1) & (bpe->n_slots - 1);
    }
    return s;
}

static const tsr_bpe_rule *rule_of(const tsr_bpe *bpe, int32_t left, int32_t right)
{
    const tsr_bpe_rule *rule = &bpe->slots[slot_of(bpe, left, right)];

    return rule->rank != NO_RULE ? rule : NULL;
}

tsr_status tsr_bpe_rule_read(tsr_bpe_rule *out, const tsr_vocab *vocab, tsr_text_view left,
                             tsr_text_view right, size_t prefix_bytes)
{
    const tsr_text_view nothing = {0};
    const size_t skipped = prefix_bytes < right.n_bytes ? prefix_bytes : right.n_bytes;
    const tsr_text_view rest = {.bytes = right.bytes + skipped, .n_bytes = right.n_bytes - skipped};

    out->left = tsr_vocab_find(vocab, left, nothing);
    out->right = tsr_vocab_find(vocab, right, nothing);
    out->whole = tsr_vocab_find(vocab, left, rest);
    if (out->left < 0 || out->right < 0 || out->whole < 0) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "merges: \"%.*s\" and \"%.*s\" name or make a token that does not exist",
                        (int)(left.n_bytes < 80 ? left.n_bytes : 80), left.bytes,
                        (int)(right.n_bytes < 80 ? right.n_bytes : 80), right.bytes);
    }
    return TSR_OK;
}

static bool begins_with_sign(tsr_text_view text)
{
    return text.n_bytes >= SIGN_BYTES && memcmp(text.bytes, SPACE_SIGN, SIGN_BYTES) == 0;
}

static bool ends_with_sign(tsr_text_view text)
{
    return text.n_bytes >= SIGN_BYTES &&
           memcmp(text.bytes + text.n_bytes - SIGN_BYTES, SPACE_SIGN, SIGN_BYTES) == 0;
}

/*
 * May a piece be cut before each run of space signs without a change of its tokens? Yes if no rule
 * has a right side that begins with the sign and a left side that ends otherwise: then nothing ever
 * merges across such a place, and what happens on one side does not matter on the other.
 */
static bool may_cut(const tsr_bpe *bpe, const tsr_bpe_rule *rules, uint32_t n_rules)
{
    if (bpe->of_bytes || bpe->keeps_whole || bpe->prefix.n_bytes > 0 || bpe->suffix.n_bytes > 0 ||
        tsr_vocab_find_plain(bpe->vocab, SPACE_SIGN, SIGN_BYTES) < 0) {
        return false;
    }
    for (uint32_t r = 0; r < n_rules; r++) {
        if (begins_with_sign(tsr_vocab_text(bpe->vocab, rules[r].right)) &&
            !ends_with_sign(tsr_vocab_text(bpe->vocab, rules[r].left))) {
            return false;
        }
    }
    return true;
}

/* The token of each byte: its letter's, or the one to fall back on. Control tokens are none: text
 * must not be able to become one. */
static void find_bytes(tsr_bpe *bpe, bool falls_back)
{
    for (int byte = 0; byte < 256; byte++) {
        char letter[2];
        const int n = tsr_byte_alphabet_write(letter, (uint8_t)byte);

        bpe->byte_ids[byte] = -1;
        if (bpe->of_bytes) {
            bpe->byte_ids[byte] = tsr_vocab_find_plain(bpe->vocab, letter, (size_t)n);
        } else if (falls_back) {
            bpe->byte_ids[byte] = tsr_vocab_find_byte(bpe->vocab, (uint8_t)byte);
        }
    }
}

static void copy_affixes(tsr_bpe *bpe, const tsr_bpe_options *options)
{
    bpe->prefix = (tsr_text_view){.bytes = bpe->affixes, .n_bytes = options->prefix.n_bytes};
    bpe->suffix = (tsr_text_view){.bytes = bpe->affixes + options->prefix.n_bytes,
                                  .n_bytes = options->suffix.n_bytes};
    if (options->prefix.n_bytes > 0) {
        memcpy(bpe->affixes, options->prefix.bytes, options->prefix.n_bytes);
    }
    if (options->suffix.n_bytes > 0) {
        memcpy(bpe->affixes + options->prefix.n_bytes, options->suffix.bytes,
               options->suffix.n_bytes);
    }
}

tsr_status tsr_bpe_create(tsr_bpe **out, const tsr_vocab *vocab, const tsr_bpe_options *options,
                          const tsr_bpe_rule *rules, uint32_t n_rules)
{
    tsr_bpe *bpe = tsr_alloc(1, sizeof(*bpe));

    if (bpe == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "merges record");
    }
    bpe->vocab = vocab;
    bpe->of_bytes = options->of_bytes;
    bpe->keeps_whole = options->keeps_whole;
    bpe->fuses_unknown = options->fuses_unknown;
    bpe->unknown = options->unknown;
    for (bpe->n_slots = 16; bpe->n_slots < 2 * n_rules;) {
        bpe->n_slots *= 2;
    }
    bpe->slots = tsr_alloc(bpe->n_slots, sizeof(*bpe->slots));
    bpe->becomes = tsr_alloc((size_t)tsr_vocab_n_tokens(vocab), sizeof(*bpe->becomes));
    bpe->affixes = tsr_alloc(options->prefix.n_bytes + options->suffix.n_bytes, 1);
    if (bpe->slots == NULL || bpe->becomes == NULL || bpe->affixes == NULL) {
        tsr_bpe_destroy(bpe);
        return tsr_fail(TSR_ERR_NOMEM, "%u merges", n_rules);
    }
    copy_affixes(bpe, options);
    for (uint32_t s = 0; s < bpe->n_slots; s++) {
        bpe->slots[s].rank = NO_RULE;
    }
    for (uint32_t r = 0; r < n_rules; r++) {
        tsr_bpe_rule *slot = &bpe->slots[slot_of(bpe, rules[r].left, rules[r].right)];

        if (slot->rank == NO_RULE || options->last_counts) {
            *slot = rules[r];
        }
    }
    find_bytes(bpe, options->falls_back);
    bpe->cuts_at_spaces = may_cut(bpe, rules, n_rules);
    *out = bpe;
    return TSR_OK;
}

void tsr_bpe_destroy(tsr_bpe *bpe)
{
    if (bpe == NULL) {
        return;
    }
    tsr_free(bpe->affixes);
    tsr_free(bpe->becomes);
    tsr_free(bpe->slots);
    tsr_free(bpe);
}

/* ---- a heap of pairs that may merge ------------------------------------------------------------
 */

/* Rank above place: the smallest number is the lowest rank, and of those the leftmost. */
static uint64_t heap_entry(uint32_t rank, int32_t place)
{
    return (uint64_t)rank << 32 | (uint32_t)place;
}

static void heap_sink(uint64_t *heap, size_t n, size_t at)
{
    const uint64_t entry = heap[at];

    for (;;) {
        size_t child = 2 * at + 1;

        if (child >= n) {
            break;
        }
        if (child + 1 < n && heap[child + 1] < heap[child]) {
            child++;
        }
        if (entry <= heap[child]) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = entry;
}

static void heap_push(tsr_bpe_work *work, uint64_t entry)
{
    size_t at = work->n_heap++;

    while (at > 0 && entry < work->heap[(at - 1) / 2]) {
        work->heap[at] = work->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    work->heap[at] = entry;
}

static uint64_t heap_pop(tsr_bpe_work *work)
{
    const uint64_t least = work->heap[0];

    work->heap[0] = work->heap[--work->n_heap];
    if (work->n_heap > 0) {
        heap_sink(work->heap, work->n_heap, 0);
    }
    return least;
}

/* ---- merging -----------------------------------------------------------------------------------
 */

static tsr_status make_room(tsr_bpe_work *work, size_t n_symbols)
{
    size_t wanted = work->capacity < 256 ? 256 : work->capacity;

    if (n_symbols <= work->capacity) {
        return TSR_OK;
    }
    while (wanted < n_symbols) {
        wanted *= 2;
    }
    tsr_bpe_work_clear(work); // nothing in it is needed from one piece to the next
    work->symbols = tsr_alloc(wanted, sizeof(*work->symbols));
    // At most n - 1 pairs at the start; each merge takes one out and puts at most two in.
    work->heap = tsr_alloc(wanted, 2 * sizeof(*work->heap));
    if (work->symbols == NULL || work->heap == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no room to tokenize a piece of %zu symbols", n_symbols);
    }
    work->capacity = wanted;
    return TSR_OK;
}

void tsr_bpe_work_clear(tsr_bpe_work *work)
{
    tsr_free(work->symbols);
    tsr_free(work->heap);
    *work = (tsr_bpe_work){0};
}

/* Put the pair that begins at this place, if it is one that merges, on the heap. */
static void offer(const tsr_bpe *bpe, tsr_bpe_work *work, int32_t place)
{
    const symbol *left = &work->symbols[place];

    if (left->next >= 0) {
        const tsr_bpe_rule *rule = rule_of(bpe, left->id, work->symbols[left->next].id);

        if (rule != NULL) {
            heap_push(work, heap_entry(rule->rank, place));
        }
    }
}

static void add_symbol(tsr_bpe_work *work, int32_t *n, int32_t id)
{
    work->symbols[*n] = (symbol){.id = id, .prev = *n - 1, .next = *n + 1};
    (*n)++;
}

/* The text of a character with what is written around it there; its bytes. */
static size_t dress(const tsr_bpe *bpe, char *out, const char *piece, size_t at, size_t n,
                    bool is_last)
{
    size_t n_out = 0;

    if (at > 0 && bpe->prefix.n_bytes > 0) {
        memcpy(out, bpe->prefix.bytes, bpe->prefix.n_bytes);
        n_out = bpe->prefix.n_bytes;
    }
    memcpy(out + n_out, piece + at, n);
    n_out += n;
    if (is_last && bpe->suffix.n_bytes > 0) {
        memcpy(out + n_out, bpe->suffix.bytes, bpe->suffix.n_bytes);
        n_out += bpe->suffix.n_bytes;
    }
    return n_out;
}

/* The tokens of a text's bytes; false if one of them has none. */
static bool add_bytes(const tsr_bpe *bpe, tsr_bpe_work *work, int32_t *n, const char *text,
                      size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        if (bpe->byte_ids[(uint8_t)text[i]] < 0) {
            return false;
        }
    }
    for (size_t i = 0; i < n_bytes; i++) {
        add_symbol(work, n, bpe->byte_ids[(uint8_t)text[i]]);
    }
    return true;
}

/* The characters as tokens. An unknown one is added when a known one follows: bytes to fall back on
 * may overtake it, as they do in the library. */
static int32_t lay_out_characters(const tsr_bpe *bpe, tsr_bpe_work *work, const char *piece,
                                  size_t n_bytes)
{
    const bool dressed = bpe->prefix.n_bytes > 0 || bpe->suffix.n_bytes > 0;
    char clothes[2 * TSR_BPE_MOST_AFFIX + 4];
    bool owes_unknown = false;
    int32_t n = 0;

    for (size_t at = 0; at < n_bytes;) {
        const int measured = tsr_utf8_measure(piece + at, n_bytes - at);
        const size_t n_char = measured > 0 ? (size_t)measured : 1;
        const char *text = piece + at;
        size_t n_text = n_char;
        int32_t id;

        if (dressed) {
            n_text = dress(bpe, clothes, piece, at, n_char, at + n_char == n_bytes);
            text = clothes;
        }
        id = tsr_vocab_find_plain(bpe->vocab, text, n_text);
        at += n_char;
        if (id >= 0) {
            if (owes_unknown) {
                add_symbol(work, &n, bpe->unknown);
                owes_unknown = false;
            }
            add_symbol(work, &n, id);
        } else if (!add_bytes(bpe, work, &n, text, n_text) && bpe->unknown >= 0) {
            if (owes_unknown && !bpe->fuses_unknown) {
                add_symbol(work, &n, bpe->unknown);
            }
            owes_unknown = true;
        }
    }
    if (owes_unknown) {
        add_symbol(work, &n, bpe->unknown);
    }
    return n;
}

static int32_t lay_out_bytes(const tsr_bpe *bpe, tsr_bpe_work *work, const char *piece,
                             size_t n_bytes)
{
    int32_t n = 0;

    for (size_t i = 0; i < n_bytes; i++) {
        const int32_t id = bpe->byte_ids[(uint8_t)piece[i]];

        if (id >= 0) {
            add_symbol(work, &n, id);
        }
    }
    return n;
}

/* The symbols, and all pairs of them that merge. Returns how many symbols. */
static int32_t lay_out(const tsr_bpe *bpe, tsr_bpe_work *work, const char *piece, size_t n_bytes)
{
    const int32_t n = bpe->of_bytes ? lay_out_bytes(bpe, work, piece, n_bytes)
                                    : lay_out_characters(bpe, work, piece, n_bytes);

    if (n > 0) {
        work->symbols[n - 1].next = -1;
    }
    work->n_heap = 0;
    for (int32_t place = 0; place + 1 < n; place++) {
        const tsr_bpe_rule *rule =
            rule_of(bpe, work->symbols[place].id, work->symbols[place + 1].id);

        if (rule != NULL) {
            work->heap[work->n_heap++] = heap_entry(rule->rank, place);
        }
    }
    for (size_t at = work->n_heap / 2; at-- > 0;) {
        heap_sink(work->heap, work->n_heap, at);
    }
    return n;
}

/* Merge what has been laid out until nothing merges. */
static void merge_all(const tsr_bpe *bpe, tsr_bpe_work *work)
{
    symbol *symbols = work->symbols;

    while (work->n_heap > 0) {
        const uint64_t entry = heap_pop(work);
        const int32_t place = (int32_t)(uint32_t)entry;
        const int32_t taken = symbols[place].next;
        const tsr_bpe_rule *rule;

        // A neighbour may have merged since the pair was put on the heap: then it is one no more.
        if (symbols[place].id < 0 || taken < 0) {
            continue;
        }
        rule = rule_of(bpe, symbols[place].id, symbols[taken].id);
        if (rule == NULL || rule->rank != entry >> 32) {
            continue;
        }
        symbols[place].id = rule->whole;
        symbols[place].next = symbols[taken].next;
        symbols[taken].id = -1;
        if (symbols[place].next >= 0) {
            symbols[symbols[place].next].prev = place;
        }
        if (symbols[place].prev >= 0) {
            offer(bpe, work, symbols[place].prev);
        }
        offer(bpe, work, place);
    }
}

/* The token that is the whole piece, -1 if there is none. */
static int32_t find_whole(const tsr_bpe *bpe, const char *piece, size_t n_bytes)
{
    char letters[2 * MOST_LETTERS];
    size_t n_letters = 0;

    if (!bpe->of_bytes) {
        return tsr_vocab_find_plain(bpe->vocab, piece, n_bytes);
    }
    if (n_bytes > MOST_LETTERS) {
        return -1;
    }
    for (size_t i = 0; i < n_bytes; i++) {
        n_letters += (size_t)tsr_byte_alphabet_write(letters + n_letters, (uint8_t)piece[i]);
    }
    return tsr_vocab_find_plain(bpe->vocab, letters, n_letters);
}

/* Most words are tokens, and most of those are what merging their letters gives: this is tried once
 * for each and then known. */
static tsr_status merge_piece(const tsr_bpe *bpe, tsr_bpe_work *work, tsr_ids *out,
                              const char *piece, size_t n_bytes)
{
    const int32_t whole = find_whole(bpe, piece, n_bytes);
    int32_t n;

    if (whole >= 0 &&
        (bpe->keeps_whole ||
         atomic_load_explicit(&bpe->becomes[whole], memory_order_relaxed) == BECOMES_ITSELF)) {
        return tsr_ids_append(out, whole);
    }
    TSR_TRY(make_room(work, n_bytes + (bpe->prefix.n_bytes + bpe->suffix.n_bytes) * n_bytes));
    n = lay_out(bpe, work, piece, n_bytes);
    merge_all(bpe, work);
    if (whole >= 0) {
        const bool itself = n > 0 && work->symbols[0].id == whole && work->symbols[0].next < 0;

        atomic_store_explicit(&bpe->becomes[whole], itself ? BECOMES_ITSELF : BECOMES_OTHERS,
                              memory_order_relaxed);
    }
    for (int32_t place = n > 0 ? 0 : -1; place >= 0; place = work->symbols[place].next) {
        TSR_TRY(tsr_ids_append(out, work->symbols[place].id));
    }
    return TSR_OK;
}

/* Bytes up to the next run of space signs that does not begin the text. */
static size_t next_cut(const char *text, size_t n_bytes)
{
    for (size_t at = 1; at < n_bytes; at++) {
        const char *sign = memchr(text + at, SPACE_SIGN[0], n_bytes - at);

        if (sign == NULL) {
            break;
        }
        at = (size_t)(sign - text);
        if (begins_with_sign((tsr_text_view){sign, n_bytes - at}) &&
            !ends_with_sign((tsr_text_view){text, at})) {
            return at;
        }
    }
    return n_bytes;
}

tsr_status tsr_bpe_merge(const tsr_bpe *bpe, tsr_bpe_work *work, tsr_ids *out, const char *piece,
                         size_t n_bytes)
{
    if (!bpe->cuts_at_spaces) {
        return merge_piece(bpe, work, out, piece, n_bytes);
    }
    for (size_t at = 0; at < n_bytes;) {
        const size_t n = next_cut(piece + at, n_bytes - at);

        TSR_TRY(merge_piece(bpe, work, out, piece + at, n));
        at += n;
    }
    return TSR_OK;
}
