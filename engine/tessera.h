/*
 * engine/tessera.h - the front door: a model, an engine over all ranks, and the text that comes
 * out.
 *
 * Two objects:
 *
 *   tsr_model    a model file: its facts, its tokenizer, its chat form. Needs no ranks and loads
 *                no weights.
 *
 *   tsr_engine   the model at work on all ranks. Every rank creates it; then the leader, rank 0,
 *                submits generations and steps, while the others follow and are led.
 *
 *     tsr_engine_create(&engine, NULL, &options);      // every rank, together
 *     if (!tsr_engine_is_leader(engine)) {
 *         tsr_engine_follow(engine);                   // returns when the leader has stopped
 *     } else {
 *         tsr_engine_submit(engine, &generation, &id);
 *         do {
 *             tsr_engine_step(engine, &busy);          // text arrives in generation.on_event
 *         } while (busy);
 *         tsr_engine_stop(engine);
 *     }
 *     tsr_engine_destroy(engine);                      // every rank, together
 *
 * A token depends on its own generation's prompt, settings and seed only: not on what else runs, on
 * how prompts are cut into chunks, on memory running short, or on the number of ranks or threads.
 *
 * MPI. A program that has begun MPI itself (MPI_THREAD_FUNNELED or more) ends it itself, when its
 * engine is gone; the engine has a communicator of its own, a copy of MPI_COMM_WORLD. Otherwise,
 * under mpirun or srun, the engine begins MPI and ends it, once in a process. A process that was
 * started alone is one rank, without MPI.
 *
 * Threads. One thread at a time drives an engine, under MPI the one that began MPI, and it alone
 * calls what takes a tsr_engine, but for tsr_engine_wake(); events come in that thread. A model
 * only reads: any number of threads may use it at once. A queue of events belongs to one thread at
 * a time. Messages are kept a thread.
 *
 * Signals. While an engine lives it notes SIGINT and SIGTERM: the next step says CANCELLED, and a
 * second signal ends the process. SIGBUS, SIGSEGV, SIGFPE and SIGILL are reported with the rank's
 * name before the process ends. The handlers that a program had are back when its engine is gone;
 * those that it sets meanwhile take the place of the engine's.
 *
 * The ABI. TSR_TESSERA_ABI is the number behind libtessera.so, and tsr_tessera_abi() that of the
 * library which was found. While it stays, what was compiled with an older header runs with a newer
 * library: functions are only added; structs keep their size, the places of their fields, and zero
 * its meaning; enums get new values only behind those they have (..._COUNT is for the header's own
 * version). Whatever breaks this raises the number. engine/tessera.map lists the functions.
 */
#ifndef TSR_ENGINE_TESSERA_H
#define TSR_ENGINE_TESSERA_H

#include "base/status_code.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TSR_API __attribute__((visibility("default")))

#define TSR_TESSERA_VERSION "0.1.0"
#define TSR_TESSERA_DATE "2026-11-22" /* of this version */
#define TSR_TESSERA_ABI 0

typedef struct tsr_world tsr_world; /* parallel/world.h, for programs within this tree */
typedef struct tsr_model tsr_model;
typedef struct tsr_engine tsr_engine;
typedef struct tsr_events tsr_events;

TSR_API const char *tsr_tessera_version(void); /* of the library: "0.1.0" */
TSR_API int tsr_tessera_abi(void);

/* The message of this thread's last failure, in words for a person. */
TSR_API const char *tsr_tessera_message(void);

/* Gives back memory that a function below handed out. NULL is fine. */
TSR_API void tsr_tessera_free(void *memory);

/* ---- a model file ------------------------------------------------------------------------------
 */

/* Everything is checked against the file before use. Errors: IO, FORMAT, UNSUPPORTED, NOMEM. */
TSR_API TSR_MUST_CHECK tsr_status tsr_model_open(tsr_model **out, const char *path);
TSR_API void tsr_model_close(tsr_model *model); /* NULL is fine */

