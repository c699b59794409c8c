# kernel.py as a constant: cmake -DFROM=kernel.py -DTO=kernel_source.cc -P embed.cmake
file(READ ${FROM} text)
file(WRITE ${TO} "#include \"agents/kernel/kernel_source.h\"\n\nnamespace capstan::agents {\nconst std::string_view kKernelSource = R\"PYTHON(${text})PYTHON\";\n}  // namespace capstan::agents\n")
