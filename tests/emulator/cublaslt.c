/*
 * cuBLASLt as this project calls it: f16 or bf16 matrices, the first transposed, summed in f32, and
 * in an order that is not the caller's. What the real one refuses, or reads wrongly, is an error
 * here.
 */
#include <cublasLt.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dtype.h"
#include "tests/emulator/arena.h"
#include "tests/emulator/stream.h"

/* What the opaque records hold. */
typedef struct layout {
    cudaDataType type;
    uint64_t rows;
    uint64_t cols;
    int64_t ld;
} layout;

typedef struct operation {
    cublasComputeType_t compute;
    cudaDataType_t scale;
    cublasOperation_t of_a;
} operation;

typedef struct preference {
    size_t workspace_bytes;
} preference;

typedef struct algorithm {
    uint64_t mark;
    layout a, b, d; /* the only ones that it is good for */
    size_t workspace_bytes;
} algorithm;

enum {
    MARK = 0x616c676f,
    ALIGN = 16
};

_Static_assert(sizeof(layout) <= sizeof(cublasLtMatrixLayoutOpaque_t), "it fits");
_Static_assert(sizeof(operation) <= sizeof(cublasLtMatmulDescOpaque_t), "it fits");
_Static_assert(sizeof(preference) <= sizeof(cublasLtMatmulPreferenceOpaque_t), "it fits");

struct cublasLtContext {
    int device;
    algorithm given[256]; /* what heuristics gave out; the first word of an algo is an index */
    int n_given;
};

static cublasStatus_t refuse(const char *why)
{
    (void)fprintf(stderr, "emulator: cuBLASLt: %s\n", why);
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle)
{
    *handle = calloc(1, sizeof(**handle));
    (*handle)->device = stream_device();
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle)
{
    free(handle);
    return CUBLAS_STATUS_SUCCESS;
}