/* Texts live as long as the model. */
typedef struct tsr_model_facts {
    const char *name;         /* as the file calls itself; "" if it does not */
    const char *architecture; /* "llama" */
    int n_layers;
    int64_t dim;
    int n_heads;
    int n_kv_heads;
    int head_dim;
    int64_t ff_dim;
    int64_t n_vocab;
    int64_t context; /* positions it was made for */
    double norm_eps;
    double rope_base;
    const char *rope_pairs;   /* "interleaved" or "halves" */
    const char *rope_scaling; /* "none", "linear 4", "yarn 4 (original 8192)", "factors" */
    bool tied_head;           /* the output head is the embedding */
    bool qkv_bias;
    int n_tensors;
    uint64_t n_parameters;
    uint64_t file_bytes;
    const char *tokenizer; /* "gpt2 (smollm)" */
    int n_tokens;          /* of the tokenizer */
    int n_merges;          /* a GGUF lists; 0 of a folder */
    int32_t bos;           /* -1: none */
    int32_t eos;
    const char *chat_form;     /* "ChatML", "Llama 3", "other" or "none" */
    const char *chat_template; /* the text itself; "" if none */
} tsr_model_facts;

TSR_API tsr_model_facts tsr_model_describe(const tsr_model *model);

/* Tensors by encoding: the i-th kind that occurs; false past the last. */
typedef struct tsr_model_encoding {
    const char *name;
    int n_tensors;
    uint64_t n_elements;
    uint64_t n_bytes;
} tsr_model_encoding;
TSR_API bool tsr_model_encoding_at(const tsr_model *model, int i, tsr_model_encoding *out);

/* What a position takes of the cache, all ranks together, in blocks of 64: the i-th way to keep
 * keys and values ("f32", ...); false past the last. */
typedef struct tsr_model_kv {
    const char *type;
    uint64_t bytes_per_token; /* with scales, rounded up */
} tsr_model_kv;
TSR_API bool tsr_model_kv_at(const tsr_model *model, int i, tsr_model_kv *out);

/* Layers of the cache by how far back rows see their keys and values, which is as much as a
 * sequence keeps of them; the furthest first, false past the last. */
typedef struct tsr_model_reach {
    int64_t n_positions; /* 0: all */
    int n_layers;
} tsr_model_reach;
TSR_API bool tsr_model_reach_at(const tsr_model *model, int i, tsr_model_reach *out);

/* The file's metadata in order: key and value in words (long values abbreviated); false past the
 * last. */
TSR_API bool tsr_model_metadata_at(const tsr_model *model, int i, char *key, size_t key_bytes,
                                   char *value, size_t value_bytes);

/* What rank `rank` of `n_ranks` would own: half-open runs and bytes. */
typedef struct tsr_model_share {
    int64_t first_head, n_heads;
    int64_t first_kv_head, n_kv_heads;
    int64_t first_ff, n_ff;
    int64_t first_vocab, n_vocab;
    uint64_t weight_bytes;       /* in compute format */
    uint64_t kv_bytes_per_token; /* f16 */
} tsr_model_share;
TSR_API TSR_MUST_CHECK tsr_status tsr_model_share_of(const tsr_model *model, int rank, int n_ranks,
                                                     tsr_model_share *out);

/* How far a tensor's weights move when they are rounded. */
typedef struct tsr_model_rounded {
    const char *name;    /* good during the call; NULL: all tensors together */
    uint64_t n_elements; /* that are rounded */
    double relative;     /* root mean square of the differences, as a part of the values' */
    double largest;      /* difference */
} tsr_model_rounded;

typedef void tsr_model_rounded_fn(void *ctx, const tsr_model_rounded *rounded);

/*
 * Rounds whatever the engine's option `quantize` rounds, keeps nothing, and tells of each tensor,
 * then of all together. All processors work; it takes as long as loading.
 *   to  as that option: "int8", "int4" or "fp8"
 * Errors: ARG, FORMAT (a tensor is missing or cannot be rounded), NOMEM.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_model_round(const tsr_model *model, const char *to,
                                                  tsr_model_rounded_fn *each, void *ctx);

/*
 * Text to ids and back. *ids and *text are handed out: tsr_tessera_free(). Special tokens are
 * recognised in text only when match_special; ids of special tokens become text only when
 * show_special. The text has a 0 behind its n_bytes. BOS is not added. Errors: ARG (an id out of
 * range), NOMEM.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_model_tokenize(const tsr_model *model, const char *text,
                                                     size_t n_bytes, bool match_special,
                                                     int32_t **ids, int64_t *n_ids);
TSR_API TSR_MUST_CHECK tsr_status tsr_model_detokenize(const tsr_model *model, const int32_t *ids,
                                                       int64_t n_ids, bool show_special,
                                                       char **text, size_t *n_bytes);

/* One token as it stands within a text, special ones shown: what `tsr_model_detokenize` gives of a
 * token alone is what begins a text, without the space that some tokenizers take off there. Errors
 * and ownership likewise. */
