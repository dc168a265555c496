#include "engine/pace.h"

enum {
    N = TSR_PACE_N_COSTS,
    ROWS_UNIT = 16, // rows are counted by so many, that all three numbers are of like size
    WARM = 8,       // steps after which one that is out of all proportion is not believed
    OUT_OF_ALL = 4  // times what was to be expected
};

static const double KEEP = 0.95;   // what a step counts for one step later
static const double HOLD = 1e-3;   // how strongly a cost stays where it was
static const double FORGET = 0.98; // of the reach, at every step with prompt rows

static void describe(double x[N], int n_decoding, int n_prompt_rows)
{
    x[0] = 1.0;
    x[1] = n_decoding;
    x[2] = (double)n_prompt_rows / ROWS_UNIT;
}

/* Solve a x = b by elimination; a is symmetric and positive, so no row has to be exchanged. */
static void solve(double a[N][N], double b[N], double x[N])
{
    for (int k = 0; k < N; k++) {
        for (int i = k + 1; i < N; i++) {
            const double f = a[i][k] / a[k][k];

            for (int j = k; j < N; j++) {
                a[i][j] -= f * a[k][j];
            }
            b[i] -= f * b[k];
        }
    }
    for (int i = N - 1; i >= 0; i--) {
        double sum = b[i];

        for (int j = i + 1; j < N; j++) {
            sum -= a[i][j] * x[j];
        }
        x[i] = sum / a[i][i];
    }
}

void tsr_pace_note(tsr_pace *pace, int n_decoding, int n_prompt_rows, double us)
{
    double a[N][N];
    double b[N];
    double x[N];
    double hold = 0;

    if (pace->n_noted >= WARM) {
        const double most = OUT_OF_ALL * tsr_pace_guess(pace, n_decoding, n_prompt_rows);

        us = us < most ? us : most;
    }
    us = us > 1.0 ? us : 1.0;
    describe(x, n_decoding, n_prompt_rows);
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            pace->squares[i][j] = KEEP * pace->squares[i][j] + x[i] * x[j] / (us * us);
        }
        pace->products[i] = KEEP * pace->products[i] + x[i] / us;
        hold += HOLD / N * pace->squares[i][i];
    }
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            a[i][j] = pace->squares[i][j] + (i == j ? hold : 0.0);
        }
        b[i] = pace->products[i] + hold * pace->cost[i];
    }
    solve(a, b, pace->cost);
    for (int i = 0; i < N; i++) {
        pace->cost[i] = pace->cost[i] > 0 ? pace->cost[i] : 0.0;
    }
    if (n_prompt_rows > 0) {
        pace->reach *= FORGET;
        pace->reach = pace->reach > n_prompt_rows ? pace->reach : n_prompt_rows;
    }
    pace->n_noted += pace->n_noted < WARM ? 1 : 0;
}

double tsr_pace_guess(const tsr_pace *pace, int n_decoding, int n_prompt_rows)
{
    double x[N];
    double us = 0;

    describe(x, n_decoding, n_prompt_rows);
    for (int i = 0; i < N; i++) {
        us += pace->cost[i] * x[i];
    }
    return us;
}

int tsr_pace_prompt_rows(const tsr_pace *pace, int n_decoding, int budget, double target_us)
{
    const double usual_us = tsr_pace_guess(pace, n_decoding, 0);
    const double spare_us = (target_us > 0 ? target_us : 2 * usual_us) - usual_us;
    const double row_us = pace->cost[N - 1] / ROWS_UNIT;
    double rows = budget;

    if (n_decoding == 0 || pace->n_noted == 0) {
        return budget;
    }
    rows = rows < 2 * pace->reach ? rows : 2 * pace->reach;
    rows = rows * row_us < spare_us ? rows : spare_us / row_us;
    rows = rows > TSR_PACE_LEAST_ROWS ? rows : TSR_PACE_LEAST_ROWS;
    return rows < budget ? (int)rows : budget;
}
