/*
 * engine/chat.h - a conversation as the text a model was trained on: its own template
 * (engine/chat_template.h), carried out.
 *
 * A prompt is the same every day: a template that has a date of its own for days that it cannot be
 * told takes that one. What day it is can be given to such a template as one of its values.
 */
#ifndef TSR_ENGINE_CHAT_H
#define TSR_ENGINE_CHAT_H

#include "engine/chat_template.h"
#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Append the conversation and the opening of the assistant's answer.
 *
 *   said    what is not the template's words but somebody's; may be NULL
 *   tokens  NULL: all are empty
 *
 * Errors: ARG (no message, an unknown role, the template refuses), UNSUPPORTED (there is no
 * template), FORMAT (it is not sound, or fails), NOMEM; *out is then as it was.
 */
TSR_MUST_CHECK tsr_status tsr_chat_render(tsr_text *out, tsr_chat_template_said *said,
                                          const char *template_text, size_t template_bytes,
                                          const tsr_chat_template_tokens *tokens,
                                          const tsr_chat_message *messages, int n_messages);

/* The same of a request in JSON: an object with messages, tools and whatever else the template may
 * name. Errors: as above; ARG also when it is no such object. */
TSR_MUST_CHECK tsr_status tsr_chat_render_json(tsr_text *out, tsr_chat_template_said *said,
                                               const char *template_text, size_t template_bytes,
                                               const tsr_chat_template_tokens *tokens,
                                               const char *json, size_t json_bytes);

/* What a template seems to write, for a person to read: "ChatML", "Llama 3", "other" or, for an
 * empty template, "none". */
const char *tsr_chat_form_name(const char *template_text, size_t template_bytes);

#ifdef __cplusplus
}
#endif

#endif
