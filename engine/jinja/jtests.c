#include <string.h>

#include "engine/jinja/jrun.h"

typedef struct test_of {
    const char *name;
    bool (*holds)(const tsr_jvalue *v);
} test_of;

static bool is_defined(const tsr_jvalue *v)
{
    return v->kind != TSR_J_UNDEFINED;
}

static bool is_undefined(const tsr_jvalue *v)
{
    return v->kind == TSR_J_UNDEFINED;
}

static bool is_none(const tsr_jvalue *v)
{
    return v->kind == TSR_J_NONE;
}

static bool is_boolean(const tsr_jvalue *v)
{
    return v->kind == TSR_J_BOOL;
}

static bool is_true(const tsr_jvalue *v)
{
    return v->kind == TSR_J_BOOL && v->as.truth;
}

static bool is_false(const tsr_jvalue *v)
{
    return v->kind == TSR_J_BOOL && !v->as.truth;
}

static bool is_integer(const tsr_jvalue *v)
{
    return v->kind == TSR_J_INT;
}

static bool is_float(const tsr_jvalue *v)
{
    return v->kind == TSR_J_FLOAT;
}

static bool is_string(const tsr_jvalue *v)
{
    return v->kind == TSR_J_TEXT;
}

static bool is_mapping(const tsr_jvalue *v)
{
    return v->kind == TSR_J_DICT;
}

static bool is_sequence(const tsr_jvalue *v)
{
    return v->kind == TSR_J_TEXT || v->kind == TSR_J_LIST || v->kind == TSR_J_TUPLE ||
           v->kind == TSR_J_DICT || v->kind == TSR_J_RANGE || v->kind == TSR_J_UNDEFINED;
}

static bool is_callable(const tsr_jvalue *v)
{
    return v->kind == TSR_J_MACRO || v->kind == TSR_J_FUNCTION || v->kind == TSR_J_METHOD ||
           v->kind == TSR_J_LOOP || v->kind == TSR_J_JOINER || v->kind == TSR_J_UNDEFINED;
}

static bool is_escaped(const tsr_jvalue *v)
{
    return v->kind == TSR_J_TEXT && v->as.text->markup;
}

/* The first two are asked for by their places below. */
static const test_of plain[] = {
    {"defined", is_defined},   {"undefined", is_undefined}, {"none", is_none},
    {"boolean", is_boolean},   {"true", is_true},           {"false", is_false},
    {"integer", is_integer},   {"float", is_float},         {"number", tsr_jvalue_is_number},
    {"string", is_string},     {"mapping", is_mapping},     {"iterable", tsr_jvalue_is_iterable},
    {"sequence", is_sequence}, {"callable", is_callable},   {"escaped", is_escaped},
};

/* Tests that are comparisons; how[0] is the sign of the operator. */
static const struct {
    const char *name;
    const char *sign;
} comparisons[] = {
    {"eq", "=="}, {"equalto", "=="}, {"==", "=="},      {"ne", "!="},
    {"!=", "!="}, {"lt", "<"},       {"lessthan", "<"}, {"<", "<"},
    {"le", "<="}, {"<=", "<="},      {"gt", ">"},       {"greaterthan", ">"},
    {">", ">"},   {"ge", ">="},      {">=", ">="},      {"in", "in"},
};

static bool is_name(const tsr_jtext *name, const char *word)
{
    return name->n_bytes == strlen(word) && memcmp(name->bytes, word, name->n_bytes) == 0;
}

static tsr_status compare(tsr_jrun *run, const char *sign, const tsr_jvalue *a, const tsr_jvalue *b,
                          bool *out)
{
    int order;

    if (sign[0] == 'i') {
        return tsr_jvalue_contains(run, out, b, a);
    }
    if (sign[0] == '=' || sign[0] == '!') {
        TSR_TRY(tsr_jvalue_equal(run, out, a, b));
        *out = *out == (sign[0] == '=');
        return TSR_OK;
    }
    TSR_TRY(tsr_jvalue_compare(run, &order, a, b));
    *out = (sign[1] == '=' && order == 0) || (sign[0] == '<' ? order < 0 : order > 0);
    return TSR_OK;
}

