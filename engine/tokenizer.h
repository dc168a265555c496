/*
 * engine/tokenizer.h - text to token ids and back.
 *
 * One tokenizer, whatever it was made from: the metadata of a GGUF file (kinds gpt2 and llama) or a
 * tokenizer.json. It is a row of parts, each in its own file of engine/text/ and each read-only:
 *
 *     special        finds the tokens that stand for themselves, and hands on what lies between
 *     normalizer     rewrites it
 *     pretokenizer   cuts it into the pieces within which tokens may form
 *     bpe, unigram   the tokens of one piece
 *     token_decoder  and back
 *
 * What a tokenizer.json means is what the library that writes it makes of it
 * (github.com/huggingface/tokenizers, 0.22). Text need not be valid UTF-8: a byte that belongs to
 * no character stands alone, and becomes the token of its byte if there is one.
 *
 * Threads: after it is made, and its end tokens are told, a tokenizer may be used by several
 * threads at once.
 */
#ifndef TSR_ENGINE_TOKENIZER_H
#define TSR_ENGINE_TOKENIZER_H

#include "base/ids.h"
#include "base/text.h"
#include "engine/gguf.h"
#include "engine/text/token_stream.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_tokenizer tsr_tokenizer;

/*
 * From the metadata of a GGUF file (tokenizer.ggml.*), which is borrowed only during the call.
 * Errors: FORMAT (vocabulary, merges or scores missing or inconsistent), UNSUPPORTED (another kind
 * of tokenizer or an unknown pre-tokenizer: the message names it and what is known), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_tokenizer_create(tsr_tokenizer **out, const tsr_gguf *gguf);

/*
 * From the bytes of a tokenizer.json, and of the tokenizer_config.json beside it, which names BOS,
 * EOS and the padding token and may hold a chat template. Both are borrowed only during the call.
 *
 *   config_json  NULL: there is none; no token is BOS or EOS then
 *
 * Errors: FORMAT (no JSON, a field of another type, a token or id that does not fit), UNSUPPORTED
 * (a part of a kind that is not known: the message names it), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_tokenizer_open_json(tsr_tokenizer **out, const char *json,
                                                  size_t n_bytes, const char *config_json,
                                                  size_t n_config_bytes);

void tsr_tokenizer_destroy(tsr_tokenizer *tokenizer);

int tsr_tokenizer_n_vocab(const tsr_tokenizer *tokenizer);
int32_t tsr_tokenizer_bos(const tsr_tokenizer *tokenizer); /* -1 if none, as the next two */
int32_t tsr_tokenizer_eos(const tsr_tokenizer *tokenizer);
int32_t tsr_tokenizer_pad(const tsr_tokenizer *tokenizer);

/*
 * What the model wants before and after a text that it is given as a prompt: BOS, mostly, or
 * nothing. Never added by the calls below. Good until the tokenizer is destroyed.
 */
const tsr_ids *tsr_tokenizer_before(const tsr_tokenizer *tokenizer);
const tsr_ids *tsr_tokenizer_after(const tsr_tokenizer *tokenizer);
bool tsr_tokenizer_adds_bos(const tsr_tokenizer *tokenizer); /* is BOS among those before? */

/*
 * One more token ends a generation: what a generation_config.json or a caller knows beyond the
 * tokenizer's own files. Before the tokenizer is shared. Errors: ARG (id is negative), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_tokenizer_add_end(tsr_tokenizer *tokenizer, int32_t id);

/* Does this token end a generation? eos, eot, eom of the metadata, control tokens by their usual
 * names, and what was added. */
bool tsr_tokenizer_is_end(const tsr_tokenizer *tokenizer, int32_t id);
bool tsr_tokenizer_is_special(const tsr_tokenizer *tokenizer, int32_t id); /* a control token */
int32_t tsr_tokenizer_find(const tsr_tokenizer *tokenizer,
                           const char *token_text); /* -1 if no such token */

/* A token as the vocabulary writes it; empty if there is none. Good until the tokenizer is
 * destroyed. */
tsr_text_view tsr_tokenizer_text(const tsr_tokenizer *tokenizer, int32_t id);

/* The chat template of tokenizer_config.json; empty if there is none, or if the tokenizer comes
 * from a GGUF file. Good until the tokenizer is destroyed. */
tsr_text_view tsr_tokenizer_chat_template(const tsr_tokenizer *tokenizer);

/*
 * Append the ids of text (any bytes; need not be valid UTF-8). Special tokens are recognised in the
 * text only when match_special; otherwise their text is ordinary text. BOS is never added here.
 * Errors: NOMEM; UNSUPPORTED (a pattern of the tokenizer would take for ever on this text).
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
 * Errors: as above.
 */
TSR_MUST_CHECK tsr_status tsr_tokenizer_encode_marked(const tsr_tokenizer *tokenizer, tsr_ids *out,
                                                      const char *text, size_t n_bytes,
                                                      const tsr_text_run *plain, int n_plain);

/*
 * Append the bytes of one token; special tokens give nothing unless show_special. Token by token
 * gives the text of all tokens.
 *
 *   stream  NULL: the token alone, as it stands in the middle of a text
 *
 * Errors: ARG (no such id), NOMEM; the text and the stream are then as they were.
 */
TSR_MUST_CHECK tsr_status tsr_tokenizer_decode(const tsr_tokenizer *tokenizer,
                                               tsr_token_stream *stream, tsr_text *out, int32_t id,
                                               bool show_special);

/*
 * Streaming decode: how many of the first n_bytes may be shown now. An unfinished UTF-8 character
 * at the end is held back; bytes that can never become a character are not.
 */
size_t tsr_tokenizer_whole_utf8(const char *bytes, size_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
