#include "engine/text/postprocessor.h"

#include "engine/text/json_field.h"

enum {
    MOST_DEPTH = 16
};

static const char OF[] = "post_processor";

/* What one of them puts around a text. */
typedef struct around {
    tsr_ids before;
    tsr_ids after;
    int32_t n_tokens;
} around;

static tsr_status append_id(tsr_ids *list, const json_t *id, int32_t n_tokens)
{
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= n_tokens) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "tokenizer.json: post_processor: %lld is no id of %d tokens",
                        (long long)json_integer_value(id), n_tokens);
    }
    return tsr_ids_append(list, (int32_t)json_integer_value(id));
}

static tsr_status append_ids(tsr_ids *list, const tsr_ids *more)
{
    for (int64_t i = 0; i < more->n_ids; i++) {
        TSR_TRY(tsr_ids_append(list, more->ids[i]));
    }
    return TSR_OK;
}

/* The ids of a special token that a template names. */
static tsr_status read_special(around *a, tsr_ids *list, const json_t *json, const json_t *special)
{
    tsr_text_view name = {"", 0};
    const json_t *ids;
    const json_t *id;
    size_t i;

    TSR_TRY(tsr_json_field_text(&name, special, "id", OF));
    TSR_TRY(tsr_json_field_list(
        &ids, json_object_get(json_object_get(json, "special_tokens"), name.bytes), "ids", OF));
    if (ids == NULL) {
        return tsr_fail(TSR_ERR_FORMAT,
                        "tokenizer.json: post_processor: \"%.40s\" is not among its special_tokens",
                        name.bytes);
    }
    json_array_foreach(ids, i, id)
    {
        TSR_TRY(append_id(list, id, a->n_tokens));
    }
    return TSR_OK;
}

static tsr_status read_template(around *a, const json_t *json)
{
    const json_t *single;
    const json_t *piece;
    int n_texts = 0;
    size_t i;

    TSR_TRY(tsr_json_field_list(&single, json, "single", OF));
    json_array_foreach(single, i, piece)
    {
        const json_t *special = json_object_get(piece, "SpecialToken");

        if (special != NULL) {
            TSR_TRY(read_special(a, n_texts == 0 ? &a->before : &a->after, json, special));
        } else {
            n_texts++;
        }
    }
    return n_texts == 1
               ? TSR_OK
               : tsr_fail(
                     TSR_ERR_FORMAT,
                     "tokenizer.json: a template must have its text once, this has it %d times",
                     n_texts);
}

/* ["[CLS]", 101] */
static tsr_status read_pair(around *a, tsr_ids *list, const json_t *json, const char *key)
{
    const json_t *pair;

    TSR_TRY(tsr_json_field_list(&pair, json, key, OF));
    return append_id(list, json_array_get(pair, 1), a->n_tokens);
}

static tsr_status read_any(around *a, const json_t *json, int depth);

static tsr_status read_sequence(around *a, const json_t *json, int depth)
{
    const json_t *list;
    const json_t *inner;
    size_t i;

    TSR_TRY(tsr_json_field_list(&list, json, "processors", OF));
    json_array_foreach(list, i, inner)
    {
        around next = {.n_tokens = a->n_tokens};
        tsr_status st = read_any(&next, inner, depth + 1);

        // Each goes around what those before it have made.
        st = st == TSR_OK ? append_ids(&next.before, &a->before) : st;
        st = st == TSR_OK ? append_ids(&a->after, &next.after) : st;
        if (st == TSR_OK) {
            tsr_ids_clear(&a->before);
            a->before = next.before;
            next.before = (tsr_ids){0};
        }
        tsr_ids_clear(&next.before);
        tsr_ids_clear(&next.after);
        TSR_TRY(st);
    }
    return TSR_OK;
}

static tsr_status read_any(around *a, const json_t *json, int depth)
{
    const tsr_text_view type = tsr_json_field_type(json);

    if (tsr_json_field_is(type, "ByteLevel")) {
        return TSR_OK; // it moves offsets, which nobody asks for here
    }
    if (tsr_json_field_is(type, "TemplateProcessing")) {
        return read_template(a, json);
    }
    if (tsr_json_field_is(type, "BertProcessing") || tsr_json_field_is(type, "RobertaProcessing")) {
        TSR_TRY(read_pair(a, &a->before, json, "cls"));
        return read_pair(a, &a->after, json, "sep");
    }
    if (tsr_json_field_is(type, "Sequence") && depth < MOST_DEPTH) {
        return read_sequence(a, json, depth);
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED,
                    "tokenizer.json: a post_processor \"%.40s\"; known are TemplateProcessing, "
                    "ByteLevel, BertProcessing, RobertaProcessing and Sequence",
                    type.bytes);
}

tsr_status tsr_postprocessor_read(tsr_ids *before, tsr_ids *after, const json_t *json,
                                  int32_t n_tokens)
{
    around a = {.n_tokens = n_tokens};
    tsr_status st = TSR_OK;

    if (json != NULL && !json_is_null(json)) {
        st = read_any(&a, json, 0);
    }
    st = st == TSR_OK ? append_ids(before, &a.before) : st;
    st = st == TSR_OK ? append_ids(after, &a.after) : st;
    tsr_ids_clear(&a.before);
    tsr_ids_clear(&a.after);
    return st;
}