TSR_API TSR_MUST_CHECK tsr_status tsr_model_token_text(const tsr_model *model, int32_t id,
                                                       char **text, size_t *n_bytes);

typedef struct tsr_chat_message {
    const char *role; /* "system", "user" or "assistant" */
    const char *content;
} tsr_chat_message;

/*
 * The ids of a conversation as the model's own chat template writes it, the answer's opening
 * included. Contents are plain text: a control token written in one is not that token.
 * Errors: ARG (no message, an unknown role, the template refuses), UNSUPPORTED (the model has no
 * template), FORMAT (the template is not sound, or fails), NOMEM.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_model_conversation_ids(const tsr_model *model,
                                                             const tsr_chat_message *messages,
                                                             int n_messages, int32_t **ids,
                                                             int64_t *n_ids);

/*
 * The same of a chat request in JSON: an object with messages, tools, documents,
 * add_generation_prompt (false unless given) and whatever else the template may name. What any of
 * them says is plain text. *text (what the template wrote) and *ids are handed out; either may be
 * NULL. Errors: as above.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_model_chat_request_ids(const tsr_model *model,
                                                             const char *json, size_t json_bytes,
                                                             char **text, size_t *n_bytes,
                                                             int32_t **ids, int64_t *n_ids);

/* The same for one question. system may be NULL. */
TSR_API TSR_MUST_CHECK tsr_status tsr_model_chat_ids(const tsr_model *model, const char *system,
                                                     const char *user, int32_t **ids,
                                                     int64_t *n_ids);

/* The ids of plain text as a prompt: BOS where the model wants it, special tokens recognised. */
TSR_API TSR_MUST_CHECK tsr_status tsr_model_prompt_ids(const tsr_model *model, const char *text,
                                                       size_t n_bytes, int32_t **ids,
                                                       int64_t *n_ids);

/* ---- an engine ---------------------------------------------------------------------------------
 */

/* {0} and a path is a good start: zeros mean "choose for me". */
typedef struct tsr_engine_options {
    const char *model_path;
    const char *dtype;    /* what weights of 16 or 32 bits become: "f32", "f16", "bf16", or "auto"
                             (NULL): as they are stored. Quantised ones stay. */
    const char *quantize; /* what those of layers are rounded to, 32 columns a scale: "int8", "int4"
                             or "fp8"; NULL: not rounded. Not together with dtype. */
    int64_t context;      /* positions a sequence; 0: what the model was made for */
    const char *kv_dtype; /* "f32", "f16", "bf16", "fp8", "int8", "int4" or "int2"; NULL: f16 */
    uint64_t kv_memory_bytes; /* for keys and values on each rank; 0: what the machine has room for,
                                 taken as it fills */
    uint64_t kv_host_bytes; /* host memory for blocks that device memory has no room for; 0: none */
    uint64_t kv_disk_bytes; /* and a file on each rank, for those that host memory has none for */
    const char *kv_disk_folder; /* where that is made, without a name; NULL: "/tmp" */
    int block_tokens;           /* 16, 32 or 64; 0: 16 */
    int n_threads;              /* of each rank; 0: the host's cores divided among its ranks */
    const char *device; /* "cpu", "cuda" (a GPU a rank, by its number on the host) or "auto": GPUs
                           if every rank has one; NULL: auto */
    bool deterministic; /* on GPUs: the CPU's tokens, whatever the batch and the number of ranks,
                           for some of the speed; CPUs always give them */
    const char *activations; /* over quantised weights: "int8" or "f32"; NULL: int8 */
    int max_batch_tokens;    /* rows a step; 0: 512 */
    int max_sequences;       /* running at once; 0: 64 */
    int max_queue;           /* waiting at once; 0: any number */
    bool no_prefix_cache;    /* keep nothing of a sequence that has ended for others that begin as
                                it did */
    bool no_graphs;          /* on GPUs: launch every kernel of every step by itself */
    const char *preempt;     /* the cache of a sequence that is put back for want of memory: "swap"
                                keeps it in slower memory, "recompute" computes it again, "auto" takes
                                what is faster; NULL: auto */
    double target_itl_ms;    /* how long a step may take while sequences generate: prompts are read
                                in smaller pieces then; 0: 1.6 times what it takes without prompts */
    int plan_ahead; /* plan a step while the one before it runs: 1 always, -1 never, 0 where the
                       leader has nothing else to do meanwhile, on GPUs. The tokens are the same; a
                       sequence that ends by its token has one row too many computed then */
    double drain_s; /* when a signal has asked to end, steps go on for so long, so that what is
                       under way can be finished; 0: not at all */
} tsr_engine_options;

