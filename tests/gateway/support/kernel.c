/* Preloaded, it stands between a process and what the kernel says: the wall clock is moved by as many seconds as the
   file that CLOCK_SHIFT names holds (other clocks stay), and /proc/meminfo is the file that MEMINFO names. */

#define _GNU_SOURCE
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *shift;

static int open_at(const char *path, int flags, mode_t mode) {
    const char *other = strcmp(path, "/proc/meminfo") ? NULL : getenv("MEMINFO");
    return syscall(SYS_openat, AT_FDCWD, other ? other : path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return open_at(path, flags, mode);
}

__attribute__((constructor)) static void find_shift(void) {
    const char *name = getenv("CLOCK_SHIFT");
    int file = name ? open_at(name, O_RDONLY | O_CLOEXEC, 0) : -1;
    void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    shift = mapped == MAP_FAILED ? NULL : mapped;
    if (file >= 0) close(file);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int failed = syscall(SYS_clock_gettime, clock, time);
    if (!failed && shift && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += *shift;
    return failed;
}
