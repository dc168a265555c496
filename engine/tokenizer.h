/*
 * engine/tokenizer.h - text to token ids and back: byte-level BPE.
 *
 * The vocabulary, the merges and the name of the pre-tokenizer come from a GGUF file's metadata
 * (tokenizer.ggml.*). Text is cut into pieces by the pre-tokenizer's patterns (PCRE2 with JIT);
 * within a piece neighbours merge, lowest rank first, leftmost among equals, through a priority
 * queue: n log n. Bytes that have no token are dropped, as the reference implementations do.
 *
 * Threads: a tokenizer is read-only after create; encode and decode may run in several threads at
 * once.
 */
#ifndef TSR_ENGINE_TOKENIZER_H
#define TSR_ENGINE_TOKENIZER_H

#include "base/ids.h"
#include "base/text.h"
#include "engine/gguf.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_tokenizer tsr_tokenizer;

/*
 * gguf is borrowed only during the call.
 * Errors: FORMAT (vocabulary or merges missing or inconsistent), UNSUPPORTED (another kind of
 * tokenizer or an unknown pre-tokenizer: the message names it and what is known), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_tokenizer_create(tsr_tokenizer **out, const tsr_gguf *gguf);
void tsr_tokenizer_destroy(tsr_tokenizer *tokenizer);

int tsr_tokenizer_n_vocab(const tsr_tokenizer *tokenizer);
int32_t tsr_tokenizer_bos(const tsr_tokenizer *tokenizer); /* -1 if none */
int32_t tsr_tokenizer_eos(const tsr_tokenizer *tokenizer); /* -1 if none */
bool tsr_tokenizer_adds_bos(
    const tsr_tokenizer *tokenizer); /* does the model want BOS before a text? */

/* Does this token end a generation? eos, eot, eom of the metadata, and control tokens by their
 * usual names. */
bool tsr_tokenizer_is_end(const tsr_tokenizer *tokenizer, int32_t id);
bool tsr_tokenizer_is_special(const tsr_tokenizer *tokenizer,
                              int32_t id); /* control or user-defined */
int32_t tsr_tokenizer_find(const tsr_tokenizer *tokenizer,
                           const char *token_text); /* -1 if no such token */

/*
 * Append the ids of text (any bytes; need not be valid UTF-8). Special tokens are recognised in the
 * text only when match_special; otherwise their text is ordinary text. BOS is never added here.
 * Errors: NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_tokenizer_encode(const tsr_tokenizer *tokenizer, tsr_ids *out,
                                               const char *text, size_t n_bytes,
                                               bool match_special);

/*
 * The same, with special tokens recognised in the text but for its plain runs: none is found that
 * has a byte there. Where no run has the text of one in it, the ids are those of the whole text.
 *
 *   plain  [n_plain] in the order of the text, without overlap
 *
 * Errors: NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_tokenizer_encode_marked(const tsr_tokenizer *tokenizer, tsr_ids *out,
                                                      const char *text, size_t n_bytes,
                                                      const tsr_text_run *plain, int n_plain);

/* Append the bytes of one token; special tokens give nothing unless show_special. ARG: id out of
 * range. */
TSR_MUST_CHECK tsr_status tsr_tokenizer_decode(const tsr_tokenizer *tokenizer, tsr_text *out,
                                               int32_t id, bool show_special);

/*
 * Streaming decode: how many of the first n_bytes may be shown now. An unfinished UTF-8 character
 * at the end is held back; bytes that can never become a character are not.
 */
size_t tsr_tokenizer_whole_utf8(const char *bytes, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
