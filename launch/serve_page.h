/*
 * launch/serve_page.h - files that the binary brings along: the page at / and what it loads, and
 * the description of the interface. They stand in launch/page/ and are put in by the build.
 *
 * Threads: any.
 */
#ifndef TSR_LAUNCH_SERVE_PAGE_H
#define TSR_LAUNCH_SERVE_PAGE_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_page_file {
    const char *path; /* "/page.css"; NULL ends a list */
    const char *type;
    const unsigned char *bytes;
    size_t n_bytes;
} tsr_page_file;

extern const tsr_page_file tsr_page_files[]; /* written by cmake/embed_page.cmake */

/* NULL: there is none. */
const tsr_page_file *tsr_page_find(const char *path);

#ifdef __cplusplus
}
#endif

#endif
