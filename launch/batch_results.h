/*
 * launch/batch_results.h - the results of a batch: what is in the file already, and what is added.
 *
 * A result is a line, written whole with one write(2): {"id": "batch_req_<line>", "custom_id",
 * "response": {"status_code", "request_id", "body"}, "error"}. The number of the input's line in
 * its id says which lines are done, so a batch that was killed goes on where it was: a last line
 * that is torn is cut off, and nothing is computed or written twice.
 *
 * Threads: one.
 */
#ifndef TSR_LAUNCH_BATCH_RESULTS_H
#define TSR_LAUNCH_BATCH_RESULTS_H

#include <jansson.h>

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_batch_results tsr_batch_results;

/*
 * Opens or makes the file; "-" is stdout, which nothing can be read back from. Nobody else may be
 * writing to it. Errors: IO, FORMAT (it has a line that is no result), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_batch_results_open(tsr_batch_results **out, const char *path);
void tsr_batch_results_close(tsr_batch_results *results); /* NULL is fine */

/* Was this line of the input done before? Errors: FORMAT (yes, but with another custom_id: the
 * results are of another input). */
TSR_MUST_CHECK tsr_status tsr_batch_results_find(const tsr_batch_results *results, int64_t line,
                                                 const char *custom_id, bool *done);

/* One more; takes body. custom_id may be NULL. Errors: IO (disk full, say), NOMEM. */
TSR_MUST_CHECK tsr_status tsr_batch_results_add(tsr_batch_results *results, int64_t line,
                                                const char *custom_id, int status, json_t *body);

#ifdef __cplusplus
}
#endif

#endif