/*
 * Loads this rank's shard of the weights and makes its cache. All ranks together, with the same
 * options; if one fails, all do, with that one's message.
 *
 *   world   NULL: the engine opens its own, as is told above. Else borrowed.
 *
 * Errors: ARG (an option), IO, FORMAT, UNSUPPORTED, NOMEM, COMM.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_create(tsr_engine **out, tsr_world *world,
                                                    const tsr_engine_options *options);
TSR_API void tsr_engine_destroy(tsr_engine *engine); /* all ranks together; NULL is fine */

TSR_API bool tsr_engine_is_leader(const tsr_engine *engine);
TSR_API const tsr_model *tsr_engine_model(const tsr_engine *engine); /* borrowed */

typedef enum tsr_event_kind {
    TSR_EVENT_TOKEN,  /* one token more of a choice: token, text (what may be shown so far; may be
                         empty); with want_logprobs: logprob, top */
    TSR_EVENT_SCORE,  /* of a scored prompt: position, token, logprob, best; with want_logprobs: top
                       */
    TSR_EVENT_LOGITS, /* asked for with want_logits: position, logits [n_vocab] */
    TSR_EVENT_EMBEDDING, /* asked for with pooling: embedding [dim of the model], of length 1 */
    TSR_EVENT_END, /* the last one of a choice: text that was held back, reason, logprob, score,
                      timings, last */
    TSR_EVENT_KIND_COUNT
} tsr_event_kind;

/* A token that was possible, and how likely it was. */
typedef struct tsr_top_token {
    int32_t id;
    double logprob;
} tsr_top_token;

enum {
    TSR_MOST_TOP = 1024 /* of them, of one row */
};

typedef struct tsr_event {
    tsr_event_kind kind;
    int64_t id; /* of the generation */
    int choice; /* TOKEN and END: which of its answers, from 0 */
    bool last;  /* END: no event of this generation comes after it */
    int32_t token;
    const char *text; /* whole UTF-8 characters, good during the call */
    size_t text_bytes;
    int64_t position; /* SCORE: of the row; the next token's log-probability is that of `token`; -1
                         behind the last prompt token: logprob is not set */
    double logprob; /* natural logarithm, as the model says it: at temperature 1, before any filter,
                       penalty or bias. END, with want_logprobs or beams: of the answer as a whole,
                       the end token that is no part of it included; of a beam as its search counts,
                       after penalties and biases */
    double score;   /* END: what best_of and beams put answers in order by; else 0 */
    const tsr_top_token
        *top; /* [n_top] the likeliest, likewise: best first, good during the call */
    int n_top;
    int32_t best;           /* the likeliest token after this position */
    const float *logits;    /* [n_values] */
    const float *embedding; /* [n_values] */
    int64_t n_values;
    const char *reason;  /* END: "stop" (an end token, a stop id or a stop string), "length",
                             "cancelled", "deadline" or "error" */
    const char *message; /* END with "error": why */
    tsr_status status; /* END with "error" of a client's engine: what tsr_engine_submit() would have
                          said to the ranks' leader; else OK */
    int64_t n_prompt;  /* END, as are the following */
    int64_t n_cached_tokens; /* of the prompt: what was in the cache already and was not computed */
    int64_t n_generated;
    double first_token_s; /* from submit to the first token; 0 if there was none */
    double prompt_s; /* from the first step it was in to the first token (or to the end of a scored
                        prompt) */
    double generation_s; /* from the first token to the last */
    double mean_gap_s;   /* between two tokens; 0 if there were not two, as is the next */
    double longest_gap_s;
} tsr_event;

