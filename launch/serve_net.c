#include "launch/serve_net.h"

#include <arpa/inet.h>
#include <string.h>
#include <sys/resource.h>

bool tsr_net_address(const char *host, int port, struct sockaddr_storage *out)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)out;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)out;

    host = strcmp(host, "localhost") == 0 ? "127.0.0.1" : host;
    memset(out, 0, sizeof(*out));
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        return true;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        return true;
    }
    return false;
}

int tsr_net_raise_files(int n_wanted)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return n_wanted; // opening them will show
    }
    if (limit.rlim_cur < (rlim_t)n_wanted) {
        limit.rlim_cur = limit.rlim_max < (rlim_t)n_wanted ? limit.rlim_max : (rlim_t)n_wanted;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        (void)getrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur < (rlim_t)n_wanted ? (int)limit.rlim_cur : n_wanted;
}

bool tsr_net_is_same(const char *a, const char *b)
{
    const size_t n_a = strlen(a);
    const size_t n_b = strlen(b);
    unsigned differ = n_a != n_b ? 1 : 0;

    for (size_t i = 0; i < n_a; i++) {
        differ |= (unsigned)(unsigned char)a[i] ^ (unsigned)(unsigned char)b[i < n_b ? i : 0];
    }
    return n_b > 0 && differ == 0;
}
