#include "base/utf8.h"

#include <string.h>

int tsr_utf8_measure(const char *bytes, size_t n_bytes)
{
    const uint8_t *b = (const uint8_t *)bytes;
    uint8_t low = 0x80; // what the second byte may be: narrower after E0, ED, F0 and F4
    uint8_t high = 0xbf;
    size_t wanted;

    if (b[0] < 0x80) {
        return 1;
    }
    if (b[0] < 0xc2 || b[0] > 0xf4) {
        return TSR_UTF8_INVALID;
    }
    if (b[0] < 0xe0) {
        wanted = 2;
    } else if (b[0] < 0xf0) {
        wanted = 3;
        low = b[0] == 0xe0 ? 0xa0 : low;   // less would be overlong
        high = b[0] == 0xed ? 0x9f : high; // more would be a surrogate
    } else {
        wanted = 4;
        low = b[0] == 0xf0 ? 0x90 : low;
        high = b[0] == 0xf4 ? 0x8f : high; // more would be above U+10FFFF
    }
    for (size_t i = 1; i < wanted; i++) {
        if (i == n_bytes) {
            return TSR_UTF8_UNFINISHED;
        }
        if (b[i] < low || b[i] > high) {
            return TSR_UTF8_INVALID;
        }
        low = 0x80;
        high = 0xbf;
    }
    return (int)wanted;
}

size_t tsr_utf8_valid(const char *bytes, size_t n_bytes)
{
    size_t at = 0;

    while (at < n_bytes) {
        uint64_t eight;
        int n;

        // Eight ASCII letters at once: most text is little else.
        while (n_bytes - at >= sizeof(eight)) {
            memcpy(&eight, bytes + at, sizeof(eight));
            if ((eight & UINT64_C(0x8080808080808080)) != 0) {
                break;
            }
            at += sizeof(eight);
        }
        if (at == n_bytes) {
            break;
        }
        n = tsr_utf8_measure(bytes + at, n_bytes - at);
        if (n <= 0) {
            break;
        }
        at += (size_t)n;
    }
    return at;
}

size_t tsr_utf8_whole(const char *bytes, size_t n_bytes)
{
    // A character has at most four bytes, so an unfinished one began in the last three.
    for (size_t back = 1; back <= 3 && back <= n_bytes; back++) {
        if (tsr_utf8_measure(bytes + n_bytes - back, back) == TSR_UTF8_UNFINISHED) {
            return n_bytes - back;
        }
    }
    return n_bytes;
}

uint32_t tsr_utf8_decode(const char *bytes)
{
    const uint8_t *b = (const uint8_t *)bytes;

    if (b[0] < 0x80) {
        return b[0];
    }
    if (b[0] < 0xe0) {
        return (uint32_t)(b[0] & 0x1f) << 6 | (uint32_t)(b[1] & 0x3f);
    }
    if (b[0] < 0xf0) {
        return (uint32_t)(b[0] & 0x0f) << 12 | (uint32_t)(b[1] & 0x3f) << 6 |
               (uint32_t)(b[2] & 0x3f);
    }
    return (uint32_t)(b[0] & 0x07) << 18 | (uint32_t)(b[1] & 0x3f) << 12 |
           (uint32_t)(b[2] & 0x3f) << 6 | (uint32_t)(b[3] & 0x3f);
}
