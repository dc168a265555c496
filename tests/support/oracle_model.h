/*
 * tests/support/oracle_model.h - what an oracle knows of its file. Private to oracle*.c.
 */
#ifndef TSR_TESTS_SUPPORT_ORACLE_MODEL_H
#define TSR_TESTS_SUPPORT_ORACLE_MODEL_H

#include <stddef.h>

#include "engine/gguf.h"
#include "tests/support/oracle.h"

typedef struct matrix {
    const tsr_gguf_tensor *weight; /* [n_rows][n_columns] */
    double *bias;                  /* [n_rows] or NULL */
} matrix;

typedef struct layer {
    matrix q, k, v, output;
    matrix gate, up, down;
    double *attn_norm; /* [dim] */
    double *ffn_norm;  /* [dim] */
    double *keys;      /* [n_room][n_kv_heads][head_dim], rotated and rounded */
    double *values;    /* the same */
} layer;

struct oracle {
    tsr_gguf *file;
    char arch[32];
    int n_layers;
    int dim;
    int n_heads;
    int n_kv_heads;
    int head_dim;
    int ff;
    int n_vocab;
    double eps;
    bool halves;         /* rotary pairs are (i, i + head_dim / 2) */
    double *frequencies; /* [head_dim / 2] angle of one position */
    double rope_gain;    /* cosines and sines times this */
    layer *layers;
    const tsr_gguf_tensor *embedding;
    matrix head;
    double *output_norm; /* [dim] */
    int n_fed;           /* positions remembered */
    int n_room;
    bool int8_activations;
    oracle_kv kv;
};

/* n zeros. */
double *oracle_doubles(size_t n);

#endif
