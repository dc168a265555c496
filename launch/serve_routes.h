/*
 * launch/serve_routes.h - what a server can be asked for: its paths, and what answers each. Private
 * to launch/serve_*.c.
 *
 * Threads: the HTTP library's.
 */
#ifndef TSR_LAUNCH_SERVE_ROUTES_H
#define TSR_LAUNCH_SERVE_ROUTES_H

#include "launch/serve_visit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The request is whole: its body is in the visit. */
enum MHD_Result tsr_routes_answer(tsr_visit *visit, const char *method, const char *path);

#ifdef __cplusplus
}
#endif

#endif
