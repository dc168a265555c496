#include "kernels/kv_type.h"

#include <string.h>

static const struct {
    const char *name;
    int bits;
} traits[TSR_KV_TYPE_COUNT] = {
    [TSR_KV_TYPE_F32] = {"f32", 32},   [TSR_KV_TYPE_F16] = {"f16", 16},
    [TSR_KV_TYPE_BF16] = {"bf16", 16}, [TSR_KV_TYPE_FP8] = {"fp8", 8},
    [TSR_KV_TYPE_INT8] = {"int8", 8},  [TSR_KV_TYPE_INT4] = {"int4", 4},
    [TSR_KV_TYPE_INT2] = {"int2", 2},
};

int tsr_kv_type_bits(tsr_kv_type type)
{
    return traits[type].bits;
}

const char *tsr_kv_type_name(tsr_kv_type type)
{
    return traits[type].name;
}

bool tsr_kv_type_parse(tsr_kv_type *out, const char *name)
{
    for (int i = 0; i < TSR_KV_TYPE_COUNT; i++) {
        if (strcmp(name, traits[i].name) == 0) {
            *out = (tsr_kv_type)i;
            return true;
        }
    }
    return false;
}