const char *cublasLtGetStatusString(cublasStatus_t status)
{
    static char text[40];

    (void)snprintf(text, sizeof(text), "emulated cuBLAS error %d", (int)status);
    return text;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *desc, cublasComputeType_t compute,
                                        cudaDataType_t scale)
{
    *desc = calloc(1, sizeof(**desc));
    *(operation *)(void *)*desc = (operation){compute, scale, CUBLAS_OP_N};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t desc,
                                              cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t n_bytes)
{
    operation *o = (void *)desc;

    if (attribute != CUBLASLT_MATMUL_DESC_TRANSA || n_bytes != sizeof(o->of_a)) {
        return refuse("an attribute that the emulator does not know");
    }
    memcpy(&o->of_a, value, n_bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t desc)
{
    free(desc);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type,
                                          uint64_t rows, uint64_t cols, int64_t ld)
{
    if (rows == 0 || cols == 0 || ld < (int64_t)rows) {
        return refuse("a matrix without elements, or with columns that overlap");
    }
    *out = calloc(1, sizeof(**out));
    *(layout *)(void *)*out = (layout){type, rows, cols, ld};
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t desc)
{
    free(desc);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out)
{
    *out = calloc(1, sizeof(**out));
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t desc,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void *value, size_t n_bytes)
{
    preference *p = (void *)desc;

    if (attribute != CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES ||
        n_bytes != sizeof(p->workspace_bytes)) {
        return refuse("a preference that the emulator does not know");
    }
    memcpy(&p->workspace_bytes, value, n_bytes);
    return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t desc)
{
    free(desc);
    return CUBLAS_STATUS_SUCCESS;
}

static bool is_sound(const operation *o, const layout *a, const layout *b, const layout *d)
{
    return o->compute == CUBLAS_COMPUTE_32F && o->scale == CUDA_R_32F && o->of_a == CUBLAS_OP_T &&
           a->type == b->type && (a->type == CUDA_R_16F || a->type == CUDA_R_16BF) &&
           d->type == CUDA_R_32F && a->rows == b->rows && a->cols == d->rows &&
           b->cols == d->cols && a->ld % 8 == 0 && b->ld % 8 == 0 && d->ld % 4 == 0;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t wanted, int n_wanted,
                                              cublasLtMatmulHeuristicResult_t results[],
                                              int *n_results)
{
    algorithm found = {.mark = MARK,
                       .a = *(layout *)(void *)a,
                       .b = *(layout *)(void *)b,
                       .d = *(layout *)(void *)d,
                       .workspace_bytes = ((preference *)(void *)wanted)->workspace_bytes};
    const uint64_t index = (uint64_t)(handle->n_given % 256);

    if (c != d || n_wanted < 1 ||
        !is_sound((operation *)(void *)desc, &found.a, &found.b, &found.d)) {
        *n_results = 0;
        return refuse("a product that the emulator does not know");
    }
    handle->given[index] = found;
    handle->n_given++;
    memset(&results[0], 0, sizeof(results[0]));
    memcpy(&results[0].algo, &index, sizeof(index));
    results[0].workspaceSize = found.workspace_bytes;
    *n_results = 1;
    return CUBLAS_STATUS_SUCCESS;
}

/* A product in its queue. */
typedef struct product {
    algorithm how;
    const void *a, *b;
    void *d, *workspace;
} product;

static const char *contents(const void *address, const layout *l, size_t elem_bytes)
{
    const size_t n = (size_t)l->ld * (l->cols - 1) + l->rows;
    const char *at = arena_contents(address, n * elem_bytes);
    char text[160];

    if (at == NULL) {
        stream_die("cublasLtMatmul of %zu bytes at %p, %s", n * elem_bytes, address,
                   arena_describe((uint64_t)(uintptr_t)address, text));
    }
    return at;
}

static float *widened(const void *address, const layout *l)
{
    const uint16_t *from = (const uint16_t *)(const void *)contents(address, l, sizeof(*from));
    float *to = malloc((size_t)(l->rows * l->cols) * sizeof(*to));

    if (to == NULL) {
        stream_die("out of memory");
    }
    for (uint64_t c = 0; c < l->cols; c++) {
        for (uint64_t r = 0; r < l->rows; r++) {
            const uint16_t bits = from[c * (uint64_t)l->ld + r];

            to[c * l->rows + r] =
                l->type == CUDA_R_16F ? tsr_dtype_from_f16(bits) : tsr_dtype_from_bf16(bits);
        }
    }
    return to;
}

static bool run_product(stream_work *work)
{
    const product *p = work->operands;
    const uint64_t k = p->how.a.rows;
    float *a = widened(p->a, &p->how.a);
    float *b = widened(p->b, &p->how.b);
    float *d = (float *)(uintptr_t)(const void *)contents(p->d, &p->how.d, sizeof(*d));
    char *workspace = arena_contents(p->workspace, p->how.workspace_bytes);

    if (workspace == NULL) {
        stream_die("cublasLtMatmul: %zu bytes of workspace at %p", p->how.workspace_bytes,
                   p->workspace);
    }
    memset(workspace, 0xFF, p->how.workspace_bytes < 4096 ? p->how.workspace_bytes : 4096);
    for (uint64_t col = 0; col < p->how.d.cols; col++) {
        for (uint64_t row = 0; row < p->how.d.rows; row++) {
            float sums[4] = {0}; // four at once, from the end

            for (uint64_t i = k; i-- > 0;) {
                sums[i % 4] += a[row * k + i] * b[col * k + i];
            }
            d[col * (uint64_t)p->how.d.ld + row] = (sums[3] + sums[1]) + (sums[0] + sums[2]);
        }
    }
    free(a);
    free(b);
    return true;
}

static bool same(const layout *l, cublasLtMatrixLayout_t desc)
{
    const layout *other = (const layout *)(const void *)desc;

    return l->type == other->type && l->rows == other->rows && l->cols == other->cols &&
           l->ld == other->ld;
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t desc, const void *alpha,
                              const void *a, cublasLtMatrixLayout_t of_a, const void *b,
                              cublasLtMatrixLayout_t of_b, const void *beta, const void *c,
                              cublasLtMatrixLayout_t of_c, void *d, cublasLtMatrixLayout_t of_d,
                              const cublasLtMatmulAlgo_t *algo, void *workspace,
                              size_t workspace_bytes, cudaStream_t stream)
{
    const void *const all[] = {a, b, d, workspace};
    const algorithm *how;
    uint64_t index;
    stream_work *work;

    memcpy(&index, algo, sizeof(index));
    how = &handle->given[index % 256];
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        if ((uintptr_t)all[i] % ALIGN != 0) {
            return refuse("an address that is no multiple of 16");
        }
    }
    if (how->mark != MARK || !same(&how->a, of_a) || !same(&how->b, of_b) || !same(&how->d, of_d) ||
        !same(&how->d, of_c)) {
        return refuse("an algorithm that was found for other matrices");
    }
    if (!is_sound((operation *)(void *)desc, &how->a, &how->b, &how->d) || c != d ||
        *(const float *)alpha != 1 || *(const float *)beta != 0 ||
        workspace_bytes < how->workspace_bytes) {
        return refuse("a product that the emulator does not know");
    }
    if (stream_device_of(stream) != handle->device) {
        return refuse("a stream of another device");
    }
    work = stream_work_make("cublasLtMatmul", run_product, sizeof(product));
    *(product *)work->operands = (product){*how, a, b, d, workspace};
    stream_add(stream, work);
    return CUBLAS_STATUS_SUCCESS;
}
