#include "engine/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

static void require(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "does not hold: %s\n", what);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
    tsr_safetensors *files = NULL;
    uint64_t n_in_tensors = 0;

    tsr_log_set_level(TSR_LOG_ERROR);
    if (tsr_safetensors_open_bytes(&files, bytes, n_bytes) != TSR_OK) {
        require(files == NULL, "a failed open gives nothing");
        require(strlen(tsr_status_message()) > 10, "a failed open says why");
        return 0;
    }
    for (int i = 0; i < tsr_safetensors_count(files); i++) {
        const tsr_stored_tensor *t = tsr_safetensors_at(files, i);
        const uint8_t *data = t->data;

        require(data >= bytes && t->n_bytes <= n_bytes &&
                    (size_t)(data - bytes) <= n_bytes - t->n_bytes,
                "a tensor lies in the file");
        require(strlen(t->name.bytes) == t->name.n_bytes &&
                    tsr_safetensors_find(files, t->name.bytes) == t,
                "a tensor is found by its name");
        n_in_tensors += t->n_bytes;
    }
    require(tsr_safetensors_header_bytes(files) + n_in_tensors == n_bytes,
            "every byte belongs to the header or to one tensor");
    tsr_safetensors_release_pages(files);
    tsr_safetensors_close(files);
    return 0;
}
