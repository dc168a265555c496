#include "launch/chat_words.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "launch/args.h"
#include "launch/session.h"

enum {
    BAR_CELLS = 24,
    WORD_BYTES = 24,
    SHOWN_BYTES = 800 // of a text in a sentence
};

typedef struct chat_word {
    const char *name;
    tsr_status (*follow)(tsr_chat *chat, const char *rest);
} chat_word;

/* A failure that a person can do something about is a sentence; the chat goes on. */
static tsr_status say_fault(tsr_status st)
{
    if (st == TSR_OK || st == TSR_ERR_NOMEM || st == TSR_ERR_CANCELLED) {
        return st;
    }
    tsr_log_say("%s", tsr_status_message());
    return TSR_OK;
}

const char *tsr_chat_words_help(void)
{
    return "  /help           this list\n"
           "  /system TEXT    set the instruction that comes before everything, and start anew; "
           "without TEXT: show it\n"
           "  /reset          start anew, with the same instruction\n"
           "  /stats          tokens, tokens a second, how full the context is\n"
           "  /save FILE      write the conversation to a new file, as JSON Lines\n"
           "  /load FILE      go on with a conversation that was saved\n"
           "  /quit           end, as Ctrl-D does\n"
           "  //...           a message that begins with a slash\n"
           "  A backslash at the end of a line: the message goes on with the next one.\n";
}

static tsr_status follow_help(tsr_chat *chat, const char *rest)
{
    const char *words = tsr_chat_words_help();

    (void)chat;
    (void)rest;
    while (*words != '\0') {
        const size_t n = strcspn(words, "\n");

        tsr_log_say("%.*s", (int)n, words);
        words += n + 1;
    }
    return TSR_OK;
}

/* A text that may come from a file, with nothing in it that a terminal would obey. */
static void say_text(const char *what, const char *text)
{
    char shown[SHOWN_BYTES];
    size_t n = 0;

    for (; text[n] != '\0' && n + 1 < sizeof(shown); n++) {
        const unsigned char c = (unsigned char)text[n];

        shown[n] = (c < ' ' && c != '\n') || c == 0x7F ? '?' : text[n];
    }
    shown[n] = '\0';
    tsr_log_say("%s%s", what, shown);
}

static tsr_status follow_system(tsr_chat *chat, const char *rest)
{
    const char *now = tsr_conversation_system(&chat->conversation);

    if (*rest == '\0') {
        say_text(now != NULL ? "system: " : "no system message is set", now != NULL ? now : "");
        return TSR_OK;
    }
    TSR_TRY(tsr_conversation_begin(&chat->conversation, rest));
    tsr_log_say("a new conversation, with that system message");
    return TSR_OK;
}

static tsr_status follow_reset(tsr_chat *chat, const char *rest)
{
    (void)rest;
    TSR_TRY(
        tsr_conversation_begin(&chat->conversation, tsr_conversation_system(&chat->conversation)));
    tsr_log_say("a new conversation");
    return TSR_OK;
}

static double rate(int64_t n, double seconds)
{
    return n > 0 && seconds > 0 ? (double)n / seconds : 0;
}

static tsr_status count_tokens(tsr_chat *chat, int64_t *n_tokens)
{
    int32_t *ids;

    *n_tokens = 0;
    if (chat->conversation.n_messages == 0) {
        return TSR_OK;
    }
    TSR_TRY(tsr_conversation_ids(&chat->conversation, tsr_engine_model(chat->engine), INT64_MAX,
                                 &ids, n_tokens));
    tsr_tessera_free(ids);
    return TSR_OK;
}

