#include "base/alloc.h"
#include "engine/text/json_field.h"
#include "engine/text/normalizer_step.h"

static const char OF[] = "normalizer";

static tsr_status copy_content(tsr_rewrite_step *step, tsr_text_view content)
{
    step->content = tsr_alloc_text(content.bytes != NULL ? content.bytes : "", content.n_bytes);
    step->content_bytes = content.n_bytes;
    return step->content != NULL ? TSR_OK : tsr_fail(TSR_ERR_NOMEM, "a text of the normalizer");
}

static tsr_status add(tsr_normalizer *normalizer, tsr_rewrite_kind kind)
{
    tsr_rewrite_step *step;

    return tsr_normalizer_add(normalizer, &step, kind);
}

static tsr_status read_strip(tsr_normalizer *normalizer, const json_t *json)
{
    tsr_rewrite_step *step;

    TSR_TRY(tsr_normalizer_add(normalizer, &step, TSR_REWRITE_KIND_STRIP));
    step->strip_left = step->strip_right = true;
    TSR_TRY(tsr_json_field_bool(&step->strip_left, json, "strip_left", OF));
    return tsr_json_field_bool(&step->strip_right, json, "strip_right", OF);
}

static tsr_status read_replace(tsr_normalizer *normalizer, const json_t *json)
{
    tsr_text_view content = {"", 0};
    tsr_text_view pattern;
    tsr_rewrite_step *step;
    bool is_regex;

    TSR_TRY(tsr_normalizer_add(normalizer, &step, TSR_REWRITE_KIND_REPLACE));
    TSR_TRY(tsr_json_field_pattern(&pattern, &is_regex, json, OF));
    TSR_TRY(tsr_json_field_text(&content, json, "content", OF));
    TSR_TRY(copy_content(step, content));
    return tsr_finder_create(&step->finder, pattern, is_regex);
}

static tsr_status read_prepend(tsr_normalizer *normalizer, const json_t *json)
{
    tsr_text_view content = {"", 0};
    tsr_rewrite_step *step;

    TSR_TRY(tsr_normalizer_add(normalizer, &step, TSR_REWRITE_KIND_PREPEND));
    TSR_TRY(tsr_json_field_text(&content, json, "prepend", OF));
    return copy_content(step, content);
}

static tsr_status read_bert(tsr_normalizer *normalizer, const json_t *json)
{
    bool cleans = true;
    bool spaces = true;
    bool lower = true;
    bool no_accents;

    TSR_TRY(tsr_json_field_bool(&cleans, json, "clean_text", OF));
    TSR_TRY(tsr_json_field_bool(&spaces, json, "handle_chinese_chars", OF));
    TSR_TRY(tsr_json_field_bool(&lower, json, "lowercase", OF));
    no_accents = lower; // unless it says otherwise
    TSR_TRY(tsr_json_field_bool(&no_accents, json, "strip_accents", OF));
    TSR_TRY(cleans ? add(normalizer, TSR_REWRITE_KIND_CLEAN) : TSR_OK);
    TSR_TRY(spaces ? add(normalizer, TSR_REWRITE_KIND_SPACE_CHINESE) : TSR_OK);
    if (no_accents) {
        tsr_rewrite_step *step;

        TSR_TRY(tsr_normalizer_add(normalizer, &step, TSR_REWRITE_KIND_FORM));
        step->form = TSR_NORMAL_FORM_D;
        TSR_TRY(add(normalizer, TSR_REWRITE_KIND_NO_ACCENTS));
    }
    return lower ? add(normalizer, TSR_REWRITE_KIND_LOWER) : TSR_OK;
}

static tsr_status read_charsmap(tsr_normalizer *normalizer, const json_t *json)
{
    tsr_text_view base64 = {"", 0};
    tsr_rewrite_step *step;

    TSR_TRY(tsr_json_field_text(&base64, json, "precompiled_charsmap", OF));
    if (base64.n_bytes == 0) {
        return TSR_OK; // nothing to be done
    }
    TSR_TRY(tsr_normalizer_add(normalizer, &step, TSR_REWRITE_KIND_CHARSMAP));
    return tsr_charsmap_create(&step->charsmap, base64);
}

static tsr_status read_any(tsr_normalizer *normalizer, const json_t *json, int depth);

static tsr_status read_sequence(tsr_normalizer *normalizer, const json_t *json, int depth)
{
    const json_t *list;
    const json_t *inner;
    size_t i;

    TSR_TRY(tsr_json_field_list(&list, json, "normalizers", OF));
    json_array_foreach(list, i, inner)
    {
        TSR_TRY(read_any(normalizer, inner, depth + 1));
    }
    return TSR_OK;
}

static tsr_status read_any(tsr_normalizer *normalizer, const json_t *json, int depth)
{
    static const char *const forms[] = {"NFC", "NFD", "NFKC", "NFKD"};
    static const struct {
        const char *type;
        tsr_rewrite_kind kind;
    } plain[] = {{"Lowercase", TSR_REWRITE_KIND_LOWER},
                 {"StripAccents", TSR_REWRITE_KIND_NO_MARKS},
                 {"Nmt", TSR_REWRITE_KIND_NMT},
                 {"ByteLevel", TSR_REWRITE_KIND_LETTERS}};
    static const struct {
        const char *type;
        tsr_status (*read)(tsr_normalizer *normalizer, const json_t *json);
    } kinds[] = {{"Strip", read_strip},
                 {"Replace", read_replace},
                 {"Prepend", read_prepend},
                 {"BertNormalizer", read_bert},
                 {"Precompiled", read_charsmap}};
    const tsr_text_view type = tsr_json_field_type(json);

    if (tsr_json_field_is(type, "Sequence") && depth < TSR_NORMALIZER_MOST_STEPS) {
        return read_sequence(normalizer, json, depth);
    }
    for (int i = 0; i < TSR_NORMAL_FORM_COUNT; i++) {
        if (tsr_json_field_is(type, forms[i])) {
            tsr_rewrite_step *step;

            TSR_TRY(tsr_normalizer_add(normalizer, &step, TSR_REWRITE_KIND_FORM));
            step->form = (tsr_normal_form)i;
            return TSR_OK;
        }
    }
    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
        if (tsr_json_field_is(type, plain[i].type)) {
            return add(normalizer, plain[i].kind);
        }
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (tsr_json_field_is(type, kinds[i].type)) {
            return kinds[i].read(normalizer, json);
        }
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED,
                    "tokenizer.json: a normalizer \"%.40s\"; known are NFC, NFD, NFKC, NFKD, "
                    "Lowercase, StripAccents, Strip, Replace, Prepend, BertNormalizer, Nmt, "
                    "Precompiled, ByteLevel and Sequence",
                    type.bytes);
}

tsr_status tsr_normalizer_create_json(tsr_normalizer **out, const json_t *json)
{
    tsr_normalizer *normalizer;
    tsr_status st;

    if (json == NULL || json_is_null(json)) {
        *out = NULL;
        return TSR_OK;
    }
    normalizer = tsr_alloc(1, sizeof(*normalizer));
    if (normalizer == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "normalizer record");
    }
    st = read_any(normalizer, json, 0);
    if (st != TSR_OK) {
        tsr_normalizer_destroy(normalizer);
        return st;
    }
    *out = normalizer;
    return TSR_OK;
}
