#include "base/alloc.h"
#include "engine/text/code_point.h"
#include "engine/text/json_field.h"
#include "engine/text/token_decoder_step.h"

static const char OF[] = "decoder";

static tsr_status add_plain(tsr_token_decoder *decoder, tsr_decode_kind kind)
{
    tsr_decode_step *step = NULL;

    return tsr_token_decoder_add(decoder, &step, kind);
}

static tsr_status read_byte_level(tsr_token_decoder *decoder, const json_t *json)
{
    (void)json;
    return add_plain(decoder, TSR_DECODE_KIND_BYTES);
}

static tsr_status read_fallback(tsr_token_decoder *decoder, const json_t *json)
{
    (void)json;
    return add_plain(decoder, TSR_DECODE_KIND_FALLBACK);
}

static tsr_status read_fuse(tsr_token_decoder *decoder, const json_t *json)
{
    (void)json;
    decoder->fused = true;
    return TSR_OK;
}

static tsr_status read_replace(tsr_token_decoder *decoder, const json_t *json)
{
    tsr_text_view content = {"", 0};
    tsr_text_view pattern;
    tsr_decode_step *step = NULL;
    bool is_regex;

    TSR_TRY(tsr_token_decoder_add(decoder, &step, TSR_DECODE_KIND_REPLACE));
    TSR_TRY(tsr_json_field_pattern(&pattern, &is_regex, json, OF));
    TSR_TRY(tsr_json_field_text(&content, json, "content", OF));
    TSR_TRY(tsr_decode_step_content(step, content));
    return tsr_finder_create(&step->finder, pattern, is_regex);
}

static tsr_status set_char(tsr_decode_step *step, uint32_t code_point)
{
    char text[4];
    const int n = tsr_code_point_write(text, code_point);

    return tsr_decode_step_content(step, (tsr_text_view){text, (size_t)n});
}

static tsr_status read_metaspace(tsr_token_decoder *decoder, const json_t *json)
{
    uint32_t sign = 0x2581;
    tsr_text_view scheme = {"", 0};
    bool adds_space = true;
    tsr_decode_step *step = NULL;

    TSR_TRY(tsr_token_decoder_add(decoder, &step, TSR_DECODE_KIND_SIGN));
    TSR_TRY(tsr_json_field_char(&sign, json, "replacement", OF));
    TSR_TRY(tsr_json_field_bool(&adds_space, json, "add_prefix_space", OF)); // the older form
    TSR_TRY(tsr_json_field_text(&scheme, json, "prepend_scheme", OF));
    step->drops_first = scheme.n_bytes > 0 ? !tsr_json_field_is(scheme, "never") : adds_space;
    return set_char(step, sign);
}

static tsr_status read_strip(tsr_token_decoder *decoder, const json_t *json)
{
    uint32_t content = ' ';
    int64_t start = 0;
    int64_t stop = 0;
    tsr_decode_step *step = &decoder->whole;

    TSR_TRY(tsr_json_field_char(&content, json, "content", OF));
    TSR_TRY(tsr_json_field_int(&start, json, "start", OF));
    TSR_TRY(tsr_json_field_int(&stop, json, "stop", OF));
    if (start < 0 || stop < 0 || start > INT16_MAX || stop > INT16_MAX) {
        return tsr_fail(TSR_ERR_FORMAT, "tokenizer.json: a decoder strips %lld and %lld characters",
                        (long long)start, (long long)stop);
    }
    if (!decoder->fused) {
        TSR_TRY(tsr_token_decoder_add(decoder, &step, TSR_DECODE_KIND_STRIP));
    } else if (step->content != NULL) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "tokenizer.json: a decoder strips the whole text twice");
    }
    step->n_start = (int)start;
    step->n_stop = (int)stop;
    return set_char(step, content);
}

static tsr_status read_bpe(tsr_token_decoder *decoder, const json_t *json)
{
    tsr_text_view suffix = {"</w>", 4};
    tsr_decode_step *step = NULL;

    TSR_TRY(tsr_json_field_text(&suffix, json, "suffix", OF));
    if (suffix.n_bytes == 0) {
        return TSR_OK;
    }
    tsr_free(decoder->suffix);
    decoder->suffix = tsr_alloc_text(suffix.bytes, suffix.n_bytes);
    decoder->suffix_bytes = suffix.n_bytes;
    if (decoder->suffix == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "a text of the decoder");
    }
    TSR_TRY(tsr_token_decoder_add(decoder, &step, TSR_DECODE_KIND_SUFFIX));
    return tsr_decode_step_content(step, suffix);
}

static tsr_status read_any(tsr_token_decoder *decoder, const json_t *json, int depth);

static tsr_status read_sequence(tsr_token_decoder *decoder, const json_t *json, int depth)
{
    const json_t *list;
    const json_t *inner;
    size_t i;

    TSR_TRY(tsr_json_field_list(&list, json, "decoders", OF));
    json_array_foreach(list, i, inner)
    {
        TSR_TRY(read_any(decoder, inner, depth + 1));
    }
    return TSR_OK;
}

static tsr_status read_any(tsr_token_decoder *decoder, const json_t *json, int depth)
{
    static const struct {
        const char *type;
        tsr_status (*read)(tsr_token_decoder *decoder, const json_t *json);
    } kinds[] = {
        {"ByteLevel", read_byte_level}, {"ByteFallback", read_fallback}, {"Fuse", read_fuse},
        {"Replace", read_replace},      {"Metaspace", read_metaspace},   {"Strip", read_strip},
        {"BPEDecoder", read_bpe}};
    const tsr_text_view type = tsr_json_field_type(json);

    if (tsr_json_field_is(type, "Sequence") && depth < TSR_TOKEN_DECODER_MOST_STEPS) {
        return read_sequence(decoder, json, depth);
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (tsr_json_field_is(type, kinds[i].type)) {
            return kinds[i].read(decoder, json);
        }
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED,
                    "tokenizer.json: a decoder \"%.40s\"; known are ByteLevel, ByteFallback, Fuse, "
                    "Replace, Metaspace, Strip, BPEDecoder and Sequence",
                    type.bytes);
}

tsr_status tsr_token_decoder_create_json(tsr_token_decoder **out, const tsr_vocab *vocab,
                                         const json_t *json)
{
    tsr_token_decoder *decoder = tsr_alloc(1, sizeof(*decoder));
    tsr_status st = TSR_OK;

    if (decoder == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "decoder record");
    }
    decoder->vocab = vocab;
    if (json == NULL || json_is_null(json)) {
        decoder->spaces_between = true;
    } else {
        TSR_TRY_GOTO(st, fail, read_any(decoder, json, 0));
    }
    TSR_TRY_GOTO(st, fail, tsr_token_decoder_fill(decoder));
    *out = decoder;
    return TSR_OK;

fail:
    tsr_token_decoder_destroy(decoder);
    return st;
}
