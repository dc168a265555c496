/*
 * engine/jinja/jshow.h - values as text: as Python prints them, and as JSON.
 */
#ifndef TSR_ENGINE_JINJA_JSHOW_H
#define TSR_ENGINE_JINJA_JSHOW_H

#include "engine/jinja/jtext.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_JSHOW_REAL_BYTES = 40
};

/* The shortest digits that read back as `real`: "0.1", "1e+16", "inf". */
void tsr_jshow_real(char text[TSR_JSHOW_REAL_BYTES], double real);

TSR_MUST_CHECK tsr_status tsr_jshow_str(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v);
TSR_MUST_CHECK tsr_status tsr_jshow_repr(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v);

/* str(v): v's own text when it is one. */
TSR_MUST_CHECK tsr_status tsr_jshow_text(tsr_jrun *run, const tsr_jtext **out, const tsr_jvalue *v);

typedef struct tsr_jshow_json_style {
    const tsr_jtext *indent; /* of a level; NULL: all on one line */
    const tsr_jtext *item;   /* between items: ", " */
    const tsr_jtext *key;    /* between key and value: ": " */
    bool sort_keys;
    bool ascii; /* \u escapes for all other characters */
} tsr_jshow_json_style;
TSR_MUST_CHECK tsr_status tsr_jshow_json(tsr_jrun *run, tsr_jbuilder *b, const tsr_jvalue *v,
                                         const tsr_jshow_json_style *style);

/* &, <, >, ' and " as HTML has them. */
TSR_MUST_CHECK tsr_status tsr_jshow_html(tsr_jrun *run, const tsr_jtext **out,
                                         const tsr_jtext *text);

#ifdef __cplusplus
}
#endif

#endif
