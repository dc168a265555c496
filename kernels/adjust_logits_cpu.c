#include "kernels/backend.h"
#include "kernels/rows_cpu.h"

tsr_status tsr_adjust_logits_cpu(tsr_device *dev, tsr_tensor logits, tsr_tensor before,
                                 tsr_tensor rows, tsr_tensor ids, tsr_tensor factors,
                                 tsr_tensor adds, int64_t first_id)
{
    const int32_t *row = rows.data;
    const int32_t *id = ids.data;
    const float *factor = factors.data;
    const float *add = adds.data;
    float *old = before.data;

    (void)dev;
    // What lies on this device costs nothing to look at: a wild index is told before it is
    // followed.
    for (int64_t i = 0; i < rows.n_cols; i++) {
        if (row[i] < 0 || row[i] >= logits.n_rows || id[i] < first_id ||
            id[i] - first_id >= logits.n_cols) {
            return tsr_fail(TSR_ERR_ARG,
                            "adjust_logits: row %d, token %d; there are %lld rows and tokens %lld "
                            "to %lld",
                            (int)row[i], (int)id[i], (long long)logits.n_rows, (long long)first_id,
                            (long long)(first_id + logits.n_cols - 1));
        }
    }
    // A few thousand entries at most, strewn over the rows: not worth a hand-over to threads.
    for (int64_t i = 0; i < rows.n_cols; i++) {
        float *at = tsr_rows_cpu_f32(logits, row[i]) + (id[i] - first_id);
        const float turned = *at > 0.0F ? *at / factor[i] : *at * factor[i];

        old[i] = *at;
        *at = turned + add[i];
    }
    return TSR_OK;
}