/* Called on the leader, in tsr_engine_step(). It may submit and cancel. */
typedef void tsr_event_fn(void *ctx, const tsr_event *event);

/*
 * For a program that would rather ask than be called: a queue that keeps copies of events. It is
 * the ctx of any number of generations whose on_event is tsr_events_add. Errors: NOMEM.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_events_create(tsr_events **out);
TSR_API void tsr_events_destroy(tsr_events *events); /* NULL is fine */
TSR_API void tsr_events_add(void *events, const tsr_event *event);

/*
 * The oldest event, if one was *found; what it points at is good until the next call, its text has
 * a 0 behind it. Errors: NOMEM (once there was no memory for an event no more are kept: this is
 * said when all before it have been taken).
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_events_next(tsr_events *events, tsr_event *event,
                                                  bool *found);

/* When a search with beams has found enough; see engine/beam.h. */
typedef enum tsr_stopping {
    TSR_STOPPING_USUAL, /* when what lives is unlikely to do better */
    TSR_STOPPING_EARLY, /* when as many answers as beams are complete */
    TSR_STOPPING_NEVER, /* when what lives can do no better */
    TSR_STOPPING_COUNT
} tsr_stopping;

/* What is made of the hidden states of a prompt, as they are behind the last norm. */
typedef enum tsr_pooling {
    TSR_POOLING_NONE,
    TSR_POOLING_MEAN, /* of all positions */
    TSR_POOLING_LAST, /* that of the last one */
    TSR_POOLING_COUNT
} tsr_pooling;

/*
 * A generation gives n answers, its choices, each with events of its own and an END; the END of the
 * one that ends last is `last`. They share the cache of the prompt.
 *
 *   n           samples; the i-th has a seed made of (seed, i), the 0th has `seed` itself and is
 *               what it would be alone. Each token is told as it comes.
 *   best_of     so many samples, of which the n likeliest for each token are the choices, best
 *               first: score is the mean log-probability of their tokens, an end token among them.
 *   beams       no chance: the n best answers of a search with so many beams (engine/beam.h), best
 *               first; score is logprob / tokens ^ length_penalty. There can be fewer than n when
 *               it is ended early.
 * What best_of and beams choose is told when all is over, with the whole text in the END event.
 */
typedef struct tsr_generation {
    const int32_t *prompt; /* [n_prompt] ids, copied */
    int64_t n_prompt;
    int max_tokens;    /* to generate; 0 with `score`: none */
    float temperature; /* 0: greedy */
    int top_k;         /* 0: all */
    float top_p;       /* 0 or 1: all */
    float min_p;       /* 0: all */
    uint64_t seed;
    int priority;      /* -1000..1000, higher goes first; one step of it is worth having waited ten
                          seconds longer, so that all get their turn */
    double deadline_s; /* from submit: ends with "deadline" then, however far it is; 0: none */
    bool ignore_end;   /* go on after an end token */

    int n;                 /* 0: 1; with beams at most their number */
    int best_of;           /* 0: n */
    int beams;             /* 0: none. If they are more than max_sequences, they take turns */
    double length_penalty; /* -10..10; 0: the sum counts, whatever the length; 1: the mean */
    tsr_stopping stopping;

    float typical_p;          /* 0 or 1: all */
    float repetition_penalty; /* 0 or 1: off; over the prompt and what was generated */
    float presence_penalty;   /* 0: off; over what was generated, as is the next */
    float frequency_penalty;
    const int32_t *bias_ids; /* [n_biases] no token twice; copied, as are all that follow */
    const float *biases;     /* [n_biases] added to those tokens' logits */
    int n_biases;
    int min_tokens;          /* end tokens and stop ids are impossible before so many are generated,
                                and their text is not searched for stop strings */
    const int32_t *stop_ids; /* [n_stop_ids] tokens that end the answer like an end token */
    int n_stop_ids;
    const char *const *stops; /* [n_stops] texts that end the answer, wherever tokens meet */
    const size_t *stop_bytes; /* [n_stops] their lengths; NULL: they end with a 0 */
    int n_stops;
    bool include_stop;  /* the stop string is part of the text, the stop id one of the tokens */
    bool want_logprobs; /* TOKEN and SCORE events say how likely tokens were */
    int n_top;          /* and the likeliest so many; at most TSR_MOST_TOP */

    bool score;          /* a SCORE event for every prompt position */
    bool want_logits;    /* a LOGITS event for the last prompt position */
    tsr_pooling pooling; /* an EMBEDDING event for the prompt; max_tokens must be 0 */

    /* An answer that goes on where an equal generation, of one sample and neither scored nor asked
     * for logits, was cut off: what it had so far, which no event tells again. All else is as it
     * would have been; n_generated and logprob of the END count from the beginning. */
    const int32_t *so_far; /* [n_so_far] ids of its TOKEN events, copied */
    int64_t n_so_far;
    double so_far_logprob; /* with want_logprobs: their sum */
    tsr_event_fn *on_event;
    void *ctx;
} tsr_generation;

