#include "engine/text/bpe.h"

#include <string.h>

#include "base/alloc.h"
#include "engine/text/byte_alphabet.h"

/* Its place in the list is its rank. */
typedef struct merge {
    int32_t left;
    int32_t right;
    int32_t whole;
} merge;

struct tsr_bpe {
    int32_t byte_ids[256]; /* -1: this byte has no token */
    merge *merges;         /* [n_merges] */
    uint32_t n_merges;
    uint32_t *slots;  /* [n_slots] rank + 1, 0 is empty; open addressing, linear probing */
    uint32_t n_slots; /* a power of two, at least twice n_merges */
};

/* What is left of a piece: a list of tokens, linked both ways. One that was merged away has id -1.
 */
typedef struct tsr_bpe_symbol {
    int32_t id;
    int32_t prev; /* -1: none */
    int32_t next; /* -1: none */
} symbol;

static const char *const KEY_MERGES = "tokenizer.ggml.merges";

/* ---- which pairs merge -------------------------------------------------------------------------
 */

static uint32_t first_slot(const tsr_bpe *bpe, int32_t left, int32_t right)
{
    uint64_t hash = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;

    hash = (hash ^ hash >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
    return (uint32_t)(hash >> 32) & (bpe->n_slots - 1);
}

/* The rank of a pair; -1 if the model never merges it. */
static int64_t rank_of(const tsr_bpe *bpe, int32_t left, int32_t right)
{
    for (uint32_t s = first_slot(bpe, left, right); bpe->slots[s] != 0;
         s = (s + 1) & (bpe->n_slots - 1)) {
        const uint32_t rank = bpe->slots[s] - 1;

        if (bpe->merges[rank].left == left && bpe->merges[rank].right == right) {
            return rank;
        }
    }
    return -1;
}

static tsr_status read_merge(merge *out, const tsr_vocab *vocab, tsr_gguf_text text)
{
    const tsr_gguf_text nothing = {0};
    const char *space = text.n_bytes > 1 ? memchr(text.bytes + 1, ' ', text.n_bytes - 1) : NULL;
    const int shown = (int)(text.n_bytes < 80 ? text.n_bytes : 80);
    tsr_gguf_text left = text;
    tsr_gguf_text right;

    if (space == NULL) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: \"%.*s\" is not two tokens", KEY_MERGES, shown,
                        text.bytes);
    }
    left.n_bytes = (size_t)(space - text.bytes);
    right.bytes = space + 1;
    right.n_bytes = text.n_bytes - left.n_bytes - 1;
    out->left = tsr_vocab_find(vocab, left, nothing);
    out->right = tsr_vocab_find(vocab, right, nothing);
    out->whole = tsr_vocab_find(vocab, left, right);
    if (out->left < 0 || out->right < 0 || out->whole < 0) {
        return tsr_fail(TSR_ERR_FORMAT, "%s: \"%.*s\" names or makes a token that does not exist",
                        KEY_MERGES, shown, text.bytes);
    }
    return TSR_OK;
}

static tsr_status read_merges(tsr_bpe *bpe, const tsr_gguf *gguf, const tsr_vocab *vocab)
{
    for (uint32_t rank = 0; rank < bpe->n_merges; rank++) {
        merge *read = &bpe->merges[rank];
        tsr_gguf_text text;
        uint32_t s;

        if (!tsr_gguf_array_string(gguf, KEY_MERGES, rank, &text)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: element %u cannot be read", KEY_MERGES, rank);
        }
        TSR_TRY(read_merge(read, vocab, text));
        if (rank_of(bpe, read->left, read->right) >= 0) {
            continue; // said twice: the lower rank counts
        }
        s = first_slot(bpe, read->left, read->right);
        while (bpe->slots[s] != 0) {
            s = (s + 1) & (bpe->n_slots - 1);
        }
        bpe->slots[s] = rank + 1;
    }
    return TSR_OK;
}

/* The token of each byte. Control tokens are none: text must not be able to become one. */
static void find_bytes(tsr_bpe *bpe, const tsr_vocab *vocab)
{
    for (int byte = 0; byte < 256; byte++) {
        const tsr_gguf_text nothing = {0};
        char letter[2];
        const int n = tsr_byte_alphabet_write(letter, (uint8_t)byte);
        const int32_t id =
            tsr_vocab_find(vocab, (tsr_gguf_text){.bytes = letter, .n_bytes = (size_t)n}, nothing);

        bpe->byte_ids[byte] = id >= 0 && tsr_vocab_is_control(vocab, id) ? -1 : id;
    }
}

