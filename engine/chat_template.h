/*
 * engine/chat_template.h - a model's chat template, carried out.
 *
 * Templates are written in Jinja, to be carried out by Jinja2's ImmutableSandboxedEnvironment with
 * trim_blocks and lstrip_blocks on, loop controls, transformers' `tojson`, `raise_exception` and
 * `strftime_now`, and the `generation` block. The interpreter (engine/jinja/) does the same byte
 * for byte; what it has no use for is refused by name (other templates, random, lipsum, and the
 * filters pprint, striptags, urlize, wordwrap, xmlattr). A template can read nothing but its
 * inputs, and it ends: its steps, memory, texts, ranges, nesting and recursion have limits, each
 * with a sentence.
 *
 * Threads: a template is read-only once made.
 */
#ifndef TSR_ENGINE_CHAT_TEMPLATE_H
#define TSR_ENGINE_CHAT_TEMPLATE_H

#include <jansson.h>

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_chat_template tsr_chat_template;

/* text is not kept. Errors: FORMAT (with the line), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_chat_template_create(tsr_chat_template **out, const char *text,
                                                   size_t n_bytes);
void tsr_chat_template_destroy(tsr_chat_template *chat_template); /* NULL is fine */

/* The texts of the model's special tokens, which templates write; NULL: the model has none. */
typedef struct tsr_chat_template_tokens {
    const char *bos;
    const char *eos;
    const char *unk;
    const char *pad;
} tsr_chat_template_tokens;

/* One message whose role and content are bytes of any kind. */
typedef struct tsr_chat_template_message {
    const char *role;
    const char *content;
} tsr_chat_template_message;

typedef struct tsr_chat_template_inputs {
    const tsr_chat_template_message *messages; /* [n_messages]; NULL: they are in `values` */
    int n_messages;
    const json_t *values;       /* an object, borrowed: messages, tools, documents,
                                   add_generation_prompt and whatever else the template may name; NULL:
                                   nothing */
    bool add_generation_prompt; /* unless `values` says */
    tsr_chat_template_tokens tokens;
    bool calendar; /* the template may ask what day it is. If not, it still can, but `strftime_now
                      is defined` is false, so that one that has a date of its own takes that */
} tsr_chat_template_inputs;

/* Which bytes of a text are somebody's words and not the template's. */
typedef struct tsr_chat_template_said {
    tsr_text_run *runs; /* [n_runs] in order; owned: tsr_free() */
    int n_runs;
} tsr_chat_template_said;

/*
 * Append what the template makes of the inputs. said may be NULL. What is said is whatever came
 * from messages (but for the roles that everybody knows), tools, documents and other values, in
 * whatever way the template has cut, changed or joined it.
 * Errors: ARG (the template refuses, in its own words), FORMAT (it fails or a limit is met, with
 * the line), NOMEM; *out is then as it was.
 */
TSR_MUST_CHECK tsr_status tsr_chat_template_render(const tsr_chat_template *chat_template,
                                                   tsr_text *out, tsr_chat_template_said *said,
                                                   const tsr_chat_template_inputs *inputs);

#ifdef __cplusplus
}
#endif

#endif