static tsr_status follow_stats(tsr_chat *chat, const char *rest)
{
    const tsr_session_words crew = tsr_session_crew(chat->engine);
    char bar[BAR_CELLS + 1];
    char left_out[64] = "";
    int64_t n_used;
    int64_t n_filled;

    (void)rest;
    TSR_TRY(count_tokens(chat, &n_used));
    n_filled = n_used * BAR_CELLS / chat->room;
    n_filled = n_filled < BAR_CELLS ? n_filled : BAR_CELLS;
    memset(bar, '-', BAR_CELLS);
    memset(bar, '#', (size_t)n_filled);
    bar[BAR_CELLS] = '\0';
    if (chat->conversation.n_left_out > 0) {
        (void)snprintf(left_out, sizeof(left_out), ", %d of %d turns left out",
                       chat->conversation.n_left_out,
                       tsr_conversation_n_turns(&chat->conversation));
    }
    tsr_log_say(
        "%lld %s | prompts %lld tokens, %lld reused, %.1f/s | answers %lld tokens, %.1f/s | %s",
        (long long)chat->n_answers, chat->n_answers == 1 ? "answer" : "answers",
        (long long)chat->n_prompt, (long long)chat->n_reused,
        rate(chat->n_prompt - chat->n_reused, chat->prompt_s), (long long)chat->n_generated,
        rate(chat->n_generated - chat->n_answers, chat->generation_s), crew.text);
    tsr_log_say("context [%s] %lld of %lld tokens%s", bar, (long long)n_used, (long long)chat->room,
                left_out);
    return TSR_OK;
}

static tsr_status follow_save(tsr_chat *chat, const char *rest)
{
    if (*rest == '\0') {
        tsr_log_say("where to? /save FILE");
        return TSR_OK;
    }
    TSR_TRY(tsr_conversation_save(&chat->conversation, rest));
    tsr_log_say("%d messages are in %s", chat->conversation.n_messages, rest);
    return TSR_OK;
}

static tsr_status follow_load(tsr_chat *chat, const char *rest)
{
    if (*rest == '\0') {
        tsr_log_say("from where? /load FILE");
        return TSR_OK;
    }
    TSR_TRY(tsr_conversation_load(&chat->conversation, rest));
    tsr_log_say("%d messages from %s", chat->conversation.n_messages, rest);
    return TSR_OK;
}

static tsr_status follow_quit(tsr_chat *chat, const char *rest)
{
    (void)rest;
    chat->quits = true;
    return TSR_OK;
}

static const chat_word words[] = {
    {"/help", follow_help},   {"/system", follow_system}, {"/reset", follow_reset},
    {"/stats", follow_stats}, {"/save", follow_save},     {"/load", follow_load},
    {"/quit", follow_quit},
};

enum {
    N_WORDS = sizeof(words) / sizeof(words[0])
};

static void say_unknown(const char *word)
{
    const char *names[N_WORDS];
    const char *nearest;

    for (int i = 0; i < N_WORDS; i++) {
        names[i] = words[i].name;
    }
    nearest = tsr_args_nearest(word, names, N_WORDS);
    if (nearest != NULL) {
        tsr_log_say("there is no %s; did you mean %s?", word, nearest);
    } else {
        tsr_log_say("there is no %s; /help shows what there is, and // begins a message with a "
                    "slash",
                    word);
    }
}

tsr_status tsr_chat_words_follow(tsr_chat *chat, const char *line)
{
    static const char blanks[] = " \t\n";
    const size_t n_word = strcspn(line, blanks);
    const char *rest = line + n_word + strspn(line + n_word, blanks);
    size_t n_rest = strlen(rest);
    char word[WORD_BYTES];
    char *argument;
    tsr_status st;

    (void)snprintf(word, sizeof(word), "%.*s", n_word < WORD_BYTES ? (int)n_word : WORD_BYTES,
                   line);
    while (n_rest > 0 && strchr(blanks, rest[n_rest - 1]) != NULL) {
        n_rest--;
    }
    for (int i = 0; i < N_WORDS; i++) {
        if (strlen(words[i].name) != n_word || strncmp(words[i].name, line, n_word) != 0) {
            continue;
        }
        argument = tsr_alloc_text(rest, n_rest);
        if (argument == NULL) {
            return tsr_fail(TSR_ERR_NOMEM, "no memory for a line");
        }
        st = say_fault(words[i].follow(chat, argument));
        tsr_free(argument);
        return st;
    }
    say_unknown(word);
    return TSR_OK;
}
