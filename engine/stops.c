#include "engine/stops.h"

#include <string.h>

#include "base/alloc.h"

/* A node stands for a beginning of some text: the longest that the bytes so far end with. */
typedef struct node {
    uint16_t n_bytes; // of that beginning
    uint16_t match;   // length of the longest text that the bytes so far end with; 0: none
    uint16_t shorter; // node of the longest proper ending that is a beginning too
} node;

struct tsr_stops {
    uint16_t classes[256]; // bytes that occur in no text are all of class 0
    int n_classes;
    node *nodes;    // owned; the first is the empty beginning
    uint16_t *next; // owned, [nodes, n_classes]
    int n_nodes;
};

static size_t length_of(const char *const *texts, const size_t *n_bytes, int i)
{
    return n_bytes != NULL ? n_bytes[i] : strlen(texts[i]);
}

static tsr_status check(const char *const *texts, const size_t *n_bytes, int n, size_t *total)
{
    *total = 0;
    if (n < 1 || n > TSR_STOPS_MOST) {
        return tsr_fail(TSR_ERR_ARG, "%d stop strings, 1 to %d are possible", n, TSR_STOPS_MOST);
    }
    for (int i = 0; i < n; i++) {
        const size_t length = length_of(texts, n_bytes, i);

        if (length == 0) {
            return tsr_fail(TSR_ERR_ARG, "a stop string is empty: it would stop everything");
        }
        if (length > TSR_STOPS_MOST_BYTES - *total) {
            return tsr_fail(TSR_ERR_ARG, "the stop strings have more than %d bytes together",
                            TSR_STOPS_MOST_BYTES);
        }
        *total += length;
    }
    return TSR_OK;
}

static uint16_t *step_from(const tsr_stops *s, int from, char byte)
{
    return &s->next[from * s->n_classes + s->classes[(unsigned char)byte]];
}

/* The texts as a tree of their beginnings; 0 in `next` is "no such node". */
static void plant(tsr_stops *s, const char *text, size_t length)
{
    int at = 0;

    for (size_t i = 0; i < length; i++) {
        uint16_t *next = step_from(s, at, text[i]);

        if (*next == 0) {
            s->nodes[s->n_nodes].n_bytes = (uint16_t)(i + 1);
            *next = (uint16_t)s->n_nodes++;
        }
        at = *next;
    }
    s->nodes[at].match = (uint16_t)length;
}

/* Where the tree has no way on, that of the longest ending that is a beginning too. Breadth first:
 * shorter beginnings are complete when longer ones look at them. */
static void complete(tsr_stops *s, uint16_t *queue)
{
    int n = 0;

    for (int c = 0; c < s->n_classes; c++) {
        if (s->next[c] != 0) {
            queue[n++] = s->next[c]; // `shorter` is the root
        }
    }
    for (int i = 0; i < n; i++) {
        const int at = queue[i];
        const int shorter = s->nodes[at].shorter;
        uint16_t *next = s->next + at * s->n_classes;
        const uint16_t *fallback = s->next + shorter * s->n_classes;

        if (s->nodes[at].match == 0) {
            s->nodes[at].match = s->nodes[shorter].match;
        }
        for (int c = 0; c < s->n_classes; c++) {
            if (next[c] != 0) {
                s->nodes[next[c]].shorter = fallback[c];
                queue[n++] = next[c];
            } else {
                next[c] = fallback[c];
            }
        }
    }
}

tsr_status tsr_stops_create(tsr_stops **out, const char *const *texts, const size_t *n_bytes, int n)
{
    size_t total;
    uint16_t *queue = NULL;
    tsr_stops *s;

    TSR_TRY(check(texts, n_bytes, n, &total));
    s = tsr_alloc(1, sizeof(*s));
    if (s == NULL) {
        goto fail;
    }
    s->n_classes = 1;
    for (int i = 0; i < n; i++) {
        for (size_t b = 0; b < length_of(texts, n_bytes, i); b++) {
            uint16_t *class = &s->classes[(unsigned char)texts[i][b]];

            *class = *class == 0 ? (uint16_t)s->n_classes++ : *class;
        }
    }
    s->nodes = tsr_alloc(total + 1, sizeof(*s->nodes));
    s->next = tsr_alloc((total + 1) * (size_t)s->n_classes, sizeof(*s->next));
    queue = tsr_alloc(total + 1, sizeof(*queue));
    if (s->nodes == NULL || s->next == NULL || queue == NULL) {
        goto fail;
    }
    s->n_nodes = 1;
    for (int i = 0; i < n; i++) {
        plant(s, texts[i], length_of(texts, n_bytes, i));
    }
    complete(s, queue);
    tsr_free(queue);
    *out = s;
    return TSR_OK;

fail:
    tsr_free(queue);
    tsr_stops_destroy(s);
    return tsr_fail(TSR_ERR_NOMEM, "no memory for %d stop strings", n);
}

void tsr_stops_destroy(tsr_stops *s)
{
    if (s != NULL) {
        tsr_free(s->next);
        tsr_free(s->nodes);
        tsr_free(s);
    }
}

bool tsr_stops_feed(const tsr_stops *s, int *state, const char *bytes, size_t n_bytes, size_t *used,
                    size_t *match_bytes)
{
    for (size_t i = 0; i < n_bytes; i++) {
        *state = *step_from(s, *state, bytes[i]);
        if (s->nodes[*state].match > 0) {
            *used = i + 1;
            *match_bytes = s->nodes[*state].match;
            return true;
        }
    }
    *used = n_bytes;
    return false;
}

size_t tsr_stops_held(const tsr_stops *s, int state)
{
    return s->nodes[state].n_bytes;
}
