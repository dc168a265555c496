/*
 * tests/tokenizer_lines.c - a tokenizer on stdin and stdout, for tests/tokenizer_check.py.
 *
 *     tokenizer_lines <tokenizer.json> [<tokenizer_config.json>]
 *
 * A line of stdin is a JSON text; the answer is a JSON object with the ids of the text ("ids"),
 * those with what goes around it ("around"), and the text of the former, token by token ("hex").
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/tokenizer.h"

static char *read_whole(const char *path, size_t *n_bytes)
{
    FILE *from = fopen(path, "rb");
    char *bytes = malloc(1 << 26);

    *n_bytes = from != NULL && bytes != NULL ? fread(bytes, 1, 1 << 26, from) : 0;
    if (from != NULL) {
        (void)fclose(from);
    }
    return bytes;
}

static json_t *list_of(const tsr_ids *ids)
{
    json_t *list = json_array();

    for (int64_t i = 0; i < ids->n_ids; i++) {
        (void)json_array_append_new(list, json_integer(ids->ids[i]));
    }
    return list;
}

static json_t *hex_of(const tsr_tokenizer *tok, const tsr_ids *ids)
{
    tsr_token_stream stream = {0};
    tsr_text text = {0};
    tsr_text hex = {0};
    json_t *whole;

    for (int64_t i = 0; i < ids->n_ids; i++) {
        if (tsr_tokenizer_decode(tok, &stream, &text, ids->ids[i], true) != TSR_OK) {
            exit(EXIT_FAILURE);
        }
    }
    for (size_t i = 0; i < text.n_bytes; i++) {
        char two[3];

        (void)snprintf(two, sizeof(two), "%02x", (unsigned)(unsigned char)text.bytes[i]);
        if (tsr_text_append(&hex, two, 2) != TSR_OK) {
            exit(EXIT_FAILURE);
        }
    }
    whole = json_stringn(hex.bytes != NULL ? hex.bytes : "", hex.n_bytes);
    tsr_text_clear(&text);
    tsr_text_clear(&hex);
    return whole;
}

static void answer(const tsr_tokenizer *tok, const json_t *line)
{
    tsr_ids ids = {0};
    json_t *reply;

    if (tsr_tokenizer_encode(tok, &ids, json_string_value(line), json_string_length(line), true) !=
        TSR_OK) {
        reply = json_pack("{s:s}", "error", tsr_status_message());
    } else {
        json_t *around = list_of(tsr_tokenizer_before(tok));
        json_t *plain = list_of(&ids);
        json_t *after = list_of(tsr_tokenizer_after(tok));

        (void)json_array_extend(around, plain);
        (void)json_array_extend(around, after);
        json_decref(after);
        reply =
            json_pack("{s:o, s:o, s:o}", "ids", plain, "around", around, "hex", hex_of(tok, &ids));
    }
    (void)json_dumpf(reply, stdout, JSON_COMPACT);
    (void)puts("");
    json_decref(reply);
    tsr_ids_clear(&ids);
}

int main(int argc, char **argv)
{
    size_t n_json = 0;
    size_t n_config = 0;
    char *json = argc > 1 ? read_whole(argv[1], &n_json) : NULL;
    char *config = argc > 2 ? read_whole(argv[2], &n_config) : NULL;
    static char line[1 << 20];
    tsr_tokenizer *tok = NULL;

    if (json == NULL || tsr_tokenizer_open_json(&tok, json, n_json, config, n_config) != TSR_OK) {
        (void)fprintf(stderr, "%s\n", json != NULL ? tsr_status_message() : "no tokenizer.json");
        free(config);
        free(json);
        return EXIT_FAILURE;
    }
    while (fgets(line, sizeof(line), stdin) != NULL) {
        json_t *text = json_loads(line, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

        if (!json_is_string(text)) {
            (void)fprintf(stderr, "a line that is no JSON text\n");
            return EXIT_FAILURE;
        }
        answer(tok, text);
        json_decref(text);
    }
    tsr_tokenizer_destroy(tok);
    free(config);
    free(json);
    return EXIT_SUCCESS;
}
