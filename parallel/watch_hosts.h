/*
 * parallel/watch_hosts.h - the hosts of a job watch each other. Private to the room.
 *
 * The first rank of each host keeps a TCP connection to rank 0, over which both give a sign of life
 * ten times a second, with what they are at. A connection that ends without a word, and 3 s without
 * a sign, are a lost host; one that says that its job ends makes the others follow. MPI takes no
 * part in it after the beginning: its calls belong to another thread, and it would notice a host
 * that is gone after minutes, or never.
 *
 * IPv4. Who connects shows a secret of 128 random bits that came by MPI; no byte of anybody else is
 * looked at.
 *
 * Threads: invite, meet and close by the thread that owns the world; look and end by the watch.
 */
#ifndef TSR_PARALLEL_WATCH_HOSTS_H
#define TSR_PARALLEL_WATCH_HOSTS_H

#include "base/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_WATCH_HOSTS_ADDRESSES = 16,
    TSR_WATCH_HOSTS_NAME_BYTES = 64,
    TSR_WATCH_HOSTS_NOTE_BYTES = 48
};

typedef struct tsr_watch_hosts tsr_watch_hosts;

/* Where rank 0 listens: plain bytes, for all ranks. */
typedef struct tsr_watch_invitation {
    uint64_t secret[2];
    uint32_t addresses[TSR_WATCH_HOSTS_ADDRESSES]; /* in network order */
    int32_t n_addresses;                           /* 0: there will be no meeting */
    uint16_t port;                                 /* in network order */
} tsr_watch_invitation;

/* One side of a connection. */
typedef struct tsr_watch_host {
    int32_t rank;    /* its first */
    int32_t n_ranks; /* on it */
    char name[TSR_WATCH_HOSTS_NAME_BYTES];
} tsr_watch_host;

/* A sign of life. */
typedef struct tsr_watch_sign {
    int64_t number; /* behind the note; < 0: none */
    char note[TSR_WATCH_HOSTS_NOTE_BYTES];
} tsr_watch_sign;

typedef enum tsr_watch_news {
    TSR_WATCH_NEWS_NONE,
    TSR_WATCH_NEWS_ENDED,  /* a host ends the job and has said why */
    TSR_WATCH_NEWS_GONE,   /* a connection has ended */
    TSR_WATCH_NEWS_SILENT, /* no sign of life for 3 s */
} tsr_watch_news;

/* Rank 0 listens for n_guests other hosts. Errors: IO, NOMEM. */
TSR_MUST_CHECK tsr_status tsr_watch_hosts_invite(tsr_watch_hosts **out, int n_guests,
                                                 tsr_watch_invitation *invitation);

/*
 * Rank 0 waits for its guests; the first rank of another host (*hosts is NULL) comes. Some seconds
 * at most. Errors: IO (who cannot be reached, or did not come), NOMEM.
 */
TSR_MUST_CHECK tsr_status tsr_watch_hosts_meet(tsr_watch_hosts **hosts, const tsr_watch_host *self,
                                               const tsr_watch_invitation *invitation);

/*
 * Has anything happened? on_time: a tick of the watch's clock, at which a sign is given and missing
 * ones are counted. Of a lost host, *who and the last sign of it are set. NULL is fine.
 */
tsr_watch_news tsr_watch_hosts_look(tsr_watch_hosts *hosts, bool on_time,
                                    const tsr_watch_sign *sign, tsr_watch_host *who,
                                    tsr_watch_sign *last);

/* Tell all, once, that this side ends the job. NULL is fine. */
void tsr_watch_hosts_end(tsr_watch_hosts *hosts);

/* Tell all that it is over in peace. NULL is fine. */
void tsr_watch_hosts_close(tsr_watch_hosts *hosts);

#ifdef __cplusplus
}
#endif

#endif
