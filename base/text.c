#include "base/text.h"

#include <string.h>

#include "base/alloc.h"

tsr_status tsr_text_append(tsr_text *text, const char *bytes, size_t n_bytes)
{
    if (n_bytes > SIZE_MAX / 4 - text->n_bytes) {
        return tsr_fail(TSR_ERR_NOMEM, "no room for %zu more bytes of text", n_bytes);
    }
    if (text->n_bytes + n_bytes + 1 > text->capacity) {
        const size_t needed = text->n_bytes + n_bytes + 1;
        const size_t wanted = needed < 64 ? 64 : needed + needed / 2;
        char *grown = tsr_alloc_resize(text->bytes, wanted, 1);

        if (grown == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no room for %zu bytes of text", wanted);
        }
        text->bytes = grown;
        text->capacity = wanted;
    }
    if (n_bytes > 0) {
        memcpy(text->bytes + text->n_bytes, bytes, n_bytes);
    }
    text->n_bytes += n_bytes;
    text->bytes[text->n_bytes] = 0;
    return TSR_OK;
}

void tsr_text_clear(tsr_text *text)
{
    tsr_free(text->bytes);
    *text = (tsr_text){0};
}
