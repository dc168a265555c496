/*
 * launch/serve_net.h - addresses to listen at, and keys that are compared.
 *
 * Threads: none of its own.
 */
#ifndef TSR_LAUNCH_SERVE_NET_H
#define TSR_LAUNCH_SERVE_NET_H

#include <stdbool.h>
#include <sys/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The address of a host given as numbers, or of "localhost"; false when it is none. */
bool tsr_net_address(const char *host, int port, struct sockaddr_storage *out);

/* Are two texts the same, and not empty? Takes a time that says nothing about where they differ. */
bool tsr_net_is_same(const char *a, const char *b);

#ifdef __cplusplus
}
#endif

#endif