/* Leader. Queue a generation; *id names it. Errors: ARG, UNSUPPORTED (can never fit), FULL
 * (max_queue wait already), NOMEM. */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_submit(tsr_engine *engine,
                                                    const tsr_generation *generation, int64_t *id);

/* Leader. End a generation: its END event comes with the next step. Unknown ids are ignored. */
TSR_API void tsr_engine_cancel(tsr_engine *engine, int64_t id);

/*
 * Leader. One step of everything that runs. *busy: is there more to do?
 * A fault after the ranks have met ends the whole job in words and does not return. CANCELLED:
 * SIGINT or SIGTERM has come; stop now.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_step(tsr_engine *engine, bool *busy);

/* Leader. Let the followers return from tsr_engine_follow(). */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_stop(tsr_engine *engine);

/* Followers. Carry out the leader's steps until it stops. */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_follow(tsr_engine *engine);

typedef struct tsr_engine_stats {
    int n_ranks;
    int n_threads;      /* of this rank */
    const char *device; /* "CPU, AVX-512 VNNI, 2 threads" */
    bool on_gpu;
    const char *comm;        /* "one rank", "shared memory", "MPI" */
    double load_s;           /* of tsr_engine_create() */
    uint64_t weight_bytes;   /* of this rank */
    uint64_t kv_block_bytes; /* of this rank */
    int block_tokens;
    int n_blocks;       /* of all tiers of memory together, on the rank that has least */
    int n_lower_blocks; /* of these, in tiers below the device's */
    int n_blocks_free;
    int64_t context;
    int64_t longest; /* tokens of a sequence that has device and host memory for itself; at most
                        `context` */
    uint64_t token_bytes;    /* weight bytes that one token's matrices read, all ranks */
    uint64_t token_macs;     /* multiply-adds of one token's layers (a prompt token), all ranks */
    uint64_t head_macs;      /* and of the head */
    uint64_t kv_token_bytes; /* bytes of keys and values a position, all ranks; layers that see a
                                window only give those of a long sequence back */
    int64_t n_steps;
    int64_t n_preempted;
    double block_fill; /* of the bytes in blocks that running sequences held, those with tokens */
    double step_s;     /* leader: of all steps */
    double host_s;     /* of these what the leader alone was busy with, while the ranks waited:
                          planning, packing, sampling, events */
    int n_restarts;    /* client: how often the ranks were lost and came back, */
    double away_s;     /* and how long that took, the last time */
} tsr_engine_stats;
TSR_API tsr_engine_stats tsr_engine_describe(const tsr_engine *engine);

/* What this build could compute on here: device 0 is the CPU, those behind it are GPUs. */
typedef struct tsr_engine_device {
    char name[64];
    uint64_t free_bytes;
} tsr_engine_device;

/* Errors: ARG (there is no device `i`: then all have been seen), DEVICE, NOMEM. */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_device_at(int i, tsr_engine_device *out);

typedef enum tsr_memory_tier {
    TSR_MEMORY_DEVICE,
    TSR_MEMORY_HOST,
    TSR_MEMORY_DISK,
    TSR_MEMORY_TIER_COUNT
} tsr_memory_tier;

/* What one rank's memory for keys and values has held and moved; counted from the start, but for
 * n_blocks. What is about other tiers than the device's is 0 without them. */
