/*
 * launch/serve_net.h - addresses to listen at, keys that are compared, how many files may be open.
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

/* Lets this process have n_wanted files open, sockets among them, as far as it may; how many it may
 * then. */
int tsr_net_raise_files(int n_wanted);

#ifdef __cplusplus
}
#endif

#endif
