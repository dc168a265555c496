/*
 * engine/file_map.h - a file's bytes in memory, read only, brought in as they are touched.
 */
#ifndef TSR_ENGINE_FILE_MAP_H
#define TSR_ENGINE_FILE_MAP_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_file_map {
    void *mapping; /* NULL when the file is empty */
    size_t n_bytes;
} tsr_file_map;

/* label: what messages call it. Errors: IO (cannot be read; a directory, a pipe), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_file_map_open(tsr_file_map *map, const char *path, const char *label);
void tsr_file_map_close(tsr_file_map *map); /* fine on {0} */

/* Tell the system that the pages are no longer needed (they come back if read again). */
void tsr_file_map_release(const tsr_file_map *map);

#ifdef __cplusplus
}
#endif

#endif