typedef struct tsr_memory_stats {
    uint64_t block_bytes;
    int64_t n_slots[TSR_MEMORY_TIER_COUNT];     /* blocks that there is room for */
    int64_t n_blocks[TSR_MEMORY_TIER_COUNT];    /* that lie there now; one may lie in several */
    int64_t most_blocks[TSR_MEMORY_TIER_COUNT]; /* that ever did at the same time */
    int64_t n_moves[TSR_MEMORY_TIER_COUNT][TSR_MEMORY_TIER_COUNT]; /* [from][to] blocks copied */
    double busy_s;    /* that copying took, beside everything else */
    int64_t n_stalls; /* steps that had to wait for a copy */
    double stall_s;
    int64_t
        n_asked[TSR_MEMORY_TIER_COUNT]; /* blocks of sequences that came (back): where they lay */
    int64_t n_late;                     /* blocks that a step needed and that were not there yet */
    int64_t n_lost; /* blocks whose bytes were lost by a failing disk, and computed again */
} tsr_memory_stats;

/* Leader, between steps. ranks [n_ranks] is filled by all ranks. Errors: NOMEM, COMM. */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_memory(tsr_engine *engine, tsr_memory_stats *ranks);

/*
 * Leader, between steps. Whose each block of the cache is, and where each rank has it.
 *   owners  [n_blocks] the id of a generation, one of them where several share it; -1: nobody's,
 *           free or kept for prompts that begin alike
 *   places  [n_ranks * n_blocks] of rank r at r * n_blocks: bit t says that it has a copy in tier t
 * Errors: NOMEM, COMM.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_blocks(tsr_engine *engine, int64_t *owners,
                                                    uint8_t *places);

/*
 * Leader; the engine must be idle. All ranks at once measure what their cores can do, for
 * comparison: bytes a second of plain reading (sum over ranks) and int8 multiply-adds a second from
 * registers (float ones with activations "f32").
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_measure(tsr_engine *engine, double *read_bytes_per_s,
                                                     double *macs_per_s);

/* One way in which layers see their past, and what it costs. */
typedef struct tsr_attention_cost {
    int n_layers;                  /* that see so */
    int64_t window, stride, local; /* 0, 0, 0: everything; otherwise as engine/config.h has them */
    int64_t context;               /* positions, the last of which looks */
    int64_t seen;                  /* how many of them it sees */
    uint64_t seen_bytes;           /* keys and values of these, on this rank */
    double seen_s;                 /* attention of a layer for that one row and the own heads */
    double full_s;                 /* and if it saw everything */
} tsr_attention_cost;

/*
 * Measures the i-th way that occurs among the layers, on this rank alone, over a cache of its own
 * of up to 8,192 positions. Errors: ARG (past the last), UNSUPPORTED (not on the host), NOMEM.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_attention_cost(tsr_engine *engine, int i,
                                                            tsr_attention_cost *out);

/* ---- an engine in processes of its own ---------------------------------------------------------
 *
 * A program that is no rank drives an engine by the same calls: tsr_engine_submit(), _cancel(),
 * _step(), _describe(), _memory(), _blocks(), _model(), _destroy(); it is the leader to itself, and
 * never follows. The ranks are a job of `tessera engine`, whose leader talks with it over a Unix
 * socket that only the same user may use. What is different then:
 *
 * - lost ranks: when a rank dies or is stopped, the job is ended and started again. Generations
 *   wait and go on where they were: no event comes twice, and tokens are those of an engine that
 *   was never lost. Ranks that serve and are lost eight times in a row before any event are not
 * waited for longer: generations end with "error", and the engine goes on. tsr_engine_step() says
 * COMM when it gives up: the ranks were started five times in a row and did not come to serve.
 * - a step passes on what has come, and waits some milliseconds for it, or until tsr_engine_wake().
 * - submitting fails at once only for what the client itself sees; what the leader refuses ends
 *   with "error", and event.status says why.
 * - stats, memory and blocks are as they were told last, at most a second or so ago.
 * - measuring is UNSUPPORTED.
 *
 * Ranks that a program has started end with it, however it ends. Start them from a thread that
 * lives as long as they are to: the kernel ends them with it.
 */

/* {0} with a model and ranks is a good start. */
typedef struct tsr_launch_options {
    tsr_engine_options engine;
    int n_ranks;
    const char *launcher; /* words before "-n N"; NULL: "mpirun". Rank 0 has to be on this host */
    const char *program;  /* this library's command; NULL: "tessera", found as the shell does */
    const char *socket;   /* where others may join; NULL: in a folder of its own in /tmp */
} tsr_launch_options;

