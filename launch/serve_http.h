/*
 * launch/serve_http.h - the server's side that talks HTTP, by libmicrohttpd.
 *
 *   POST /v1/chat/completions, /v1/completions      answers, whole or as a stream of events
 *   GET  /v1/models, /v1/models/NAME                the one model
 *   POST /v1/embeddings, /tokenize, /detokenize
 *   GET  /health, /ready, /metrics, /status
 *   GET  /, /openapi.json and what the page loads
 *
 * One thread of the library's own talks with all clients; a connection that waits for an answer is
 * suspended and costs nothing. A client that goes away lets its job go at once.
 *
 * Threads: the one that opens it closes it.
 */
#ifndef TSR_LAUNCH_SERVE_HTTP_H
#define TSR_LAUNCH_SERVE_HTTP_H

#include "launch/serve_desk.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tsr_http tsr_http;

/* All borrowed for as long as it is open. */
typedef struct tsr_http_options {
    const char *host;  /* an address: "127.0.0.1", "0.0.0.0", "::1" */
    int port;          /* 0: any free one */
    const char **keys; /* [n_keys] one of which a request must bring; none: anybody may */
    int n_keys;
    const char *cors;     /* Access-Control-Allow-Origin; NULL: no such header */
    const char *tls_cert; /* PEM texts; NULL: plain HTTP */
    const char *tls_key;
    size_t max_body; /* bytes of a request */
    int max_connections;
    int idle_s;       /* after so long without a byte a connection is closed */
    const char *name; /* of the model, as it is told */
    const tsr_model *model;
    int64_t context;
    tsr_desk *desk;
    tsr_metrics *metrics;
    tsr_picture *picture;
} tsr_http_options;

/* Errors: ARG (no address), IO (the port is taken), NOMEM, UNSUPPORTED (no TLS in the library). */
TSR_MUST_CHECK tsr_status tsr_http_open(tsr_http **out, const tsr_http_options *options);

/* No new requests; what is being answered is sent as far as it is ready. NULL is fine. */
void tsr_http_close(tsr_http *http);

int tsr_http_port(const tsr_http *http); /* that it listens at */

#ifdef __cplusplus
}
#endif

#endif
