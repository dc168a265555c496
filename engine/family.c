#include "engine/family.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

static const tsr_family *const *const hf_tables[] = {
    tsr_family_llama_table, tsr_family_classic_table, tsr_family_experts_table,
    tsr_family_share_table};
static const tsr_family *const *const gguf_tables[] = {tsr_family_gguf_table};

enum {
    N_HF_TABLES = sizeof(hf_tables) / sizeof(hf_tables[0]),
    N_GGUF_TABLES = sizeof(gguf_tables) / sizeof(gguf_tables[0])
};

static const tsr_family *find(const tsr_family *const *const *tables, int n_tables,
                              const char *name, size_t n_bytes)
{
    for (int t = 0; t < n_tables; t++) {
        for (const tsr_family *const *at = tables[t]; *at != NULL; at++) {
            if (strlen((*at)->name) == n_bytes && memcmp((*at)->name, name, n_bytes) == 0) {
                return *at;
            }
        }
    }
    return NULL;
}

const tsr_family *tsr_family_of_hf(const char *model_type, size_t n_bytes)
{
    return find(hf_tables, N_HF_TABLES, model_type, n_bytes);
}

const tsr_family *tsr_family_of_gguf(const char *architecture, size_t n_bytes)
{
    return find(gguf_tables, N_GGUF_TABLES, architecture, n_bytes);
}

void tsr_family_list(bool gguf, char *text, size_t text_bytes)
{
    const tsr_family *const *const *tables = gguf ? gguf_tables : hf_tables;
    size_t used = 0;

    text[0] = '\0';
    for (int t = 0; t < (gguf ? (int)N_GGUF_TABLES : (int)N_HF_TABLES); t++) {
        for (const tsr_family *const *at = tables[t]; *at != NULL; at++) {
            const int n =
                snprintf(text + used, text_bytes - used, "%s%s", used > 0 ? ", " : "", (*at)->name);

            if (n < 0 || (size_t)n >= text_bytes - used) {
                return;
            }
            used += (size_t)n;
        }
    }
}

tsr_status tsr_family_alibi(tsr_config *config)
{
    const int n_heads = config->shape.n_heads;
    int lower = 1;

    config->slopes = tsr_alloc((size_t)n_heads, sizeof(*config->slopes));
    if (config->slopes == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for %d slopes", n_heads);
    }
    while (lower * 2 <= n_heads) {
        lower *= 2;
    }
    for (int h = 0; h < n_heads; h++) {
        config->slopes[h] = h < lower ? (float)exp2(-8.0 * (h + 1) / lower)
                                      : (float)exp2(-4.0 * (2 * (h - lower) + 1) / lower);
    }
    return TSR_OK;
}
