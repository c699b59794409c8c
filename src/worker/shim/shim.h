// The shim: the parent of one rank. It outlives the worker, so the rank's exit code is never lost.
//
// Life: read the launch record; fork the rank, held; record pids durably; let the rank run; copy its output
// into the bounded log; on SIGTERM (or its own timeout) stop it: SIGTERM to its process group, after the
// grace SIGKILL to all of it; when the rank's first process has ended, end everything that it left (the shim
// is a subreaper, so daemonised grandchildren are its children); write exit.json durably, as often as a full
// disk demands; leave.
//
// The grace of a stop may be sent along: sigqueue(shim, SIGTERM, {.sival_int = grace_ms}); a plain
// kill(SIGTERM) means the record's. A later stop can shorten, never lengthen. SIGINT, SIGHUP and the like are
// ignored. SIGKILL to the shim kills the rank's first process too (PR_SET_PDEATHSIG); the worker ends the
// rest.
#pragma once

namespace capstan::shim {

// Runs on the descriptors of launch_record.h; returns the process's exit status: 0 when exit.json is written.
int run_shim();

}  // namespace capstan::shim