/* odd, even, divisibleby: v % by == rest, whatever % is for v. */
static tsr_status divides(tsr_jrun *run, const tsr_jvalue *v, tsr_jvalue by, int64_t rest,
                          bool *out)
{
    const tsr_jvalue wanted = tsr_jvalue_int(rest);
    tsr_jvalue left;

    TSR_TRY(tsr_jarithmetic_do(run, TSR_JN_MODULO, v, &by, &left));
    return tsr_jvalue_equal(run, out, &left, &wanted);
}

static bool is_same(const tsr_jvalue *a, const tsr_jvalue *b)
{
    if (a->kind != b->kind) {
        return false;
    }
    switch (a->kind) {
    case TSR_J_NONE:
        return true;
    case TSR_J_BOOL:
        return a->as.truth == b->as.truth;
    case TSR_J_INT: // Python keeps one object for each small number
        return a->as.number == b->as.number;
    case TSR_J_TEXT:
        return a->as.text == b->as.text || tsr_jtext_equal(a->as.text, b->as.text);
    case TSR_J_FLOAT:
        return false;
    default:
        return a->as.list == b->as.list;
    }
}

static tsr_status cased(tsr_jrun *run, const tsr_jvalue *v, tsr_jtext_class what, bool *out)
{
    const tsr_jtext *text;

    TSR_TRY(tsr_jshow_text(run, &text, v));
    *out = tsr_jtext_is(text, what);
    return TSR_OK;
}

tsr_status tsr_jtests_apply(tsr_jrun *run, const tsr_jtext *name, const tsr_jvalue *v,
                            const tsr_jargs *args, bool *out)
{
    tsr_jvalue other;

    for (size_t i = 0; i < sizeof(plain) / sizeof(plain[0]); i++) {
        if (is_name(name, plain[i].name)) {
            TSR_TRY(tsr_jcall_bind(run, plain[i].name, "", 0, args, &other));
            // Without a calendar its function is there only for those who do not ask first.
            *out = !run->calendar && i < 2 && tsr_jcall_is_calendar(v) ? i == 1 : plain[i].holds(v);
            return TSR_OK;
        }
    }
    for (size_t i = 0; i < sizeof(comparisons) / sizeof(comparisons[0]); i++) {
        if (is_name(name, comparisons[i].name)) {
            TSR_TRY(tsr_jcall_bind(run, comparisons[i].name, "other", 1, args, &other));
            return compare(run, comparisons[i].sign, v, &other, out);
        }
    }
    if (is_name(name, "odd") || is_name(name, "even")) {
        TSR_TRY(tsr_jcall_bind(run, "odd", "", 0, args, &other));
        return divides(run, v, tsr_jvalue_int(2), is_name(name, "odd") ? 1 : 0, out);
    }
    if (is_name(name, "divisibleby")) {
        TSR_TRY(tsr_jcall_bind(run, "divisibleby", "num", 1, args, &other));
        return divides(run, v, other, 0, out);
    }
    if (is_name(name, "sameas")) {
        TSR_TRY(tsr_jcall_bind(run, "sameas", "other", 1, args, &other));
        *out = is_same(v, &other);
        return TSR_OK;
    }
    if (is_name(name, "lower") || is_name(name, "upper")) {
        TSR_TRY(tsr_jcall_bind(run, "lower", "", 0, args, &other));
        return cased(run, v, is_name(name, "lower") ? TSR_JTEXT_LOWERCASE : TSR_JTEXT_UPPERCASE,
                     out);
    }
    return tsr_jvalue_fail(run, "there is no test called '%.*s'",
                           name->n_bytes < 40 ? (int)name->n_bytes : 40, name->bytes);
}
