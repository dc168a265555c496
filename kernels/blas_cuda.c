#include "kernels/blas_cuda.h"

#include <cublasLt.h>
#include <string.h>

#include "base/alloc.h"
#include "kernels/cuda_check.h"

#define BLAS_TRY(st, label, call)                                                       \
    do {                                                                                \
        const cublasStatus_t blas_status_ = (call);                                     \
        if (blas_status_ != CUBLAS_STATUS_SUCCESS) {                                    \
            st = tsr_fail(blas_status_ == CUBLAS_STATUS_ALLOC_FAILED ? TSR_ERR_NOMEM    \
                                                                     : TSR_ERR_DEVICE,  \
                          "GPU: %s: %s", #call, cublasLtGetStatusString(blas_status_)); \
            goto label;                                                                 \
        }                                                                               \
    } while (0)

enum {
    MOST_PLANS = 64
};

/* How a product of one shape is computed: asked for once. */
typedef struct plan {
    int64_t m, n_rows, n_cols; /* m = 0: none */
    bool is_bf16;
    cublasLtMatmulDesc_t desc;
    cublasLtMatrixLayout_t w, x, out;
    cublasLtMatmulAlgo_t algo;
} plan;

typedef struct blas {
    cublasLtHandle_t handle;
    plan plans[MOST_PLANS];
    int next; /* to be given up when all are taken */
} blas;

static void clear_plan(plan *p)
{
    (void)(p->desc != NULL && cublasLtMatmulDescDestroy(p->desc));
    (void)(p->w != NULL && cublasLtMatrixLayoutDestroy(p->w));
    (void)(p->x != NULL && cublasLtMatrixLayoutDestroy(p->x));
    (void)(p->out != NULL && cublasLtMatrixLayoutDestroy(p->out));
    memset(p, 0, sizeof(*p));
}

void tsr_blas_close(tsr_device *dev)
{
    blas *b = dev->blas;

    if (b == NULL) {
        return;
    }
    for (int i = 0; i < MOST_PLANS; i++) {
        clear_plan(&b->plans[i]);
    }
    if (b->handle != NULL) {
        (void)cublasLtDestroy(b->handle);
    }
    tsr_free(b);
    dev->blas = NULL;
}

static tsr_status open_blas(tsr_device *dev)
{
    blas *b = tsr_alloc(1, sizeof(*b));
    tsr_status st = TSR_OK;

    if (b == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for products");
    }
    dev->blas = b;
    BLAS_TRY(st, fail, cublasLtCreate(&b->handle));
    return TSR_OK;

fail:
    tsr_blas_close(dev);
    return st;
}

/*
 * cuBLAS counts along columns: what is row after row here is transposed there. So w [m, n_cols] is
 * its n_cols x m matrix, to be transposed, x its n_cols x n_rows, and the result its m x n_rows.
 */
static tsr_status make_plan(const blas *b, plan *p, const tsr_blas_product *product)
{
    const cudaDataType_t type = product->is_bf16 ? CUDA_R_16BF : CUDA_R_16F;
    const uint64_t m = (uint64_t)product->m;
    const uint64_t k = (uint64_t)product->n_cols;
    const uint64_t n = (uint64_t)product->n_rows;
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const size_t workspace_bytes = TSR_BLAS_WORKSPACE_BYTES;
    cublasLtMatmulPreference_t preference = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int n_found = 0;
    tsr_status st = TSR_OK;

    BLAS_TRY(st, done, cublasLtMatmulDescCreate(&p->desc, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    BLAS_TRY(st, done,
             cublasLtMatmulDescSetAttribute(p->desc, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                            sizeof(transposed)));
    BLAS_TRY(st, done, cublasLtMatrixLayoutCreate(&p->w, type, k, m, (int64_t)k));
    BLAS_TRY(st, done, cublasLtMatrixLayoutCreate(&p->x, type, k, n, (int64_t)k));
    BLAS_TRY(st, done, cublasLtMatrixLayoutCreate(&p->out, CUDA_R_32F, m, n, (int64_t)m));
    BLAS_TRY(st, done, cublasLtMatmulPreferenceCreate(&preference));
    BLAS_TRY(st, done,
             cublasLtMatmulPreferenceSetAttribute(preference,
                                                  CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                  &workspace_bytes, sizeof(workspace_bytes)));
    BLAS_TRY(st, done,
             cublasLtMatmulAlgoGetHeuristic(b->handle, p->desc, p->w, p->x, p->out, p->out,
                                            preference, 1, &found, &n_found));
    if (n_found == 0) {
        st = tsr_fail(TSR_ERR_UNSUPPORTED, "GPU: cuBLAS cannot multiply %lld x %lld x %lld",
                      (long long)n, (long long)k, (long long)m);
        goto done;
    }
    p->algo = found.algo;
    p->m = product->m;
    p->n_rows = product->n_rows;
    p->n_cols = product->n_cols;
    p->is_bf16 = product->is_bf16;

done:
    (void)(preference != NULL && cublasLtMatmulPreferenceDestroy(preference));
    if (st != TSR_OK) {
        clear_plan(p);
    }
    return st;
}

static tsr_status find_plan(const plan **out, blas *b, const tsr_blas_product *product)
{
    plan *p = NULL;

    for (int i = 0; i < MOST_PLANS; i++) {
        p = &b->plans[i];
        if (p->m == product->m && p->n_rows == product->n_rows && p->n_cols == product->n_cols &&
            p->is_bf16 == product->is_bf16) {
            *out = p;
            return TSR_OK;
        }
    }
    p = &b->plans[b->next];
    b->next = (b->next + 1) % MOST_PLANS;
    clear_plan(p);
    TSR_TRY(make_plan(b, p, product));
    *out = p;
    return TSR_OK;
}

tsr_status tsr_blas_multiply(tsr_device *dev, const tsr_blas_product *product)
{
    const float one = 1;
    const float zero = 0;
    const plan *p = NULL;
    const blas *b;
    tsr_status st = TSR_OK;

    if (dev->blas == NULL) {
        TSR_TRY(open_blas(dev));
    }
    b = dev->blas;
    TSR_TRY(find_plan(&p, dev->blas, product));
    BLAS_TRY(st, done,
             cublasLtMatmul(b->handle, p->desc, &one, product->w, p->w, product->x, p->x, &zero,
                            product->out, p->out, product->out, p->out, &p->algo,
                            product->workspace, TSR_BLAS_WORKSPACE_BYTES, tsr_cuda_queue(dev)));
done:
    return st;
}
