#include <string.h>

#include "base/alloc.h"
#include "engine/text/code_point.h"
#include "engine/text/json_field.h"
#include "engine/text/pretokenizer_step.h"

static const char OF[] = "pre-tokenizer";

static tsr_status read_behavior(tsr_cut_behavior *out, const json_t *json)
{
    static const char *const names[] = {"Isolated", "Removed", "Contiguous", "MergedWithPrevious",
                                        "MergedWithNext"};
    tsr_text_view name = {0};

    TSR_TRY(tsr_json_field_text(&name, json, "behavior", OF));
    for (int i = 0; name.bytes != NULL && i < TSR_CUT_BEHAVIOR_COUNT; i++) {
        if (tsr_json_field_is(name, names[i])) {
            *out = (tsr_cut_behavior)i;
            return TSR_OK;
        }
    }
    return name.bytes == NULL
               ? TSR_OK
               : tsr_fail(TSR_ERR_UNSUPPORTED,
                          "tokenizer.json: the behavior \"%.40s\" of a pre-tokenizer is not known",
                          name.bytes);
}

static tsr_status add_kind(tsr_pretokenizer *pre, tsr_finder_kind *kind, tsr_cut_behavior behavior)
{
    tsr_cut_step *step;

    TSR_TRY(tsr_pretokenizer_add(pre, &step));
    step->finder.kind = kind;
    step->behavior = behavior;
    return TSR_OK;
}

static tsr_status add_pattern(tsr_pretokenizer *pre, const char *pattern, bool invert,
                              tsr_cut_behavior behavior)
{
    tsr_cut_step *step;

    TSR_TRY(tsr_pretokenizer_add(pre, &step));
    step->behavior = behavior;
    step->invert = invert;
    return tsr_finder_create(&step->finder, (tsr_text_view){pattern, strlen(pattern)}, true);
}

static tsr_status add_rewriting(tsr_pretokenizer *pre, tsr_cut_kind kind)
{
    tsr_cut_step *step;

    TSR_TRY(tsr_pretokenizer_add(pre, &step));
    step->kind = kind;
    return TSR_OK;
}

static tsr_status read_byte_level(tsr_pretokenizer *pre, const json_t *json)
{
    bool adds_space = true;
    bool uses_regex = true;

    TSR_TRY(tsr_json_field_bool(&adds_space, json, "add_prefix_space", OF));
    TSR_TRY(tsr_json_field_bool(&uses_regex, json, "use_regex", OF));
    if (adds_space) {
        TSR_TRY(add_rewriting(pre, TSR_CUT_KIND_SPACE));
    }
    if (uses_regex) {
        TSR_TRY(add_pattern(pre, tsr_pretokenizer_gpt2, false, TSR_CUT_BEHAVIOR_ISOLATED));
    }
    return add_rewriting(pre, TSR_CUT_KIND_LETTERS);
}

static tsr_status read_split(tsr_pretokenizer *pre, const json_t *json)
{
    tsr_text_view pattern;
    tsr_cut_step *step;
    bool is_regex;

    TSR_TRY(tsr_pretokenizer_add(pre, &step));
    TSR_TRY(tsr_json_field_pattern(&pattern, &is_regex, json, OF));
    TSR_TRY(read_behavior(&step->behavior, json));
    TSR_TRY(tsr_json_field_bool(&step->invert, json, "invert", OF));
    return tsr_finder_create(&step->finder, pattern, is_regex);
}

static tsr_status read_prepend(tsr_cut_prepend *out, const json_t *json)
{
    tsr_text_view scheme = {0};
    bool adds_space = true;

    TSR_TRY(tsr_json_field_bool(&adds_space, json, "add_prefix_space", OF)); // the older form
    *out = adds_space ? TSR_CUT_PREPEND_ALWAYS : TSR_CUT_PREPEND_NEVER;
    TSR_TRY(tsr_json_field_text(&scheme, json, "prepend_scheme", OF));
    if (scheme.bytes == NULL) {
        return TSR_OK;
    }
    if (tsr_json_field_is(scheme, "always")) {
        *out = TSR_CUT_PREPEND_ALWAYS;
    } else if (tsr_json_field_is(scheme, "first")) {
        *out = TSR_CUT_PREPEND_FIRST;
    } else if (tsr_json_field_is(scheme, "never")) {
        *out = TSR_CUT_PREPEND_NEVER;
    } else {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "tokenizer.json: the prepend_scheme \"%.40s\" is not known", scheme.bytes);
    }
    return TSR_OK;
}

static tsr_status read_metaspace(tsr_pretokenizer *pre, const json_t *json)
{
    uint32_t sign = 0x2581;
    bool splits = true;
    tsr_cut_step *step;
    tsr_text_view text;

    TSR_TRY(tsr_pretokenizer_add(pre, &step));
    step->kind = TSR_CUT_KIND_SPACE_SIGN;
    TSR_TRY(tsr_json_field_char(&sign, json, "replacement", OF));
    TSR_TRY(tsr_json_field_bool(&splits, json, "split", OF));
    TSR_TRY(read_prepend(&step->prepend, json));
    step->sign_bytes = (size_t)tsr_code_point_write(step->sign, sign);
    text = (tsr_text_view){step->sign, step->sign_bytes};
    if (!splits) {
        return TSR_OK;
    }
    TSR_TRY(tsr_pretokenizer_add(pre, &step));
    step->behavior = TSR_CUT_BEHAVIOR_NEXT;
    return tsr_finder_create(&step->finder, text, false);
}

