// /v1/containers: the containers of code_interpreter and their files, for clients.
//
//   add_containers(gateway, host, files);
//
// Made empty or with uploaded files, listed, ended; their files uploaded, listed, read and removed, also those that code
// wrote. A file's id is made of its path, so nothing is remembered of it. `host` may be null: then all is refused.
#pragma once

#include "gateway/gateway.h"
#include "gateway/openai/container_host.h"
#include "gateway/openai/file_store.h"

namespace capstan::gateway::openai {

// The last part of a path, without what would harm a directory or a prompt; may be empty.
std::string plain_file_name(std::string_view path);

void add_containers(Gateway& gateway, ContainerHost* host, const FileStore& files);

// "cfile_…", and back; "" for what is no such id.
std::string container_file_id(std::string_view path);
std::string container_file_path(std::string_view id);

}  // namespace capstan::gateway::openai
