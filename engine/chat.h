/*
 * engine/chat.h - a conversation as the text a model was trained on.
 *
 * Two forms are known, recognised from the model's own template text: ChatML
 * (<|im_start|>role\n...<|im_end|>) and Llama-3
 * (<|start_header_id|>role<|end_header_id|>\n\n...<|eot_id|>). Any other template is refused in
 * words.
 */
#ifndef TSR_ENGINE_CHAT_H
#define TSR_ENGINE_CHAT_H

#include "engine/tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_chat_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *content;
} tsr_chat_message;

/*
 * Append the conversation and the opening of the assistant's answer. When the template itself puts
 * a default system message before a conversation that has none, so does this. template_text  the
 * model's own (tokenizer.chat_template) Errors: UNSUPPORTED (another form; the message quotes its
 * beginning), ARG (unknown role), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_chat_render(tsr_text *out, const char *template_text,
                                          size_t template_bytes, const tsr_chat_message *messages,
                                          int n_messages);

/* "ChatML", "Llama 3", "unknown" or, for an empty template, "none". */
const char *tsr_chat_form_name(const char *template_text, size_t template_bytes);

#ifdef __cplusplus
}
#endif

#endif
