/*
 * engine/family.h - a model family is data: how its tensors are called and laid out, and which
 * variants of the ops it uses. Nothing outside the family_*.c files knows a family by name.
 *
 * Two forms of file say what a model is: a Hugging Face folder (config.json) and GGUF (metadata).
 * Most keys have the same meaning in all families and are read in one place (engine/config_hf.c,
 * engine/config_gguf.c); a family adds defaults, and a function where it has keys of its own.
 */
#ifndef TSR_ENGINE_FAMILY_H
#define TSR_ENGINE_FAMILY_H

#include "engine/config.h"
#include "engine/gguf.h"
#include "engine/hf_keys.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the rows of a weight lie in the tensor of the file. D is head_dim, G the query heads a KV
 * head. A bias lies as its weight's rows do. */
typedef enum tsr_layout {
    TSR_LAYOUT_PLAIN,
    TSR_LAYOUT_QKV,         /* [Q; K; V], each whole */
    TSR_LAYOUT_QKV_BY_HEAD, /* for each KV head its G query heads, its K, its V */
    TSR_LAYOUT_GATE_UP,     /* [gate; up] */
    TSR_LAYOUT_STACK_PAIRS, /* [experts, columns, gate 0, up 0, gate 1, ...] */
    TSR_LAYOUT_TRANSPOSED,  /* [columns, rows] */
    TSR_LAYOUT_QKV_TRANSPOSED,
    TSR_LAYOUT_STACK, /* [experts, rows, columns]: a weight an expert */
    TSR_LAYOUT_STACK_TRANSPOSED,
    TSR_LAYOUT_STACK_GATE_UP, /* [experts, gate; up, columns] */
    TSR_LAYOUT_LATENT, /* for each head its part of K without rotary dimensions, then its V */
    TSR_LAYOUT_HEADS,  /* [heads, rows, columns]: a weight a head */
    TSR_LAYOUT_A_HEAD, /* [D]: a vector a head, each a tensor */
    TSR_LAYOUT_COUNT
} tsr_layout;

/*
 * One way to name a role's tensor: ".weight" and ".bias" are put behind `name`; "%l" in it is the
 * layer and "%e" the expert or the head. A name that ends in '=' is used without ".weight" (and
 * with "_bias"). A role may be listed several times: what the file has is taken, the first first.
 */
typedef struct tsr_tensor_name {
    tsr_shard_role role;
    tsr_layout layout;
    const char *name; /* NULL ends a table */
} tsr_tensor_name;

typedef enum tsr_positions {
    TSR_POSITIONS_ROPE,
    TSR_POSITIONS_LEARNED,
    TSR_POSITIONS_ALIBI,
    TSR_POSITIONS_COUNT
} tsr_positions;

/* Which layers a key `sliding_window` is about when no list of layer types is there. */
typedef enum tsr_window_rule {
    TSR_WINDOW_NONE,
    TSR_WINDOW_ALL,
    TSR_WINDOW_PATTERN, /* all but each window_period-th */
    TSR_WINDOW_SWITCH,  /* use_sliding_window says whether; layers from max_window_layers on */
    TSR_WINDOW_RULE_COUNT
} tsr_window_rule;

struct tsr_family {
    const char *name; /* model_type of config.json, or general.architecture and the prefix of
                         metadata keys */
    const tsr_tensor_name *names[3]; /* tables, searched in order; NULL: no more */
    uint64_t roles;                  /* that every model of the family has */
    uint64_t biases;

    tsr_norm_kind norm;
    bool norm_plus_one;
    double norm_eps; /* when the file does not say */
    bool parallel;
    tsr_activation activation;  /* when the file does not say */
    const char *activation_key; /* NULL: one of the usual; "": the file has no say */
    bool tied;                  /* when the file does not say */

    tsr_positions positions;
    tsr_rope_pairs rope_pairs;
    double rope_base;       /* 0: 10000, when the file does not say */
    double rope_local_base; /* of local layers, when the file does not say; 0: as the others */
    double rope_partial;    /* part of a head that turns; 0: all */
    int head_dim;           /* 0: dim / heads, when the file does not say */
    int n_heads;            /* 0: the file must say; so for n_vocab */
    int n_kv_heads;         /* 0: as many as heads, when the file does not say */
    int64_t n_vocab;
    int64_t context; /* 0: 2048, when the file does not say */
    tsr_window_rule window;
    int window_period;
    int64_t window_default; /* when the file has no such key; 0: none */

