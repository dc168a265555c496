#include "launch/serve_page.h"

#include <string.h>

const tsr_page_file *tsr_page_find(const char *path)
{
    for (const tsr_page_file *file = tsr_page_files; file->path != NULL; file++) {
        if (strcmp(file->path, path) == 0) {
            return file;
        }
    }
    return NULL;
}
