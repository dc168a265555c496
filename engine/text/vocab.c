#include "engine/text/vocab.h"

#include <string.h>

#include "base/alloc.h"

struct tsr_vocab {
    int32_t n_tokens;
    char *letters;    /* all texts, one behind the other */
    size_t *starts;   /* [n_tokens + 1] in letters */
    uint8_t *kinds;   /* [n_tokens] */
    int32_t *slots;   /* [n_slots] id + 1, 0 is empty; open addressing, linear probing */
    uint32_t n_slots; /* a power of two, at least twice n_tokens */
    size_t longest;
};

/* FNV-1a: it can go on where it stopped, which joins two parts without copying them. */
static uint64_t hash_more(uint64_t hash, tsr_text_view text)
{
    for (size_t i = 0; i < text.n_bytes; i++) {
        hash = (hash ^ (uint8_t)text.bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static uint32_t first_slot(const tsr_vocab *vocab, tsr_text_view head, tsr_text_view tail)
{
    uint64_t hash = hash_more(hash_more(UINT64_C(0xcbf29ce484222325), head), tail);

    hash ^= hash >> 32;
    return (uint32_t)hash & (vocab->n_slots - 1);
}

static bool same_text(tsr_text_view text, tsr_text_view head, tsr_text_view tail)
{
    return text.n_bytes == head.n_bytes + tail.n_bytes &&
           (head.n_bytes == 0 || memcmp(text.bytes, head.bytes, head.n_bytes) == 0) &&
           (tail.n_bytes == 0 || memcmp(text.bytes + head.n_bytes, tail.bytes, tail.n_bytes) == 0);
}

int32_t tsr_vocab_find(const tsr_vocab *vocab, tsr_text_view head, tsr_text_view tail)
{
    for (uint32_t s = first_slot(vocab, head, tail); vocab->slots[s] != 0;
         s = (s + 1) & (vocab->n_slots - 1)) {
        const int32_t id = vocab->slots[s] - 1;

        if (same_text(tsr_vocab_text(vocab, id), head, tail)) {
            return id;
        }
    }
    return -1;
}

int32_t tsr_vocab_find_plain(const tsr_vocab *vocab, const char *text, size_t n_bytes)
{
    const tsr_text_view nothing = {0};
    const int32_t id =
        n_bytes > vocab->longest
            ? -1
            : tsr_vocab_find(vocab, (tsr_text_view){.bytes = text, .n_bytes = n_bytes}, nothing);

    return id >= 0 && (tsr_vocab_is_control(vocab, id) ||
                       tsr_vocab_kind(vocab, id) == TSR_TOKEN_KIND_ADDED)
               ? -1
               : id;
}

int32_t tsr_vocab_find_byte(const tsr_vocab *vocab, uint8_t byte)
{
    static const char digits[] = "0123456789ABCDEF";
    const char name[6] = {'<', '0', 'x', digits[byte >> 4], digits[byte & 15], '>'};
    const tsr_text_view nothing = {0};

    return tsr_vocab_find(vocab, (tsr_text_view){name, sizeof(name)}, nothing);
}

static tsr_status add_to_slots(tsr_vocab *vocab, int32_t id)
{
    const tsr_text_view nothing = {0};
    const tsr_text_view text = tsr_vocab_text(vocab, id);
    uint32_t s = first_slot(vocab, text, nothing);

    for (; vocab->slots[s] != 0; s = (s + 1) & (vocab->n_slots - 1)) {
        const int32_t other = vocab->slots[s] - 1;

        if (same_text(tsr_vocab_text(vocab, other), text, nothing)) {
            return tsr_fail(TSR_ERR_FORMAT, "vocabulary: tokens %d and %d are both \"%.*s\"", other,
                            id, (int)(text.n_bytes < 80 ? text.n_bytes : 80), text.bytes);
        }
    }
    vocab->slots[s] = id + 1;
    return TSR_OK;
}

static tsr_status copy_texts(tsr_vocab *vocab, const tsr_vocab_token *tokens)
{
    size_t n_bytes = 0;

    for (int32_t id = 0; id < vocab->n_tokens; id++) {
        vocab->starts[id] = n_bytes;
        vocab->kinds[id] = (uint8_t)tokens[id].kind;
        n_bytes += tokens[id].text.n_bytes;
        if (tokens[id].text.n_bytes > vocab->longest) {
            vocab->longest = tokens[id].text.n_bytes;
        }
    }
    vocab->starts[vocab->n_tokens] = n_bytes;
    vocab->letters = tsr_alloc(n_bytes, 1);
    if (vocab->letters == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "vocabulary: %zu bytes of token texts", n_bytes);
    }
    for (int32_t id = 0; id < vocab->n_tokens; id++) {
        if (tokens[id].text.n_bytes > 0) {
            memcpy(vocab->letters + vocab->starts[id], tokens[id].text.bytes,
                   tokens[id].text.n_bytes);
        }
    }
    return TSR_OK;
}

tsr_status tsr_vocab_create(tsr_vocab **out, const tsr_vocab_token *tokens, int64_t n_tokens)
{
    tsr_status st = TSR_OK;
    tsr_vocab *vocab;

    if (n_tokens <= 0 || n_tokens > TSR_VOCAB_MOST_TOKENS) {
        return tsr_fail(TSR_ERR_FORMAT, "a vocabulary of %lld tokens: it must have 1 to %d",
                        (long long)n_tokens, TSR_VOCAB_MOST_TOKENS);
    }
    vocab = tsr_alloc(1, sizeof(*vocab));
    if (vocab == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "vocabulary record");
    }
    vocab->n_tokens = (int32_t)n_tokens;
    for (vocab->n_slots = 16; vocab->n_slots < 2 * (uint32_t)n_tokens;) {
        vocab->n_slots *= 2;
    }
    vocab->starts = tsr_alloc((size_t)n_tokens + 1, sizeof(*vocab->starts));
    vocab->kinds = tsr_alloc((size_t)n_tokens, sizeof(*vocab->kinds));
    vocab->slots = tsr_alloc(vocab->n_slots, sizeof(*vocab->slots));
    if (vocab->starts == NULL || vocab->kinds == NULL || vocab->slots == NULL) {
        st = tsr_fail(TSR_ERR_NOMEM, "vocabulary of %d tokens", vocab->n_tokens);
        goto fail;
    }
    TSR_TRY_GOTO(st, fail, copy_texts(vocab, tokens));
    for (int32_t id = 0; id < vocab->n_tokens; id++) {
        if (tokens[id].text.n_bytes > 0) {
            TSR_TRY_GOTO(st, fail, add_to_slots(vocab, id));
        }
    }
    *out = vocab;
    return TSR_OK;

fail:
    tsr_vocab_destroy(vocab);
    return st;
}

void tsr_vocab_destroy(tsr_vocab *vocab)
{
    if (vocab == NULL) {
        return;
    }
    tsr_free(vocab->slots);
    tsr_free(vocab->kinds);
    tsr_free(vocab->letters);
    tsr_free(vocab->starts);
    tsr_free(vocab);
}

int32_t tsr_vocab_n_tokens(const tsr_vocab *vocab)
{
    return vocab->n_tokens;
}

tsr_text_view tsr_vocab_text(const tsr_vocab *vocab, int32_t id)
{
    return (tsr_text_view){.bytes = vocab->letters + vocab->starts[id],
                           .n_bytes = vocab->starts[id + 1] - vocab->starts[id]};
}

tsr_token_kind tsr_vocab_kind(const tsr_vocab *vocab, int32_t id)
{
    return (tsr_token_kind)vocab->kinds[id];
}

bool tsr_vocab_is_control(const tsr_vocab *vocab, int32_t id)
{
    return vocab->kinds[id] == TSR_TOKEN_KIND_CONTROL || vocab->kinds[id] == TSR_TOKEN_KIND_UNKNOWN;
}
