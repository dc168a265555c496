#include "engine/packing.h"

#include <string.h>

static const char LABEL[] = "quantization_config of config.json";

static tsr_status read_gptq(tsr_packing *how, const tsr_hf_keys *keys)
{
    const char *form = "gptq";
    int64_t bits = -1;
    int64_t group = -1;

    TSR_TRY(tsr_hf_int(keys, "bits", &bits));
    TSR_TRY(tsr_hf_int(keys, "group_size", &group));
    TSR_TRY(tsr_hf_text(keys, "checkpoint_format", &form));
    if (bits != 4 && bits != 8) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: GPTQ with %lld bits; 4 and 8 are read", LABEL,
                        (long long)bits);
    }
    if (strcmp(form, "gptq") != 0 && strcmp(form, "gptq_v2") != 0) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "%s: the checkpoint_format \"%.40s\" is not known; gptq and gptq_v2 are",
                        LABEL, form);
    }
    *how = (tsr_packing){.kind = TSR_PACKING_GPTQ,
                         .bits = (int)bits,
                         .group = group > 0 ? group : 0,
                         .zeros_less_one = strcmp(form, "gptq") == 0};
    return TSR_OK;
}

static tsr_status read_awq(tsr_packing *how, const tsr_hf_keys *keys)
{
    const char *form = "gemm";
    int64_t bits = 4;
    int64_t group = -1;

    TSR_TRY(tsr_hf_int(keys, "bits|w_bit", &bits));
    TSR_TRY(tsr_hf_int(keys, "group_size|q_group_size", &group));
    TSR_TRY(tsr_hf_text(keys, "version", &form));
    if (bits != 4 || (strcmp(form, "gemm") != 0 && strcmp(form, "GEMM") != 0)) {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "%s: AWQ with %lld bits in the form \"%.40s\"; 4 bits and gemm are read",
                        LABEL, (long long)bits, form);
    }
    *how = (tsr_packing){.kind = TSR_PACKING_AWQ, .bits = 4, .group = group > 0 ? group : 0};
    return TSR_OK;
}

static tsr_status read_fp8(tsr_packing *how, const tsr_hf_keys *keys)
{
    const char *form = "e4m3";
    const json_t *block = NULL;

    TSR_TRY(tsr_hf_text(keys, "fmt", &form));
    TSR_TRY(tsr_hf_list(keys, "weight_block_size", &block));
    if (strncmp(form, "e4m3", 4) != 0) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: fp8 of the form \"%.40s\"; e4m3 is read", LABEL,
                        form);
    }
    *how = (tsr_packing){.kind = TSR_PACKING_FP8, .bits = 8};
    if (block != NULL) {
        how->block_rows = json_integer_value(json_array_get(block, 0));
        how->block_cols = json_integer_value(json_array_get(block, 1));
        if (json_array_size(block) != 2 || how->block_rows < 1 || how->block_cols < 1) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: weight_block_size must be two sizes", LABEL);
        }
    }
    return TSR_OK;
}

static tsr_status read_mxfp4(tsr_packing *how, const tsr_hf_keys *keys)
{
    (void)keys; // the format leaves nothing open; what is not packed is found as it is
    *how = (tsr_packing){.kind = TSR_PACKING_MXFP4, .bits = 4, .group = 32};
    return TSR_OK;
}

/* The one group of weights that there may be. */
static tsr_status find_scheme(const tsr_hf_keys *keys, const json_t **weights)
{
    const json_t *groups = NULL;
    const char *name;
    json_t *group;
    size_t n = 0;

    TSR_TRY(tsr_hf_object(keys, "config_groups", &groups));
    json_object_foreach((json_t *)(uintptr_t)groups, name, group)
    {
        *weights = json_object_get(group, "weights");
        n++;
    }
    if (n != 1 || !json_is_object(*weights)) {
        return tsr_fail(TSR_ERR_UNSUPPORTED, "%s: %zu config_groups; one with weights is read",
                        LABEL, n);
    }
    return TSR_OK;
}

