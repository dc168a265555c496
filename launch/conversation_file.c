#define _POSIX_C_SOURCE 200809L

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "base/alloc.h"
#include "base/text.h"
#include "launch/conversation.h"
#include "launch/input.h"
#include "launch/out.h"

/* ---- saving --------------------------------------------------------------------------------- */

static tsr_status append_message(tsr_text *lines, const tsr_chat_message *message)
{
    json_t *object = json_pack("{s:s, s:o}", "role", message->role, "content",
                               tsr_out_json_text(message->content, strlen(message->content)));
    const tsr_status st = tsr_out_json_append(lines, object);

    json_decref(object);
    return st == TSR_OK ? tsr_text_append(lines, "\n", 1) : st;
}

static tsr_status write_new(const char *path, const tsr_text *lines)
{
    const int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    tsr_status st;

    if (file < 0 && errno == EEXIST) {
        return tsr_fail(TSR_ERR_IO, "%s exists already; save under another name", path);
    }
    if (file < 0) {
        return tsr_fail(TSR_ERR_IO, "%s cannot be made: %s", path, strerror(errno));
    }
    st = tsr_out_to_file(file, path, lines);
    if (close(file) != 0 && st == TSR_OK) {
        st = tsr_fail(TSR_ERR_IO, "%s cannot be written: %s", path, strerror(errno));
    }
    if (st != TSR_OK) {
        (void)unlink(path); // half a conversation would look like a whole one
    }
    return st;
}

tsr_status tsr_conversation_save(const tsr_conversation *conversation, const char *path)
{
    tsr_text lines = {0};
    tsr_status st = TSR_OK;

    for (int i = 0; i < conversation->n_messages && st == TSR_OK; i++) {
        st = append_message(&lines, &conversation->messages[i]);
    }
    if (st == TSR_OK) {
        st = write_new(path, &lines);
    }
    tsr_text_clear(&lines);
    return st;
}

/* ---- loading -------------------------------------------------------------------------------- */

static const char *known_role(const char *word)
{
    static const char *const roles[] = {"system", "user", "assistant"};

    for (size_t i = 0; word != NULL && i < sizeof(roles) / sizeof(roles[0]); i++) {
        if (strcmp(roles[i], word) == 0) {
            return roles[i];
        }
    }
    return NULL;
}

static tsr_status add_line(tsr_conversation *loaded, const char *path, int line, const char *text,
                           size_t n_bytes)
{
    json_t *object = json_loadb(text, n_bytes, JSON_REJECT_DUPLICATES, NULL);
    const char *role = known_role(json_string_value(json_object_get(object, "role")));
    const json_t *content = json_object_get(object, "content");
    tsr_status st;

    if (role == NULL || !json_is_string(content)) {
        st = tsr_fail(TSR_ERR_FORMAT,
                      "line %d of %s is no message: {\"role\": \"user\", \"content\": \"...\"} or "
                      "the like is expected, with the roles system, user and assistant",
                      line, path);
    } else if (strcmp(role, "system") == 0 && loaded->n_messages > 0) {
        st = tsr_fail(TSR_ERR_FORMAT,
                      "line %d of %s is a system message, which can only be the first", line, path);
    } else {
        st = tsr_conversation_add(loaded, role, json_string_value(content),
                                  json_string_length(content));
    }
    json_decref(object);
    return st;
}

static tsr_status add_lines(tsr_conversation *loaded, const char *path, const char *text,
                            size_t n_bytes)
{
    int line = 1;

    for (size_t at = 0; at < n_bytes; line++) {
        const char *newline = memchr(text + at, '\n', n_bytes - at);
        const size_t n = newline != NULL ? (size_t)(newline - (text + at)) : n_bytes - at;

        if (n > 0) {
            TSR_TRY(add_line(loaded, path, line, text + at, n));
        }
        at += n + 1;
    }
    if (loaded->n_messages == 0) {
        return tsr_fail(TSR_ERR_FORMAT, "%s holds no messages", path);
    }
    return TSR_OK;
}

tsr_status tsr_conversation_load(tsr_conversation *conversation, const char *path)
{
    tsr_conversation loaded = {0};
    tsr_status st = TSR_OK;
    char *text;
    size_t n_bytes;

    if (strcmp(path, "-") == 0) {
        return tsr_fail(TSR_ERR_IO, "stdin is where your lines come from: load a file");
    }
    TSR_TRY(tsr_input_read(path, &text, &n_bytes));
    st = add_lines(&loaded, path, text, n_bytes);
    tsr_free(text);
    if (st != TSR_OK) {
        tsr_conversation_clear(&loaded);
        return st;
    }
    tsr_conversation_clear(conversation);
    *conversation = loaded;
    return TSR_OK;
}