/*
 * Starts the ranks; returns when they serve, or have failed to. world  borrowed: signals that it
 * notes are noted by steps as they are on ranks; NULL: by none. Errors: ARG, IO, FORMAT,
 * UNSUPPORTED, NOMEM, COMM (the ranks ended; what they said is on stderr), CANCELLED.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_launch(tsr_engine **out, tsr_world *world,
                                                    const tsr_launch_options *options);

/* Joins one that serves at a socket. When its ranks are lost, it waits a minute for others there.
 * Errors: ARG, IO, FORMAT, COMM (nobody serves there), NOMEM. */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_join(tsr_engine **out, const char *socket);

/* Are the ranks there? Always, but for a client whose ranks are lost and not back yet. */
TSR_API bool tsr_engine_is_serving(const tsr_engine *engine);

/* There is something to submit: a client's step that waits for its ranks, or the next one, returns
 * at once. Elsewhere nothing waits. Threads: any, while the engine lives. */
TSR_API void tsr_engine_wake(tsr_engine *engine);

/*
 * Leader of ranks, while the others follow: serves clients at a socket, until a signal asks to end
 * or, if a client started this job, that one has gone. model_path: the model's, which clients open
 * too, for its tokenizer. Errors: ARG, IO, COMM (another serves there), NOMEM, CANCELLED.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_engine_host(tsr_engine *engine, const char *socket,
                                                  const char *model_path);

/* ---- a plan ------------------------------------------------------------------------------------
 */

/* What is to be planned for: a model, or the shape of a well-known one. */
typedef struct tsr_plan_request {
    const tsr_model *model;     /* borrowed; NULL: */
    const char *shape;          /* "llama-3-8b"; see tsr_plan_shape_at() */
    const char *weights;        /* of a shape: "q4", "q8", "f16" or "bf16"; NULL: bf16 */
    tsr_engine_options options; /* as the engine will get them, n_threads being at least 1; with
                                   kv_memory_bytes the cache takes no more than that */
    uint64_t device_bytes;      /* memory that each rank may fill; 0: only kv_memory_bytes limits */
} tsr_plan_request;

/* What one rank's memory would hold. */
typedef struct tsr_plan_share {
    uint64_t weight_bytes;
    uint64_t workspace_bytes;   /* activations, scratch and sums of the largest step */
    uint64_t table_bytes;       /* books of blocks, steps, candidates */
    uint64_t kv_token_bytes;    /* keys and values of one token, */
    uint64_t kv_sequence_bytes; /* and of a sequence of `context` tokens: less than for each of
                                   them, where layers see a window only */
    uint64_t kv_bytes;          /* the cache */
    uint64_t host_bytes;        /* its pool in host memory, beside the device */
} tsr_plan_share;

typedef struct tsr_plan {
    int n_ranks;
    bool fits;              /* the weights and a first block do, on every rank */
    uint64_t lacking_bytes; /* if not: of the rank that lacks most */
    int busiest;            /* the rank with the least room: it decides for all */
    tsr_plan_share share;   /* of it */
    int64_t context;        /* of a sequence, as asked for; else what the model was made for */
    int64_t model_context;
    int block_tokens;
    int64_t n_blocks;        /* of the cache on the device */
    int64_t longest_context; /* of one sequence that has device and host memory for itself */
    int64_t n_sequences;     /* of `context` tokens in the cache at once */
    int64_t n_in_flight;     /* and in the tiers below as well */
} tsr_plan;

/*
 * What n_ranks ranks would hold, by arithmetic alone: nothing is loaded. Ranks are taken to be of
 * one host. shares  [n_ranks], may be NULL. Errors: ARG (an option, a shape or a format that is not
 * known, in words), FORMAT, UNSUPPORTED.
 */
TSR_API TSR_MUST_CHECK tsr_status tsr_plan_of(tsr_plan *out, tsr_plan_share *shares,
                                              const tsr_plan_request *request, int n_ranks);

/* The names of the shapes, in order; NULL past the last. */
TSR_API const char *tsr_plan_shape_at(int i);

/* Memory that this machine has for ranks now, in bytes. */
TSR_API uint64_t tsr_plan_machine_bytes(void);

#ifdef __cplusplus
}
#endif

#endif
