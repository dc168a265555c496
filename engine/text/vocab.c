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

static const char *const KEY_TOKENS = "tokenizer.ggml.tokens";
static const char *const KEY_TYPES = "tokenizer.ggml.token_type";

/* FNV-1a: it can go on where it stopped, which joins two parts without copying them. */
static uint64_t hash_more(uint64_t hash, tsr_gguf_text text)
{
    for (size_t i = 0; i < text.n_bytes; i++) {
        hash = (hash ^ (uint8_t)text.bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

static uint32_t first_slot(const tsr_vocab *vocab, tsr_gguf_text head, tsr_gguf_text tail)
{
    uint64_t hash = hash_more(hash_more(UINT64_C(0xcbf29ce484222325), head), tail);

    hash ^= hash >> 32;
    return (uint32_t)hash & (vocab->n_slots - 1);
}

static bool same_text(tsr_gguf_text text, tsr_gguf_text head, tsr_gguf_text tail)
{
    return text.n_bytes == head.n_bytes + tail.n_bytes &&
           (head.n_bytes == 0 || memcmp(text.bytes, head.bytes, head.n_bytes) == 0) &&
           (tail.n_bytes == 0 || memcmp(text.bytes + head.n_bytes, tail.bytes, tail.n_bytes) == 0);
}

int32_t tsr_vocab_find(const tsr_vocab *vocab, tsr_gguf_text head, tsr_gguf_text tail)
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

static tsr_status add_to_slots(tsr_vocab *vocab, int32_t id)
{
    const tsr_gguf_text nothing = {0};
    const tsr_gguf_text text = tsr_vocab_text(vocab, id);
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

static tsr_status copy_texts(tsr_vocab *vocab, const tsr_gguf *gguf)
{
    size_t n_bytes = 0;
    tsr_gguf_text text;

    for (int32_t id = 0; id < vocab->n_tokens; id++) {
        if (!tsr_gguf_array_string(gguf, KEY_TOKENS, id, &text)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: element %d cannot be read", KEY_TOKENS, id);
        }
        vocab->starts[id] = n_bytes;
        n_bytes += text.n_bytes; // all of them lie in the file, so their sum is no larger than it
        if (text.n_bytes > vocab->longest) {
            vocab->longest = text.n_bytes;
        }
    }
    vocab->starts[vocab->n_tokens] = n_bytes;
    vocab->letters = tsr_alloc(n_bytes, 1);
    if (vocab->letters == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "vocabulary: %zu bytes of token texts", n_bytes);
    }
    for (int32_t id = 0; id < vocab->n_tokens; id++) {
        if (tsr_gguf_array_string(gguf, KEY_TOKENS, id, &text) && text.n_bytes > 0) {
            memcpy(vocab->letters + vocab->starts[id], text.bytes, text.n_bytes);
        }
    }
    return TSR_OK;
}

static tsr_status read_kinds(tsr_vocab *vocab, const tsr_gguf *gguf)
{
    const int64_t n_types = tsr_gguf_array_count(gguf, KEY_TYPES);

    if (n_types >= 0 && n_types != vocab->n_tokens) {
        return tsr_fail(TSR_ERR_FORMAT, "%s has %lld elements, %s has %d", KEY_TYPES,
                        (long long)n_types, KEY_TOKENS, vocab->n_tokens);
    }
    for (int32_t id = 0; id < vocab->n_tokens; id++) {
        int64_t type = TSR_TOKEN_KIND_NORMAL;

        if (n_types >= 0 && !tsr_gguf_array_int(gguf, KEY_TYPES, id, &type)) {
            return tsr_fail(TSR_ERR_FORMAT, "%s holds no whole numbers", KEY_TYPES);
        }
        if (type < TSR_TOKEN_KIND_NORMAL || type >= TSR_TOKEN_KIND_COUNT) {
            type = TSR_TOKEN_KIND_NORMAL;
        }
        vocab->kinds[id] = (uint8_t)type;
    }
    return TSR_OK;
}

tsr_status tsr_vocab_create(tsr_vocab **out, const tsr_gguf *gguf)
{
    const int64_t n_tokens = tsr_gguf_array_count(gguf, KEY_TOKENS);
    tsr_status st = TSR_OK;
    tsr_vocab *vocab;

    if (n_tokens <= 0) {
        return tsr_fail(TSR_ERR_FORMAT, "no vocabulary: %s is missing or empty", KEY_TOKENS);
    }
    if (n_tokens > INT32_MAX / 4) {
        return tsr_fail(TSR_ERR_FORMAT, "%s has %lld elements, more than any model", KEY_TOKENS,
                        (long long)n_tokens);
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
    TSR_TRY_GOTO(st, fail, copy_texts(vocab, gguf));
    TSR_TRY_GOTO(st, fail, read_kinds(vocab, gguf));
    for (int32_t id = 0; id < vocab->n_tokens; id++) {
        // A token without text can only be given by its number.
        if (vocab->starts[id + 1] > vocab->starts[id]) {
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

tsr_gguf_text tsr_vocab_text(const tsr_vocab *vocab, int32_t id)
{
    return (tsr_gguf_text){.bytes = vocab->letters + vocab->starts[id],
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

size_t tsr_vocab_longest(const tsr_vocab *vocab)
{
    return vocab->longest;
}
