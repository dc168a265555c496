#include "engine/pace.h"

enum {
    WARM = 8,      // plain steps after which one that is out of all proportion is not believed
    OUT_OF_ALL = 4 // times what was to be expected
};

static const double STRETCH = 1.6; // of the usual time, where no other is wanted
static const double KEEP = 0.9;    // what a plain step counts for one of any kind later
static const double HOLD = 1e-3;   // how strongly the costs stay where they were
static const double GAIN_UP = 0.5; // of one step with prompts in the average: rows that cost more
static const double GAIN_DOWN = 0.25; // and less
static const double FADE = 0.95;      // of the reach, at each of them

static double at_least_0(double x)
{
    return x > 0 ? x : 0;
}

/* One step later, plain ones count for less: sequences grow and machines change meanwhile. */
static void fade(tsr_pace *pace)
{
    for (int i = 0; i < 3; i++) {
        pace->squares[i] *= KEEP;
    }
    pace->products[0] *= KEEP;
    pace->products[1] *= KEEP;
}

/* A step without prompts: the two costs that fit it and those before it best. */
static void note_plain(tsr_pace *pace, double n, double us)
{
    const double weight = 1.0 / (us * us); // so that it is the relative error that counts
    double hold, s00, s11, p0, p1, det;

    pace->squares[0] += weight;
    pace->squares[1] += weight * n;
    pace->squares[2] += weight * n * n;
    pace->products[0] += weight * us;
    pace->products[1] += weight * us * n;

    hold = HOLD * (pace->squares[0] + pace->squares[2]);
    s00 = pace->squares[0] + hold;
    s11 = pace->squares[2] + hold;
    p0 = pace->products[0] + hold * pace->base;
    p1 = pace->products[1] + hold * pace->a_sequence;
    det = s00 * s11 - pace->squares[1] * pace->squares[1];
    pace->base = at_least_0((p0 * s11 - p1 * pace->squares[1]) / det);
    pace->a_sequence = at_least_0((p1 * s00 - p0 * pace->squares[1]) / det);
    pace->n_plain += pace->n_plain < WARM ? 1 : 0;
    pace->n_mixed = 0;
}

/* A step with prompts: what a row of them took. It says the less the smaller their part in the
 * step's time is: the rest of that varies, too. */
static void note_rows(tsr_pace *pace, int n_decoding, int n_rows, double us)
{
    const double usual_us = tsr_pace_guess(pace, n_decoding, 0);
    const double row_us = at_least_0(us - usual_us) / n_rows;

    pace->n_mixed += n_decoding > 0 ? 1 : 0;
    if (pace->reach <= 0) {
        pace->a_row = row_us;
    } else {
        const bool is_more = row_us > pace->a_row;
        const double part_us = (is_more ? row_us : pace->a_row) * n_rows;
        const double telling = part_us < usual_us / 2 ? part_us / (usual_us / 2) : 1.0;

        pace->a_row += (is_more ? GAIN_UP : GAIN_DOWN) * telling * (row_us - pace->a_row);
    }
    pace->reach = FADE * pace->reach > n_rows ? FADE * pace->reach : n_rows;
}

void tsr_pace_note(tsr_pace *pace, int n_decoding, int n_prompt_rows, double us)
{
    const double most = OUT_OF_ALL * tsr_pace_guess(pace, n_decoding, n_prompt_rows);

    if (n_prompt_rows > 0 ? pace->n_plain > 0 && pace->reach > 0 : pace->n_plain >= WARM) {
        us = us < most ? us : most;
    }
    us = us > 1.0 ? us : 1.0;
    fade(pace);
    if (n_prompt_rows > 0) {
        note_rows(pace, n_decoding, n_prompt_rows, us);
    } else {
        note_plain(pace, n_decoding, us);
    }
}

double tsr_pace_guess(const tsr_pace *pace, int n_decoding, int n_prompt_rows)
{
    return pace->base + pace->a_sequence * n_decoding + pace->a_row * n_prompt_rows;
}

int tsr_pace_prompt_rows(const tsr_pace *pace, int n_decoding, int budget, double target_us)
{
    const double usual_us = tsr_pace_guess(pace, n_decoding, 0);
    const double spare_us = (target_us > 0 ? target_us : STRETCH * usual_us) - usual_us;
    double rows = budget;

    if (n_decoding == 0 || (pace->n_plain == 0 && pace->reach <= 0)) {
        return budget;
    }
    if (pace->n_plain == 0 || pace->n_mixed >= TSR_PACE_PROBE - 1) {
        return 0;
    }
    if (pace->reach > 0) {
        rows = rows < 2 * pace->reach ? rows : 2 * pace->reach;
        rows = rows * pace->a_row < spare_us ? rows : spare_us / pace->a_row;
    } else {
        rows = TSR_PACE_LEAST_ROWS; // no prompt was ever timed
    }
    rows = rows > TSR_PACE_LEAST_ROWS ? rows : TSR_PACE_LEAST_ROWS;
    return rows < budget ? (int)rows : budget;
}
