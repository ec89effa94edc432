/* What a test can make go wrong for one process: syncs that take long, a device that answers EIO, and a clock that is
 * set. It is preloaded; what it does stands in the file that MISFORTUNE names, and changes while the process runs. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct told {
    volatile int64_t clock_ns; /* added to the time of day */
    volatile int64_t sync_ns;  /* how long each sync takes, at least */
    volatile int64_t device;   /* whose files cannot be written; 0 for none */
};

static const struct told *told(void) {
    static const struct told *at;
    if (!at) {
        const char *path = getenv("MISFORTUNE");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *mapped = file < 0 ? MAP_FAILED : mmap(NULL, sizeof(struct told), PROT_READ, MAP_SHARED, file, 0);
        if (mapped == MAP_FAILED) abort();
        close(file);
        at = mapped;
    }
    return at;
}

static int gone(int file) {
    struct stat found;
    return told()->device && syscall(SYS_fstat, file, &found) == 0 && (int64_t)found.st_dev == told()->device;
}

static int fails(int file) {
    if (!gone(file)) return 0;
    errno = EIO;
    return 1;
}

static void wait_as_told(void) {
    const struct timespec slice = {0, 5000000};
    for (int64_t slept = 0; slept < told()->sync_ns; slept += slice.tv_nsec) nanosleep(&slice, NULL);
}

int fdatasync(int file) {
    wait_as_told();
    return fails(file) ? -1 : (int)syscall(SYS_fdatasync, file);
}

int fsync(int file) {
    wait_as_told();
    return fails(file) ? -1 : (int)syscall(SYS_fsync, file);
}

ssize_t write(int file, const void *bytes, size_t count) {
    return fails(file) ? -1 : syscall(SYS_write, file, bytes, count);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    return fails(file) ? -1 : syscall(SYS_writev, file, parts, count);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) {
        int64_t since = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + told()->clock_ns;
        now->tv_sec = since / 1000000000;
        now->tv_nsec = since % 1000000000;
    }
    return (int)failed;
}