    /* Keys of its own. Called when all else is read but before layers are completed. */
    tsr_status (*read_hf)(tsr_config *config, const tsr_hf_keys *keys);
    tsr_status (*read_gguf)(tsr_config *config, const tsr_gguf *gguf);
};

/* What most families have. */
#define TSR_FAMILY_QKV \
    (TSR_ROLE_BIT(TSR_ROLE_Q) | TSR_ROLE_BIT(TSR_ROLE_K) | TSR_ROLE_BIT(TSR_ROLE_V))
#define TSR_FAMILY_UP_DOWN (TSR_ROLE_BIT(TSR_ROLE_UP) | TSR_ROLE_BIT(TSR_ROLE_DOWN))
#define TSR_FAMILY_NORMS                                                 \
    (TSR_ROLE_BIT(TSR_ROLE_ATTN_NORM) | TSR_ROLE_BIT(TSR_ROLE_FF_NORM) | \
     TSR_ROLE_BIT(TSR_ROLE_FINAL_NORM))
#define TSR_FAMILY_ATTENTION (TSR_FAMILY_QKV | TSR_ROLE_BIT(TSR_ROLE_O))
#define TSR_FAMILY_AROUND (TSR_ROLE_BIT(TSR_ROLE_EMBED) | TSR_ROLE_BIT(TSR_ROLE_FINAL_NORM))
#define TSR_FAMILY_EXPERTS                                                \
    (TSR_ROLE_BIT(TSR_ROLE_ROUTER) | TSR_ROLE_BIT(TSR_ROLE_EXPERT_GATE) | \
     TSR_ROLE_BIT(TSR_ROLE_EXPERT_UP) | TSR_ROLE_BIT(TSR_ROLE_EXPERT_DOWN))
#define TSR_FAMILY_SHARED                                                    \
    (TSR_ROLE_BIT(TSR_ROLE_SHARED_GATE) | TSR_ROLE_BIT(TSR_ROLE_SHARED_UP) | \
     TSR_ROLE_BIT(TSR_ROLE_SHARED_DOWN))
/* Embedding, attention, two norms a layer and one at the end, up and down; and a gate. */
#define TSR_FAMILY_PLAIN \
    (TSR_FAMILY_AROUND | TSR_FAMILY_ATTENTION | TSR_FAMILY_NORMS | TSR_FAMILY_UP_DOWN)
#define TSR_FAMILY_GATED (TSR_FAMILY_PLAIN | TSR_ROLE_BIT(TSR_ROLE_GATE))

/* NULL if there is none. */
const tsr_family *tsr_family_of_hf(const char *model_type, size_t n_bytes);
const tsr_family *tsr_family_of_gguf(const char *architecture, size_t n_bytes);

/* The names of all of them, "a, b and c", cut where the room ends. */
void tsr_family_list(bool gguf, char *text, size_t text_bytes);

/* ---- for families ------------------------------------------------------------------------------
 */

/* ALiBi's slopes (Press et al., arXiv 2108.12409): for n heads a power of two 2^(-8 i / n), else
 * those of the next lower power and every second of the next higher one. Errors: NOMEM. */
TSR_MUST_CHECK tsr_status tsr_family_alibi(tsr_config *config);

/* Adds or takes away bits of a mask. */
static inline void tsr_family_set(uint64_t *mask, uint64_t bits, bool on)
{
    *mask = on ? *mask | bits : *mask & ~bits;
}

extern const tsr_family *const tsr_family_llama_table[]; /* each ends with NULL */
extern const tsr_family *const tsr_family_classic_table[];
extern const tsr_family *const tsr_family_experts_table[];
extern const tsr_family *const tsr_family_share_table[];
extern const tsr_family *const tsr_family_gguf_table[];

/* Tables of names that families share. */
extern const tsr_tensor_name tsr_family_llama_names[];

#ifdef __cplusplus
}
#endif

#endif
