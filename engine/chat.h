/*
 * engine/chat.h - a conversation as the text a model was trained on.
 *
 * Two forms are known, recognised from the model's own template text: ChatML
 * (<|im_start|>role\n...<|im_end|>\n) and Llama-3
 * (<|start_header_id|>role<|end_header_id|>\n\n...<|eot_id|>). Any other template is refused in
 * words.
 *
 * The template is not executed but read for what differs within a form: the default system message,
 * the dates that Llama 3.1 and later put before every conversation, whether contents are trimmed,
 * how an answer is opened. Where a template looks at the calendar, its own fixed date is taken: a
 * prompt is the same every day.
 *
 * BOS is not part of the text: whoever encodes it puts the BOS token before it where the model
 * wants one.
 */
#ifndef TSR_ENGINE_CHAT_H
#define TSR_ENGINE_CHAT_H

#include "base/text.h"
#include "engine/tessera.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Append the conversation and the opening of the assistant's answer. When the template itself puts
 * a default system message before a conversation that has none, so does this.
 *
 *   template_text  the model's own (tokenizer.chat_template)
 *   contents       [n_messages] where in `out` each message's content came to stand, which is not
 *                  the template's words but somebody's; may be NULL
 *
 * Errors: UNSUPPORTED (another form; the message quotes its
 * beginning), ARG (unknown role), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_chat_render(tsr_text *out, tsr_text_run *contents,
                                          const char *template_text, size_t template_bytes,
                                          const tsr_chat_message *messages, int n_messages);

/* "ChatML", "Llama 3", "unknown" or, for an empty template, "none". */
const char *tsr_chat_form_name(const char *template_text, size_t template_bytes);

#ifdef __cplusplus
}
#endif

#endif
