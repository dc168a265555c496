/*
 * launch/out.h - what goes to stdout: text, and JSON; JSON that goes elsewhere.
 *
 * What goes to stdout does not fail at once: the first failure is kept, later writes do nothing,
 * and tsr_out_finish() tells. A reader that went away (EPIPE) is the end of the output and no
 * failure.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_OUT_H
#define TSR_LAUNCH_OUT_H

#include <jansson.h>

#include "base/text.h"

#ifdef __cplusplus
extern "C" {
#endif

void tsr_out_text(const char *text, size_t n_bytes);
void tsr_out_print(const char *format, ...) __attribute__((format(printf, 1, 2)));
void tsr_out_flush(void);

/* Words from a file that may be hostile: control characters become '?', except line ends and tabs.
 */
void tsr_out_words(const char *text);

bool tsr_out_on_terminal(void); /* under mpirun never, though it may give its ranks one */
bool tsr_out_ended(void);       /* nobody can read on: stop working */

/* Flushes. Errors: IO (with the system's reason). */
TSR_MUST_CHECK tsr_status tsr_out_finish(void);

/*
 * One value on one line; takes it. NULL is the NOMEM of whoever made
 * it. Errors: NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_out_json(json_t *value);

/* Appends a value, on one line. Errors: NOMEM, also for a value that is NULL. */
TSR_MUST_CHECK tsr_status tsr_out_json_append(tsr_text *text, const json_t *value);

/* All bytes to a file that is open; path is for the message. Errors: IO. */
TSR_MUST_CHECK tsr_status tsr_out_to_file(int file, const char *path, const tsr_text *text);

/* A JSON string of any bytes: what is not UTF-8 becomes U+FFFD. */
json_t *tsr_out_json_text(const char *text, size_t n_bytes);
json_t *tsr_out_json_ids(const int32_t *ids, int64_t n_ids);
json_t *tsr_out_json_real(double number); /* null when it is not finite */

/* "84.6 MiB" */
typedef struct tsr_out_size {
    char text[24];
} tsr_out_size;
tsr_out_size tsr_out_bytes(uint64_t n_bytes);

#ifdef __cplusplus
}
#endif

#endif
