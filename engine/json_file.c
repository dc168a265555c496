#include "engine/json_file.h"

#include <unistd.h>

#include "engine/file_map.h"

enum {
    MOST_BYTES = 256 << 20
};

tsr_status tsr_json_file_parse(json_t **out, const void *bytes, size_t n_bytes, const char *label)
{
    json_error_t error;
    json_t *read;

    if (n_bytes > MOST_BYTES) {
        return tsr_fail(TSR_ERR_FORMAT, "%s has %zu bytes of JSON; %d is the most", label, n_bytes,
                        MOST_BYTES);
    }
    read = json_loadb(n_bytes == 0 ? "" : bytes, n_bytes, JSON_REJECT_DUPLICATES, &error);
    if (read == NULL) {
        return tsr_fail(json_error_code(&error) == json_error_out_of_memory ? TSR_ERR_NOMEM
                                                                            : TSR_ERR_FORMAT,
                        "%s is not sound JSON: %s (line %d, byte %d)", label, error.text,
                        error.line, error.position);
    }
    if (!json_is_object(read)) {
        json_decref(read);
        return tsr_fail(TSR_ERR_FORMAT, "%s is JSON but no object", label);
    }
    *out = read;
    return TSR_OK;
}

tsr_status tsr_json_file_read(json_t **out, const char *path, const char *label)
{
    tsr_file_map map;
    tsr_status st;

    if (access(path, F_OK) != 0) {
        *out = NULL;
        return TSR_OK;
    }
    TSR_TRY(tsr_file_map_open(&map, path, label));
    st = tsr_json_file_parse(out, map.mapping, map.n_bytes, label);
    tsr_file_map_close(&map);
    return st;
}
