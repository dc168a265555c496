#!/usr/bin/env python3
"""Tessera from Python, through ctypes alone: mpirun -n 2 python3 embed.py model.gguf "Once upon a time"
Every rank runs this, and the engine begins MPI. TESSERA_LIBRARY says where libtessera.so.0 is, if the system does not know."""
import ctypes as c
import os
import sys

KINDS = {"s": c.c_char_p, "p": c.c_void_p, "b": c.c_bool, "i": c.c_int, "I": c.c_int32, "q": c.c_int64, "Q": c.c_uint64,
         "f": c.c_float, "d": c.c_double}


def struct(text):  # "kind:name,name kind:name ..."
    fields = [(name, KINDS[kind]) for kind, names in (run.split(":") for run in text.split()) for name in names.split(",")]
    return type("Struct", (c.Structure,), {"_fields_": fields})


Options = struct("s:model_path,dtype,quantize q:context s:kv_dtype Q:kv_memory_bytes,kv_host_bytes,kv_disk_bytes s:kv_disk_folder "
                 "i:block_tokens,n_threads s:device b:deterministic s:activations i:max_batch_tokens,max_sequences,max_queue "
                 "b:no_prefix_cache,no_graphs s:preempt d:target_itl_ms i:plan_ahead d:drain_s")
Generation = struct("p:prompt q:n_prompt i:max_tokens f:temperature i:top_k f:top_p,min_p Q:seed i:priority d:deadline_s "
                    "b:ignore_end i:n,best_of,beams d:length_penalty i:stopping f:typical_p,repetition_penalty,presence_penalty,"
                    "frequency_penalty p:bias_ids,biases i:n_biases,min_tokens p:stop_ids i:n_stop_ids p:stops,stop_bytes "
                    "i:n_stops b:include_stop,want_logprobs i:n_top b:score,want_logits i:pooling p:so_far q:n_so_far "
                    "d:so_far_logprob p:on_event,ctx")
Event = struct("i:kind q:id i:choice b:last I:token p:text Q:text_bytes q:position d:logprob,score p:top i:n_top I:best "
               "p:logits,embedding q:n_values s:reason,message i:status q:n_prompt,n_cached_tokens,n_generated d:first_token_s,prompt_s,generation_s,"
               "mean_gap_s,longest_gap_s")
tessera = c.CDLL(os.environ.get("TESSERA_LIBRARY", "libtessera.so.0"), mode=c.RTLD_GLOBAL)  # MPI's plugins look for MPI globally
tessera.tsr_tessera_message.restype = c.c_char_p
tessera.tsr_engine_is_leader.restype = c.c_bool
tessera.tsr_engine_model.restype = c.c_void_p


def call(function, *arguments):
    if getattr(tessera, function)(*arguments) != 0:
        sys.exit(f"{function}: {tessera.tsr_tessera_message().decode()}")


engine, events, ids, request = c.c_void_p(), c.c_void_p(), c.c_void_p(), c.c_int64()
call("tsr_engine_create", c.byref(engine), None, c.byref(Options(model_path=sys.argv[1].encode())))
if not tessera.tsr_engine_is_leader(engine):
    call("tsr_engine_follow", engine)
else:
    words, event, busy, found, model = sys.argv[2].encode(), Event(), c.c_bool(True), c.c_bool(), tessera.tsr_engine_model(engine)
    wish = Generation(max_tokens=64, want_logprobs=True, on_event=c.cast(tessera.tsr_events_add, c.c_void_p))
    call("tsr_events_create", c.byref(events))
    wish.ctx = events
    call("tsr_model_prompt_ids", c.c_void_p(model), words, c.c_size_t(len(words)), c.byref(ids), c.byref(request))
    wish.prompt, wish.n_prompt = ids, request
    call("tsr_engine_submit", engine, c.byref(wish), c.byref(request))
    tessera.tsr_tessera_free(ids)
    while busy:
        call("tsr_engine_step", engine, c.byref(busy))
        call("tsr_events_next", events, c.byref(event), c.byref(found))
        while found:
            sys.stdout.buffer.write(c.string_at(event.text, event.text_bytes) + (b"\n" if event.last else b""))
            call("tsr_events_next", events, c.byref(event), c.byref(found))
    tessera.tsr_events_destroy(events)
    call("tsr_engine_stop", engine)
tessera.tsr_engine_destroy(engine)