static tsr_status read_digits(tsr_pretokenizer *pre, const json_t *json)
{
    bool individual = false;

    TSR_TRY(tsr_json_field_bool(&individual, json, "individual_digits", OF));
    return add_kind(pre, tsr_code_point_is_number,
                    individual ? TSR_CUT_BEHAVIOR_ISOLATED : TSR_CUT_BEHAVIOR_CONTIGUOUS);
}

static tsr_status read_punctuation(tsr_pretokenizer *pre, const json_t *json)
{
    tsr_cut_behavior behavior = TSR_CUT_BEHAVIOR_ISOLATED;

    TSR_TRY(read_behavior(&behavior, json));
    return add_kind(pre, tsr_code_point_is_punctuation, behavior);
}

static tsr_status read_bert(tsr_pretokenizer *pre, const json_t *json)
{
    (void)json;
    TSR_TRY(add_kind(pre, tsr_code_point_is_space, TSR_CUT_BEHAVIOR_REMOVED));
    return add_kind(pre, tsr_code_point_is_punctuation, TSR_CUT_BEHAVIOR_ISOLATED);
}

static tsr_status read_whitespace(tsr_pretokenizer *pre, const json_t *json)
{
    (void)json;
    return add_pattern(pre, "[\\w\\x{200C}\\x{200D}]+|[^\\w\\x{200C}\\x{200D}\\s]+", true,
                       TSR_CUT_BEHAVIOR_REMOVED);
}

static tsr_status read_whitespace_split(tsr_pretokenizer *pre, const json_t *json)
{
    (void)json;
    return add_kind(pre, tsr_code_point_is_space, TSR_CUT_BEHAVIOR_REMOVED);
}

static tsr_status read_delimiter(tsr_pretokenizer *pre, const json_t *json)
{
    uint32_t delimiter = 0;
    tsr_cut_step *step;
    char text[4];

    TSR_TRY(tsr_json_field_char(&delimiter, json, "delimiter", OF));
    TSR_TRY(tsr_pretokenizer_add(pre, &step));
    step->behavior = TSR_CUT_BEHAVIOR_REMOVED;
    return tsr_finder_create(
        &step->finder, (tsr_text_view){text, (size_t)tsr_code_point_write(text, delimiter)}, false);
}

static tsr_status read_length(tsr_pretokenizer *pre, const json_t *json)
{
    tsr_cut_step *step;

    TSR_TRY(tsr_pretokenizer_add(pre, &step));
    step->kind = TSR_CUT_KIND_LENGTH;
    step->length = 5;
    TSR_TRY(tsr_json_field_int(&step->length, json, "length", OF));
    return step->length > 0 ? TSR_OK
                            : tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: pieces of %lld characters",
                                       (long long)step->length);
}

static tsr_status read_any(tsr_pretokenizer *pre, const json_t *json, int depth);

static tsr_status read_sequence(tsr_pretokenizer *pre, const json_t *json, int depth)
{
    const json_t *list;
    const json_t *inner;
    size_t i;

    TSR_TRY(tsr_json_field_list(&list, json, "pretokenizers", OF));
    json_array_foreach(list, i, inner)
    {
        TSR_TRY(read_any(pre, inner, depth + 1));
    }
    return TSR_OK;
}

static tsr_status read_any(tsr_pretokenizer *pre, const json_t *json, int depth)
{
    static const struct {
        const char *type;
        tsr_status (*read)(tsr_pretokenizer *pre, const json_t *json);
    } kinds[] = {
        {"ByteLevel", read_byte_level},         {"Split", read_split},
        {"Metaspace", read_metaspace},          {"Digits", read_digits},
        {"Punctuation", read_punctuation},      {"BertPreTokenizer", read_bert},
        {"Whitespace", read_whitespace},        {"WhitespaceSplit", read_whitespace_split},
        {"CharDelimiterSplit", read_delimiter}, {"FixedLength", read_length},
    };
    const tsr_text_view type = tsr_json_field_type(json);

    if (tsr_json_field_is(type, "Sequence") && depth < TSR_PRETOKENIZER_MOST_STEPS) {
        return read_sequence(pre, json, depth);
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (tsr_json_field_is(type, kinds[i].type)) {
            return kinds[i].read(pre, json);
        }
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED,
                    "tokenizer.json: a pre-tokenizer \"%.40s\"; known are ByteLevel, Split, "
                    "Metaspace, Digits, Punctuation, BertPreTokenizer, Whitespace, "
                    "WhitespaceSplit, CharDelimiterSplit, FixedLength and Sequence",
                    type.bytes);
}

tsr_status tsr_pretokenizer_create_json(tsr_pretokenizer **out, const json_t *json)
{
    tsr_pretokenizer *pre = tsr_alloc(1, sizeof(*pre));
    tsr_status st = TSR_OK;

    if (pre == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "pre-tokenizer record");
    }
    if (json != NULL && !json_is_null(json)) {
        st = read_any(pre, json, 0);
    }
    if (st != TSR_OK) {
        tsr_pretokenizer_destroy(pre);
        return st;
    }
    *out = pre;
    return TSR_OK;
}