static tsr_status read_compressed(tsr_packing *how, const tsr_hf_keys *keys)
{
    tsr_hf_keys scheme = {NULL, LABEL};
    const char *form = "";
    const char *type = "int";
    const char *strategy = "";
    int64_t bits = -1;
    int64_t group = 0;

    TSR_TRY(tsr_hf_text(keys, "format", &form));
    TSR_TRY(find_scheme(keys, &scheme.object));
    TSR_TRY(tsr_hf_text(&scheme, "type", &type));
    TSR_TRY(tsr_hf_text(&scheme, "strategy", &strategy));
    TSR_TRY(tsr_hf_int(&scheme, "num_bits", &bits));
    TSR_TRY(tsr_hf_int(&scheme, "group_size", &group));
    *how = (tsr_packing){.bits = (int)bits, .group = group > 0 ? group : 0};
    if (strcmp(strategy, "block") == 0) {
        const json_t *block = json_object_get(scheme.object, "block_structure");

        how->block_rows = json_integer_value(json_array_get(block, 0));
        how->block_cols = json_integer_value(json_array_get(block, 1));
        if (how->block_rows < 1 || how->block_cols < 1) {
            return tsr_fail(TSR_ERR_FORMAT, "%s: block_structure must be two sizes", LABEL);
        }
    }
    if (strcmp(type, "float") == 0 && bits == 8) {
        how->kind = TSR_PACKING_FP8;
    } else if (strcmp(type, "int") == 0 && strcmp(form, "pack-quantized") == 0 &&
               (bits == 4 || bits == 8)) {
        how->kind = TSR_PACKING_WORDS;
    } else if (strcmp(type, "int") == 0 && bits == 8) {
        how->kind = TSR_PACKING_BYTES;
    } else {
        return tsr_fail(TSR_ERR_UNSUPPORTED,
                        "%s: weights of type %.20s with %lld bits in the format \"%.40s\" are not "
                        "read",
                        LABEL, type, (long long)bits, form);
    }
    return TSR_OK;
}

tsr_status tsr_packing_read(tsr_packing *out, const tsr_hf_keys *config)
{
    static const struct {
        const char *name;
        tsr_status (*read)(tsr_packing *how, const tsr_hf_keys *keys);
    } methods[] = {
        {"gptq", read_gptq},   {"awq", read_awq},
        {"fp8", read_fp8},     {"compressed-tensors", read_compressed},
        {"mxfp4", read_mxfp4},
    };
    tsr_hf_keys keys = {NULL, LABEL};
    const char *method = NULL;

    *out = (tsr_packing){.kind = TSR_PACKING_NONE};
    TSR_TRY(tsr_hf_object(config, "quantization_config", &keys.object));
    if (keys.object == NULL) {
        return TSR_OK;
    }
    TSR_TRY(tsr_hf_text(&keys, "quant_method", &method));
    for (size_t i = 0; method != NULL && i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(methods[i].name, method) == 0) {
            return methods[i].read(out, &keys);
        }
    }
    return tsr_fail(TSR_ERR_UNSUPPORTED,
                    "%s: quant_method \"%.40s\" is not known; gptq, awq, fp8, "
                    "compressed-tensors and mxfp4 are",
                    LABEL, method == NULL ? "" : method);
}

const char *tsr_packing_name(const tsr_packing *packing)
{
    static const char *const names[TSR_PACKING_KIND_COUNT][2] = {
        [TSR_PACKING_NONE] = {"others", "others"}, [TSR_PACKING_GPTQ] = {"GPTQ4", "GPTQ8"},
        [TSR_PACKING_AWQ] = {"AWQ4", "AWQ8"},      [TSR_PACKING_FP8] = {"E4M3", "E4M3"},
        [TSR_PACKING_WORDS] = {"INT4", "INT8"},    [TSR_PACKING_BYTES] = {"INT8", "INT8"},
        [TSR_PACKING_MXFP4] = {"MXFP4", "MXFP4"},
    };

    return names[packing->kind][packing->bits == 8 ? 1 : 0];
}
