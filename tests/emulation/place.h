/* Where in a kernel's source something was called: the default argument of whatever may fail. */
#ifndef RINGREEL_EMULATION_PLACE_H
#define RINGREEL_EMULATION_PLACE_H

namespace emulation
{

struct Place {
    const char *file;
    int line;
};

constexpr Place here(const char *file = __builtin_FILE(), int line = __builtin_LINE())
{
    return {file, line};
}

/* Ends the process with one line: kernel, block, thread, file:line, and what was wrong. */
[[noreturn]] void fail(Place at, const char *format, ...) __attribute__((format(printf, 2, 3)));

} // namespace emulation

#endif