tsr_status tsr_bpe_create(tsr_bpe **out, const tsr_gguf *gguf, const tsr_vocab *vocab)
{
    const int64_t n_merges = tsr_gguf_array_count(gguf, KEY_MERGES);
    tsr_status st = TSR_OK;
    tsr_bpe *bpe;

    if (n_merges < 0) {
        return tsr_fail(TSR_ERR_FORMAT, "no merges: %s is missing", KEY_MERGES);
    }
    if (n_merges > INT32_MAX / 4) {
        return tsr_fail(TSR_ERR_FORMAT, "%s has %lld elements, more than any model", KEY_MERGES,
                        (long long)n_merges);
    }
    bpe = tsr_alloc(1, sizeof(*bpe));
    if (bpe == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "merges record");
    }
    bpe->n_merges = (uint32_t)n_merges;
    for (bpe->n_slots = 16; bpe->n_slots < 2 * bpe->n_merges;) {
        bpe->n_slots *= 2;
    }
    bpe->merges = tsr_alloc(bpe->n_merges, sizeof(*bpe->merges));
    bpe->slots = tsr_alloc(bpe->n_slots, sizeof(*bpe->slots));
    if (bpe->merges == NULL || bpe->slots == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "%u merges", bpe->n_merges);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, read_merges(bpe, gguf, vocab));
    find_bytes(bpe, vocab);
    *out = bpe;
    return TSR_OK;

fail:
    tsr_bpe_destroy(bpe);
    return st;
}

void tsr_bpe_destroy(tsr_bpe *bpe)
{
    if (bpe == NULL) {
        return;
    }
    tsr_free(bpe->slots);
    tsr_free(bpe->merges);
    tsr_free(bpe);
}

/* ---- a heap of pairs that may merge ------------------------------------------------------------
 */

/* Rank above place: the smallest number is the lowest rank, and of those the leftmost. */
static uint64_t heap_entry(int64_t rank, int32_t place)
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

static tsr_status make_room(tsr_bpe_work *work, size_t n_bytes)
{
    size_t wanted = work->capacity < 256 ? 256 : work->capacity;

    if (n_bytes <= work->capacity) {
        return TSR_OK;
    }
    while (wanted < n_bytes) {
        wanted *= 2;
    }
    tsr_bpe_work_clear(work); // nothing in it is needed from one piece to the next
    work->symbols = tsr_alloc(wanted, sizeof(*work->symbols));
    // At most n - 1 pairs at the start; each merge takes one out and puts at most two in.
    work->heap = tsr_alloc(wanted, 2 * sizeof(*work->heap));
    if (work->symbols == NULL || work->heap == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no room to tokenize a piece of %zu bytes", n_bytes);
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
        const int64_t rank = rank_of(bpe, left->id, work->symbols[left->next].id);

        if (rank >= 0) {
            heap_push(work, heap_entry(rank, place));
        }
    }
}

/* The bytes as tokens, and all pairs that merge. Returns how many tokens. */
static int32_t lay_out(const tsr_bpe *bpe, tsr_bpe_work *work, const char *piece, size_t n_bytes)
{
    int32_t n = 0;

    for (size_t i = 0; i < n_bytes; i++) {
        const int32_t id = bpe->byte_ids[(uint8_t)piece[i]];

        if (id >= 0) {
            work->symbols[n] = (symbol){.id = id, .prev = n - 1, .next = n + 1};
            n++;
        }
    }
    if (n > 0) {
        work->symbols[n - 1].next = -1;
    }
    work->n_heap = 0;
    for (int32_t place = 0; place + 1 < n; place++) {
        const int64_t rank = rank_of(bpe, work->symbols[place].id, work->symbols[place + 1].id);

        if (rank >= 0) {
            work->heap[work->n_heap++] = heap_entry(rank, place);
        }
    }
    for (size_t at = work->n_heap / 2; at-- > 0;) {
        heap_sink(work->heap, work->n_heap, at);
    }
    return n;
}

tsr_status tsr_bpe_merge(const tsr_bpe *bpe, tsr_bpe_work *work, tsr_ids *out, const char *piece,
                         size_t n_bytes)
{
    symbol *symbols;
    int32_t n;

    TSR_TRY(make_room(work, n_bytes));
    symbols = work->symbols;
    n = lay_out(bpe, work, piece, n_bytes);
    while (work->n_heap > 0) {
        const uint64_t entry = heap_pop(work);
        const merge *rule = &bpe->merges[entry >> 32];
        const int32_t place = (int32_t)(uint32_t)entry;
        const int32_t taken = symbols[place].next;

        // A neighbour may have merged since the pair was put on the heap: then it is one no more.
        if (symbols[place].id != rule->left || taken < 0 || symbols[taken].id != rule->right) {
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
    for (int32_t place = n > 0 ? 0 : -1; place >= 0; place = symbols[place].next) {
        TSR_TRY(tsr_ids_append(out, symbols[place].id));
    }
    return TSR_OK;
}
