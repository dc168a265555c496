/*
 * tests/support/oracle.h - what a model file's logits are, worked out slowly and plainly.
 *
 * Everything is double precision from the moment a weight is decoded: no blocks, no batch, no
 * ranks, none of the kernels. It shares with Tessera only the reading of the file (engine/gguf.h)
 * and the decoding of weights (kernels/encoding.h), which have tests of their own.
 *
 * Knows llama and qwen2: RMSNorm, rotary positions by neighbouring pairs (llama) or by halves
 * (others), scaled by nothing, linearly, by YaRN or by a tensor of factors; query heads sharing KV
 * heads in any way; biases wherever the file has them; SwiGLU; a head of its own or the embedding.
 *
 * An oracle remembers what it was fed, as a cache does. Weights are decoded a row at a time, so
 * that a model takes no more memory than its file; about a second per token for 135 million
 * parameters, less per token when many come at once.
 *
 * Whatever goes wrong fails the running test; memory comes from the C library.
 */
#ifndef TSR_TESTS_SUPPORT_ORACLE_H
#define TSR_TESTS_SUPPORT_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct oracle oracle;

/* How keys (after rotation) and values are rounded when they are remembered. */
typedef enum oracle_kv {
    ORACLE_KV_EXACT,
    ORACLE_KV_F16,
    ORACLE_KV_BF16
} oracle_kv;

oracle *oracle_open(const char *path);
void oracle_close(oracle *o); /* NULL is fine */

/*
 * Predict an approximation instead: int8_activations rounds the input of every product with a
 * quantised matrix to int8 in groups of 32 (scale = largest size / 127, ties to even), the head
 * included. Forgets what was fed.
 */
void oracle_approximate(oracle *o, bool int8_activations, oracle_kv kv);

int oracle_n_vocab(const oracle *o);

void oracle_forget(oracle *o);

/* Feed n ids behind those fed so far; logits [n_wanted][n_vocab] of the last n_wanted of them. */
void oracle_feed(oracle *o, const int32_t *ids, int n, int n_wanted, double *logits);

/* The same from an empty memory. n_wanted = n: of every position; 1: of the last. */
void oracle_logits(oracle *o, const int32_t *ids, int n, int n_wanted, double *logits);

/* The hidden states of n ids from an empty memory, behind the last norm: hidden [n][dim]. */
int oracle_dim(const oracle *o);
void oracle_hidden(oracle *o, const int32_t *ids, int n, double *hidden);

/* The best continuation, n_new ids (end tokens are ids like others); margins [n_new] (or NULL):
 * how far the best logit stood above the second. */
void oracle_greedy(oracle *o, const int32_t *prompt, int n_prompt, int n_new, int32_t *ids,
                   double *margins);

/* The best of a row of logits, the lowest id among equals, and its distance to the second (margin
 * may be NULL). */
int32_t oracle_best(const double *logits, int n_vocab, double *margin);

/* log(sum(exp(logits))): log p(id) = logits[id] - this. */
double oracle_log_mass(const double *logits, int n_vocab);

#endif
