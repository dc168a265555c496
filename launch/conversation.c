#include "launch/conversation.h"

#include <string.h>

#include "base/alloc.h"

static bool is_role(const tsr_chat_message *message, const char *role)
{
    return strcmp(message->role, role) == 0;
}

void tsr_conversation_clear(tsr_conversation *conversation)
{
    while (conversation->n_messages > 0) {
        tsr_conversation_drop_last(conversation);
    }
    tsr_free(conversation->messages);
    *conversation = (tsr_conversation){0};
}

static tsr_status make_room(tsr_conversation *conversation)
{
    const int capacity = conversation->capacity == 0 ? 16 : 2 * conversation->capacity;
    tsr_chat_message *grown;

    if (conversation->n_messages < conversation->capacity) {
        return TSR_OK;
    }
    grown = tsr_alloc_resize(conversation->messages, (size_t)capacity, sizeof(*grown));
    if (grown == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a conversation of %d messages", capacity);
    }
    conversation->messages = grown;
    conversation->capacity = capacity;
    return TSR_OK;
}

tsr_status tsr_conversation_add(tsr_conversation *conversation, const char *role, const char *text,
                                size_t n_bytes)
{
    char *content;
    size_t used = 0;

    TSR_TRY(make_room(conversation));
    content = tsr_alloc(n_bytes + 1, 1);
    if (content == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a message of %zu bytes", n_bytes);
    }
    for (size_t i = 0; i < n_bytes; i++) {
        if (text[i] != '\0') {
            content[used++] = text[i];
        }
    }
    conversation->messages[conversation->n_messages++] =
        (tsr_chat_message){.role = role, .content = content};
    return TSR_OK;
}

void tsr_conversation_drop_last(tsr_conversation *conversation)
{
    if (conversation->n_messages > 0) {
        // Made by add(), which hands it out as what nobody may change.
        tsr_free((void *)(uintptr_t)conversation->messages[--conversation->n_messages].content);
    }
}

const char *tsr_conversation_system(const tsr_conversation *conversation)
{
    return conversation->n_messages > 0 && is_role(&conversation->messages[0], "system")
               ? conversation->messages[0].content
               : NULL;
}

tsr_status tsr_conversation_begin(tsr_conversation *conversation, const char *system)
{
    tsr_conversation fresh = {0};

    if (system != NULL) {
        tsr_status st = tsr_conversation_add(&fresh, "system", system, strlen(system));

        if (st != TSR_OK) {
            tsr_conversation_clear(&fresh);
            return st;
        }
    }
    tsr_conversation_clear(conversation);
    *conversation = fresh;
    return TSR_OK;
}

int tsr_conversation_n_turns(const tsr_conversation *conversation)
{
    int n_turns = 0;

    for (int i = 0; i < conversation->n_messages; i++) {
        n_turns += is_role(&conversation->messages[i], "user");
    }
    return n_turns;
}

/* The first message of what remains without the n oldest turns. */
static int first_without(const tsr_conversation *conversation, int n)
{
    int first = tsr_conversation_system(conversation) != NULL;
    int n_met = 0;

    if (n == 0) {
        return first;
    }
    for (first = 0; first < conversation->n_messages; first++) {
        if (is_role(&conversation->messages[first], "user") && n_met++ == n) {
            break;
        }
    }
    return first;
}

static tsr_status ids_without(const tsr_conversation *conversation, const tsr_model *model, int n,
                              int32_t **ids, int64_t *n_ids)
{
    const int first = first_without(conversation, n);
    tsr_chat_message *given = tsr_alloc((size_t)conversation->n_messages + 1, sizeof(*given));
    int n_given = 0;
    tsr_status st;

    if (given == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for a prompt of %d messages",
                        conversation->n_messages);
    }
    if (tsr_conversation_system(conversation) != NULL) {
        given[n_given++] = conversation->messages[0];
    }
    for (int i = first; i < conversation->n_messages; i++) {
        given[n_given++] = conversation->messages[i];
    }
    st = tsr_model_conversation_ids(model, given, n_given, ids, n_ids);
    tsr_free(given);
    return st;
}

tsr_status tsr_conversation_ids(tsr_conversation *conversation, const tsr_model *model,
                                int64_t most_tokens, int32_t **ids, int64_t *n_ids)
{
    const int n_turns = tsr_conversation_n_turns(conversation);
    int least = conversation->n_left_out; // what must be left out at least, as far as known
    int most = n_turns > least ? n_turns - 1 : least;
    int n = least;

    // Mostly nothing more must go. Where a lot must, as after loading, halving finds how much.
    for (;;) {
        int32_t *tried;
        int64_t n_tried;

        TSR_TRY(ids_without(conversation, model, n, &tried, &n_tried));
        if (n_tried <= most_tokens && n == least) {
            conversation->n_left_out = n;
            *ids = tried;
            *n_ids = n_tried;
            return TSR_OK;
        }
        tsr_tessera_free(tried);
        if (n_tried <= most_tokens) {
            most = n;
        } else if (n >= most) {
            return tsr_fail(TSR_ERR_FULL,
                            "that is too long: %lld tokens, where at most %lld fit, with room for "
                            "an answer",
                            (long long)n_tried, (long long)most_tokens);
        } else {
            least = n + 1;
        }
        n = least + (most - least) / 2;
    }
}
