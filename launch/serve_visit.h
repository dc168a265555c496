/*
 * launch/serve_visit.h - one request of a connection: what came with it, and how it is answered, at
 * once or when its job has something to say. Private to launch/serve_*.c.
 *
 * Threads: the HTTP library's, but for what the desk's side calls (serve_desk.h, tsr_client).
 */
#ifndef TSR_LAUNCH_SERVE_VISIT_H
#define TSR_LAUNCH_SERVE_VISIT_H

#include <microhttpd.h>

#include "launch/serve_http.h"
#include "launch/serve_stream.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tsr_http {
    tsr_http_options options;
    struct MHD_Daemon *daemon;
    int64_t opened_s;
    int64_t n_requests; /* the daemon's thread only, as is the next */
    int n_connections;
};

typedef struct tsr_visit {
    tsr_http *http;
    struct MHD_Connection *connection;
    int socket;
    tsr_text body;
    tsr_job *job;
    bool is_suspended; /* guarded by the job's lock, as is the next */
    bool is_gone;      /* the client */
    tsr_stream stream;
    tsr_text out; /* of the stream: what the library has not taken yet is [taken, end) */
    size_t taken;
    bool closes;         /* the connection ends with the answer */
    const char *allowed; /* the methods of a path that has no other; NULL: not to be told */
} tsr_visit;

/* An answer; its bytes are copied. */
enum MHD_Result tsr_visit_send(tsr_visit *visit, int status, const char *type, const char *bytes,
                               size_t n_bytes);
enum MHD_Result tsr_visit_send_json(tsr_visit *visit, int status, json_t *value); /* takes value */

/* An error in the OpenAI form; it is counted. */
enum MHD_Result tsr_visit_send_error(tsr_visit *visit, const tsr_api_error *error);
enum MHD_Result tsr_visit_refuse(tsr_visit *visit, int status, const char *message);

/* The visit's side of a job, for tsr_job_create(). */
tsr_client tsr_visit_client(tsr_visit *visit);

/* The answer of its job: as a stream of events, or when it is whole. The latter is called again
 * when there is more. */
enum MHD_Result tsr_visit_send_stream(tsr_visit *visit);
enum MHD_Result tsr_visit_send_whole(tsr_visit *visit);

/* NULL when memory is short. */
tsr_visit *tsr_visit_create(tsr_http *http, struct MHD_Connection *connection);
void tsr_visit_destroy(tsr_visit *visit); /* lets its job go; NULL is fine */

#ifdef __cplusplus
}
#endif

#endif
