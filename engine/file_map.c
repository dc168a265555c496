#include "engine/file_map.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

static tsr_status map_file(tsr_file_map *map, int file, const char *label)
{
    struct stat facts;
    void *mapping;

    if (fstat(file, &facts) != 0) {
        return tsr_fail(TSR_ERR_IO, "%s cannot be read: %s", label, strerror(errno));
    }
    if (!S_ISREG(facts.st_mode)) {
        return tsr_fail(TSR_ERR_IO, "%s is %s, not a file", label,
                        S_ISDIR(facts.st_mode) ? "a directory" : "a device, pipe or socket");
    }
    *map = (tsr_file_map){0};
    if (facts.st_size == 0) {
        return TSR_OK; // nothing can be mapped; parsing says what is wrong
    }
    mapping = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapping == MAP_FAILED) {
        return tsr_fail(errno == ENOMEM ? TSR_ERR_NOMEM : TSR_ERR_IO,
                        "%s: its %lld bytes cannot be mapped: %s", label, (long long)facts.st_size,
                        strerror(errno));
    }
    *map = (tsr_file_map){mapping, (size_t)facts.st_size};
    return TSR_OK;
}

tsr_status tsr_file_map_open(tsr_file_map *map, const char *path, const char *label)
{
    tsr_status st;
    int file;

    // O_NONBLOCK: a pipe without a writer must not keep us waiting.
    file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        return tsr_fail(TSR_ERR_IO, "%s cannot be opened: %s", label, strerror(errno));
    }
    st = map_file(map, file, label);
    (void)close(file); // the mapping keeps the file
    return st;
}

void tsr_file_map_close(tsr_file_map *map)
{
    if (map->mapping != NULL && munmap(map->mapping, map->n_bytes) != 0) {
        tsr_log_error("a file's mapping could not be undone: %s", strerror(errno));
    }
    *map = (tsr_file_map){0};
}

void tsr_file_map_release(const tsr_file_map *map)
{
    if (map->mapping != NULL) {
        // Only advice, and safe: nobody writes to the mapping, so the file has all its pages.
        (void)madvise(map->mapping, map->n_bytes, MADV_DONTNEED);
    }
}
