#include "engine/gguf_names.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"

tsr_status tsr_gguf_names_init(tsr_gguf_names *names, int n)
{
    names->sorted = tsr_alloc((size_t)n, sizeof(*names->sorted));
    if (names->sorted == NULL) {
        return tsr_fail(TSR_ERR_NOMEM, "no memory for an index of %d names", n);
    }
    names->n = n;
    return TSR_OK;
}

void tsr_gguf_names_clear(tsr_gguf_names *names)
{
    tsr_free(names->sorted);
    *names = (tsr_gguf_names){0};
}

static int compare_texts(tsr_gguf_text a, tsr_gguf_text b)
{
    const size_t n_shared = a.n_bytes < b.n_bytes ? a.n_bytes : b.n_bytes;
    const int order = memcmp(a.bytes, b.bytes, n_shared);

    return order != 0 ? order : (a.n_bytes > b.n_bytes) - (a.n_bytes < b.n_bytes);
}

static int compare_names(const void *a, const void *b)
{
    return compare_texts(((const tsr_gguf_name *)a)->text, ((const tsr_gguf_name *)b)->text);
}

const tsr_gguf_name *tsr_gguf_names_sort(tsr_gguf_names *names)
{
    qsort(names->sorted, (size_t)names->n, sizeof(*names->sorted), compare_names);
    for (int i = 1; i < names->n; i++) {
        if (compare_names(&names->sorted[i - 1], &names->sorted[i]) == 0) {
            return &names->sorted[i - 1];
        }
    }
    return NULL;
}

int tsr_gguf_names_find(const tsr_gguf_names *names, const char *text)
{
    const tsr_gguf_name wanted = {.text = {text, strlen(text)}};
    const tsr_gguf_name *found;

    if (names->n == 0) {
        return -1;
    }
    found = bsearch(&wanted, names->sorted, (size_t)names->n, sizeof(wanted), compare_names);
    return found != NULL ? found->i : -1;
}
