// What a task left in its sandbox, copied to where its user has it.
//
// The copy is read with the worker's rights (inside, files belong to nobody's uid) and made in a directory that was opened
// with the user's; each entry then becomes the user's, from the leaves up, through descriptors: at no point does a name that
// the user could have redirected decide where root writes. Threads: any.  Failure: copy_out's, or that of the directory.
#pragma once

#include <string>

#include "sandbox/root_files.h"
#include "worker/user.h"

namespace capstan::worker {

// `path` inside becomes DIRECTORY/BELOW/NAME, in the place of what an earlier try left there; both directories are made.
Result<sandbox::CopyReport> collect(int box_root, const std::string& path, const std::string& directory, const std::string& below,
                                    const std::string& name, const RankUser& user, const sandbox::CopyLimits& limits);

}  // namespace capstan::worker
