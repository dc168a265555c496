/*
 * tests/fuzz_tokenizer.c - hostile vocabularies, hostile texts and hostile chat templates.
 *
 * Bytes that begin with "GGUF" are a model file, those that begin with "{" a tokenizer.json. Of
 * others the first byte chooses: 0xff reads the rest as a chat template; anything else is a
 * pre-tokenizer (and whether control tokens are matched) for the rest as a text, which must come
 * back from its tokens as it was.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "engine/tokenizer.h"
#include "tests/support/toy_vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static const char *const rules[] = {"default",     "gpt-2",          "smollm",     "llama-bpe",
                                    "qwen2",       "qwen35",         "falcon",     "deepseek-llm",
                                    "deepseek-v3", "deepseek-coder", "tekken",     "gpt-4o",
                                    "bloom",       "viking",         "bailingmoe", "seed-coder"};

enum {
    N_RULES = sizeof(rules) / sizeof(rules[0])
};

static void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

static tsr_tokenizer *tokenizer_of(const uint8_t *bytes, size_t n_bytes)
{
    tsr_tokenizer *tok = NULL;
    tsr_gguf *gguf;

    if (tsr_gguf_open_bytes(&gguf, bytes, n_bytes) == TSR_OK) {
        if (tsr_tokenizer_create(&tok, gguf) != TSR_OK) {
            tok = NULL;
        }
        tsr_gguf_close(gguf);
    }
    return tok;
}

static tsr_tokenizer *toy(int rule)
{
    static tsr_tokenizer *made[N_RULES];

    if (made[rule] == NULL) {
        static const char *const merges[] = {"a a",   "b c",        "a bc",
                                             "aa aa", "\xc4\xa0 a", "\xc3\x83 \xc2\xa9"};
        static const toy_token extra[] = {{"<|a|>", 3}, {"<|", 3}, {"   ", 4}, {"word", 1}};
        gguf_writer w;
        size_t n_bytes;
        const uint8_t *bytes;

        gguf_writer_init(&w);
        toy_vocab_write(
            &w,
            &(toy_vocab){
                .pre = rules[rule], .n_merges = 6, .merges = merges, .n_extra = 4, .extra = extra});
        bytes = gguf_writer_finish(&w, &n_bytes);
        made[rule] = tokenizer_of(bytes, n_bytes);
        gguf_writer_clear(&w);
        must(made[rule] != NULL);
    }
    return made[rule];
}

static void there_and_back(const tsr_tokenizer *tok, const char *text, size_t n_bytes,
                           bool match_special, bool same)
{
    tsr_ids ids = {0};
    tsr_text back = {0};

    must(tsr_tokenizer_encode(tok, &ids, text, n_bytes, match_special) == TSR_OK);
    for (int64_t i = 0; i < ids.n_ids; i++) {
        must(tsr_tokenizer_decode(tok, NULL, &back, ids.ids[i], true) == TSR_OK);
        must(tsr_tokenizer_whole_utf8(back.bytes, back.n_bytes) <= back.n_bytes);
    }
    must(!same ||
         (back.n_bytes == n_bytes && (n_bytes == 0 || memcmp(back.bytes, text, n_bytes) == 0)));
    tsr_text_clear(&back);
    tsr_ids_clear(&ids);
}

/* Whatever it makes of a text, it must be tokens that it can write: all at once as one by one. */
static void try_json(const tsr_tokenizer *tok)
{
    static const char text[] = " Hello 123 <x>ab\xc3\xa9\xcc\x81\xff  it's\xe2\x96\x81z";
    tsr_token_stream stream = {0};
    tsr_text back = {0};
    tsr_ids ids = {0};

    if (tsr_tokenizer_encode(tok, &ids, text, sizeof(text) - 1, true) == TSR_OK) {
        for (int64_t i = 0; i < ids.n_ids; i++) {
            must(tsr_tokenizer_decode(tok, &stream, &back, ids.ids[i], i % 2 == 0) == TSR_OK);
        }
    }
    ids.n_ids = 0;
    (void)!tsr_tokenizer_encode(tok, &ids, text, sizeof(text) - 1, false);
    tsr_text_clear(&back);
    tsr_ids_clear(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    tsr_log_set_level(TSR_LOG_ERROR);
    if (n_bytes >= 4 && memcmp(bytes, "GGUF", 4) == 0) {
        static const char text[] = "Hello 123 <|im_end|>\xc3\xa9\xff  it's";
        tsr_tokenizer *tok = tokenizer_of(bytes, n_bytes);

        if (tok != NULL) {
            there_and_back(tok, text, sizeof(text) - 1, true, false);
        }
        tsr_tokenizer_destroy(tok);
    } else if (n_bytes > 0 && bytes[0] == '{') {
        tsr_tokenizer *tok = NULL;

        if (tsr_tokenizer_open_json(&tok, (const char *)bytes, n_bytes, NULL, 0) == TSR_OK) {
            try_json(tok);
        }
        tsr_tokenizer_destroy(tok);
    } else if (n_bytes > 0) {
        there_and_back(toy(bytes[0] % N_RULES), (const char *)bytes + 1, n_bytes - 1,
                       (bytes[0] & 0x40) != 0, true);
    }
    return 0;
}
