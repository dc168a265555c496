#include "kernels/kv_drift.h"

#include <math.h>

/* One more pair. */
static void add_pair(tsr_kv_drift *drift, int first, int second, double angle)
{
    const int j = drift->n_pairs++;

    drift->first[j] = (int16_t)first;
    drift->second[j] = (int16_t)second;
    for (int i = 0; i < TSR_KV_LAYOUT_GROUP; i++) {
        drift->cosines[j][i] = (float)cos(angle * (i + 1));
        drift->sines[j][i] = (float)sin(angle * (i + 1));
    }
}

void tsr_kv_drift_init(tsr_kv_drift *drift, int key_dim, const double *frequencies, int n_rot,
                       int first, tsr_rope_pairs pairs)
{
    const int half = n_rot / 2;
    int left = -1; // waits for its second

    drift->key_dim = key_dim;
    drift->n_pairs = 0;
    for (int i = 0; i < half; i++) {
        const bool interleaved = pairs == TSR_ROPE_INTERLEAVED;

        add_pair(drift, first + (interleaved ? 2 * i : i),
                 first + (interleaved ? 2 * i + 1 : i + half), frequencies[i]);
    }
    for (int d = 0; d < key_dim; d++) {
        if (d >= first && d < first + 2 * half) {
            continue;
        }
        if (left >= 0) {
            add_pair(drift, left, d, 0);
        }
        left = left >= 0 ? -1 : d;
    }
    if (left >= 0) {
        add_pair(drift, left, -1, 0);
    }
}

void tsr_kv_drift_split(const tsr_kv_drift *drift, float *split, const float *x)
{
    for (int j = 0; j < drift->n_pairs; j++) {
        split[j] = x[drift->first[j]];
        split[drift->n_pairs + j] = drift->second[j] < 0 ? 0 : x[drift->second[j]];
    }
}

void tsr_kv_drift_join(const tsr_kv_drift *drift, float *x, const float *split)
{
    for (int j = 0; j < drift->n_pairs; j++) {
        x[drift->first[j]] = split[j];
        if (drift->second[j] >= 0) {
            x[drift->second[j]] = split[drift->n_pairs + j];
        }
    }
}

void tsr_kv_drift_turn(const tsr_kv_drift *drift, float *split, int n)
{
    float *a = split;
    float *b = split + drift->n_pairs;
    const int at = (n < 0 ? -n : n) - 1;

    for (int j = 0; j < drift->n_pairs && n != 0; j++) {
        const float c = drift->cosines[j][at];
        const float s = n < 0 ? -drift->sines[j][at] : drift->sines[j][at];
        const float x = a[j];

        a[j] = x * c - b[j] * s;
        b[j] = x * s + b[j] * c;
    }
}
